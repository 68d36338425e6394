"""Questions about a text, whose answers are parts of it: the files of SQuAD 1.1 and 2.0.

    for example in read_squad("dev-v2.0.json"):
        print(example.question, [answer.text for answer in example.answers])

Source: Rajpurkar et al. 2016 and 2018.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastattn import checks
from fastattn.checks import shown
from fastattn.errors import EmptyError
from fastattn.files import read_regular
from fastattn.text.tables import FORMATS, Row, parse_rows, read_rows

_TABLES = tuple(end for kind in ("tsv", "csv", "parquet") for end in FORMATS[kind])
_COLUMNS, _OPTIONAL = ("question", "context"), ("id", "title", "is_impossible", "answers")


class Answer(NamedTuple):
    """A part of a context: its text, and its first character, counted in code points."""

    text: str
    start: int


@dataclass(frozen=True)
class SquadExample:
    """A question about a context.

    Attributes:
        id: its name, which no other question has.
        question: the question.
        context: the text that has the answer.
        answers: right answers; nothing where they are not known, or `is_impossible`.
        is_impossible: whether the context has no answer.
        title: the article's title, or "".
        place: the name of the question in errors.
    """

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...] = ()
    is_impossible: bool = False
    title: str = ""
    place: str = ""


def read_squad(source: Any) -> list[SquadExample]:
    """The questions of a file or of an object.

    Args:
        source: a file of SQuAD, or with JSON lines; or another table or object that `read_rows` takes. Lines and rows
            have the columns of the `datasets` library: question, context and perhaps id, title, is_impossible and
            answers, which is a dict of the lists text and answer_start. Answers that are there and empty say that there
            is none.

    Raises OSError, and ValueError with the file and the place of the question for a field that is missing or of another
    type, for an answer that does not stand where its offset says, for an id that occurs twice, and for a file without
    questions.

    >>> answers = {"text": ["a cat"], "answer_start": [7]}
    >>> [example] = read_squad([{"question": "What sat?", "context": "There, a cat sat.", "answers": answers}])
    >>> example.id, example.answers
    ('0', (Answer(text='a cat', start=7),))
    """
    if isinstance(source, str | os.PathLike) and not os.fspath(source).lower().endswith(_TABLES):
        return parse_squad(read_regular(source).splitlines(keepends=True), os.fspath(source))
    return _unique(_of_row(row, i) for i, row in enumerate(read_rows(source, _COLUMNS, optional=_OPTIONAL)))


def parse_squad(lines: Iterable[bytes], name: str, format: str | None = None) -> list[SquadExample]:
    """The questions of a file by its lines, as `read_squad`. Errors call it `name`.

    `format` is that of a table, see `parse_rows`; None is SQuAD or JSON lines.

    >>> [example.id for example in parse_squad([b'{"id": "a", "question": "Who?", "context": "Ada."}'], "stdin")]
    ['a']
    """
    lines = list(lines)
    if not any(line.strip() for line in lines):
        raise EmptyError(name, "questions")
    if format is None and is_squad(lines):
        return _unique(_file(b"".join(lines), name))
    rows = parse_rows(lines, name, _COLUMNS, optional=_OPTIONAL, format=format or "jsonl")
    return _unique(_of_row(row, i) for i, row in enumerate(rows))


def is_squad(lines: Sequence[bytes]) -> bool:
    """Whether lines are a file of SQuAD. The first of JSON lines is an object with the columns."""
    first = next((line for line in lines if line.strip()), b"")
    try:
        found = json.loads(first.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return True
    return not isinstance(found, dict) or not any(column in found for column in _COLUMNS)


def _unique(examples: Iterable[SquadExample]) -> list[SquadExample]:
    """The questions. Raises ValueError for an id that occurs twice."""
    found, places = list(examples), dict[str, str]()
    for example in found:
        before = places.setdefault(example.id, example.place)
        if before != example.place:
            raise ValueError(f"{example.place}: the id {shown(example.id)} is that of {before}, too")
    return found


def _file(content: bytes, path: str) -> Iterator[SquadExample]:
    try:
        data = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {str(error)[:200]}") from None
    found = False
    for article, article_place in _entries(data, "data", path, ": "):
        title = _field(article, "title", str, article_place, "")
        for paragraph, paragraph_place in _entries(article, "paragraphs", article_place, "."):
            context = _field(paragraph, "context", str, paragraph_place)
            for question, place in _entries(paragraph, "qas", paragraph_place, "."):
                found = True
                known = question.get("answers")
                answers = [
                    (_field(answer, "text", str, where), _field(answer, "answer_start", int, where))
                    for answer, where in (() if known is None else _entries(question, "answers", place, "."))
                ]
                impossible = _field(question, "is_impossible", bool, place, known == [])
                name, text = _field(question, "id", str, place), _field(question, "question", str, place)
                yield _example(name, text, context, answers, impossible, title, place)
    if not found:
        raise ValueError(f"{path}: there are no questions")


def _of_row(row: Row, number: int) -> SquadExample:
    answers, place, texts, starts = row["answers"], row.place, [], []
    if answers is not None:
        if not isinstance(answers, Mapping):
            raise ValueError(f"{place}: answers must be a dict of text and answer_start, got {shown(answers)}")
        texts, starts = (list(_field(answers, key, Sequence, f"{place}: answers")) for key in ("text", "answer_start"))
        if len(texts) != len(starts):
            raise ValueError(f"{place}: answers has {len(texts)} texts, but {len(starts)} answer_starts")
    impossible = row["is_impossible"]
    if impossible is None:
        impossible = answers is not None and not texts
    checks.boolean(f"{place}: is_impossible", impossible)
    name = str(number) if row["id"] is None else row.text("id")
    title = "" if row["title"] is None else row.text("title")
    pairs = list(zip(texts, starts, strict=True))
    return _example(name, row.text("question"), row.text("context"), pairs, impossible, title, place)


def _example(
    name: str, question: str, context: str, answers: list[tuple[Any, Any]], impossible: bool, title: str, place: str
) -> SquadExample:
    """Raises ValueError for answers that are not in the context."""
    if impossible and answers:
        raise ValueError(f"{place}: is_impossible is true, but there are {len(answers)} answers")
    found = []
    for i, (text, start) in enumerate(answers):
        where = f"{place}.answers[{i}]"
        if not isinstance(text, str):
            raise ValueError(f"{where}: text must be str, got {shown(text)}")
        start = checks.integer(f"{where}: answer_start", start, 0, error=ValueError)
        if not text or context[start : start + len(text)] != text:
            there = shown(context[start : start + max(len(text), 1)])
            raise ValueError(f"{where}: {shown(text)} is not at {start} of the context, where {there} stands")
        found.append(Answer(text, start))
    return SquadExample(name, question, context, tuple(found), impossible, title, place)


def _entries(value: Any, key: str, place: str, separator: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """The objects of a list, and their names."""
    if not isinstance(value, dict):
        raise ValueError(f"{place} must be an object with {key}, got {shown(value)}")
    for i, entry in enumerate(_field(value, key, list, place)):
        name = f"{place}{separator}{key}[{i}]"
        if not isinstance(entry, dict):
            raise ValueError(f"{name} must be an object, got {shown(entry)}")
        yield entry, name


def _field(value: Mapping[str, Any], key: str, kind: type, place: str, default: Any = None) -> Any:
    """A field of an object, `default` if it is missing. Raises ValueError for another type than `kind`."""
    found = value.get(key, default)
    if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
        if key not in value:
            raise ValueError(f"{place} has no {key}, only {checks.listed(value)}")
        raise ValueError(f"{place}: {key} must be {kind.__name__}, got {shown(found)}")
    return found
