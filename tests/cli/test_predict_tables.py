"""The tables that `fastattn predict` reads: the same kinds for every task, from files and from standard input."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import write_bert, write_model

from fastattn.cli import main
from fastattn.tasks import Answerer, Classifier, Regressor, Reranker

PAIRS = [{"query": "a", "document": "b", "label": 1}, {"query": "cat", "document": "the sat", "label": 0}]
QUESTIONS = [{"question": "the", "context": "the cat, a sat"}, {"question": "cat", "context": "cat b"}]
TRAINED = [{**QUESTIONS[0], "answers": {"text": ["cat"], "answer_start": [4]}}]
TASKS: dict[str, Any] = {"classify": Classifier, "regress": Regressor, "rerank": Reranker, "answer": Answerer}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tables")
    bert = write_bert(folder / "bert")
    for name, task in TASKS.items():
        rows = [{**row, "label": str(row["label"])} for row in PAIRS] if name == "classify" else PAIRS
        data = task.read(TRAINED if name == "answer" else rows)
        task.for_training(bert, data).save_pretrained(folder / name)
    return {"embed": write_model(folder / "embed"), **{name: folder / name for name in TASKS}}


def rows_of(task: str) -> list[dict[str, Any]]:
    if task == "embed":
        return [{"sentence1": row["query"], "sentence2": row["document"]} for row in PAIRS]
    return QUESTIONS if task == "answer" else [{"query": r["query"], "document": r["document"]} for r in PAIRS]


def content(rows: list[dict[str, Any]], kind: str) -> bytes:
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
        from pyarrow import parquet

        file = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        return file.getvalue()
    if kind == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    quoted = [[f'"{x}"' for x in line] if kind == "csv" else line for line in lines]
    return "".join({"csv": ",", "tsv": "\t"}[kind].join(line) + "\n" for line in quoted).encode()


@pytest.mark.parametrize("kind", ["tsv", "csv", "parquet"])
@pytest.mark.parametrize("task", ["embed", *TASKS])
def test_every_kind_of_table(task: str, kind: str, folders: Any, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    model = ["predict", task, "--model", str(folders[task])]
    path = tmp_path / f"input.{kind}"
    path.write_bytes(content(rows_of(task), kind))
    same = tmp_path / "input.jsonl"
    same.write_bytes(content(rows_of(task), "jsonl"))
    assert main([*model, str(same)]) == 0
    wanted = capsys.readouterr().out
    assert len(wanted.splitlines()) == 2 + (task in ("classify", "regress", "rerank"))
    assert main([*model, str(path)]) == 0
    assert capsys.readouterr().out == wanted
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert main([*model, "--format", kind]) == 0
    assert capsys.readouterr().out == wanted


@pytest.mark.parametrize("task", ["embed", *TASKS])
def test_what_is_no_parquet(task: str, folders: Any, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    path = tmp_path / "input.parquet"
    path.write_bytes(b"PAR1 and no more")
    assert main(["predict", task, "--model", str(folders[task]), str(path)]) == 1
    assert f"error: {path}: not a Parquet file that pyarrow reads" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "flag"),
    [("classify", "--columns"), ("regress", "--columns"), ("rerank", "--columns"), ("embed", "--texts")],
)
@pytest.mark.parametrize("verb", ["train", "predict"])
def test_missing_columns_are_told_with_those_that_are_there(
    task: str, flag: str, verb: str, folders: Any, tmp_path: Path, capsys: Any
) -> None:
    path = tmp_path / "input.tsv"
    path.write_text("first\tsecond\tlabel\tscore\na\tb\t1\t1\n", encoding="utf-8")
    arguments = [str(path)] if verb == "predict" else ["--train", str(path), "--output", str(tmp_path / "out")]
    assert main([verb, task, "--model", str(folders[task]), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"fastattn {verb} {task}: error: {path}:1: the columns must include ")
    told = f"{flag} names others"
    if (verb, task) == ("train", "embed"):
        told = "--texts and --score name others"
    assert error.endswith(f"got 'first', 'second', 'label', 'score'; {told}; --names, if line 1 is a row\n")
