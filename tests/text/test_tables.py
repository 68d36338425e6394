"""Rows with named columns, from files and from objects, and how a wrong one is refused."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastattn.text import Row, parse_rows, read_rows, tables

ROWS = [
    {"text": 'a "cat", sat', "label": "one", "id": "1"},
    {"text": "two\nlines", "label": "two", "id": "2"},
    {"text": "", "label": "", "id": ""},
    {"text": '"', "label": '""', "id": ","},
    {"text": '5" screen,\u2028,', "label": " x ", "id": "\x85"},
]


def values(rows: Iterator[Row]) -> list[dict[str, Any]]:
    return [dict(row.values) for row in rows]


def parse(text: str | bytes, columns: list[str], format: str = "csv", **options: Any) -> list[dict[str, Any]]:
    data = text if isinstance(text, bytes) else text.encode()
    return values(parse_rows(io.BytesIO(data), "f", columns, format=format, **options))


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        elif path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            file.writelines("\t".join(row) + "\n" for row in [list(rows[0]), *map(dict.values, rows)])
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    rows = list(read_rows(write(tmp_path / name), ["label", "text"], optional=["id", "more"]))
    assert [dict(row.values) for row in rows] == [row | {"more": None} for row in ROWS]
    lines = [2, 3, 5, 6, 7] if name == "a.csv" else [1, 2, 3, 4, 5]
    assert [row.place for row in rows] == [f"{tmp_path / name}:{line}" for line in lines]


def test_csv_is_read_as_pythons_module_does() -> None:
    """Over every text of a few characters, where that module finds no error."""
    alphabet, compared = 'a",\n', 0
    for number in range(4**7):
        text = "".join(alphabet[number // 4**place % 4] for place in range(7))
        try:
            wanted = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
        except csv.Error:
            wanted = None
        lines = [line.rstrip("\n") for line in io.StringIO(text)]
        if wanted is not None:
            assert [[*record] for _, record in tables._csv_records(iter(lines), "f")] == wanted, text
            compared += 1
    assert compared > 8000


def test_tsv_has_no_quotes(tmp_path: Path) -> None:
    rows = [{"a": '"one', "b": 'two"'}, {"a": "", "b": "3, 4"}]
    for name in ("a.tsv", "A.TAB"):
        assert values(read_rows(write(tmp_path / name, rows), ["a", "b"])) == rows


def test_ends_of_lines_marks_and_blank_lines() -> None:
    rows = [{"a": "1", "b": "é"}, {"a": "2", "b": "y"}]
    for text in ("a,b\r\n1,é\r\n2,y\r\n", "\ufeffa,b\n1,é\n\n2,y", "a,b\r1,é\r2,y\r", " a , b\n1,é\n   \n2,y\n"):
        assert parse(text, ["a", "b"]) == rows
    assert parse('\ufeff"a","b"\r\n"1","x\r\ny"\r\n', ["a", "b"]) == [{"a": "1", "b": "x\ny"}]
    assert parse('{"a": 1}\r\n\r\n\t\n{"a": [2]}', ["a"], "jsonl") == [{"a": 1}, {"a": [2]}]


def test_a_file_without_names() -> None:
    names = ["s1", "s2", "score"]
    assert parse("x,y,1.5\n", ["score", "s1"], names=names) == [{"score": "1.5", "s1": "x"}]
    with pytest.raises(ValueError, match=r"^f:1: a row must have 3 columns, as names has, got 2: 'x', 'y'$"):
        parse("x\ty\n", ["s1"], "tsv", names=names)
    with pytest.raises(ValueError, match=r"^f: names: there is no column 'label', only 's1', 's2', 'score'$"):
        parse("x,y,1\n", ["label"], names=names)


WRONG = {
    "empty": ("csv", "", "^f: there are no rows$"),
    "only names": ("tsv", "text\tlabel\n\n", "^f: there are no rows$"),
    "empty lines": ("jsonl", "\n\n", "^f: there are no rows$"),
    "a missing column": ("tsv", "\ntext\tLabel\na\tb\n", "^f:2: there is no column 'label', only 'text', 'Label'$"),
    "a missing field": ("jsonl", '{"text": 1, "label": 2}\n{"text": 1}', "^f:2: there is no column 'label', only"),
    "two of a name": ("csv", "text,label,text\n1,2,3\n", "^f:1: 2 columns have the name 'text'$"),
    "too few": ("csv", "text,label\n1,2\n3\n", r"^f:3: a row must have 2 columns, as line 1 has, got 1: '3'$"),
    "too many": ("tsv", "text\tlabel\n1\t2\t3\n", r"^f:2: a row must have 2 columns, as line 1 has, got 3: '1'"),
    "an open quote": ("csv", 'text,label\n1,"2\n3,4\n', "^f:2: the quote that begins column 2 has no end$"),
    "behind a quote": ("csv", 'text,label\n"a\nb"c,2\n', "^f:3: a comma must follow the quote that ends a field"),
    "not UTF-8": ("csv", b"text,label\n1,\xff\n", "^f:2: not UTF-8: byte 0xff at 3$"),
    "UTF-16": ("tsv", "text\tlabel\n".encode("utf-16"), "^f:1: not UTF-8 text, but UTF-16"),
    "not JSON": ("jsonl", '{"text": 1, "label": 2}\n{"text"\n', "^f:2: not JSON: .*: '{\"text\"'$"),
    "no object": ("jsonl", "[1, 2]\n", r"^f:1: a line must be a JSON object, got \[1, 2\]$"),
    "too deep": ("jsonl", "[" * 100_000 + "\n", "^f:1: not JSON: "),
    "a number of many digits": ("jsonl", '{"text": ' + "1" * 10_000 + "}\n", "^f:1: not JSON: "),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_what_is_wrong_has_file_and_line(case: tuple[str, str | bytes, str]) -> None:
    format, text, message = case
    with pytest.raises(ValueError, match=message):
        parse(text, ["text", "label"], format)


def test_a_name_without_a_known_end(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.xls: the name of a table must end with \.tsv, .*, or format must"):
        read_rows(tmp_path / "a.xls", ["a"])
    with pytest.raises(ValueError, match=r"^read_rows: format must be one of tsv, csv, jsonl, parquet, got 'xls'$"):
        read_rows(tmp_path / "a.tsv", ["a"], format="xls")
    assert values(read_rows(write(tmp_path / "a.jsonl").rename(tmp_path / "a.txt"), ["id"], format="jsonl"))
    with pytest.raises(TypeError, match=r"^read_rows: columns must be a sequence of str, got the str 'text'$"):
        read_rows(tmp_path / "a.tsv", "text")
    with pytest.raises(FileNotFoundError):
        list(read_rows(tmp_path / "none.csv", ["a"]))


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl"])
def test_a_file_is_read_as_its_rows_are_needed(format: str) -> None:
    """A pipe that nobody closes: the first row arrives."""
    reading, writing = os.pipe()
    lines = {"csv": 'a,b\n"1\n",2\n', "tsv": "a\tb\n1\t2\n", "jsonl": '{"a": 1, "b": 2}\n'}[format]
    os.write(writing, lines.encode() * 2)
    with open(reading, "rb", buffering=0) as file:
        row = next(parse_rows(file, "pipe", ["a"], format=format))
        assert str(row["a"]).strip() == "1"
        os.close(writing)


def test_text_and_numbers_of_a_row() -> None:
    row = Row({"a": "x", "b": None, "c": "1e3", "d": np.float32(0.5), "e": "nan", "f": True, "g": "\ud800"}, "f.csv:3")
    row.values["h"] = "1_0"  # Python's 10
    assert (row["a"], row.text("a"), row.number("c"), row.number("d")) == ("x", "x", 1000, 0.5)
    with pytest.raises(ValueError, match=r"^f\.csv:3: b must be text, got None$"):
        row.text("b")
    with pytest.raises(ValueError, match=r"^f\.csv:3: g is not valid Unicode"):
        row.text("g")
    for column, shown in (("a", "'x'"), ("b", "None"), ("e", "'nan'"), ("f", "True"), ("h", "'1_0'")):
        with pytest.raises(ValueError, match=rf"^f\.csv:3: {column} must be a number, got {shown}$"):
            row.number(column)


def test_lists_of_texts() -> None:
    row = Row({"a": ("x", "y"), "b": "xy", "c": [1], "d": 2}, "f.jsonl:3")
    assert row.texts("a") == ["x", "y"]
    for column, message in (("b", "b must be a list of texts, got 'xy'"), ("c", r"c\[0\] must be text, got 1"),
                            ("d", "d must be a list of texts, got 2")):  # fmt: skip
        with pytest.raises(ValueError, match=rf"^f\.jsonl:3: {message}$"):
            row.texts(column)


def test_dicts() -> None:
    rows = list(read_rows(({"a": i, "b": np.int64(i)} for i in range(2)), ["b"], optional=["c"]))
    assert [dict(row.values) for row in rows] == [{"b": 0, "c": None}, {"b": 1, "c": None}]
    assert type(rows[1]["b"]) is int
    assert rows[1].place == "rows[1]"
    with pytest.raises(ValueError, match=r"^rows\[1\]: there is no column 'a', only 'b'$"):
        list(read_rows([{"a": 1}, {"b": 1}], ["a"]))
    with pytest.raises(TypeError, match=r"^rows\[0\] must be a dict, got \('a', 1\)$"):
        list(read_rows([("a", 1)], ["a"]))
    with pytest.raises(ValueError, match=r"^rows: there are no rows$"):
        list(read_rows([], ["a"]))
    for wrong in ({"a": [1]}, 5, b"a.csv", None):
        with pytest.raises(TypeError, match=r"^read_rows: source must be a path, a sequence of dicts, a frame or a"):
            read_rows(wrong, ["a"])


class Frame:
    """What is used of a pandas frame."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self._columns, self.columns, self.itertuples = columns, list(columns), None

    def __getitem__(self, name: str) -> list[Any]:
        return self._columns[name]


class Dataset:
    """What is used of a `datasets.Dataset`."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows, self.column_names = rows, list(rows[0])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def select_columns(self, names: list[str]) -> Dataset:
        return Dataset([{name: row[name] for name in names} for row in self.rows])


def test_frames_and_datasets() -> None:
    frame = Frame({"text": ["x", "y"], "label": [np.int64(1), np.int64(0)], "image": [object(), object()]})
    dataset = Dataset([{"text": "x", "label": 1, "image": object()}, {"text": "y", "label": 0, "image": object()}])
    for source in (frame, dataset):
        rows = list(read_rows(source, ["text", "label"], optional=["id"]))
        assert [tuple(row.values.values()) for row in rows] == [("x", 1, None), ("y", 0, None)]
        assert rows[1].place == "rows[1]"
        with pytest.raises(ValueError, match=r"^rows: there is no column 'b', only 'text', 'label', 'image'$"):
            read_rows(source, ["b"])
    dataset.column_names = {"train": ["a"], "test": ["a"]}  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"^read_rows: source has the splits train, test; give one of them$"):
        read_rows(dataset, ["a"])


class ClassLabel:
    """What is used of a `datasets.ClassLabel`, alone or in a list."""

    def __init__(self, names: list[str], listed: bool = False) -> None:
        if listed:
            self.feature = ClassLabel(names)
        else:
            self.names = names


def test_labels_of_a_dataset_are_named() -> None:
    dataset = Dataset([{"label": 1, "tags": [0, 1], "n": 1}, {"label": -1, "tags": [], "n": 0}])
    dataset.features = {"label": ClassLabel(["no", "yes"]), "tags": ClassLabel(["O", "B"], listed=True), "n": object()}
    dataset.select_columns = lambda names: dataset
    rows = values(read_rows(dataset, ["label", "tags", "n"]))
    assert rows == [{"label": "yes", "tags": ["O", "B"], "n": 1}, {"label": None, "tags": [], "n": 0}]


def test_a_pandas_frame() -> None:
    pandas = pytest.importorskip("pandas", reason="reads a pandas frame")
    frame = pandas.DataFrame({"text": ["x", "y"], "label": [1, 0]}, index=[7, 3])
    rows = list(read_rows(frame[frame["label"] < 2], ["text", "label"]))
    assert [tuple(row.values.values()) for row in rows] == [("x", 1), ("y", 0)]
    assert type(rows[0]["label"]) is int


def test_a_dataset() -> None:
    datasets = pytest.importorskip("datasets", reason="reads a datasets object")
    dataset = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [1, 0]})
    for source in (dataset, dataset.to_iterable_dataset()):
        assert values(read_rows(source, ["label"])) == [{"label": 1}, {"label": 0}]
    labels = datasets.ClassLabel(names=["no", "yes"])
    features = datasets.Features({"label": labels, "tags": datasets.Sequence(labels)})
    named = datasets.Dataset.from_dict({"label": [1, 0], "tags": [[0, 1], []]}, features=features)
    wanted = [{"label": "yes", "tags": ["no", "yes"]}, {"label": "no", "tags": []}]
    assert values(read_rows(named, ["label", "tags"])) == wanted
    with pytest.raises(TypeError, match="source has the splits train; give one of them"):
        read_rows(datasets.DatasetDict({"train": dataset}), ["label"])


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="reads Parquet")
    from pyarrow import parquet

    many = {"text": [f"t{i}" for i in range(2500)], "label": [[i, None] for i in range(2500)], "x": [0] * 2500}
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table(many), path, row_group_size=1000)
    rows = list(read_rows(path, ["label", "text"], optional=["id"]))
    assert [row["text"] for row in rows] == many["text"]
    assert rows[-1].values == {"label": [2499, None], "text": "t2499", "id": None}
    assert rows[-1].place == f"{path}: row 2500"
    with pytest.raises(ValueError, match=r"a\.parquet: there is no column 'b', only 'text', 'label', 'x'$"):
        list(read_rows(path, ["b"]))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"a\.parquet: not a Parquet file that pyarrow reads: "):
        list(read_rows(path, ["text"]))


@pytest.mark.parametrize("damage", ["text", "pages", "names"])
def test_damaged_parquet_is_named(tmp_path: Path, damage: str) -> None:
    """pyarrow raises OSError and UnicodeDecodeError, which name no file."""
    pyarrow = pytest.importorskip("pyarrow", reason="reads Parquet")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    compression = "snappy" if damage == "pages" else "none"
    parquet.write_table(pyarrow.table({"text": ["a cat" * 100], "b": [1]}), path, compression=compression)
    old, new = {"text": (b"a cat", b"\xff cat"), "pages": (b"a cat", b"\xff" * 5), "names": (b"text", b"\xfftex")}[
        damage
    ]
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    with pytest.raises(ValueError, match=r"^.*a\.parquet: "):
        list(read_rows(path, ["b"], optional=["text"]))


def test_a_disk_that_fails_under_parquet_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow", reason="reads Parquet")
    from pyarrow import parquet

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setattr(parquet, "ParquetFile", fails)
    with pytest.raises(OSError, match=r"Input/output error") as caught:
        list(read_rows(path, ["text"]))
    assert caught.value.filename == str(path)


def test_parquet_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match=r'^Parquet files need pyarrow: pip install "fastattn\[parquet\]"$'):
        list(read_rows(tmp_path / "a.parquet", ["a"]))


def test_pairs_of_sentences_with_a_score() -> None:
    data = Path(os.environ.get("FASTATTN_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = data / "stsb" / "stsb-en-dev.csv"
    if not path.exists():
        pytest.skip(f"the STS benchmark is missing: {path} (set FASTATTN_DATA)")
    rows = list(read_rows(path, ["a", "score"], names=["a", "b", "score"]))
    assert len(rows) == 1500
    assert all(0 <= row.number("score") <= 5 for row in rows)
