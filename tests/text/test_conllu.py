"""CoNLL-U: what is read, what is written back, and how a malformed line is refused."""

from __future__ import annotations

import io
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
    return list(parse_conllu(io.BytesIO(data), "f"))


def test_words_without_ranges_and_empty_nodes() -> None:
    first, second = sentences(SAMPLE)
    assert first.words == ("Do", "n't", "go", ".")
    assert first.tags == ("AUX", "PART", "VERB", "_")
    assert first.sent_id == "weblog-1"
    assert first.line == 1
    assert second.words == ("New York",)
    assert second.sent_id is None
    assert second.line == 11


def test_only_the_tags_of_words_are_replaced() -> None:
    first, second = sentences(SAMPLE)
    assert first.with_tags(first.tags) + second.with_tags(second.tags) == SAMPLE
    changed = first.with_tags(["A", "B", "C", "D"]).splitlines()
    expected = SAMPLE.splitlines()[:10]
    for line, tag in ((4, "A"), (5, "B"), (7, "C"), (8, "D")):
        columns = expected[line].split("\t")
        expected[line] = "\t".join([*columns[:3], tag, *columns[4:]])
    assert changed == expected


@pytest.mark.parametrize("tags", [["A"], ["A"] * 5])
def test_one_tag_a_word(tags: list[str]) -> None:
    with pytest.raises(ValueError, match=f"{len(tags)} tags for the 4 words of line 1"):
        sentences(SAMPLE)[0].with_tags(tags)


@pytest.mark.parametrize("tag", ["", "a b", "a\tb", "a\n", "\x1b[31mA", "A\x9b"])
def test_a_tag_must_fit_into_a_column(tag: str) -> None:
    with pytest.raises(ValueError, match="a tag must be a word without spaces"):
        sentences(SAMPLE)[1].with_tags([tag])


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
        (row("1").replace("\t", " "), "f:1: a row must have 10 columns with tabs between them, got 1, and spaces"),
        (row("1") + "\tmore", "f:1: a row must have 10 columns with tabs between them, got 11"),
        (row("1", ""), "f:1: the column FORM is empty"),
        (row(" "), "f:1: the column ID is empty"),
        (row("1", upos="A B"), "f:1: UPOS must be one word, got 'A B'"),
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
        (row("1-2"), "f:2: the sentence has 0 words, but a range goes to 2"),
        (row("9" * 4301), "f:1: an id must be a number, a range such as 1-2 or an empty node's 1.1, got '" + "9" * 40),
        (row("1-" + "9" * 4301), "f:1: an id must be a number"),
        (row("0." + "9" * 4301), "f:1: an id must be a number"),
        ("# global.columns = ID UPOS", "f:1: global.columns must name ID and FORM, FORM is missing"),
        ("# global.columns = ID FORM\n" + row("1"), "f:2: a row must have 2 columns with tabs between them, got 10"),
        (
            row("1") + "\n# global.columns = ID FORM UPOS",
            "f:2: global.columns must stand before the words of a sentence",
        ),
    ],
)
def test_malformed_lines(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        sentences(text)


def test_a_message_has_a_limit() -> None:
    for text in (row("9" * 5000), row("1", upos="a " * 5000)):
        with pytest.raises(ValueError, match=r"^f:1: ") as caught:
            sentences(text)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_every_end_of_line_and_none(end: str) -> None:
    expected = [(s.words, s.tags, s.line) for s in sentences(SAMPLE)]
    for text in (SAMPLE, SAMPLE.rstrip("\n")):
        assert [(s.words, s.tags, s.line) for s in sentences(text.replace("\n", end))] == expected


def test_no_other_character_ends_a_line() -> None:
    form = "a\u2028b\x85c\x0cd\x0be\x1cf\rg\0h"
    (sentence,) = sentences(row("1", form) + "\n" + row("2") + "\n")
    assert sentence.words == (form, "w")
    assert sentence.with_tags(["A", "B"]) == row("1", form, "A") + "\n" + row("2", upos="B") + "\n\n"


def test_blank_lines_may_hold_spaces() -> None:
    text = f"{row('1', 'a')}\n \n\t\t\t\n\u3000\n{row('1', 'b')}\n \n"
    assert [s.words for s in sentences(text)] == [("a",), ("b",)]


def test_comments_may_be_anywhere() -> None:
    text = f"# generator = UDPipe\n\n# newdoc\n{row('1')}\n# sent_id = 7\n{row('2')}\n# after\n\n# end\n\n"
    found = sentences(text)
    assert [s.words for s in found] == [(), ("w", "w"), ()]
    assert [s.line for s in found] == [1, 3, 9]
    assert found[1].sent_id == "7"
    assert "".join(s.with_tags(s.tags) for s in found) == text


def test_empty_columns_as_spacy_writes_them() -> None:
    rows = [
        "1\tI\t\tPRON\tPRP\t\t2\tnsubj\t\t_",
        "2\t \t \tSPACE \t_SP\t_\t2\t\t_\t_",
        "3 \t\u00a0\t_\t\t_\t_\t_\t_\t_\t_ ",
    ]
    (sentence,) = sentences("\n".join(rows))
    assert sentence.words == ("I", " ", "\u00a0")
    assert sentence.tags == ("PRON", "SPACE", "_")
    written = sentence.with_tags(["A", "B", "C"]).split("\n")
    assert [line.split("\t")[3] for line in written[:3]] == ["A", "B", "C"]
    assert written[2].split("\t")[0] == "3 "


def test_the_columns_of_conllu_plus() -> None:
    head = "# global.columns = ID UPOS FORM PARSEME:MWE"
    text = f"{head}\n# sent_id = 1\n1-2\t_\tdu\t*\n1\tADP\tde\t*\n2\tDET\tle\t1:VID\n\n1\tX\ta\t*\n\n"
    first, second = sentences(text)
    assert (first.words, first.tags, first.sent_id, first.tag_column) == (("de", "le"), ("ADP", "DET"), "1", 1)
    assert second.words == ("a",)
    assert first.with_tags(first.tags) + second.with_tags(second.tags) == text
    assert "1\tA\tde\t*\n2\tB\tle\t1:VID\n" in first.with_tags(["A", "B"])
    assert sentences("# global.columns = ID FORM\n\n1\ta\n")[1].words == ("a",)  # the line may stand alone


def test_without_a_upos_column_there_is_no_place_for_tags() -> None:
    (sentence,) = sentences("# global.columns = ID FORM\n1\ta\n")
    assert (sentence.tags, sentence.tag_column) == (("_",), None)
    with pytest.raises(ValueError, match="the file has no UPOS column"):
        sentence.with_tags(["A"])


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
    assert "".join(sentence.with_tags(sentence.tags) for sentence in read) == path.read_text(encoding="utf-8")
