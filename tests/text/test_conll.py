"""CoNLL columns: what is read, what is written back, and how a malformed line is refused."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from fastattn.text import ConllSentence, parse_conll, read_conll, tags_to_entities

SPACES = """-DOCSTART- -X- O O

EU NNP B-NP B-ORG
# NN B-NP O
rejects VBZ B-VP O

# text = a b
Peter NNP B-NP B-PER
"""
TABS = """# sent_id = 1
# text = New York # is
1\tNew York\tB-LOC\t-
2\t#\tO\t-

1\t2\tO\t-
"""


def parse(text: str | bytes, **options: Any) -> list[ConllSentence]:
    data = text if isinstance(text, bytes) else text.encode()
    return list(parse_conll(io.BytesIO(data), "f", **options))


def test_columns_with_spaces() -> None:
    document, first, second = parse(SPACES)
    assert (document.words, document.lines) == ((), ("-DOCSTART- -X- O O",))
    assert (first.words, first.tags, first.line) == (("EU", "#", "rejects"), ("B-ORG", "O", "O"), 3)
    assert (second.words, second.tags, second.line) == (("Peter",), ("B-PER",), 7)
    assert parse(SPACES, tag_column=1)[1].tags == ("NNP", "NN", "VBZ")


def test_columns_with_tabs() -> None:
    first, second = parse(TABS, word_column=1, tag_column=-2)
    assert (first.words, first.tags, first.line) == (("New York", "#"), ("B-LOC", "O"), 1)
    assert second.words == ("2",)
    assert parse("New\n\nYork\n", tag_column=None)[1].tags == ("_",)


@pytest.mark.parametrize(
    "text", [SPACES, TABS, SPACES.replace("\n", "\r\n"), "\ufeff" + TABS, SPACES.replace("\n", "\r")]
)
def test_ends_of_lines(text: str) -> None:
    options = {"word_column": 1, "tag_column": 2} if "\t" in text else {}
    plain = TABS if "\t" in text else SPACES
    assert parse(text, **options) == parse(plain, **options)
    assert "".join(sentence.with_tags(sentence.tags) for sentence in parse(text, **options)) == plain + "\n"


def test_a_hash_may_begin_a_word() -> None:
    assert parse("#ff\tO\n#\tO\n")[0].words == ("#ff", "#")
    assert parse("#ff O\n# O\n# a comment\n#id = 3\n")[0].words == ("#ff", "#")
    with pytest.raises(ValueError, match=r"^f:2: a row must have 2 columns, as the first has, got 1: '#ff'$"):
        parse("a O\n#ff\n")


def test_tags_are_written() -> None:
    first, _ = parse(TABS, word_column=1, tag_column=2)
    assert first.with_tags(["S-LOC", "O"]).splitlines()[2:] == ["1\tNew York\tS-LOC\t-", "2\t#\tO\t-", ""]
    assert parse("New  York\n", tag_column=1)[0].with_tags(["X"]) == "New X\n\n"
    assert parse("New\nYork\n", tag_column=None)[0].with_tags(["A", "B"]) == "New\tA\nYork\tB\n\n"
    made = ConllSentence.from_words(["New", "York"])
    assert parse(made.with_tags(["B-LOC", "I-LOC"]))[0].tags == ("B-LOC", "I-LOC")
    for tags, message in (
        (["O"], "1 tags for the 2 words of line 1"),
        (["O", "a b"], "a tag must be a word"),
        (["O", ""], "got ''"),
    ):
        with pytest.raises(ValueError, match=message):
            first.with_tags(tags)
    with pytest.raises(ValueError, match=r"^ConllSentence: 1 words, but 2 tags$"):
        ConllSentence.from_words(["a"], ["O", "O"])


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a O\nb\n", {}, r"^f:2: a row must have 2 columns, as the first has, got 1: 'b'$"),
        ("a O\n\nb O O\n", {}, r"^f:3: a row must have 2 columns, as the first has, got 3: 'b O O'$"),
        ("a\tO\nb O\n", {}, r"^f:2: a row must have 2 columns, as the first has, got 1: 'b O'$"),
        ("a\tO\nb\t\n", {}, r"^f:2: the tag is empty: 'b\\t'$"),
        ("\n\tO\n", {}, r"^f:2: the word is empty: '\\tO'$"),
        ("a O\n", {"tag_column": 2}, r"^f:1: there is no tag_column 2, the row has 2 columns: a, O$"),
        ("a O\n", {"word_column": -3}, r"^f:1: there is no word_column -3, the row has 2 columns: a, O$"),
        (b"a O\n\xff O\n", {}, r"^f:2: not UTF-8: byte 0xff at 1$"),
    ],
)
def test_what_is_wrong_has_file_and_line(text: str | bytes, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text, **options)


def test_a_file_without_words(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for text in ("", "\n\n", "# a comment\n\n-DOCSTART-\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"a\.txt: there are no words$"):
            read_conll(path)


def test_rows_of_lists(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"tokens": ["New York"], "ner_tags": ["B-LOC"]}\n{"tokens": ["a"], "ner_tags": ["O", "O"]}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl:2: tokens has 1 words, but ner_tags has 2 tags$"):
        read_conll(path, tag_column="ner_tags")
    with pytest.raises(ValueError, match=r"a\.jsonl:1: there is no column 'tags', only 'tokens', 'ner_tags'$"):
        read_conll(path)
    rows = [{"words": ["New York"], "tags": ["B-LOC"]}, {"words": [], "tags": []}]
    assert [sentence.words for sentence in read_conll(rows, word_column="words")] == [("New York",), ()]
    with pytest.raises(TypeError, match=r"^read_conll: tag_column must be the number of a column in a file of columns"):
        read_conll(tmp_path / "a.txt", tag_column="tags")


@pytest.mark.parametrize(("part", "entities"), [("dev", None), ("test", 1088)])
def test_real_entities(part: str, entities: int | None) -> None:
    data = Path(os.environ.get("FASTATTN_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = data / "uner_ewt" / f"en_ewt-ud-{part}.iob2"
    if not path.exists():
        pytest.skip(f"Universal NER is missing: {path} (set FASTATTN_DATA)")
    sentences = read_conll(path, word_column=1, tag_column=2)
    found = [entity for sentence in sentences for entity in tags_to_entities(sentence.tags)]
    assert {entity.label for entity in found} == {"PER", "ORG", "LOC"}
    assert entities in (None, len(found))
    text = path.read_text(encoding="utf-8")
    assert "".join(sentence.with_tags(sentence.tags) for sentence in sentences).rstrip("\n") == text.rstrip("\n")


def test_the_column_of_words_is_not_that_of_tags() -> None:
    message = r"^f:1: word_column and tag_column are one column, the row has \d columns: "
    for line, columns in ((b"New\n", {}), (b"1 New O\n", {"word_column": 2}), (b"a b\n", {"word_column": 1})):
        with pytest.raises(ValueError, match=message):
            list(parse_conll([line], "f", **columns))
    (sentence,) = parse_conll([b"1 New O\n"], "f", word_column=1)
    assert (sentence.word_column, sentence.tag_column) == (1, -1)


def test_an_empty_word_is_no_word() -> None:
    with pytest.raises(ValueError, match=r"^ConllSentence: words\[1\] is an empty word$"):
        ConllSentence.from_words(["a", ""], ["O", "O"])
    with pytest.raises(ValueError, match=r"^ConllSentence: tags\[0\] is an empty tag$"):
        ConllSentence.from_words(["a", "b"], ["", "O"])
