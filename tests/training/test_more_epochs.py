"""Other epochs on resume: the rate follows the schedule of the new length from the present step on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_continued_runs import Stop, log_of, states, stopping
from tiny_run import Run

from fastattn.training import get_noam_schedule
from fastattn.training.run_state import read_state


def make(folder: Path, epochs: int, **options: Any) -> Run:
    run = Run(folder, epochs=epochs, averages=True, evaluate=lambda: run.metrics(), **options)
    return run


def rates(folder: Path) -> list[float]:
    return [record["learning_rate"] for record in log_of(folder) if "loss" in record]


@pytest.mark.parametrize("done", [23, 11])
def test_more_epochs(tmp_path: Path, done: int) -> None:
    """Of a run that is finished, and of one that was stopped within an epoch. A second stop changes nothing."""

    def first(folder: Path) -> None:
        run = make(folder, 3, loss=lambda batch: stopping(run, done)(batch) if done < 23 else run.model(**batch).loss)
        if done == 23:
            run.trainer.train()
        else:
            with pytest.raises(Stop):
                run.trainer.train()

    def extended(folder: Path, **options: Any) -> Run:
        run = make(folder, 5, **options)
        assert run.trainer.resume()
        return run

    first(tmp_path / "whole")
    whole = extended(tmp_path / "whole")
    begin = whole.trainer.step
    assert begin == 23 if done == 23 else begin < 11
    whole.trainer.train()
    assert whole.trainer.step == whole.total
    assert whole.trainer.planned == [[0, 3], [begin, 5]]

    make(tmp_path / "three", 3).trainer.train()
    make(tmp_path / "five", 5).trainer.train()
    three, five = rates(tmp_path / "three"), rates(tmp_path / "five")
    assert rates(tmp_path / "whole") == three[:begin] + five[begin:]
    assert three[-1] < five[22] / 5

    first(tmp_path / "parts")
    second = extended(tmp_path / "parts", loss=lambda batch: stopping(second, 30)(batch), save_every=3)
    with pytest.raises(Stop):
        second.trainer.train()
    third = extended(tmp_path / "parts")
    third.trainer.train()
    assert third.bits() == whole.bits()
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")
    ours, theirs = (read_state(states(tmp_path / name)[0])[1] for name in ("parts", "whole"))
    assert {**ours, "log_size": 0} == {**theirs, "log_size": 0}  # the log has the rates of the machine


def test_epochs_that_were_asked_for_and_not_trained_are_forgotten(tmp_path: Path) -> None:
    make(tmp_path, 3).trainer.train()
    for epochs in (4, 5):
        run = make(tmp_path, epochs)
        run.trainer.resume()
        assert run.trainer.planned == [[0, 3], [23, epochs]]
    again = make(tmp_path, 3)
    again.trainer.resume()
    assert again.trainer.planned == [[0, 3]]
    assert again.trainer.finished


def test_fewer_epochs(tmp_path: Path) -> None:
    first = make(tmp_path, 5, loss=lambda batch: stopping(first, 19)(batch), save_every=1)
    with pytest.raises(Stop):
        first.trainer.train()
    assert first.trainer.epoch == 2
    before = states(tmp_path)[0].read_bytes()
    for epochs in (1, 2):
        run = make(tmp_path, epochs)
        message = rf"step-.*safetensors: the run has begun epoch 3; epochs must be at least 3, got {epochs}$"
        with pytest.raises(ValueError, match=message):
            run.trainer.resume()
        assert run.trainer.step == 0
    assert states(tmp_path)[0].read_bytes() == before
    run = make(tmp_path, 3)
    assert run.trainer.resume()
    run.trainer.train()
    assert run.trainer.step == 23


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 4}, r"batches\.seed is 3 there, 4 here$"),
        ({"max_norm": 2.0}, r"max_norm is 1\.0 there, 2\.0 here$"),
        ({"configuration": {"warmup": 0.2}}, r"warmup is null there, 0\.2 here$"),
    ],
)
def test_nothing_else_may_differ(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    make(tmp_path, 3).trainer.train()
    with pytest.raises(ValueError, match=r"of another model or configuration: " + message):
        make(tmp_path, 4, **options).trainer.resume()


def test_the_warmup_of_a_schedule_without_an_end_is_compared(tmp_path: Path) -> None:
    def run(epochs: int, warmup: int) -> Run:
        made = make(tmp_path, epochs)
        schedule = get_noam_schedule(made.optimizer, warmup, 4)
        made.trainer = type(made.trainer)(
            made.model, made.optimizer, schedule, made.batches, epochs=epochs, folder=tmp_path
        )
        return made

    run(1, 5).trainer.train()
    with pytest.raises(ValueError, match=r"schedule\.num_warmup_steps is 5 there, 6 here"):
        run(2, 6).trainer.resume()
    longer = run(2, 5)
    assert longer.trainer.resume()
    longer.trainer.train()
    assert longer.trainer.epoch == 2
