"""`fastattn convert`: what it prints, and its exit statuses."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers_bundles import google_variables, training_of, write_google
from helpers_checkpoints import write_torch
from helpers_foreign import ForeignModel, write_ctranslate2, write_marian
from helpers_heads import SIZES
from helpers_marian import MarianFolder
from safetensors.numpy import load_file

from fastattn import models
from fastattn.cli import main
from fastattn.models import BertConfig, BertModel


def model() -> Any:
    return models.BertForMaskedLM(BertConfig(**SIZES))


def google(folder: Path) -> Path:
    from helpers_bundles import SIZES as GOOGLE

    variables = google_variables(models.BertForMaskedLM(BertConfig(**GOOGLE)).state_dict())
    return write_google(folder, {**variables, **training_of(variables)})


def test_a_checkpoint_of_tensorflow(tmp_path: Path, capsys: Any) -> None:
    folder, new = google(tmp_path / "google"), tmp_path / "new"
    assert main(["convert", str(folder), str(new), "--no-do-lower-case", "--no-progress"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"source: {folder}/bert_model.ckpt.index"
    assert lines[1].startswith("skipped: bert/embeddings/LayerNorm/beta/adam_m, ")
    assert lines[1].endswith(" more")
    assert lines[2:] == ["tokenizer: do_lower_case is false", f"model: {new} (186 tensors, BertForMaskedLM)"]


def test_a_checkpoint_without_a_tokenizer(tmp_path: Path, capsys: Any) -> None:
    folder, new = google(tmp_path / "google"), tmp_path / "new"
    (folder / "vocab.txt").unlink()
    assert main(["convert", str(folder), str(new), "--no-progress"]) == 0
    told = f"tokenizer: none, {folder} has no vocab.txt; put one into {new} to use the model"
    assert told in capsys.readouterr().out.splitlines()
    assert not models.convert_checkpoint(folder, tmp_path / "other").tokenizer


def test_a_file_of_torch(tmp_path: Path, capsys: Any) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    model().save_pretrained(old)
    tensors = {name: tensor.copy() for name, tensor in model().state_dict().items()}
    (old / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"pytorch_model\.bin is not read: run `fastattn convert` first"):
        BertModel.from_pretrained(write_torch(old / "pytorch_model.bin", tensors).parent)
    assert main(["convert", str(old), str(new)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"source: {old}",
        f"tokenizer: none, {old} has no vocab.txt; put one into {new} to use the model",
        f"model: {new} ({len(tensors)} tensors, BertForMaskedLM)",
    ]
    assert main(["convert", str(old), str(new)]) == 1
    assert "exists; give another name, or overwrite it with --overwrite" in capsys.readouterr().err
    assert main(["convert", str(old), str(new), "--overwrite"]) == 0
    assert main(["convert", str(new), str(tmp_path / "newer")]) == 1
    assert "the weights are safetensors already" in capsys.readouterr().err


def test_a_translation_model_of_torch(tmp_path: Path, capsys: Any) -> None:
    old, new = MarianFolder(tmp_path / "old").write(), tmp_path / "new"
    write_torch(old / "pytorch_model.bin", load_file(old / "model.safetensors"))
    (old / "model.safetensors").unlink()
    assert main(["convert", str(old), str(new)]) == 0
    told = f"tokenizer: none, {old} has no source.spm and target.spm; put them into {new} to use the model"
    assert capsys.readouterr().out.splitlines()[1] == told


@pytest.mark.parametrize(("write", "name"), [(write_marian, "model.npz"), (write_ctranslate2, "model.bin")])
def test_a_translation_model_of_another_program(tmp_path: Path, capsys: Any, write: Any, name: str) -> None:
    old, new = write(tmp_path / "old", ForeignModel()), tmp_path / "new"
    assert main(["convert", str(old), str(new), "--no-progress"]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = f"tokenizer: none, {old} has no source.spm and target.spm; put them into {new} to use the model"
    assert [lines[0], *lines[-2:]] == [f"source: {old / name}", told, f"model: {new} (86 tensors, Transformer)"]
    assert main(["convert", str(old / name), str(new), "--overwrite", "--do-lower-case"]) == 1
    assert "do_lower_case is for a checkpoint of TensorFlow" in capsys.readouterr().err
    assert main(["convert", str(old / name), str(new), "--overwrite"]) == 0
    (old / name).write_bytes(b"no model")
    assert main(["convert", str(old), str(tmp_path / "newer")]) == 1
    assert capsys.readouterr().err.startswith(f"fastattn convert: error: {old / name}: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


class Bad:
    def __reduce__(self) -> Any:
        return print, ("executed",)


def test_code_is_refused(tmp_path: Path, capsys: Any) -> None:
    model().save_pretrained(tmp_path / "old")
    (tmp_path / "old" / "model.safetensors").unlink()
    (tmp_path / "old" / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Bad()}))
    assert main(["convert", str(tmp_path / "old"), str(tmp_path / "new")]) == 1
    assert capsys.readouterr() == (
        "",
        f"fastattn convert: error: {tmp_path}/old/pytorch_model.bin: refused: the file calls builtins.print\n",
    )
    assert not (tmp_path / "new").exists()


KILLED = """
import os, sys
from fastattn.models import convert
convert._load = lambda *_: os._exit(9)
from fastattn.cli import main
main(["convert", *sys.argv[1:]])
"""


def test_a_killed_conversion_leaves_no_folder(tmp_path: Path) -> None:
    folder, new = google(tmp_path / "google"), tmp_path / "new"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(new)], timeout=300)
    assert killed.returncode == 9
    (left,) = {path.name for path in tmp_path.iterdir()} - {"google"}
    assert left.startswith(".new.")
    assert main(["convert", str(folder), str(new)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"google", "new"}
