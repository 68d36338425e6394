"""Rows with named columns: TSV, CSV, JSON lines and Parquet, lists of dicts, pandas frames and `datasets` objects.

    for row in read_rows("train.tsv", ["sentence", "label"]):
        print(row.text("sentence"), row["label"], row.place)

Files are read as they are needed, never as a whole. Whatever is wrong is a ValueError with file and line.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fastattn import checks
from fastattn.checks import listed, shown
from fastattn.errors import EmptyError, OptionError
from fastattn.files import LINE_LIMIT, byte_lines, utf8_lines

FORMATS = {"tsv": (".tsv", ".tab"), "csv": (".csv",), "jsonl": (".jsonl", ".ndjson", ".json"), "parquet": (".parquet",)}
"""The formats, and how the names of their files end."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Attributes:
        values: what the columns hold: text in TSV and CSV, Python's values elsewhere, None for an optional column that
            is missing.
        place: the name of the row in errors: file and line, or its index.
    """

    values: Mapping[str, Any]
    place: str

    def __getitem__(self, column: str) -> Any:
        return self.values[column]

    def text(self, column: str) -> str:
        """A column that holds text. Raises ValueError, with the place, for anything else, and for a lone surrogate.

        >>> Row({"text": None}, "a.jsonl:3").text("text")
        Traceback (most recent call last):
        ValueError: a.jsonl:3: text must be text, got None
        """
        return _text(f"{self.place}: {column}", self.values[column])

    def texts(self, column: str) -> list[str]:
        """A column that holds a list of texts. Raises ValueError, with the place, for anything else.

        >>> Row({"tokens": ["New", "York"]}, "rows[0]").texts("tokens")
        ['New', 'York']
        """
        name, values = f"{self.place}: {column}", self.values[column]
        if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
            raise ValueError(f"{name} must be a list of texts, got {shown(values)}")
        return [_text(f"{name}[{i}]", value) for i, value in enumerate(values)]

    def number(self, column: str) -> float:
        """A column that holds a finite number, or one as text. Raises ValueError, with the place, for anything else.

        >>> Row({"score": " 4.5"}, "a.csv:2").number("score")
        4.5
        """
        value = self.values[column]
        try:
            other = isinstance(value, bool) or (isinstance(value, str) and "_" in value)  # "1_0" is Python's 10
            found = math.nan if other else float(value)
        except (TypeError, ValueError, OverflowError):
            found = math.nan
        if not math.isfinite(found):
            raise ValueError(f"{self.place}: {column} must be a number, got {shown(value)}")
        return found


def read_rows(
    source: Any,
    columns: Sequence[str],
    *,
    optional: Sequence[str] = (),
    one_of: Mapping[str, Sequence[Sequence[str]]] | None = None,
    names: Sequence[str] | None = None,
    format: str | None = None,
) -> Iterator[Row]:
    """The rows of a file or of an object, one by one.

    Args:
        source: a path; a list of dicts or any other iterable of them; a pandas frame; or a `datasets.Dataset`, in which
            the numbers of a ClassLabel become their names, and -1 None.
        columns: the columns that every row must have.
        optional: columns that may be missing, and are None then.
        one_of: groups of such columns, of which the source must have one, by the options that name others, in braces.
        names: the columns of a TSV or CSV file whose first line is a row; None if the first line names them.
        format: "tsv", "csv", "jsonl" or "parquet"; None decides by the end of the file's name.

    Raises:
        TypeError: `source` is nothing that has rows.
        ValueError: a column is missing, with those that exist; a line is malformed or not UTF-8; there are no rows. The
            message begins with file and line, or with `rows[index]`.
        OSError: the file cannot be read.
        ImportError: the file is Parquet and pyarrow is missing (extra `[parquet]`).

    >>> [row["text"] for row in read_rows([{"text": "a cat", "id": 3}, {"text": "a dog"}], ["text"])]
    ['a cat', 'a dog']
    """
    wanted = _columns(columns, optional, one_of)
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        kind = table_format(path) if format is None else checks.choice("read_rows: format", format, FORMATS)
        if kind == "parquet":
            return _some(_parquet(path, path, wanted), path)
        options: dict[str, Any] = {"optional": optional, "one_of": one_of, "names": names, "format": kind}
        return _lines_of(path, partial(parse_rows, columns=columns, **options))
    return _some(_objects(source, wanted), "rows")


def parse_rows(
    lines: Iterable[bytes],
    name: str,
    columns: Sequence[str],
    *,
    format: str,
    optional: Sequence[str] = (),
    one_of: Mapping[str, Sequence[Sequence[str]]] | None = None,
    names: Sequence[str] | None = None,
) -> Iterator[Row]:
    """The rows of a file by its lines, as `read_rows`. Errors call it `name`. Parquet is held in memory as a whole.

    TSV has a tab between two columns, and a quote is a character. CSV is RFC 4180: a field in quotes may hold commas,
    line ends and doubled quotes; a quote within another field is a character. JSON lines are objects. Blank lines are
    passed over.

    >>> [row] = parse_rows([b"text,label\\n", b'"a, b",1\\n'], "a.csv", ["text", "label"], format="csv")
    >>> row.values, row.place
    ({'text': 'a, b', 'label': '1'}, 'a.csv:2')
    """
    wanted = _columns(columns, optional, one_of)
    if checks.choice("parse_rows: format", format, FORMATS) == "parquet":
        return _some(_parquet(io.BytesIO(b"".join(lines)), name, wanted), name)
    text = utf8_lines(lines, name)
    if format == "jsonl":
        return _some(_json_lines(text, name, wanted), name)
    records = _csv_records(text, name) if format == "csv" else _tsv_records(text)
    return _some(_table(records, name, wanted, names), name)


@dataclass(frozen=True)
class _Columns:
    """The columns that are wanted, those that may be missing, and groups of them one of which must be there."""

    needed: tuple[str, ...]
    optional: tuple[str, ...]
    one_of: Mapping[str, Sequence[Sequence[str]]]

    def check(self, there: Iterable[str], place: str, hint: str = "") -> None:
        """Raise ValueError for a column or a group that is missing, and for a column that occurs twice."""
        found = list(there)
        for column in self.needed:
            if column not in found:
                raise ValueError(f"{place}: there is no column {shown(column)}, only {listed([*map(repr, found)])}")
        for options, groups in self.one_of.items():
            if not any(_has(found, group) for group in groups):
                wanted = ", or ".join(" and ".join(", ".join(group).rsplit(", ", 1)) for group in groups)
                name = "name" if " and " in options else "names"
                told = f"{{}}: the columns must include {{}}, got {{}}; {options} {name} others{hint}"
                raise OptionError(told, place, wanted, listed([*map(repr, found)]))
        for column in self.needed + self.optional:
            if found.count(column) > 1:
                raise ValueError(f"{place}: {found.count(column)} columns have the name {shown(column)}")

    def row(self, values: Mapping[str, Any], place: str) -> Row:
        try:
            found = {column: _plain(values[column]) for column in self.needed}
        except KeyError:
            self.check(values, place)
            raise
        for column in self.optional:
            found[column] = _plain(values.get(column))
        if not all(any(_has(values, group) for group in groups) for groups in self.one_of.values()):
            self.check(values, place)
        return Row(found, place)


def _columns(columns: Any, optional: Any, one_of: Mapping[str, Sequence[Sequence[str]]] | None) -> _Columns:
    groups = one_of or {}
    needed, free = (
        checks.texts(f"read_rows: {name}", some) for name, some in (("columns", columns), ("optional", optional))
    )
    free += [column for some in groups.values() for group in some for column in group]
    return _Columns(tuple(needed), tuple(dict.fromkeys(free)), groups)


def _has(there: Container[str], group: Sequence[str]) -> bool:
    return all(column in there for column in group)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {shown(value)}")
    return checks.text(name, value)


def _plain(value: Any) -> Any:
    """Python's numbers and lists for those of NumPy, which frames hold."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def table_format(path: str) -> str:
    """The format of a file by the end of its name. Raises ValueError for another end."""
    found = format_by_name(path)
    if found is None:
        known = ", ".join(end for some in FORMATS.values() for end in some)
        raise OptionError("{}: the name of a table must end with {}, or {format} must say what it is", path, known)
    return found


def format_by_name(path: str) -> str | None:
    """The format of a file by the end of its name; None for another end."""
    return next((kind for kind, ends in FORMATS.items() if path.lower().endswith(ends)), None)


def _lines_of(path: str, parse: Callable[[Iterable[bytes], str], Iterator[Row]]) -> Iterator[Row]:
    with open(path, "rb") as file:
        yield from parse(byte_lines(file, path), path)


def _some(rows: Iterator[Row], name: str) -> Iterator[Row]:
    """`rows`. Raises ValueError if there are none."""
    row = None
    for row in rows:
        yield row
    if row is None:
        raise EmptyError(name, "rows")


def _table(
    records: Iterator[tuple[int, Sequence[str]]], name: str, wanted: _Columns, names: Sequence[str] | None
) -> Iterator[Row]:
    """Rows from records, the first of which names the columns unless `names` does."""
    origin = "names has"
    if names is None:
        first, names = next(records, (1, ()))
        if not names:
            return
        names, origin = tuple(column.strip() for column in names), f"line {first} has"
        wanted.check(names, f"{name}:{first}", f"; {{names}}, if line {first} is a row")
    else:
        wanted.check(checks.texts("read_rows: names", names), f"{name}: names")
    for number, record in records:
        if len(record) != len(names):
            raise ValueError(
                f"{name}:{number}: a row must have {len(names)} columns, as {origin}, got {len(record)}: "
                f"{listed([*map(shown, record)], most=5)}"
            )
        yield wanted.row(dict(zip(names, record, strict=True)), f"{name}:{number}")


def _tsv_records(lines: Iterable[str]) -> Iterator[tuple[int, Sequence[str]]]:
    return ((number, line.split("\t")) for number, line in enumerate(lines, start=1) if line.strip(" "))


def _csv_records(lines: Iterator[str], name: str) -> Iterator[tuple[int, Sequence[str]]]:
    """The number of the first line of each record, and its fields. Python's csv module has a limit for a field."""
    numbered = enumerate(lines, start=1)
    for first, line in numbered:
        if not line.strip(" "):
            continue
        if '"' not in line:
            yield first, line.split(",")
            continue
        record: list[str] = []
        number, at = first, 0
        while at <= len(line):
            if not line.startswith('"', at):
                end = line.find(",", at)
                end = len(line) if end < 0 else end
                record.append(line[at:end])
                at = end + 1
                continue
            parts, opened, size, at = [], number, 0, at + 1
            while True:
                end = line.find('"', at)
                if end < 0:  # the field goes on in the next line
                    parts.append(line[at:] + "\n")
                    size += len(parts[-1])
                    number, line = next(numbered, (0, ""))
                    if not number or size > LINE_LIMIT:
                        raise ValueError(f"{name}:{opened}: the quote that begins column {len(record) + 1} has no end")
                    at = 0
                elif line.startswith('""', end):
                    parts.append(line[at : end + 1])
                    at = end + 2
                else:
                    parts.append(line[at:end])
                    at = end + 1
                    break
            if at < len(line) and line[at] != ",":
                found = shown(line[at : at + 20])
                raise ValueError(f"{name}:{number}: a comma must follow the quote that ends a field, got {found}")
            record.append("".join(parts))
            at += 1
        yield first, record


def _json_lines(lines: Iterable[str], name: str, wanted: _Columns) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line or line.isspace():
            continue
        place = f"{name}:{number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place}: not JSON: {str(error)[:200]}: {shown(line)}") from None
        if not isinstance(value, dict):
            raise ValueError(f"{place}: a line must be a JSON object, got {shown(value)}")
        yield wanted.row(value, place)


def _parquet(source: str | io.BytesIO, path: str, wanted: _Columns) -> Iterator[Row]:
    """The rows of a file that errors call `path`."""
    try:
        import pyarrow  # type: ignore[import-not-found,import-untyped,unused-ignore]
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError('Parquet files need pyarrow: pip install "fastattn[parquet]"') from error
    number = 0
    try:
        with open(source, "rb") if isinstance(source, str) else source as file, parquet.ParquetFile(file) as table:
            there = table.schema_arrow.names
            wanted.check(there, path)
            columns = [column for column in (*wanted.needed, *wanted.optional) if column in there]
            for batch in table.iter_batches(batch_size=1024, columns=columns):
                for values in batch.to_pylist():
                    number += 1
                    yield wanted.row(values, f"{path}: row {number}")
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # pyarrow raises OSError for bad bytes, too
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = path
            raise
        raise ValueError(f"{path}: not a Parquet file that pyarrow reads: {str(error)[:500]}") from None


def _objects(source: Any, wanted: _Columns) -> Iterator[Row]:
    """The rows of a frame, a dataset or an iterable of dicts, told by what they have. None of them is imported."""
    if hasattr(source, "columns") and hasattr(source, "itertuples"):  # a pandas frame
        wanted.check(source.columns, "rows")
        return _frame(source, wanted)
    names, labels = getattr(source, "column_names", None), _label_names(source)
    if isinstance(names, dict):
        raise TypeError(f"read_rows: source has the splits {listed(names)}; give one of them")
    if names is not None:
        wanted.check(names, "rows")
        if hasattr(source, "select_columns"):  # the others, such as images, are not decoded
            every = wanted.needed + wanted.optional
            source = source.select_columns([name for name in names if name in every])
    if isinstance(source, Mapping | bytes) or not isinstance(source, Iterable):
        raise TypeError(
            f"read_rows: source must be a path, a sequence of dicts, a frame or a dataset, got {type(source).__name__}"
        )
    return _dicts(source, wanted, labels)


def _dicts(source: Iterable[Any], wanted: _Columns, labels: Mapping[str, list[str]]) -> Iterator[Row]:
    for i, values in enumerate(source):
        if not isinstance(values, Mapping):
            raise TypeError(f"rows[{i}] must be a dict, got {shown(values)}")
        named = {column: _named(values[column], names) for column, names in labels.items() if column in values}
        yield wanted.row({**values, **named}, f"rows[{i}]")


def _label_names(dataset: Any) -> dict[str, list[str]]:
    """The names of the labels in the columns of a `datasets` object that hold labels, or lists of them."""
    features = getattr(dataset, "features", None)
    found = {}
    for column, feature in features.items() if isinstance(features, Mapping) else ():
        names = getattr(getattr(feature, "feature", feature), "names", None)
        if names is not None:
            found[column] = list(names)
    return found


def _named(value: Any, names: list[str]) -> Any:
    """The name of a label's number, or those of a list."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_named(number, names) for number in value]
    return names[value] if type(value) is int and 0 <= value < len(names) else None


def _frame(frame: Any, wanted: _Columns) -> Iterator[Row]:
    columns = [column for column in (*wanted.needed, *wanted.optional) if column in list(frame.columns)]
    for i, values in enumerate(zip(*(frame[column] for column in columns), strict=True)):
        yield wanted.row(dict(zip(columns, values, strict=True)), f"rows[{i}]")
