"""`fastattn train tag`, end to end, on a handful of sentences that a tiny model can learn."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

import helpers_train
from helpers_runs import log_of, weights
from helpers_train import SENTENCES, conllu, error_of, files_of
from safetensors.numpy import load_file

from fastattn.cli import main
from fastattn.tasks import Tagger, train
from fastattn.text import read_conllu
from fastattn.training import AdamW, average_states
from fastattn.training.run_state import averages, read_state, saved_states

command = partial(helpers_train.command, "tag")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return files_of("tag", tmp_path)


def test_it_learns(files, capsys):
    assert main(command(files, "--epochs", "12", "--progress")) == 0
    captured = capsys.readouterr()
    assert "epoch 12, step 96: accuracy 1.0000" in captured.out
    assert captured.out.endswith(f"model: {files['--output']}\n")
    assert "96/96" in captured.err
    folder = Path(files["--output"])
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "config.json", "log.jsonl", "model.safetensors", "states", "tagger.json", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    tagger = Tagger.from_pretrained(folder)
    assert tagger.labels == ("DET", "NOUN", "PUNCT", "VERB")
    assert tagger.tag([["the", "cat", "sat", "."]]) == [["DET", "NOUN", "VERB", "PUNCT"]]
    assert log_of(str(folder))[-1]["metrics"] == {"accuracy": 1.0}


def test_options_reach_the_trainer(files):
    more = ["--accumulation", "2", "--max-norm", "0.1", "--warmup", "0.5", "--weight-decay", "0.1"]
    assert main(command(files, "--epochs", "2", "--batch-tokens", "9", "--save-every", "2", "--keep", "3", *more)) == 0
    steps = [record for record in log_of(files["--output"]) if "metrics" not in record]
    assert all(record["tokens"] <= 2 * 9 for record in steps)
    assert len(saved_states(Path(files["--output"], "states"))) >= 3
    rates = [record["learning_rate"] for record in steps]
    assert rates.index(max(rates)) == len(rates) // 2


def test_another_tokenizer_is_refused(files, capsys):
    assert main(command(files, "--epochs", "1")) == 0
    capsys.readouterr()
    words = Path(files["--model"], "vocab.txt")
    lines = words.read_text(encoding="utf-8").splitlines()
    the, cat = lines.index("the"), lines.index("cat")
    lines[the], lines[cat] = lines[cat], lines[the]
    words.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    assert "batches.ids_crc32 is" in error_of(command(files, "--epochs", "1", "--resume"), capsys)


def test_other_data_is_refused(files, capsys):
    assert main(command(files, "--epochs", "1")) == 0
    capsys.readouterr()
    other = Path(files["--train"]).with_name("other.conllu")
    other.write_text(conllu(SENTENCES * 4).replace("PUNCT", "NOUN", 1), encoding="utf-8")
    assert "train_crc32 is" in error_of(command(files, "--epochs", "1", "--resume", train=str(other)), capsys)


def test_a_malformed_line_is_named(files, capsys):
    path = Path(files["--train"])
    path.write_text(conllu(["the cat"]) + "1\tthe\n", encoding="utf-8")
    assert error_of(command(files), capsys) == f"{path}:5: a row must have 10 columns with tabs between them, got 2"
    assert not Path(files["--output"]).exists()


def test_files_without_tags(files, capsys):
    for name in ("--train", "--eval"):
        path = Path(files[name])
        before = path.read_text(encoding="utf-8")
        path.write_text(conllu(["the cat"], tags={}), encoding="utf-8")
        assert error_of(command(files), capsys) == f"{path}: no word has a tag in the UPOS column"
        path.write_text(before, encoding="utf-8")


def test_a_full_disk(files, capsys, monkeypatch):
    from fastattn.training import run_state

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(run_state, "_pieces", full)
        text = error_of(command(files, "--epochs", "1"), capsys)
    assert text.endswith("No space left on device; the state of step 8 was not saved, earlier ones are as they were")
    assert list(Path(files["--output"], "states").iterdir()) == []
    assert main(command(files, "--epochs", "1", "--resume")) == 0


@pytest.mark.parametrize("epochs", ["1", "3"])
def test_weights_that_are_no_numbers_are_no_model(files, capsys, epochs):
    arguments = [*command(files, "--epochs", epochs), "--learning-rate", "1e30", "--warmup", "0"]
    text = error_of(arguments, capsys)
    assert re.search(
        r"NaN or infinite after step \d|^step \d, epoch \d, batch \d of the epoch: the loss is (nan|inf)", text
    )
    assert not Path(files["--output"], "model.safetensors").exists()
    for _, path in saved_states(Path(files["--output"], "states")):
        assert all(np.isfinite(array).all() for array in load_file(path).values())


def test_the_last_update_of_a_run_counts_too(files, capsys, monkeypatch):
    step = AdamW.step

    def overflow(self):
        if self.state[0] and self.state[0]["step"] == 7:
            self.param_groups[0]["lr"] = 1e39
        step(self)

    monkeypatch.setattr(AdamW, "step", overflow)
    text = error_of(command(files, "--epochs", "1", "--save-every", "3"), capsys)
    assert text.startswith("NaN or infinite after step 8: model.")
    assert text.endswith("step-00000006.safetensors")
    assert not Path(files["--output"], "model.safetensors").exists()


def test_the_data_are_read_as_written(files):
    assert len(read_conllu(files["--train"])) == len(SENTENCES) * 4


def test_python_does_the_same(files, tmp_path):
    assert main(command(files, "--epochs", "2", "--seed", "5", "--batch-tokens", "20")) == 0
    data, gold = Tagger.read(files["--train"]), Tagger.read(files["--eval"])
    options = {"epochs": 2, "batch_size": 4, "batch_tokens": 20, "learning_rate": 0.01, "seed": 5, "plot": False}
    tagger = Tagger.for_training(files["--model"], data, **options)
    trainer = train(tagger, data, tmp_path / "python", evaluate_on=gold)
    assert weights(tmp_path / "python") == weights(files["--output"])
    assert log_of(tmp_path / "python") == log_of(files["--output"])
    assert trainer.evaluations[-1]["metrics"] == tagger.evaluate(gold)


@pytest.mark.parametrize("more", [["--average", "2"], ["--ema", "0.5"]])
def test_an_average_is_kept(files, tmp_path, more):
    assert main(command(files, "--epochs", "2", *more)) == 0
    if more[0] == "--average":
        kept = average_states(files["--output"], 2)
    else:
        kept = averages(read_state(saved_states(Path(files["--output"], "states"))[0][1])[0])
    assert {name: array.tobytes() for name, array in kept.items()} == weights(files["--output"])


def test_entities_are_learnt_and_scored(files, tmp_path, capsys):
    tags = {"cat": "B-X", "query": "B-X", "sat": "I-X"}
    text = "".join("".join(f"{word} {tags.get(word, 'O')}\n" for word in each.split()) + "\n" for each in SENTENCES * 4)
    path = tmp_path / "train.txt"
    path.write_text(text, encoding="utf-8")
    both = {"train": str(path), "eval": str(path)}
    more = ["--format", "conll", "--scheme", "BIOES"]
    assert main(command(files, "--epochs", "8", "--patience", "3", *more, **both)) == 0
    assert "f1 1.0000, precision 1.0000, recall 1.0000, accuracy 1.0000" in capsys.readouterr().out
    tagger = Tagger.from_pretrained(files["--output"])
    assert tagger.tag([["the", "cat", "sat"], ["query", "."]]) == [["O", "B-X", "E-X"], ["S-X", "O"]]
    assert [each["word"] for each in tagger.entities(["the cat sat ."])[0]] == ["cat sat"]
    other = tmp_path / "other.txt"
    other.write_text("the O\ncat NOUN\n", encoding="utf-8")
    both |= {"eval": str(other), "output": str(tmp_path / "other")}
    error = error_of(command(files, *more, **both), capsys)
    assert error.startswith(f"{other}:2: the tag 'NOUN' is none of B-X, E-X, O, S-X")
