"""`fastattn train`: what all tasks share. What is learnt, and each task's own options, are in test_train_TASK.py."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

import helpers_train
from helpers_cases import TRAINED
from helpers_runs import interrupt, kill_at, log_of, weights
from helpers_train import ENDING, OTHER_TEXT, error_of, files_of, write

from fastattn import tasks
from fastattn.cli import INTERRUPTED, main
from fastattn.text import PretrainingBatches, StreamBatches
from fastattn.training import TokenBatches
from fastattn.training.run_lock import locked
from fastattn.training.run_state import read_state, saved_states

ONE_EPOCH, TWO_EPOCHS = ("--epochs", "1"), ("--epochs", "2")


def repeated(text: str) -> str:
    """A file with its rows 40 times, under the names of its columns if it has them."""
    head, _, rows = text.partition("\n")
    return head + "\n" + rows * 40 if head.endswith(("label", "score")) else text * 40


@pytest.fixture(params=TRAINED)
def task(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def files(task: str, tmp_path: Path) -> dict[str, str]:
    return files_of(task, tmp_path)


@pytest.fixture
def command(task: str) -> Any:
    return partial(helpers_train.command, task)


def recipe_of(task: str) -> Any:
    return getattr(tasks, tasks.TASKS[task][1])()


def states(folder: str | Path) -> list[tuple[int, Path]]:
    return saved_states(Path(folder, "states"))


def test_without_an_evaluation(files, command, capsys):
    assert main(command(files, *ONE_EPOCH, eval=None)) == 0
    assert capsys.readouterr().out == f"model: {files['--output']}\n"


def test_lines_where_there_is_no_terminal(task, files, command, capsys):
    assert main(command(files, *TWO_EPOCHS)) == 0
    log, errors = log_of(files["--output"]), capsys.readouterr().err.splitlines()
    lines = [line for line in errors if line.startswith("step ")]
    evaluations = [record for record in log if "metrics" in record]
    metric = recipe_of(task).metric or next(iter(evaluations[0]["metrics"]))
    evaluated = [record["step"] for record in evaluations]
    assert len(evaluated) == 2
    total = evaluated[-1]
    assert lines[0].startswith("step 1 of ")
    for step in evaluated:
        assert any(re.match(rf"step {step} of {total}: loss .*{metric} -?\d", line) for line in lines)
    files["--output"] += "2"
    assert main(command(files, *TWO_EPOCHS, "--no-progress")) == 0
    assert "step " not in capsys.readouterr().err


def test_no_epoch_is_built_before_it_is_trained(files, command, monkeypatch):
    built = []
    for kind in (TokenBatches, StreamBatches, PretrainingBatches):
        monkeypatch.setattr(
            kind, "epoch", lambda self, number, epoch=kind.epoch: built.append(number) or epoch(self, number)
        )
    monkeypatch.setattr("fastattn.training.trainer.clip_grad_norm", interrupted)
    assert main(command(files, "--epochs", "100000")) == INTERRUPTED
    assert built == [0]


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_output_of_a_program_is_left_to_it(task, files, command, monkeypatch, tmp_path):
    """It may have put a file of its own in the place of standard output."""
    if task != "tag":
        pytest.skip("the same for all tasks")
    monkeypatch.setattr("fastattn.training.trainer.clip_grad_norm", interrupted)
    with open(tmp_path / "own", "w") as own, contextlib.redirect_stdout(own):
        assert main(command(files)) == INTERRUPTED
        print("kept")
    assert (tmp_path / "own").read_text() == "kept\n"


def test_a_plot(files, command):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    assert main([argument for argument in command(files, *ONE_EPOCH) if argument != "--no-plot"]) == 0
    assert Path(files["--output"], "loss.svg").read_bytes().startswith(b"<?xml")


def test_same_seed_same_bits(files, command, threads, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(command(files, *TWO_EPOCHS, seed=seed, output=str(tmp_path / name))) == 0
    first, second, other = (weights(tmp_path / name) for name in "abc")
    assert first == second
    assert first != other
    assert main(command(files, *TWO_EPOCHS, "--threads", "1", seed="1", output=str(tmp_path / "one"))) == 0
    assert weights(tmp_path / "one") == first
    assert log_of(tmp_path / "one") == log_of(tmp_path / "a")


def test_the_model_card(task, files, command, tmp_path):
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    more = ("--average", "2") if task == "translate" else ()
    assert main(command(files, *TWO_EPOCHS, *more)) == 0
    text = Path(files["--output"], "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---\n")[1])
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"]["name"] == Path(files["--eval"]).name
    measured = {each["type"]: each["value"] for each in result["metrics"]}
    entries = [record for record in log_of(files["--output"]) if "metrics" in record]
    if more:  # the mean of two epochs has scores of its own
        assert set(measured) == set(entries[-1]["metrics"])
        assert measured not in [entry["metrics"] for entry in entries]
        assert "Its weights are the mean of those at the ends of the last 2 epochs." in text
    else:
        assert measured == entries[-1]["metrics"]
    assert all(f"| {entry['epoch']} | {entry['step']} | " in text for entry in entries)
    assert f"| train | {Path(files.get('train') or files['--train']).name} | " in text
    assert str(tmp_path) not in text
    assert head.get("base_model") == ("model" if "--model" in files else None)


def test_a_finished_run_may_be_resumed(files, command, capsys):
    assert main(command(files, *TWO_EPOCHS)) == 0
    before = weights(files["--output"])
    capsys.readouterr()
    assert main(command(files, *TWO_EPOCHS, "--resume")) == 0
    assert weights(files["--output"]) == before
    assert f"continuing after step {states(files['--output'])[0][0]}" in capsys.readouterr().err


def test_a_run_that_goes_on_without_eval_says_so(task, files, command, capsys):
    run = partial(command, files, "--save-every", "1")
    assert main(run(*ONE_EPOCH)) == 0
    step = states(files["--output"])[0][0]
    capsys.readouterr()
    assert main(run(*TWO_EPOCHS, "--resume", eval=None)) == 0
    errors = capsys.readouterr().err
    told = "nothing is measured from here on: no data to evaluate on; the last evaluation was after step"
    assert f"{told} {step}\n" in errors
    lines = [line for line in errors.splitlines() if "eval " in line]
    assert all(f", after step {step}: eval " in line for line in lines)


def test_other_epochs(task, files, command, capsys):
    """A run of one epoch goes on to three, killed on the way or not, and not back to two."""
    run = partial(command, files, "--save-every", "1")
    run_whole = partial(run, output=files["--output"] + "-whole")
    for made in (run, run_whole):
        assert main(made(*ONE_EPOCH)) == 0
    assert main(run_whole("--epochs", "3", "--resume")) == 0
    step = states(files["--output"])[0][0]
    errors = capsys.readouterr().err.splitlines()
    assert f"3 epochs now, in place of 1: the learning rate is that of 3 epochs from step {step + 1} on" in errors
    kill_at(run("--epochs", "3", "--resume"), files["--output"], step + 2)
    assert main(run("--epochs", "3", "--resume")) == 0
    assert weights(files["--output"]) == weights(files["--output"] + "-whole")
    assert log_of(files["--output"]) == log_of(files["--output"] + "-whole")
    text = error_of(run(*TWO_EPOCHS, "--resume"), capsys)
    assert text.endswith("safetensors: the run has begun epoch 3; epochs must be at least 3, got 2")


@pytest.mark.parametrize("more", [(), ("--ema", "0.9")])
def test_patience_keeps_the_best_model(task, files, command, monkeypatch, more):
    kind, recipe = getattr(tasks, tasks.TASKS[task][0]), recipe_of(task)
    values = [0.5, 0.9, 0.7, 0.8, 0.95] if recipe.higher_is_better else [9.0, 5.0, 7.0, 6.0, 3.0]
    seen: list[dict[str, bytes]] = []
    measure = kind.evaluate

    def evaluate(task: Any, data: Any) -> dict[str, float]:
        """The metric that compares models, which gets better and worse, among others that do not change."""
        seen.append({name: array.tobytes() for name, array in task.model.state_dict().items()})
        names = [*measure(task, data)]
        return {**dict.fromkeys(names, 1.0), recipe.metric or names[0]: values[len(seen) - 1]}

    monkeypatch.setattr(kind, "evaluate", evaluate)
    assert main(command(files, "--epochs", "5", "--patience", "2", *more)) == 0
    assert len(seen) == 4
    assert sorted(weights(files["--output"]).values()) == sorted(seen[1].values())  # an encoder has other names


def test_ctrl_c_leaves_a_run_that_goes_on(task, files, command):
    status, output, errors = interrupt(command(files, "--epochs", "4000", eval=None), files["--output"])
    assert status == INTERRUPTED
    assert (output, errors.splitlines()[-1]) == (b"", b"fastattn: interrupted")
    (step, path), *_ = states(files["--output"])
    assert step == len(log_of(files["--output"]))
    shapes = {"bilm": (2, 4, 16), "language-model": (1, 4, 12)}
    if task in shapes:
        carried = {name: array for name, array in read_state(path)[0].items() if name.startswith("carried.")}
        assert sorted(carried) == [f"carried.{layer}.{name}" for layer in (0, 1) for name in "ch"]
        assert carried["carried.0.c"].shape == shapes[task]
        assert carried["carried.0.h"].any()


def test_an_old_run_is_not_overwritten(files, command, capsys):
    assert main(command(files, *ONE_EPOCH)) == 0
    before = weights(files["--output"])
    files["train" if "train" in files else "--train"] = "missing"  # nothing is read before
    message = error_of(command(files, *ONE_EPOCH), capsys)
    assert "out: holds a run, saved after step " in message
    assert message.endswith("; --resume continues it, or choose another --output")
    assert weights(files["--output"]) == before


def test_a_folder_in_which_another_process_trains(task, files, command, capsys, monkeypatch):
    kind, saved = getattr(tasks, tasks.TASKS[task][0]), []
    save = kind.save_pretrained

    def save_locked(task: Any, folder: Any) -> None:
        with pytest.raises(ValueError, match="is training here"), locked(Path(folder)):
            raise AssertionError("must not be reached")
        saved.append(folder)
        save(task, folder)

    monkeypatch.setattr(kind, "save_pretrained", save_locked)
    assert main(command(files, *ONE_EPOCH)) == 0
    assert saved == [files["--output"]]
    files["train" if "train" in files else "--train"] = "missing"  # nothing is read before
    with locked(Path(files["--output"])):
        message = error_of(command(files, *ONE_EPOCH, "--resume"), capsys)
    assert f"{files['--output']}: process {os.getpid()} is training here; wait until it ends, or" in message


def test_a_model_of_somebody_is_not_overwritten(files, command, capsys):
    assert main(command(files, *ONE_EPOCH)) == 0
    folder = Path(files["--output"])
    shutil.rmtree(folder / "states")
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    files["train" if "train" in files else "--train"] = "missing"
    for more in ([], ["--resume"]):
        text = error_of(command(files, *more), capsys)
        assert text == f"{folder}: holds a model (config.json), but no states of a run; choose another folder"
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    assert error_of(command(files, output=files["--eval"]), capsys) == f"{files['--eval']}: Not a directory"


def test_what_patience_rests_on_is_compared(task, files, command, capsys, tmp_path):
    more = [*TWO_EPOCHS, "--patience", "2"]
    assert main(command(files, *more)) == 0
    assert "--patience is the default, but was 2" in error_of(command(files, *TWO_EPOCHS, "--resume"), capsys)
    text = error_of(command(files, *more, "--resume", "--evaluate-every", "2"), capsys)
    assert text.startswith("--evaluate-every is 2, but was the default when the run began; ")
    other = write(tmp_path / f"other.{ENDING.get(task, 'tsv')}", OTHER_TEXT[task])
    assert "eval_crc32 is" in error_of(command(files, *more, "--resume", eval=other), capsys)
    run = partial(command, files, *ONE_EPOCH, output=files["--output"] + "2")
    assert main(run()) == 0
    assert main(run("--resume", eval=other)) == 0  # without patience, --eval does not shape the model


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("classify", ["--max-length", "5"], "--max-length is 5, but was the default"),
        ("classify", ["--labels", "letters", "text", "animal"], "--labels is letters text animal, but was the def"),
        ("classify", ["--multi-label"], "--multi-label is yes, but was no"),
        ("regress", ["--batch-size", "5"], "--batch-size is 5, but was 4"),
        ("rerank", ["--weight-decay", "0"], "--weight-decay is 0.0, but was 0.01"),
        ("embed", ["--batch-size", "5"], "--batch-size is 5, but was 4"),
        ("embed", ["--scale", "5"], "--scale is 5.0, but was the default"),
        ("embed", ["--matryoshka", "4"], "--matryoshka is 4, but was the default"),
        ("tag", ["--seed", "5"], "--seed is 5, but was 0"),
        ("tag", ["--weight-decay", "0"], "--weight-decay is 0.0, but was 0.01"),
        ("tag", ["--learning-rate", "0.1"], "--learning-rate is 0.1, but was 0.01"),
        ("tag", ["--batch-tokens", "9", "--keep", "2"], "--batch-tokens is 9, but was the default"),
        ("answer", ["--doc-stride", "5"], "--doc-stride is 5, but was 4"),
        ("answer", ["--max-length", "17"], "--max-length is 17, but was 16"),
        ("bilm", ["--seed", "5"], "--seed is 5, but was 0"),
        ("bilm", ["--no-shuffle"], "--shuffle is no, but was yes"),
        ("bilm", ["--vocabulary-size", "9"], "--vocabulary-size is 9, but was the default"),
        ("bilm", ["--dropout", "0.2"], "--dropout is 0.2, but was 0.1"),
        ("bilm", ["--num-sampled", "3"], "--num-sampled is 3, but was the default"),
        ("bilm", ["--reset", "0"], "--reset is 0.0, but was 0.05"),
        ("pretrain", ["--seed", "5"], "--seed is 5, but was 0"),
        ("pretrain", ["--static-masks"], "--static-masks is yes, but was no"),
        ("pretrain", ["--dupe-factor", "2"], "--dupe-factor is 2, but was 1"),
        ("pretrain", ["--do-whole-word-mask"], "--do-whole-word-mask is yes, but was no"),
        ("pretrain", ["--masked-lm-prob", "0.2"], "--masked-lm-prob is 0.2, but was 0.15"),
        ("pretrain", ["--short-seq-prob", "0.2"], "--short-seq-prob is 0.2, but was 0.1"),
        ("pretrain", ["--max-predictions-per-seq", "2"], "--max-predictions-per-seq is 2, but was 3"),
        ("pretrain", ["--no-next-sentence"], "--next-sentence is no, but was yes"),
        ("pretrain", ["--vocab-size", "45"], "--vocab-size is 45, but was the default"),
        ("pretrain", ["--weight-decay", "0"], "--weight-decay is 0.0, but was 0.01"),
        ("translate", ["--seed", "5"], "--seed is 5, but was 0"),
        ("translate", ["--batch-tokens", "90"], "--batch-tokens is 90, but was 100"),
        ("translate", ["--max-tokens", "50"], "--max-tokens is 50, but was 4096"),
        ("translate", ["--warmup", "41"], "--warmup is 41, but was 40"),
        ("translate", ["--dropout", "0.2"], "--dropout is 0.2, but was 0.1"),
        ("translate", ["--label-smoothing", "0"], "--label-smoothing is 0.0, but was 0.1"),
        ("translate", ["--ema", "0.9"], "--ema is 0.9, but was the default"),
        ("translate", ["--max-length", "30"], "--max-length is 30, but was 512"),
        ("tag", ["--epochs", "2", "--warmup", "0.3"], "--warmup is 0.3, but was 0.1"),
        ("translate", ["--epochs", "2", "--average", "2"], "--average is 2, but was the default"),
        ("translate", ["--patience", "3"], "--patience is 3, but was the default"),
    ],
)
def test_another_configuration_is_refused(task, changes, message, tmp_path, capsys):
    files = files_of(task, tmp_path)
    assert main(helpers_train.command(task, files, *ONE_EPOCH)) == 0
    text = error_of(helpers_train.command(task, files, *ONE_EPOCH, "--resume", *changes), capsys)
    assert text.startswith(message)
    assert text.endswith(" when the run began; use the same value, or another --output")


def test_options_that_a_run_may_change(files, command):
    assert main(command(files, *TWO_EPOCHS)) == 0
    more = ("--keep", "3", "--save-every", "2", "--no-progress", "--evaluate-every", "3")
    assert main(command(files, *TWO_EPOCHS, "--resume", *more)) == 0


def test_other_data_are_refused(task, files, command, capsys, tmp_path):
    assert main(command(files, *ONE_EPOCH)) == 0
    files["train" if "train" in files else "--train"] = write(
        tmp_path / f"more.{ENDING.get(task, 'tsv')}", repeated(OTHER_TEXT[task])
    )
    text = error_of(command(files, *ONE_EPOCH, "--resume"), capsys)
    step = states(files["--output"])[0][0]
    assert f"step-{step:08d}.safetensors: of another model or configuration: " in text


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("bilm", b"", "text.txt: there are no words"),
        ("bilm", b" \n\n", "text.txt: there are no words"),
        ("bilm", b"a b\n", "4 streams need as many tokens, the text has 3"),
        ("bilm", b"fine\n\xff\n", "text.txt:2: not UTF-8: byte 0xff at 1"),
        ("pretrain", b"", "text.txt: there are no sentences"),
        ("pretrain", b" \n\n", "text.txt: there are no sentences"),
        (
            "pretrain",
            b"a b\nc d\n",
            "text.txt: next sentences need two documents or more, there is one; --no-next-sentence learns masked words",
        ),
        ("pretrain", b"fine\n\n\xff\n", "text.txt:3: not UTF-8: byte 0xff at 1"),
        ("translate", b"", "train.tsv: there are no pairs of texts"),
        ("translate", b"a\tb\nc\n", "train.tsv:2: a line must have 2 columns with a tab between them, got 1"),
        ("translate", b"a\tb\n\xff\tc\n", "train.tsv:2: not UTF-8: byte 0xff at 1"),
        ("translate", b"a\t" + b"b" * 600, "no pair of texts has at most 512 tokens on each side"),
    ],
)
def test_a_text_that_cannot_be_learnt(task, text, message, tmp_path, capsys):
    files = files_of(task, tmp_path)
    Path(files["train"]).write_bytes(text)
    assert error_of(helpers_train.command(task, files), capsys).endswith(message)
    assert not Path(files["--output"]).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "{classify,"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (
            ["tag", "--model", "m", "--train", "t"],
            "fastattn train tag: error: the following arguments are required: --out",
        ),
        (["tag", "--epochs", "0"], "must be a positive integer, got 0"),
        (["tag", "--learning-rate", "0"], "must be a number above 0, got 0.0"),
        (["tag", "--learning-rate", "x"], "got 'x'"),
        (["tag", "--warmup", "1.5"], "must be a number in [0, 1], got 1.5"),
        (["tag", "--seed", "-1"], "must be an integer from 0 to 2^64 - 1, got -1"),
        (["fill"], "invalid choice: 'fill'"),
        (["answer"], "required: --model, --train, --output"),
        (["answer", "--doc-stride", "0"], "must be a positive integer, got 0"),
        (["bilm"], "required: TRAIN, --output"),
        (["bilm", "text", "--output", "o", "--dropout", "2"], "must be a number in [0, 1], got 2.0"),
        (["bilm", "text", "--output", "o", "--max-norm", "0"], "must be a number above 0, got 0.0"),
        (["pretrain"], "required: TRAIN, --output"),
        (["pretrain", "text", "--output", "o", "--masked-lm-prob", "2"], "must be a number in [0, 1], got 2.0"),
        (["translate"], "required: FILE, --output"),
        (["translate", "text", "--output", "o", "--dropout", "1"], "--dropout: must be a number in [0, 1), got 1.0"),
        (["translate", "text", "--output", "o", "--ema", "1"], "--ema: must be a number in [0, 1), got 1.0"),
        (["translate", "text", "--output", "o", "--metrics", "ter"], "invalid choice: 'ter'"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_patience_needs_an_evaluation(files, command, capsys):
    for flag in ("--patience", "--evaluate-every"):
        assert error_of(command(files, flag, "1", eval=None), capsys) == f"{flag} needs --eval"


def test_help_has_every_default(task, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", task, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert re.search("Adam|SGD", text)
    assert "%(default)s" not in text
