"""Documents of raw text, and their sentences."""

from __future__ import annotations

import itertools
import os
import tracemalloc
import zlib
from pathlib import Path

import pytest

from fastattn.text import Documents, join_sentences, split_sentences

DATA = Path(os.environ.get("FASTATTN_DATA") or Path(__file__).parents[3] / "shared" / "data")


def documents_of(sentences: Documents) -> list[list[str]]:
    groups = itertools.groupby(sentences, key=bool)
    return [list(group) for is_text, group in groups if is_text]


def test_a_sentence_a_line_and_a_blank_line_between_documents(tmp_path: Path) -> None:
    path, other = tmp_path / "a.txt", tmp_path / "b.txt"
    path.write_bytes("\ufeff\nOne.  \r\nTwo! Three.\r\n\r\n \r\nFour\u2028five.".encode())
    other.write_text("Six.\n", encoding="utf-8")
    data = Documents([path, other])
    assert documents_of(data) == [["One.", "Two! Three."], ["Four\u2028five."], ["Six."]]
    assert list(data) == list(data)
    assert data.crc32 == Documents([str(path), other]).crc32 != Documents([path]).crc32
    path.write_bytes(b"One.\rTwo!\r\rThree.\r")
    assert documents_of(Documents([path])) == [["One.", "Two!"], ["Three."]]


def test_documents_in_memory() -> None:
    given = Documents.of([["One. ", " "], [], ("Two.",), iter(["Three."])])
    assert documents_of(given) == documents_of(given) == [["One."], ["Two."], ["Three."]]
    assert Documents.of(given) is given
    paragraphs = Documents.of([["One. Two.", "= A =", "Three."]])
    crc32 = paragraphs.crc32
    assert documents_of(paragraphs.with_paragraphs(True)) == [["One.", "Two."], ["= A =", "Three."]]
    assert paragraphs.with_paragraphs(True).crc32 != crc32 == paragraphs.crc32


def test_paragraphs_and_headings(tmp_path: Path) -> None:
    path = tmp_path / "wiki.txt"
    text = """
 = Lobster =

 It is blue . It bites !

 = = Life = =

 It lives .
 = Crab =
 x = 3 = y
# Shrimp
Pink.
"""
    path.write_text(text, encoding="utf-8")
    assert documents_of(Documents([path], paragraphs=True)) == [
        ["= Lobster =", "It is blue .", "It bites !", "= = Life = =", "It lives ."],
        ["= Crab =", "x = 3 = y"],
        ["# Shrimp", "Pink."],
    ]
    assert documents_of(Documents([path]).with_paragraphs(True)) == documents_of(Documents([path], True))


@pytest.mark.parametrize(
    ("paragraph", "count"),
    [
        ("", 0),
        ("  ", 0),
        ("No end", 1),
        ("One. Two? Three! Four… Five", 5),
        ('He said "Go." She went.', 2),
        ("Pi is 3.14. Good.", 2),
        ("It costs e.g. two. Dr. No met H. Smith vs. them.", 2),
        ("It met H. americanus . it fled", 1),
        ("\u5b83\u4f86\u4e86\u3002\u5b83\u8d70\u4e86\uff01\u597d", 3),
        ("Wait... what? Yes.", 2),
    ],
)
def test_sentences_of_a_paragraph(paragraph: str, count: int) -> None:
    found = split_sentences(paragraph)
    assert len(found) == count
    assert "".join("".join(found).split()) == "".join(paragraph.split())


def test_real_texts() -> None:
    wiki, sample = DATA / "wikitext2" / "wiki.valid.raw", DATA / "google_bert" / "sample_text.txt"
    if not wiki.is_file() or not sample.is_file():
        pytest.skip(f"no texts in {DATA} (set FASTATTN_DATA)")
    found = documents_of(Documents([wiki], paragraphs=True))
    assert len(found) == 60  # the articles
    assert found[0][0] == "= Homarus gammarus ="
    assert sum(map(len, found)) > 8000
    assert len(documents_of(Documents([sample]))) > 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "text.txt: there are no sentences"),
        (b"\n \r\n", "text.txt: there are no sentences"),
        (b"\xff\xfea\0", "text.txt:1: not UTF-8 text, but UTF-16; convert it to UTF-8"),
        (b"fine\nnot \xff\n", "text.txt:2: not UTF-8: byte 0xff at 5"),
    ],
)
def test_files_that_are_no_text(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        list(Documents([path]))


def test_other_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        Documents([tmp_path / "missing"])
    with pytest.raises(ValueError, match="/dev/zero: not a regular file"):
        Documents(["/dev/zero"])
    with pytest.raises(TypeError, match=r"paths must be a sequence of files, got the one 'a.txt'"):
        Documents("a.txt")
    with pytest.raises(TypeError, match=r"^documents\[1\]\[0\] must be str, got int"):
        Documents.of([["a"], [1]])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"^data\[1\] must be a sequence of sentences, got the str 'b'"):
        Documents.of([["a"], "b"], "data")
    with pytest.raises(TypeError, match=r"^data must be a sequence of documents, .* got the str 'a.txt'"):
        Documents.of("a.txt", "data")
    for nothing in ([], [[]], [[" "], []]):
        with pytest.raises(ValueError, match=r"^documents: there are no sentences$"):
            Documents.of(nothing)
    path = tmp_path / "long.txt"
    path.write_text("short\n" + "a " * 600, encoding="utf-8")
    monkeypatch.setattr("fastattn.files.LINE_LIMIT", 1000)
    with pytest.raises(ValueError, match=r"long.txt:2: the line has more than 1000 bytes"):
        list(Documents([path]))


def test_the_checksum_of_a_large_text_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_text(("a sentence of some words " * 4 + "\n") * 100_000, encoding="utf-8")  # 10 MB
    data = Documents([path])
    tracemalloc.start()
    try:
        found = data.crc32
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()
    assert found == zlib.crc32("\n".join(data).encode())


@pytest.mark.parametrize(
    "text",
    [
        "One. Two! Three?",
        "\u4f60\u597d\u3002\u518d\u89c1\uff01",
        "\u306f\u3044\u3002\u300c\u3044\u3044\u3048\u3002\u300d",
        "\uc548\ub155. \uc798 \uac00.",
        "",
        "One",
    ],
)
def test_sentences_are_joined_as_they_were(text: str) -> None:
    assert join_sentences(split_sentences(text)) == text
