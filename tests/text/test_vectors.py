"""Vectors of words: both kinds of files, and what is wrong with a file, by its line."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from fastattn.text import read_word_vectors

GLOVE = "the 1 2 3\ncat -0.5 1e-3 7\n. . . 4 5 6\nCat 9 9 9\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "vectors.txt"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("header", ["", "4 3\n"])
def test_both_kinds_of_files(tmp_path: Path, header: str, packed: bool) -> None:
    path = write(tmp_path, header + GLOVE.replace("\n", " \n") if header else GLOVE)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    found = read_word_vectors(path, ["dog", "Cat", "The", "cat", ". . ."])
    assert found.places.tolist() == [1, 2, 3, 4]
    expected = [[9, 9, 9], [1, 2, 3], [-0.5, 1e-3, 7], [4, 5, 6]]  # "The" has the vector of "the"
    np.testing.assert_array_equal(found.vectors, np.array(expected, np.float32))
    nothing = read_word_vectors(path, ["dog"])
    assert (nothing.vectors.shape, nothing.places.tolist()) == ((0, 3), [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the 1 2\ncat 1\n", r":2: must be a word and 2 numbers, got 1 behind 'cat'"),
        ("the 1 2\ncat 1 2 3\n", r":2: must be a word and 2 numbers, got 3 behind 'cat'"),
        ("the 1 2\n 1 2\n", r":2: must be a word and 2 numbers"),
        ("the 1 2\n\n", r":2: must be a word and 2 numbers, got 0 behind ''"),
        ("the 1 2\ncat 1 x\n", r":2: must be a number, got 'x'"),
        ("the 1 2\ncat 1 2_0\n", r":2: must be a number, got '2_0'"),
        ("the 1\ncat 1 2\n", r":2: must be a word and 1 number, got 2 behind 'cat'"),
        ("the 1 2\ncat nan 2\n", r":2: must be finite numbers, got 'nan'"),
        ("the 1 2\ncat 1 1e39\n", r":2: must be finite numbers, got '1e39'"),
        ("cat 1 2\nthe 1 2\ncat 3 4\n", r":3: 'cat' is a duplicate of line 1"),
        ("3 2\ncat 1 2\n", r": the first line says that there are 3 words, but there are 1"),
        ("1 2\ncat 1 2\nthe 3 4\n", r": the first line says that there are 1 words, but there are 2"),
        ("1 2\ncat 1 2 3\n", r":2: must be a word and 2 numbers, got 3 behind 'cat'"),
        ("cat\n", r":1: must be a word and from 1 to 65536 numbers"),
        ("7 70000\n", r":1: must be a word and from 1 to 65536 numbers"),
        ("", r": .*vectors of words"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=f"^{path}{message}"):
        read_word_vectors(path, ["cat", "the"])


def test_lines_of_other_words_are_not_kept(tmp_path: Path) -> None:
    """They are only split: any bytes are words, and their numbers are not read."""
    path = tmp_path / "vectors.txt"
    path.write_bytes(b"\xff\xfe 1 2\nother x y\nother x y\ncat 1 2\n")
    assert read_word_vectors(path, ["cat"]).vectors.tolist() == [[1, 2]]


@pytest.mark.parametrize("text", [GLOVE, "4 3\n" + GLOVE])
def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path: Path, text: str) -> None:
    found = read_word_vectors(write(tmp_path, "\ufeff" + text), ["the"])
    assert found.vectors.tolist() == [[1, 2, 3]]


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vectors.gz"
    whole = gzip.compress(GLOVE.encode() * 1000)
    damages = {whole[:-20]: "Compressed", whole[:-8] + b"none" + whole[-4:]: "CRC", whole + b"more": "Not a gzip"}
    for damaged, told in damages.items():
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"^{path}: damaged, or cut short: {told}"):
            read_word_vectors(path, ["dog"])
    with pytest.raises(FileNotFoundError):
        read_word_vectors(tmp_path / "none", ["dog"])
