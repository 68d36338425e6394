"""Answers as lines: a table with tabs, or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastattn.checks import shown
from fastattn.files import json_line


def written(rows: Iterable[Mapping[str, Any]], kind: str) -> Iterator[str]:
    """Lines of answers, "tsv" with a line of names first, or "jsonl".

    In TSV a list is written with commas, and a mapping as a column for each of its keys. Raises ValueError for text
    that a field of TSV cannot hold.

    >>> "".join(written([{"label": ["a", "b"], "scores": {"a": 0.5}}], "tsv"))
    'label\\tscores.a\\na,b\\t0.5\\n'
    """
    for i, row in enumerate(rows):
        if kind == "jsonl":
            yield json_line(row)
            continue
        fields = dict(_fields(row))
        if i == 0:
            yield _line(fields)
        yield _line(fields.values())


def number(value: Any) -> float:
    """A float32 as a number of seven digits.

    >>> number(0.1 + 0.2), number(123456789)
    (0.3, 123456800.0)
    """
    return float(f"{value:.7g}")


def _fields(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", item) for key, item in value.items())
        else:
            yield name, ",".join(value) if isinstance(value, list) else value


def _line(fields: Iterable[Any]) -> str:
    texts = [str(field) for field in fields]
    for text in texts:
        if any(character in text for character in "\t\r\n"):
            raise ValueError(f"TSV has no place for a tab or a line end within {shown(text)}; write jsonl instead")
    return "\t".join(texts) + "\n"
