"""An empty file: training refuses it by name, in the same words everywhere; use of a model gives an empty output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_cases import TRAINED
from helpers_tasks import TRIALS
from helpers_train import command, error_of, files_of, write

from fastattn.cli import main


@pytest.mark.parametrize("task", TRAINED)
def test_an_empty_file(task: str, tmp_path: Path, capsys: Any) -> None:
    files = files_of(task, tmp_path)
    train = "train" if "train" in files else "--train"
    for flag in (train, "--eval"):
        for content in ("", "\n \n"):
            empty = write(tmp_path / f"empty{Path(files[flag]).suffix}", content)
            if task == "tag" and content:
                write(Path(empty), "\n\n")
            error = error_of(command(task, {**files, flag: empty}), capsys)
            assert error == f"{empty}: there are no {TRIALS[task].nothing}"
    assert main(command(task, files, "--epochs", "1")) == 0
    use = "fill" if task == "pretrain" else task
    for end in TRIALS[task].ends:
        empty, out = write(tmp_path / f"empty{end}", ""), tmp_path / "written"
        assert main(["predict", use, "--model", files["--output"], empty, "-o", str(out)]) == 0
        assert out.read_bytes() == b""


def test_no_rows_below_the_names_of_columns(tmp_path: Path, capsys: Any) -> None:
    files = files_of("regress", tmp_path)
    assert main(command("regress", files, "--epochs", "1")) == 0
    empty, out = write(tmp_path / "empty.csv", "text,label\n"), tmp_path / "written"
    assert main(["predict", "regress", "--model", files["--output"], empty, "-o", str(out)]) == 0
    assert out.read_bytes() == b""
    other = {**files, "--train": empty, "--output": str(tmp_path / "other")}
    assert error_of(command("regress", other), capsys) == f"{empty}: there are no rows"
    write(tmp_path / "empty.csv", "other,label\n")
    assert main(["predict", "regress", "--model", files["--output"], empty, "-o", str(out)]) == 1
