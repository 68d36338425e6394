"""CoNLL-U: what is read, what is written back, and how a malformed line is refused."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from fastattn.text import parse_conllu, read_conllu


def row(identifier: str, form: str = "w", upos: str = "X", misc: str = "_") -> str:
    return "\t".join([identifier, form, "_", upos, "_", "_", "_", "_", "_", misc])


SAMPLE = "\n".join(
    [
        "# newdoc id = d",
        "# sent_id = weblog-1",
        "# text = Don't go.",
        row("1-2", "Don't", "_", "SpaceAfter=No"),
        row("1", "Do", "AUX"),
        row("2", "n't", "PART"),
        row("2.1", "you", "PRON"),
        row("3", "go", "VERB"),
        row("4", ".", "_"),
        "",
        row("0.1", "they", "PRON"),
        row("1", "New York", "PROPN"),
        "",
        "",
    ]
)


def sentences(text: str | bytes) -> list:
    data = text.encode() if isinstance(text, str) else text
    return list(parse_conllu(data.splitlines(keepends=True), "f"))


def test_words_without_ranges_and_empty_nodes() -> None:
    first, second = sentences(SAMPLE)
    assert first.words == ("Do", "n't", "go", ".")
    assert first.upos == ("AUX", "PART", "VERB", "_")
    assert first.sent_id == "weblog-1"
    assert first.line == 1
    assert second.words == ("New York",)
    assert second.sent_id is None
    assert second.line == 11


def test_only_the_tags_of_words_are_replaced() -> None:
    first, second = sentences(SAMPLE)
    assert first.with_upos(first.upos) + second.with_upos(second.upos) == SAMPLE
    changed = first.with_upos(["A", "B", "C", "D"]).splitlines()
    expected = SAMPLE.splitlines()[:10]
    for line, tag in ((4, "A"), (5, "B"), (7, "C"), (8, "D")):
        columns = expected[line].split("\t")
        expected[line] = "\t".join([*columns[:3], tag, *columns[4:]])
    assert changed == expected


@pytest.mark.parametrize("tags", [["A"], ["A"] * 5])
def test_one_tag_a_word(tags: list[str]) -> None:
    with pytest.raises(ValueError, match=f"{len(tags)} tags for the 4 words of line 1"):
        sentences(SAMPLE)[0].with_upos(tags)


@pytest.mark.parametrize("tag", ["", "a b", "a\tb", "a\n", "\x1b[31mA", "A\x9b"])
def test_a_tag_must_fit_into_a_column(tag: str) -> None:
    with pytest.raises(ValueError, match="a tag must be a word without spaces"):
        sentences(SAMPLE)[1].with_upos([tag])


def test_ends_of_lines_and_files() -> None:
    expected = [s.words for s in sentences(SAMPLE)]
    for text in (SAMPLE.rstrip("\n"), SAMPLE + "\n\n", "\n" + SAMPLE, SAMPLE.replace("\n", "\r\n")):
        assert [s.words for s in sentences(text)] == expected
    assert [s.words for s in sentences(b"\xef\xbb\xbf" + SAMPLE.encode())] == expected
    assert sentences("") == []
    assert sentences("\n\n") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\tw", "f:1: a row must have 10 columns with tabs between them, got 2"),
        (row("1").replace("\t", " "), "f:1: a row must have 10 columns with tabs between them, got 1"),
        (row("1") + "\tmore", "f:1: a row must have 10 columns with tabs between them, got 11"),
        (row("1", ""), "f:1: column 2 is empty"),
        (row("1", upos=" "), "f:1: column 4 is empty"),
        ("# c\n" + row("2"), "f:2: the word's id must be 1, got 2"),
        (row("1") + "\n" + row("1"), "f:2: the word's id must be 2, got 1"),
        (row("1") + "\n\n" + row("2"), "f:3: the word's id must be 1, got 2"),
        (row("01"), "f:1: an id must be a number, a range such as 1-2 or an empty node's 1.1, got '01'"),
        (row("one"), "f:1: an id must be a number"),
        (row("1-1"), "f:1: a range must begin at 1 and hold two words or more, got 1-1"),
        (row("2-3"), "f:1: a range must begin at 1"),
        ("\n".join([row("1-3"), row("1"), row("2-3")]), "f:3: a range must begin at 2 and hold two words"),
        (row("1-2") + "\n" + row("1"), "f:3: the sentence has 1 words, but a range goes to 2"),
        (row("1.1"), "f:1: the empty node's id must be 0.1, got 1.1"),
        (row("1") + "\n" + row("1.2"), "f:2: the empty node's id must be 1.1, got 1.2"),
        (row("1") + "\n# late", "f:2: a comment must come before the sentence's first row"),
        ("# only\n# comments\n\n" + row("1"), "f:1: a sentence without words"),
        (row("0.1"), "f:1: a sentence without words"),
    ],
)
def test_malformed_lines(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        sentences(text)


def test_bytes_that_are_not_utf8() -> None:
    with pytest.raises(ValueError, match=r"^f:2: not UTF-8: byte 0xff at 3$"):
        sentences(b"# ok\n1\t\xff")


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.conllu"
    path.write_text(row("1") + "\n" + row("3") + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}:2: "):
        read_conllu(path)
    with pytest.raises(FileNotFoundError):
        read_conllu(tmp_path / "missing")


@pytest.mark.parametrize(("split", "count", "words"), [("dev", 2001, 25147), ("test", 2077, 25094)])
def test_the_english_web_treebank_comes_back_byte_for_byte(split: str, count: int, words: int) -> None:
    data = Path(os.environ.get("FASTATTN_DATA") or Path(__file__).parents[3] / "shared" / "data")
    path = data / "ud_ewt" / f"en_ewt-ud-{split}.conllu"
    if not path.is_file():
        pytest.skip(f"the English Web Treebank is missing: {path} (set FASTATTN_DATA)")
    read = read_conllu(path)
    assert len(read) == count
    assert sum(len(sentence.words) for sentence in read) == words
    assert "".join(sentence.with_upos(sentence.upos) for sentence in read) == path.read_text(encoding="utf-8")
