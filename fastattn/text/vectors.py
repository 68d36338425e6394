"""Vectors of words from text files: GloVe's, and those that word2vec and fastText write, which begin with a line of two
numbers.

    the 0.418 0.24968 -0.41242 ...
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastattn import checks
from fastattn._types import IntArray
from fastattn.checks import counted, shown
from fastattn.errors import EmptyError
from fastattn.files import byte_lines, open_regular

__all__ = ["WordVectors", "read_word_vectors"]

MOST = 2**16
"""The most numbers of a vector."""
_GZIP = b"\x1f\x8b"


class WordVectors(NamedTuple):
    """Vectors of some words.

    Attributes:
        vectors: float32 `[found, dim]`.
        places: int64 `[found]`, which of the words that were asked for have them.
    """

    vectors: NDArray[np.float32]
    places: IntArray


def read_word_vectors(path: str | os.PathLike[str], words: Iterable[str]) -> WordVectors:
    """The vectors of `words` in a file, which gzip may have packed. Only these are kept in memory.

    Each line is a word and its numbers, between single spaces or tabs. If the first line has two whole numbers, they
    are the number of the others and of the numbers in each. A word that the file does not have gets the vector of its
    lower-case form, if that is there. A byte order mark is left out.

    Raises OSError, and ValueError with file and line: for a line with another number of numbers than the first, a line
    that is no word and numbers, a number that is not finite, a second line for a word that is kept, and fewer or more
    lines than the first one says. Lines of other words are only split.
    """
    name = os.fspath(checks.path("read_word_vectors: path", path))
    asked = checks.texts("read_word_vectors: words", words, "words")
    wanted = {form.encode(): -1 for word in asked for form in (word, word.lower())}
    lines: dict[bytes, int] = {}
    rows: list[NDArray[np.float32]] = []
    dim = count = said = 0
    for number, line in enumerate(_lines(name), start=1):
        line = line.rstrip().replace(b"\t", b" ")
        line = line.removeprefix(BOM_UTF8) if number == 1 else line
        if not dim:
            said, dim = _first(line, f"{name}:{number}")
            if said:
                continue
        count += 1
        word, numbers = _split(line, dim, f"{name}:{number}")
        if word not in wanted:
            continue
        if word in lines:
            raise ValueError(f"{name}:{number}: {shown(word.decode())} is a duplicate of line {lines[word]}")
        wanted[word], lines[word] = len(rows), number
        rows.append(_vector(numbers, f"{name}:{number}"))
    if not count:
        raise EmptyError(name, "vectors of words")
    if said and count != said:
        raise ValueError(f"{name}: the first line says that there are {said} words, but there are {count}")
    forms = ((word.encode(), word.lower().encode()) for word in asked)
    found = np.array([wanted[a] if wanted[a] >= 0 else wanted[b] for a, b in forms], np.int64)
    places = np.flatnonzero(found >= 0)
    vectors = np.stack(rows) if rows else np.empty((0, dim), np.float32)
    return WordVectors(vectors[found[places]], places)


def _lines(name: str) -> Iterator[bytes]:
    """The lines of a file, unpacked."""
    with io.BufferedReader(open_regular(name)) as file:
        if file.peek(2)[:2] != _GZIP:
            yield from byte_lines(file, name)
            return
        try:
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield from byte_lines(unpacked, name)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{name}: damaged, or cut short: {error.args[0]}") from None


def _first(line: bytes, place: str) -> tuple[int, int]:
    """The number of lines that the first one says, or 0, and that of the numbers of a vector."""
    parts = line.split(b" ")
    header = len(parts) == 2 and all(part.isdigit() and len(part) < 16 for part in parts)
    said, dim = (int(parts[0]), int(parts[1])) if header else (0, len(parts) - 1)
    if not 1 <= dim <= MOST or (header and not said):
        raise ValueError(f"{place}: must be a word and from 1 to {MOST} numbers, or two numbers, got {_shown(line)}")
    return said, dim


def _split(line: bytes, dim: int, place: str) -> tuple[bytes, list[bytes]]:
    """The word and the numbers of a line. A word may have spaces in it, but no part of it is a number then."""
    parts = line.rsplit(b" ", dim)
    word = parts[0]
    if len(parts) <= dim or not word or (b" " in word and _is_number(word.rpartition(b" ")[2])):
        found = len(line.split(b" ")) - 1
        wanted = counted(dim, "number")
        raise ValueError(f"{place}: must be a word and {wanted}, got {found} behind {_shown(line.split(b' ')[0])}")
    return word, parts[1:]


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return b"_" not in text  # Python's numbers may have them, those of files do not


def _vector(numbers: list[bytes], place: str) -> NDArray[np.float32]:
    for text in numbers:
        if not _is_number(text):
            raise ValueError(f"{place}: must be a number, got {_shown(text)}")
    with np.errstate(over="ignore"):
        found = np.array(numbers, np.float64).astype(np.float32)
    if not np.isfinite(found).all():
        raise ValueError(f"{place}: must be finite numbers, got {_shown(numbers[int(np.isfinite(found).argmin())])}")
    return found


def _shown(text: bytes) -> str:
    return shown(text.decode(errors="backslashreplace"))
