"""Rates by layer, gradual unfreezing and the slanted triangular schedule: options of every task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_cases import TRAINED
from helpers_runs import log_of
from helpers_train import command, error_of, files_of
from tiny_run import Run, TinyModel

from fastattn.cli import main
from fastattn.errors import OptionError
from fastattn.tasks import ClassifyRecipe
from fastattn.training import OtherRunError, trainer

OPTIONS = ["--layer-decay", "0.5", "--gradual-unfreezing", "--schedule", "slanted-triangular", "--epochs", "2"]


@pytest.mark.parametrize("task", TRAINED)
def test_every_task(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[list[bool]] = []
    rates: list[list[float]] = []
    step = trainer.Trainer._train_step

    def watched(self: Any, *arguments: Any) -> Any:
        groups = self.optimizer.param_groups
        rates.append([group["lr"] for group in groups])
        found = step(self, *arguments)
        trained.append([all(p.requires_grad for p in group["params"]) for group in groups])
        return found

    monkeypatch.setattr(trainer.Trainer, "_train_step", watched)
    files = files_of(task, tmp_path)
    flags = [*OPTIONS, *(["--warmup", "3"] if task == "translate" else ["--warmup", "0.2"])]
    assert main(command(task, files, *flags)) == 0
    first, last = trained[0], trained[-1]
    assert first == sorted(first, reverse=True)
    assert 0 < sum(first) < sum(last) < len(last) or sum(last) == len(last) > sum(first)
    shares = [row[0] / max(row) for row in rates]
    assert shares == [1.0] * len(rates)  # the highest layer is first
    for row in rates:
        assert {round(float(np.log2(row[0] / rate)), 6) for rate in row} == {*map(float, range(len({*row})))}
    records = [record for record in log_of(files["--output"]) if "loss" in record]
    logged = [record["learning_rate"] for record in records]
    assert logged == [row[0] for row in rates]
    if task != "language-model":  # whose rates follow the lengths of steps
        peak = max(logged)
        assert logged[0] == pytest.approx(peak / 32)
        assert 1 / 32 < logged[-1] / peak < 0.5


def layered(model: TinyModel) -> list[list[Any]]:
    return [[model.scale], [model.shift]]


def test_one_layer_more_in_each_epoch(tmp_path: Path) -> None:
    model = TinyModel()
    seen = []

    def loss(batch: Any) -> Any:
        seen.append((run.trainer.epoch, model.scale.requires_grad, model.shift.requires_grad))
        return model(**batch).loss

    run = Run(tmp_path / "run", model=model, layers=layered(model), loss=loss)
    before = model.scale.data.copy()
    run.trainer.train()
    assert {*seen} == {(0, False, True), (1, True, True), (2, True, True)}
    assert model.scale.requires_grad
    assert not np.array_equal(before, model.scale.data)
    assert run.optimizer.state[0]["step"] < run.optimizer.state[1]["step"]  # none in the first epoch


@pytest.mark.parametrize("done", [3, 9, 12])
def test_a_stopped_run_goes_on(tmp_path: Path, done: int) -> None:
    """Within the first epoch, and in later ones."""
    model = TinyModel()
    whole = Run(tmp_path / "whole", model=model, layers=layered(model))
    whole.trainer.train()

    model = TinyModel()
    first = Run(tmp_path / "parts", model=model, layers=layered(model), save_every=1)
    step = first.trainer._train_step

    def stopping(*arguments: Any) -> Any:
        if first.trainer.step == done:
            raise KeyError
        return step(*arguments)

    first.trainer._train_step = stopping  # type: ignore[method-assign]
    with pytest.raises(KeyError):
        first.trainer.train()
    assert model.scale.requires_grad

    model = TinyModel()
    second = Run(tmp_path / "parts", model=model, layers=layered(model))
    assert second.trainer.resume()
    second.trainer.train()
    assert second.bits() == whole.bits()
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")


def test_another_run_is_refused(tmp_path: Path) -> None:
    model = TinyModel()
    Run(tmp_path, model=model, layers=layered(model)).trainer.train()
    with pytest.raises(OtherRunError, match=r"unfrozen is \[1, 1\] there, null here"):
        Run(tmp_path).trainer.resume()


def test_options_of_a_run_that_goes_on(tmp_path: Path, capsys: Any) -> None:
    files = files_of("classify", tmp_path)
    assert main(command("classify", files, *OPTIONS)) == 0
    for flags, message in (
        (["--layer-decay", "0.25"], "--layer-decay is 0.25, but was 0.5 when"),
        (["--schedule", "cosine"], "--schedule is cosine, but was slanted-triangular when"),
    ):
        assert error_of(command("classify", files, *OPTIONS, *flags, "--resume"), capsys).startswith(message)
    some = [flag for flag in OPTIONS if flag != "--gradual-unfreezing"]
    message = "--gradual-unfreezing is no, but was yes when"
    assert error_of(command("classify", files, *some, "--resume"), capsys).startswith(message)


def test_a_model_without_layers() -> None:
    with pytest.raises(OptionError, match=r"^layer_decay needs a model with layers, got TinyModel"):
        ClassifyRecipe(layer_decay=0.5).make_optimizer(TinyModel())
    with pytest.raises(OptionError, match=r"^gradual_unfreezing needs a model with layers, got TinyModel"):
        ClassifyRecipe(gradual_unfreezing=True).unfrozen_layers(TinyModel())


@pytest.mark.parametrize("decay", [0, -0.5, 1.5, "x"])
def test_bad_rates(decay: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"ClassifyRecipe: layer_decay must be a number in \(0, 1\], got"):
        ClassifyRecipe(layer_decay=decay)


def test_a_warmup_beyond_the_run(tmp_path: Path, capsys: Any) -> None:
    files = files_of("translate", tmp_path)
    message = error_of(command("translate", files, "--schedule", "linear", "--epochs", "1"), capsys)
    assert message.startswith("--warmup is 40, but the run has only ")
