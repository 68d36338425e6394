"""SQuAD: what is read of both versions, and how a wrong answer is refused."""

from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastattn.text import Answer, is_squad, parse_squad, read_squad

CONTEXT = "Zoë 🐈 has a cat. The cat sat."
ANSWER = {"text": "a cat", "answer_start": 10}


def squad(*questions: dict[str, Any]) -> dict[str, Any]:
    paragraphs = [{"context": CONTEXT, "qas": list(questions)}]
    return {"version": "v2.0", "data": [{"title": "Cats", "paragraphs": paragraphs}]}


def question(name: str = "q", **fields: Any) -> dict[str, Any]:
    return {"id": name, "question": "What?", **fields}


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_both_versions(tmp_path: Path) -> None:
    plausible = [{"text": "cat", "answer_start": 12}]
    some = [
        question("1", answers=[ANSWER, {"text": "cat", "answer_start": 21}]),
        question("2", answers=[ANSWER], is_impossible=False),
        question("3", answers=[], is_impossible=True, plausible_answers=plausible),
        question("4", answers=[]),
        question("5"),
    ]
    found = read_squad(write(tmp_path / "a.json", squad(*some)))
    assert [(example.id, example.is_impossible, len(example.answers)) for example in found] == [
        ("1", False, 2), ("2", False, 1), ("3", True, 0), ("4", True, 0), ("5", False, 0)
    ]  # fmt: skip
    assert found[0].answers == (Answer("a cat", 10), Answer("cat", 21))
    assert (found[0].question, found[0].context, found[0].title) == ("What?", CONTEXT, "Cats")
    assert found[1].place == f"{tmp_path / 'a.json'}: data[0].paragraphs[0].qas[1]"


def test_json_lines_under_any_name(tmp_path: Path) -> None:
    row = {"id": "a", "question": "What?", "context": CONTEXT}
    text = "\n".join(json.dumps(row | {"id": name}) for name in "ab")
    path = tmp_path / "a.json"
    path.write_text(text)
    for found in (read_squad(path), parse_squad(text.encode().splitlines(keepends=True), str(path))):
        assert [(example.id, example.place) for example in found] == [("a", f"{path}:1"), ("b", f"{path}:2")]
    for value, is_it in ((squad(question()), True), (row, False), ({"question": "What?"}, False), ([1], True)):
        for indent in (None, 1):
            lines = json.dumps(value, indent=indent).encode().splitlines(keepends=True)
            assert is_squad([b"\n", *lines]) is (is_it or indent is not None)
    with pytest.raises(ValueError, match=r"^-:2: there is no column 'context', only 'question'$"):
        parse_squad([json.dumps(row).encode() + b"\n", b'{"question": "What?"}\n'], "-")
    with pytest.raises(ValueError, match=r"^-:2: the id 'a' is that of -:1, too$"):
        parse_squad([json.dumps(row).encode() + b"\n"] * 2, "-")


def test_rows_of_the_datasets_library(tmp_path: Path) -> None:
    answers = [{"text": ["a cat"], "answer_start": [10]}, {"text": [], "answer_start": []}, None]
    rows = [{"id": f"q{i}", "question": "What?", "context": CONTEXT, "answers": some} for i, some in enumerate(answers)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for source, place in ((rows, "rows[0]"), (path, f"{path}:1")):
        found = read_squad(source)
        assert [(example.id, example.is_impossible, example.answers) for example in found] == [
            ("q0", False, (Answer("a cat", 10),)), ("q1", True, ()), ("q2", False, ())
        ]  # fmt: skip
        assert found[0].place == place
    assert [example.id for example in read_squad([{"question": "", "context": ""}] * 2)] == ["0", "1"]


WRONG = {
    "moved": (question(answers=[ANSWER | {"answer_start": 9}]),
              "data[0].paragraphs[0].qas[0].answers[0]: 'a cat' is not at 9 of the context, where ' a ca' stands"),
    "counted in bytes": (question(answers=[ANSWER | {"answer_start": 14}]), "where 't. Th' stands"),
    "behind the end": (question(answers=[ANSWER | {"answer_start": 99}]), "is not at 99 of the context, where ''"),
    "before the start": (question(answers=[ANSWER | {"answer_start": -5}]), "answer_start must be an integer"),
    "empty": (question(answers=[{"text": "", "answer_start": 1}]), "'' is not at 1 of the context"),
    "both": (question(answers=[ANSWER], is_impossible=True), "qas[0]: is_impossible is true, but there are 1 answers"),
    "no start": (question(answers=[{"text": "a cat"}]), "qas[0].answers[0] has no answer_start, only text"),
    "text for a start": (question(answers=[ANSWER | {"answer_start": "10"}]), "answer_start must be int, got '10'"),
    "answers": (question(answers={"text": []}), "qas[0]: answers must be list, got {'text': []}"),
    "no id": ({"question": "What?"}, "qas[0] has no id, only question"),
    "a number": (question() | {"question": 3}, "qas[0]: question must be str, got 3"),
    "no question": (["What?"], "qas[0] must be an object, got ['What?']"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_what_is_wrong_has_its_place(tmp_path: Path, case: tuple[Any, str]) -> None:
    wrong, message = case
    path = write(tmp_path / "a.json", squad(wrong))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_squad(path)
    assert str(caught.value).startswith(f"{path}: data[0].paragraphs[0].qas[0]")


def test_wrong_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text, message in (
        (b"", "a.json: there are no questions"),
        (b'{"data":\n [}', "a.json: not JSON: Expecting value: line 2 column 3"),
        (b"[" * 100_000, "a.json: not JSON: "),
        (b"\xff", "a.json: not UTF-8"),
        (b"[]", "a.json must be an object with data, got []"),
        (b"{}", "a.json has no data, only "),
        (b'{"data": []}', "a.json: there are no questions"),
        (b'{"data": [{"title": "x"}]}', "a.json: data[0] has no paragraphs, only title"),
    ):
        path.write_bytes(text)
        with pytest.raises(ValueError, match=re.escape(message)):
            read_squad(path)
    write(path, squad(question(), question()))
    with pytest.raises(ValueError, match=r"qas\[1\]: the id 'q' is that of .*qas\[0\], too$"):
        read_squad(path)


def test_wrong_rows() -> None:
    row = {"question": "What?", "context": CONTEXT, "answers": {"text": ["a cat"], "answer_start": [10]}}
    for change, message in (
        ({"answers": ["a cat"]}, r"^rows\[0\]: answers must be a dict of text and answer_start, got \['a cat'\]"),
        ({"answers": {"text": ["a cat"]}}, r"^rows\[0\]: answers has no answer_start, only text$"),
        (
            {"answers": {"text": ["a", "b"], "answer_start": [1]}},
            r"^rows\[0\]: answers has 2 texts, but 1 ans",
        ),
        ({"answers": {"text": ["a cat"], "answer_start": [1]}}, r"^rows\[0\]\.answers\[0\]: 'a cat' is not at 1 of"),
        ({"is_impossible": "no"}, r"^rows\[0\]: is_impossible must be a bool, got 'no'$"),
    ):
        with pytest.raises(ValueError, match=message):
            read_squad([copy.deepcopy(row) | change])
    with pytest.raises(ValueError, match=r"^rows\[0\]: there is no column 'context', only 'question'$"):
        read_squad([{"question": "What?"}])


def test_a_frame_has_arrays() -> None:
    """As pandas reads the Parquet files of SQuAD."""
    answers = {"text": np.array(["a cat"], object), "answer_start": np.array([10], np.int32)}
    [example] = read_squad([{"question": "What?", "context": CONTEXT, "answers": answers, "is_impossible": np.False_}])
    assert example.answers == (Answer("a cat", 10),)
    assert type(example.answers[0].start) is int


@pytest.mark.parametrize("language", ["en", "zh"])
def test_real_questions(language: str) -> None:
    data = Path(os.environ.get("FASTATTN_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = data / "xquad" / f"xquad.{language}.json"
    if not path.exists():
        pytest.skip(f"XQuAD is missing: {path} (set FASTATTN_DATA)")
    found = read_squad(path)
    assert len(found) == 1190
    assert all(example.answers and not example.is_impossible for example in found)
