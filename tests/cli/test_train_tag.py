"""`fastattn train tag`, end to end, on a handful of sentences that a tiny model can learn."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_runs import interrupt, kill_at, log_of, weights
from helpers_sentences import write_bert
from safetensors.numpy import load_file

from fastattn.cli import INTERRUPTED, main
from fastattn.tasks import Tagger, train
from fastattn.text import read_conllu
from fastattn.training import AdamW, average_states
from fastattn.training.run_state import averages, read_state, saved_states

TAGS = {"the": "DET", "cat": "NOUN", "sat": "VERB", ".": "PUNCT", "query": "NOUN"}
SENTENCES = ["the cat sat .", "cat sat", "the query sat .", "the cat", "sat .", "query", "the the cat sat", ". cat"]


def conllu(sentences: list[str], tags: dict[str, str] | None = None) -> str:
    blocks = []
    for sentence in sentences:
        rows = [
            f"{i}\t{word}\t_\t{(TAGS if tags is None else tags).get(word, '_')}\t_\t_\t_\t_\t_\t_"
            for i, word in enumerate(sentence.split(), start=1)
        ]
        blocks.append("# text = " + sentence + "\n" + "\n".join(rows) + "\n\n")
    return "".join(blocks)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """What every call needs: a model without dropout's noise in its way, and two files."""
    model = write_bert(tmp_path / "model", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    train, gold = tmp_path / "train.conllu", tmp_path / "eval.conllu"
    train.write_text(conllu(SENTENCES * 4), encoding="utf-8")
    gold.write_text(conllu(["the cat sat .", "query sat"]), encoding="utf-8")
    return {"--model": str(model), "--train": str(train), "--eval": str(gold), "--output": str(tmp_path / "out")}


def command(files: dict[str, str], *more: str, **changes: str | None) -> list[str]:
    options = {**files, **{f"--{name.replace('_', '-')}": value for name, value in changes.items()}}
    given = [text for name, value in options.items() if value is not None for text in (name, value)]
    return ["train", "tag", *given, "--batch-size", "4", "--learning-rate", "0.01", "--no-plot", *more]


def test_it_learns(files, capsys):
    assert main(command(files, "--epochs", "12", "--progress")) == 0
    captured = capsys.readouterr()
    assert "epoch 12, step 96: accuracy 1.0000" in captured.out
    assert captured.out.endswith(f"model: {files['--output']}\n")
    assert "96/96" in captured.err
    folder = Path(files["--output"])
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "log.jsonl", "model.safetensors", "states", "tokenizer_config.json", "vocab.txt",
    }  # fmt: skip
    tagger = Tagger.from_pretrained(folder)
    assert tagger.labels == ("DET", "NOUN", "PUNCT", "VERB")
    assert tagger.tag([["the", "cat", "sat", "."]]) == [["DET", "NOUN", "VERB", "PUNCT"]]
    assert log_of(str(folder))[-1]["metrics"] == {"accuracy": 1.0}


def test_without_an_evaluation(files, capsys):
    assert main(command(files, "--epochs", "1", eval=None)) == 0
    assert capsys.readouterr().out == f"model: {files['--output']}\n"


def test_a_plot(files):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    assert main([argument for argument in command(files, "--epochs", "1") if argument != "--no-plot"]) == 0
    assert Path(files["--output"], "loss.svg").read_bytes().startswith(b"<?xml")


def test_same_seed_same_bits(files, threads, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(command(files, "--epochs", "2", seed=seed, output=str(tmp_path / name))) == 0
    first, second, other = (weights(str(tmp_path / name)) for name in "abc")
    assert first == second
    assert first != other
    assert main(command(files, "--epochs", "2", "--threads", "1", seed="1", output=str(tmp_path / "one"))) == 0
    assert weights(str(tmp_path / "one")) == first
    assert log_of(str(tmp_path / "one")) == log_of(str(tmp_path / "a"))


def test_options_reach_the_trainer(files):
    more = ["--accumulation", "2", "--max-norm", "0.1", "--warmup", "0.5", "--weight-decay", "0.1"]
    assert main(command(files, "--epochs", "2", "--batch-tokens", "9", "--save-every", "2", "--keep", "3", *more)) == 0
    steps = [record for record in log_of(files["--output"]) if "metrics" not in record]
    assert all(record["tokens"] <= 2 * 9 for record in steps)
    assert len(saved_states(Path(files["--output"], "states"))) >= 3
    rates = [record["learning_rate"] for record in steps]
    assert rates.index(max(rates)) == len(rates) // 2


def test_patience_keeps_the_best_model(files, monkeypatch):
    accuracies = iter([0.5, 0.9, 0.7, 0.8, 0.95])
    best: list[dict[str, bytes]] = []

    def evaluate(tagger, gold):
        best.append({name: array.tobytes() for name, array in tagger.model.state_dict().items()})
        return {"accuracy": next(accuracies)}

    monkeypatch.setattr(Tagger, "evaluate", evaluate)
    assert main(command(files, "--epochs", "5", "--patience", "2")) == 0
    assert len(best) == 4
    assert weights(files["--output"]) == best[1]


def test_a_killed_run_is_continued(files, tmp_path):
    whole = str(tmp_path / "whole")
    more = ["--epochs", "4", "--save-every", "1"]
    assert main(command(files, *more, output=whole)) == 0
    for target in (3, 11):
        kill_at(command(files, *more, "--resume"), files["--output"], target)
    assert main(command(files, *more, "--resume")) == 0
    assert weights(files["--output"]) == weights(whole)
    assert log_of(files["--output"]) == log_of(whole)


def test_ctrl_c_leaves_a_run_that_goes_on(files):
    status, output, errors = interrupt(command(files, "--epochs", "400"), files["--output"])
    assert status == INTERRUPTED
    assert (output, errors.strip()) == (b"", b"fastattn: interrupted")
    (step, _), *_ = saved_states(Path(files["--output"], "states"))
    assert step == len([record for record in log_of(files["--output"]) if "metrics" not in record])


def test_a_finished_run_may_be_resumed(files, capsys):
    assert main(command(files, "--epochs", "2")) == 0
    before = weights(files["--output"])
    assert main(command(files, "--epochs", "2", "--resume")) == 0
    assert weights(files["--output"]) == before
    assert "goes on after step 16" in capsys.readouterr().err


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 1
    text = capsys.readouterr().err
    assert text.startswith("fastattn train tag: error: ")
    return text.removeprefix("fastattn train tag: error: ").strip()


def test_an_old_run_is_not_overwritten(files, capsys):
    assert main(command(files, "--epochs", "1")) == 0
    capsys.readouterr()
    before = weights(files["--output"])
    files["--train"] = "missing"  # it is said before anything is read
    assert "states: holds states of a run; resume it, or choose another" in error_of(
        command(files, "--epochs", "1"), capsys
    )
    assert weights(files["--output"]) == before


def test_a_model_of_somebody_is_not_overwritten(files, capsys):
    folder = files["--model"]
    before = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    for more in ([], ["--resume"]):
        text = error_of(command(files, *more, output=folder), capsys)
        assert text == f"{folder}: holds a model (config.json), but no states of a run; choose another folder"
    assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == before


def test_what_patience_rests_on_is_compared(files, capsys):
    more = ["--epochs", "2", "--patience", "2"]
    assert main(command(files, *more)) == 0
    capsys.readouterr()
    assert "patience is {" in error_of(command(files, "--epochs", "2", "--resume"), capsys)
    Path(files["--eval"]).write_text(conllu(["the query"]), encoding="utf-8")
    assert "eval_crc32 is" in error_of(command(files, *more, "--resume"), capsys)


def test_another_tokenizer_is_refused(files, capsys):
    assert main(command(files, "--epochs", "1")) == 0
    capsys.readouterr()
    words = Path(files["--model"], "vocab.txt")
    lines = words.read_text(encoding="utf-8").splitlines()
    the, cat = lines.index("the"), lines.index("cat")
    lines[the], lines[cat] = lines[cat], lines[the]
    words.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    assert "batches.ids_crc32 is" in error_of(command(files, "--epochs", "1", "--resume"), capsys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--seed", "5"], "batches.seed is 0 there, 5 here"),
        (["--epochs", "2"], "schedule.num_training_steps is 8 there, 16 here"),
        (["--weight-decay", "0"], "param_groups is"),
    ],
)
def test_another_configuration_is_refused(files, capsys, changes, message):
    assert main(command(files, "--epochs", "1")) == 0
    capsys.readouterr()
    text = error_of(command(files, "--epochs", "1", "--resume", *changes), capsys)
    assert "step-00000008.safetensors: of another model or configuration: " in text
    assert message in text


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: TASK"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["tag", "--model", "m", "--train", "t"], "required: --output"),
        (["tag", "--epochs", "0"], "must be a positive integer, got 0"),
        (["tag", "--learning-rate", "0"], "must be a number above 0, got 0.0"),
        (["tag", "--learning-rate", "x"], "got 'x'"),
        (["tag", "--warmup", "1.5"], "must be a number in [0, 1], got 1.5"),
        (["tag", "--seed", "-1"], "must be an integer from 0 to 2^64 - 1, got -1"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_patience_needs_an_evaluation(files, capsys):
    assert error_of(command(files, "--patience", "1", eval=None), capsys) == "--patience needs --eval"


def test_help_has_every_default(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "tag", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "AdamW" in text
    assert "%(default)s" not in text


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
