"""Parallel text: files as people have them, and those that do not fit each other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastattn.text import ParallelText, read_parallel


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_two_columns(tmp_path: Path) -> None:
    text = read_parallel(write(tmp_path / "a.tsv", "\ufeffguten Tag\tgood day\r\nübel\t bad 🐈 \n猫\u2028x\tcat"))
    assert text.sources == ("guten Tag", "übel", "猫\u2028x")
    assert text.targets == ("good day", "bad 🐈", "cat")
    assert (len(text), text.skipped) == (3, 0)


def test_two_files(tmp_path: Path) -> None:
    text = read_parallel(
        write(tmp_path / "a.de", "eins zwei\t\n\nvier\nfünf\n"), write(tmp_path / "a.en", "one two\nthree\n \nfive\n")
    )
    assert text == ParallelText(("eins zwei", "fünf"), ("one two", "five"), skipped=2)
    assert text.lines == (1, 4)


def test_two_files_have_no_columns(tmp_path: Path) -> None:
    plain, columns = write(tmp_path / "a.txt", "a\nb\n\n"), write(tmp_path / "b.tsv", "a\tx\nb\tc\n\n")
    for paths in ((plain, columns), (columns, plain), (columns, columns)):
        with pytest.raises(ValueError, match=r"b\.tsv: every line has a tab; give a file with two columns alone"):
            read_parallel(*paths)


def test_a_text_of_two_files_may_have_a_tab(tmp_path: Path) -> None:
    text = read_parallel(write(tmp_path / "a", "a\tb\nc\n"), write(tmp_path / "b", "1\n2\t3\n"))
    assert (text.sources, text.targets) == (("a\tb", "c"), ("1", "2\t3"))


def test_lines_end_in_one_way_and_only_there(tmp_path: Path) -> None:
    special = "a\u2028b\x85c\x0cd\x1ee"
    for end in ("\n", "\r\n", "\r"):
        text = read_parallel(write(tmp_path / "a.tsv", f"\ufeff{special}\t1{end}{end}b\t2"))
        assert (text.sources, text.targets, text.lines) == ((special, "b"), ("1", "2"), (1, 3))
    text = read_parallel(write(tmp_path / "a", "one\rmore\ntwo\n"), write(tmp_path / "b", "1\r\n2\r"))
    assert (text.sources, text.targets) == (("one\rmore", "two"), ("1", "2"))  # Moses counts LF


def test_blank_columns_and_lines_at_the_end_are_no_error(tmp_path: Path) -> None:
    text = read_parallel(write(tmp_path / "a.tsv", "a\tb\t\t \nc\t\t\n"))
    assert (text.sources, text.targets, text.skipped) == (("a",), ("b",), 1)
    for first, second in (("1\n2\n", "1\n2\n\n \n"), ("1\n2\n\n\n", "1\n2")):
        text = read_parallel(write(tmp_path / "a", first), write(tmp_path / "b", second))
        assert (len(text), text.skipped) == (2, 2)


def test_more_columns_than_two_are_not_guessed(tmp_path: Path) -> None:
    tatoeba = "Go.\tGeh.\tCC-BY 2.0 (France) Attribution: tatoeba.org #1 (x) & #2 (y)\n"
    with pytest.raises(ValueError, match=r"a\.tsv:1: a line must have 2 columns .*, got 3; keep two with cut -f$"):
        read_parallel(write(tmp_path / "a.tsv", tatoeba))


def test_blank_sides_are_left_out(tmp_path: Path) -> None:
    text = read_parallel(write(tmp_path / "a.tsv", "a\tb\n\n \n\tc\nd\t\n\t\ne\tf\n"))
    assert (text.sources, text.targets, text.skipped) == (("a", "e"), ("b", "f"), 5)
    assert text.lines == (1, 7)


def test_line_counts_that_differ_are_both_named(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.de", "1\n2\n3\n"), write(tmp_path / "a.en", "1\n2")
    with pytest.raises(ValueError, match=rf"^{first} has 3 lines, but {second} has 2$"):
        read_parallel(first, second)
    with pytest.raises(ValueError, match=r"a\.en has 2 lines, but .*a\.de has 3"):
        read_parallel(second, first)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\tb\nc\n", r"a\.tsv:2: a line must have 2 columns with a tab between them, got 1"),
        (b"a\tb\tc\n", r"a\.tsv:1: a line must have 2 columns with a tab between them, got 3"),
        (b"a\tb\n\xff\tc\n", r"a\.tsv:2: not UTF-8: byte 0xff at 1"),
        (b"\xef\xbb\xbfab\tc\xff\n", r"a\.tsv:1: not UTF-8: byte 0xff at 8"),
        (b"ab\tc\xff\n", r"a\.tsv:1: not UTF-8: byte 0xff at 5"),
        (b"", r"a\.tsv: there are no pairs of texts"),
        (b"\n\ta\n", r"a\.tsv: no pair of texts among the 2 lines"),
    ],
)
def test_bad_columns(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_parallel(write(tmp_path / "a.tsv", data))


def test_bad_files(tmp_path: Path) -> None:
    blank = write(tmp_path / "blank", "\n\n")
    with pytest.raises(ValueError, match=r"blank and .*blank: there are no pairs of texts"):
        read_parallel(blank, blank)
    with pytest.raises(FileNotFoundError, match="missing"):
        read_parallel(blank, tmp_path / "missing")
    with pytest.raises(ValueError, match="ParallelText: 1 sources, but 2 targets"):
        ParallelText(("a",), ("b", "c"))


def test_pairs_that_are_taken_keep_their_places(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "a\t1\n\nb\t2\nc\t3\n")
    taken = read_parallel(path).take([2, 0])
    assert (taken.sources, taken.targets, taken.lines) == (("c", "a"), ("3", "1"), (4, 1))
    assert [taken.place(i, target=False) for i in range(2)] == [f"{path}:4", f"{path}:1"]


def test_the_checksum_knows_the_text() -> None:
    first = ParallelText(("a", "b"), ("c", "d"))
    assert first.crc32 == ParallelText(("a", "b"), ("c", "d")).crc32
    assert first.crc32 != ParallelText(("b", "a"), ("c", "d")).crc32


@pytest.mark.parametrize("language", ["deu", "fra", "cmn"])
def test_tatoeba(language: str) -> None:
    data = Path(os.environ.get("FASTATTN_DATA") or Path(__file__).parents[3] / "shared" / "data") / "tatoeba"
    if not data.is_dir():
        pytest.skip(f"the Tatoeba sentences are missing: {data} (set FASTATTN_DATA)")
    stem = data / f"tatoeba.{language}-eng"
    text = read_parallel(f"{stem}.{language}", f"{stem}.eng")
    assert (len(text), text.skipped) == (1000, 0)
