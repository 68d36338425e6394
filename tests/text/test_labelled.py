"""Texts and labels of tables: which columns they are in, and what is refused."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fastattn.text import LabelledTexts, Row, labelled_texts, plain_texts, read_rows


def read(source: Any, **options: Any) -> LabelledTexts:
    more = {name: options.pop(name) for name in ("names", "format") if name in options}
    return labelled_texts(partial(read_rows, source, **more), Row.__getitem__, **options)


@pytest.mark.parametrize(
    ("row", "texts", "pairs", "label"),
    [
        ({"sentence": "a", "label": 1, "idx": 7}, "a", None, 1),
        ({"text": "a", "label": 0}, "a", None, 0),
        ({"sentence1": "a", "sentence2": "b", "score": 0.5, "text": "c"}, "a", "b", 0.5),
        ({"query": "a", "document": "b", "label": 1, "score": 3}, "a", "b", 1),
        ({"sentence1": "a", "sentence": "b", "label": 1}, "b", None, 1),
    ],
)
def test_columns_that_are_looked_for(row: dict[str, Any], texts: str, pairs: str | None, label: Any) -> None:
    data = read([row, row])
    assert data.texts == [texts] * 2
    assert data.pairs == (None if pairs is None else [pairs] * 2)
    assert (data.labels, data.places) == ([label] * 2, ["rows[0]", "rows[1]"])


def test_columns_that_are_named(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("one\ttwo\tclass\tsentence\na\tb\tx\tc\n\td\ty\te\n", encoding="utf-8")
    data = read(path, columns=["two", "one"], label="class")
    assert (data.texts, data.pairs, data.labels) == (["b", "d"], ["a", ""], ["x", "y"])
    assert data.places == [f"{path}:2", f"{path}:3"]
    path.write_text("a\t1\nb\t2\n", encoding="utf-8")
    assert read(path, names=["sentence", "label"]).labels == ["1", "2"]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"a": "x", "label": 1}], {}, r"rows\[0\]: the columns must include sentence1 and sentence2, or "
         r"query and document, or sentence, or text, got 'a', 'label'; columns names others$"),
        ([{"text": "x"}], {}, r"rows\[0\]: the columns must include label, or score, got 'text'; label names"),
        ([{"text": "x", "label": None}], {}, r"rows\[0\]: there is no label$"),
        ([{"text": None, "label": 1}], {}, r"rows\[0\]: there is no text; columns names other columns$"),
        ([{"text": "x"}], {"label": "class"}, r"rows\[0\]: there is no column 'class', only 'text'"),
        ([{"text": "x", "label": 1}], {"columns": ["a"]}, r"rows\[0\]: there is no column 'a', only 'text', 'label'"),
        ([{"text": "x", "label": 1}, {"sentence": "x", "label": 1}], {}, r"rows\[1\]: text must be text, got None"),
        ([{"text": 3, "label": 1}], {}, r"rows\[0\]: text must be text, got 3"),
        ([], {}, "rows: there are no rows"),
    ],
)  # fmt: skip
def test_what_is_refused(rows: list[dict[str, Any]], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(rows, **options)


def test_labels_that_may_be_missing() -> None:
    assert read([{"text": "x"}], labelled=False).labels == [None]
    assert read([{"text": "x", "class": None}], labelled=False, label="class").labels == [None]
    with pytest.raises(ValueError, match=r"^rows\[0\]: there is no column 'nope', only 'text', 'label'$"):
        read([{"text": "x", "label": 1}], labelled=False, label="nope")
    assert read([{"text": "x", "score": 2}, {"text": "y"}], labelled=False).labels == [2, None]


def test_lines() -> None:
    data = plain_texts([b"a\n", b"\n", b"b c\n"], "input")
    assert (data.texts, data.pairs, data.places) == (["a", "", "b c"], None, ["input:1", "input:2", "input:3"])
    assert plain_texts([b"a\tb\n", b"\tc\n"], "input").pairs == ["b", "c"]
    assert len(plain_texts([], "input")) == 0
    with pytest.raises(ValueError, match=r"^input:2: a line must have no tab, as the first one, got 1$"):
        plain_texts([b"a\n", b"a\tb\n"], "input")
    with pytest.raises(ValueError, match=r"^input:2: a line must have one tab, between two texts, got 0$"):
        plain_texts([b"a\tb\n", b"a\n"], "input")


def test_several_files_are_one() -> None:
    one, two = read([{"text": "a", "label": 1}]), read([{"text": "b", "label": 2}])
    both = LabelledTexts.joined([one, two])
    assert (both.texts, both.labels) == (["a", "b"], [1, 2])
    assert one.texts == ["a"]
    pairs = read([{"sentence1": "a", "sentence2": "b", "label": 1}])
    with pytest.raises(ValueError, match=r"^rows\[0\]: there are pairs, but single texts in rows\[0\]$"):
        LabelledTexts.joined([one, pairs])


def test_the_checksum_is_of_texts_and_labels() -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "label": 1}]
    sums = [
        read(some).crc32
        for some in (
            rows,
            rows,
            [{**rows[0], "label": 2}],
            [{**rows[0], "sentence2": "c"}],
            [{"text": "a", "label": 1}],
        )
    ]
    assert sums[0] == sums[1]
    assert len(set(sums)) == 4


def test_texts_are_in_one_or_two_columns() -> None:
    rows = [{"query": "a", "document": "b", "title": "c", "label": 1}]
    wrong = {
        (): "none",
        ("query", "document", "title"): "'query', 'document', 'title'",
        ("query", "document", "a.tsv"): "'query', 'document', 'a.tsv'; the file stands before it",
    }
    for columns, told in wrong.items():
        with pytest.raises(ValueError, match=f"^columns takes one or two names, got {re.escape(told)}$"):
            read(rows, columns=columns)
    with pytest.raises(TypeError, match=r"^columns must be a sequence of str, got the str 'query'$"):
        read(rows, columns="query")
    assert read(rows, columns=("query",)).pairs is None
