"""Runs that an error ends: it says where it was, and the state from before it is saved."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_continued_runs import Stop, log_of, states
from tiny_run import Run

from fastattn.training import run_state
from fastattn.training.run_state import read_state


@pytest.mark.parametrize("error", [Stop, RuntimeError])
def test_a_run_that_dies_in_an_evaluation_is_continued_with_it(tmp_path: Path, error: type[BaseException]) -> None:
    def make(name: str, evaluate: Callable[[Run], Any]) -> Run:
        run = Run(tmp_path / name, keep=1, patience=9, evaluate=lambda: evaluate(run))
        return run

    def fail(run: Run) -> dict[str, float]:
        if run.trainer.step >= 16:
            raise error("no evaluation")
        return run.metrics()

    whole = make("whole", Run.metrics)
    whole.trainer.train()
    for step in (16, 16):  # it may die there again
        first = make("parts", fail)
        first.trainer.resume()
        with pytest.raises(error, match="no evaluation"):
            first.trainer.train()
        assert states(tmp_path / "parts")[0].name == f"step-{step:08d}.safetensors"
    second = make("parts", Run.metrics)
    assert second.trainer.resume()
    second.trainer.train()
    assert second.bits() == whole.bits()
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")
    ours, theirs = (read_state(states(tmp_path / name)[0])[1] for name in ("parts", "whole"))
    assert ours["evaluations"] == theirs["evaluations"]


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("step", [1, 2, 6])
def test_an_error_in_a_step_says_where_and_loses_nothing(tmp_path: Path, accumulation: int, step: int) -> None:
    def make(**options: Any) -> Run:
        return Run(tmp_path, accumulation=accumulation, **options)

    def load(indices: np.ndarray) -> dict[str, np.ndarray]:
        if first.trainer.step == step - 1:
            raise OSError(errno.EIO, "cannot read", "data.npy")
        return first.load(indices)

    first = make(load=load)
    with pytest.raises(OSError, match="cannot read") as caught:
        first.trainer.train()
    (note,) = caught.value.__notes__  # type: ignore[attr-defined]
    path = tmp_path / "states" / f"step-{step - 1:08d}.safetensors"
    epoch, batch = {1: {1: (1, 1), 2: (1, 2), 6: (1, 6)}, 3: {1: (1, 1), 2: (1, 4), 6: (2, 7)}}[accumulation][step]
    kept = f"; the state after step {step - 1} is in {path}" if step > 1 else ""
    assert note == f"step {step}, epoch {epoch}, batch {batch} of the epoch{kept}"
    second = make()
    assert second.trainer.resume() == (step > 1)  # where nothing was done there is nothing to keep
    assert second.trainer.step == step - 1
    second.trainer.train()
    whole = Run(accumulation=accumulation)
    whole.trainer.train()
    assert second.bits() == whole.bits()


def test_an_error_is_not_hidden_by_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def loss(batch: Any) -> Any:
        if run.trainer.step == 4:
            monkeypatch.setattr(run_state, "_pieces", full)
            raise KeyError("label")
        return run.model(**batch).loss

    run = Run(tmp_path, save_every=2, loss=loss, keep=1)
    with pytest.raises(KeyError) as caught:
        run.trainer.train()
    assert "step 5, epoch 1, batch 5 of the epoch" in caught.value.__notes__[0]  # type: ignore[attr-defined]
    assert [path.name for path in states(tmp_path)] == ["step-00000004.safetensors"]
