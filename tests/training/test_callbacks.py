"""Callbacks: when they are called, how they stop a run, and that none changes or loses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_continued_runs import log_of, states
from tiny_run import Run

from fastattn.random import next_seed
from fastattn.training import TrainerCallback

EVENTS = ("on_train_begin", "on_step_end", "on_epoch_end", "on_evaluate", "on_save", "on_train_end")


class Noting(TrainerCallback):
    """Notes every event, and does to the run what it may survive."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def __getattribute__(self, name: str) -> Any:
        if name not in EVENTS:
            return super().__getattribute__(name)

        def note(trainer: Any, *values: Any) -> None:
            self.events.append((name, trainer.step))
            next_seed()
            trainer.model.eval()

        return note


class Stopping(TrainerCallback):
    """Stops after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer: Any, record: Any) -> None:
        if trainer.step == self.step:
            trainer.stop()


class Failing(TrainerCallback):
    """Fails at an event of a step."""

    def __init__(self, event: str, step: int) -> None:
        def fail(trainer: Any, *values: Any) -> None:
            if trainer.step == step:
                raise RuntimeError("no more")

        setattr(self, event, fail)


def make(folder: Path | None, *callbacks: TrainerCallback, **options: Any) -> Run:
    run = Run(folder, evaluate=lambda: run.metrics(), averages=True, carry=True, callbacks=callbacks, **options)
    return run


def whole(folder: Path) -> Run:
    run = make(folder)
    run.trainer.train()
    return run


def test_when_they_are_called_and_that_they_change_nothing(tmp_path: Path) -> None:
    noting = Noting()
    run = make(tmp_path / "noted", noting)
    run.trainer.train()
    ends = {8: 1, 16: 2, 23: 3}
    expected = [("on_train_begin", 0)]
    for step in range(1, 24):
        expected.append(("on_step_end", step))
        if step in ends:
            names = ("on_epoch_end", "on_save", "on_evaluate", "on_save")
            expected += [(name, step) for name in names]
    assert noting.events == [*expected, ("on_train_end", 23)]
    assert run.bits() == whole(tmp_path / "whole").bits()
    assert log_of(tmp_path / "noted") == log_of(tmp_path / "whole")


def test_what_they_are_given(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    class Looking(TrainerCallback):
        def on_step_end(self, trainer: Any, record: Any) -> None:
            seen[f"step {trainer.step}"] = record["step"], record["epoch"], record["loss"]

        def on_evaluate(self, trainer: Any, metrics: Any) -> None:
            seen["metrics"] = metrics, trainer.evaluations[-1]["metrics"]

        def on_save(self, trainer: Any, path: Path) -> None:
            seen["path"] = path

    make(tmp_path, Looking(), epochs=1).trainer.train()
    steps = [record for record in log_of(tmp_path) if "loss" in record]
    assert [seen[f"step {record['step']}"] for record in steps] == [
        (record["step"], 1, record["loss"]) for record in steps
    ]
    assert seen["metrics"][0] == seen["metrics"][1]
    assert seen["path"] == states(tmp_path)[0]


@pytest.mark.parametrize("step", [1, 8, 11, 23])
def test_a_run_that_is_stopped_goes_on(tmp_path: Path, step: int) -> None:
    noting = Noting()
    run = make(tmp_path / "parts", Stopping(step), noting)
    run.trainer.train()
    assert run.trainer.step == step
    assert run.trainer.finished == (step == 23)
    assert noting.events[-1] == ("on_train_end", step)
    again = make(tmp_path / "parts", Stopping(step))
    assert again.trainer.resume()
    again.trainer.train()
    assert again.bits() == whole(tmp_path / "whole").bits()
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")


def test_a_run_that_is_stopped_before_it_begins(tmp_path: Path) -> None:
    class Never(TrainerCallback):
        def on_train_begin(self, trainer: Any) -> None:
            trainer.stop()

    run = make(tmp_path, Never())
    run.trainer.train()
    assert run.trainer.step == 0
    assert states(tmp_path) == []


def test_without_a_folder_too() -> None:
    run = make(None, Stopping(3))
    run.trainer.train()
    assert run.trainer.step == 3
    run.trainer.train()
    assert run.trainer.finished


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("step", [8, 23])
def test_an_error_in_one_loses_nothing(tmp_path: Path, event: str, step: int) -> None:
    step = {"on_train_begin": 0, "on_train_end": 23}.get(event, step)
    run = make(tmp_path / "parts", Failing(event, step))
    with pytest.raises(RuntimeError, match="no more") as caught:
        run.trainer.train()
    path = tmp_path / "parts" / "states" / f"step-{step:08d}.safetensors"
    kept = f"; the state after step {step} is in {path}" if step else ""
    assert caught.value.__notes__ == [f"Failing.{event}, after step {step}{kept}"]  # type: ignore[attr-defined]
    again = make(tmp_path / "parts")
    assert again.trainer.resume() == (step > 0)
    assert again.trainer.step == step
    again.trainer.train()
    assert again.bits() == whole(tmp_path / "whole").bits()
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (Noting(), "callbacks must be a sequence of TrainerCallback, got Noting"),
        ([Noting(), print], r"callbacks\[1\] must be a TrainerCallback, got <built-in function print>"),
        ([Noting], r"callbacks\[0\] must be a TrainerCallback, got <class .*Noting'>"),
    ],
)
def test_what_is_no_callback(callbacks: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^Trainer: {message}"):
        Run(callbacks=callbacks)
