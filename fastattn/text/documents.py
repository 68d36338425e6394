"""Raw text: documents, and their sentences.

    for sentence in Documents(["corpus.txt"]):  # "" ends a document
        ...

A file has one sentence per line and a blank line between documents, as google-research/bert reads it. With `paragraphs`
a line is a paragraph, which is split into sentences, and a document begins at each heading of the first level.
"""

from __future__ import annotations

import copy
import io
import os
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from fastattn import checks
from fastattn.errors import EmptyError
from fastattn.files import byte_lines, lines_crc32, open_regular, utf8_lines

__all__ = ["Documents", "split_sentences"]

_HEADING = re.compile(r"\s*=(?!\s*=).*[^=\s]\s*=\s*$|#\s")
"""A heading of the first level: `= Title =`, or `# Title`."""
_CLOSING = "'\"\u201d\u2019\u00bb)\\]\u300d\u300f\uff09"
_END = re.compile(rf"[.!?\u2026][{_CLOSING}]*\s+|[\u3002\uff01\uff1f][{_CLOSING}]*\s*")
_UNSPACED = re.compile(r"[\u3001-\u303f\u3040-\u30ff\u3400-\u9fff\uff01-\uff60]")
_TITLES = r"Dr|Mr|Mrs|Ms|Prof|Rev|Gen|Col|Capt|Sgt|St|No|vs|cf|e\.g|i\.e"
_ABBREVIATION = re.compile(rf"(?<![^\s(])(?:[^\W\d_]|{_TITLES})\.\s+$")


class Documents:
    """Documents of files. Each iteration reads the files again, so they may be larger than memory.

    An iteration yields the sentences of a document, without whitespace around them, and then "". A document ends with
    its file, too. Several "" may follow each other.

    Args:
        paths: UTF-8 files, whose lines end as `fastattn.files.utf8_lines` says.
        paragraphs: lines are paragraphs or headings, not sentences. `split_sentences` splits a paragraph; blank lines
            do not end a document, but a heading of the first level, `= Title =` or `# Title`, begins one.

    Raises TypeError for one path that is not in a list, OSError, and ValueError for a file without text and, with file
    and line, for a line that is not UTF-8 or has more than 2^28 bytes.

    >>> list(Documents.of([["One.", "Two."], ["Three."]]))
    ['One.', 'Two.', '', 'Three.', '']
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]], paragraphs: bool = False) -> None:
        if isinstance(paths, str | os.PathLike):
            raise TypeError(f"Documents: paths must be a sequence of files, got the one {checks.shown(paths)}")
        self.paths = tuple(os.fspath(path) for path in paths)
        self.paragraphs = paragraphs
        #: The documents in memory, each a tuple of sentences.
        self.given: tuple[tuple[str, ...], ...] = ()
        for path in self.paths:
            if not any(line.strip() for line in _lines(path)):
                raise EmptyError(path, "sentences")
        self.name = ", ".join(self.paths)

    @classmethod
    def of(cls, documents: Documents | Iterable[Iterable[str]], name: str = "documents") -> Documents:
        """Documents in memory, each a sequence of sentences. `Documents` are returned as they are.

        Raises TypeError, by index, for other things, and ValueError if there are no sentences. Errors call them `name`.
        """
        if isinstance(documents, Documents):
            return documents
        found = cls(())
        documents = checks.sequence(name, documents, "documents, each a sequence of sentences")
        sentences = (checks.texts(f"{name}[{i}]", each, "sentences") for i, each in enumerate(documents))
        found.given = tuple(tuple(text for text in each if text.strip()) for each in sentences)
        if not any(found.given):
            raise EmptyError(name, "sentences")
        found.name = name
        return found

    def with_paragraphs(self, paragraphs: bool) -> Documents:
        """The same documents, whose lines are paragraphs or sentences."""
        found = copy.copy(self)
        found.__dict__.pop("crc32", None)  # of the other sentences
        found.paragraphs = paragraphs
        return found

    def __repr__(self) -> str:
        return f"Documents({self.name})"

    def __iter__(self) -> Iterator[str]:
        for lines in (*self.given, *map(_lines, self.paths)):
            for line in map(str.strip, lines):
                if not self.paragraphs:
                    yield line
                    continue
                if _HEADING.match(line):
                    yield ""
                yield from split_sentences(line)
            yield ""

    @cached_property
    def crc32(self) -> int:
        """A checksum of the sentences."""
        return lines_crc32(self)


def split_sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph, by simple rules.

    A sentence ends after `.`, `!`, `?` or `…` and closing quotes, before white space. It goes on if a lower-case letter
    or punctuation follows, or after a single letter or a common title: "H. americanus", "J. Smith", "Dr. No". The full
    stops of Chinese and Japanese need no white space.

    >>> split_sentences('It met H. americanus . It fled ! "Why?" asked Dr. No.')
    ['It met H. americanus .', 'It fled !', '"Why?" asked Dr. No.']
    """
    found, start = [], 0
    for match in _END.finditer(paragraph):
        end = match.end()
        follows = paragraph[end : end + 1]
        goes_on = follows.islower() or follows in ",;:.!?)]" or _ABBREVIATION.search(paragraph, start, end)
        if follows and not goes_on:
            found.append(paragraph[start:end].strip())
            start = end
    last = paragraph[start:].strip()
    return [*found, last] if last else found


def join_sentences(sentences: Iterable[str]) -> str:
    """The text of sentences: with a space between them, but with none between two letters or stops of Chinese and
    Japanese.

    >>> join_sentences(["Why?", "No."]) + join_sentences(["\u597d\u3002", "\u597d\u3002"])
    'Why? No.\u597d\u3002\u597d\u3002'
    """
    text = ""
    for sentence in sentences:
        glued = not text or (_UNSPACED.match(text[-1]) and _UNSPACED.match(sentence))
        text += sentence if glued else f" {sentence}"
    return text


def _lines(path: str) -> Iterator[str]:
    with io.BufferedReader(open_regular(path)) as file:
        lines: Any = byte_lines(file, path)
        yield from utf8_lines(lines, path)
