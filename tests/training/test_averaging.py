"""Averages of weights against their definitions; that they survive a kill is in test_continued_runs.py."""

from __future__ import annotations

import contextlib
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import Run, TinyModel

from fastattn.training import SGD, ExponentialMovingAverage, TriggeredAverage, average_states
from fastattn.training.evaluations import Evaluations
from fastattn.training.run_state import read_state, saved_states, weights, write_state


def write(folder: Path, step: int, epoch_ends: list[int], **tensors: Any) -> None:
    arrays = {name: np.array(x, np.float32) for name, x in tensors.items()}
    write_state(folder / "states", step, arrays, {"epoch_ends": epoch_ends})


@pytest.mark.parametrize("values", [{}, {"epoch_ends": 5}, {"epoch_ends": ["a"]}, {"epoch_ends": [-1]}], ids=str)
def test_a_state_that_does_not_say_where_epochs_ended(tmp_path: Path, values: dict[str, Any]) -> None:
    path = write_state(tmp_path / "states", 10, {"model.a": np.zeros(1, np.float32)}, values)
    with pytest.raises(ValueError, match=f"^{path}: not a saved state of a run"):
        average_states(tmp_path, 1)


def test_the_mean_of_the_last_epochs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((5, 3, 4)).astype(np.float32)
    for i, value in enumerate(values):
        tensors = {"model.a": value, "model.b": value[0], "optimizer.0.exp_avg": value, "average.a": value}
        write(tmp_path, 10 * i + 10, list(range(10, 10 * i + 11, 10)), **tensors)
        within = {"model.a": value + 100, "model.b": value[0]}  # a state that was saved within an epoch
        write(tmp_path, 10 * i + 13, list(range(10, 10 * i + 11, 10)), **within)
    for last, step, some in ((1, None, values[4:]), (3, None, values[2:]), (9, None, values), (2, 40, values[2:4])):
        found = average_states(tmp_path, last, step)
        assert set(found) == {"a", "b"}
        assert found["a"].dtype == np.float32
        np.testing.assert_array_equal(found["a"], some.astype(np.float64).mean(0).astype(np.float32))
        assert found["b"].shape == (4,)


def test_states_that_cannot_be_averaged(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"average_states: no saved state at the end of an epoch in .*states"):
        average_states(tmp_path, 3)
    with pytest.raises(ValueError, match="last must be a positive integer, got 0"):
        average_states(tmp_path, 0)
    write(tmp_path, 1, [], **{"model.a": [1.0, 2.0]})
    with pytest.raises(ValueError, match=r"average_states: no saved state at the end of an epoch in .*states"):
        average_states(tmp_path, 3)
    write(tmp_path, 2, [1, 2], **{"model.a": [1.0]})
    with pytest.raises(ValueError, match=r"step-00000002\.safetensors and .*step-00000001.* different models"):
        average_states(tmp_path, 2)
    with pytest.raises(ValueError, match="no saved state"):
        average_states(tmp_path, 2, step=0)
    path = saved_states(tmp_path / "states")[0][1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"step-00000002\.safetensors: damaged, or cut short"):
        average_states(tmp_path, 1)
    write(tmp_path, 9, [4, 9], **{"model.a": [1.0]})
    with pytest.raises(FileNotFoundError, match=r"step-00000004\.safetensors was not kept; .*keep_epochs=2"):
        average_states(tmp_path, 2)


def average_of(folder: Path, **options: Any) -> dict[str, bytes]:
    """The mean of the last two of three epochs, whose last steps are 8, 16 and 23, of a run that is finished now."""
    run = Run(folder, keep_epochs=2, keep=1, **options)
    run.trainer.resume()
    run.trainer.train()
    ends = [weights(read_state(folder / "states" / f"step-{step:08d}.safetensors")[0]) for step in (16, 23)]
    mean = average_states(folder, 2)
    np.testing.assert_allclose(mean["scale"], np.mean([state["scale"] for state in ends], 0), rtol=1e-6)
    run.model.load_state_dict(mean)
    return {name: array.tobytes() for name, array in mean.items()}


def test_what_else_is_saved_does_not_change_an_average(tmp_path: Path) -> None:
    whole = average_of(tmp_path / "whole")
    assert average_of(tmp_path / "often", save_every=3) == whole
    assert average_of(tmp_path / "evaluated", evaluate=lambda: {"a": 1.0}, evaluate_every=5) == whole
    assert len(saved_states(tmp_path / "often" / "states")) == 2


@pytest.mark.parametrize("step", [11, 16, 20])
@pytest.mark.parametrize("failure", [OSError("the data are gone"), KeyboardInterrupt()])
def test_a_run_that_was_stopped_has_the_average_of_a_whole_one(
    tmp_path: Path, default_interrupt: None, step: int, failure: BaseException
) -> None:
    whole = average_of(tmp_path / "whole")

    def loss(batch: Any) -> Any:
        if run.trainer.step == step:
            if isinstance(failure, OSError):
                raise failure
            signal.raise_signal(signal.SIGINT)
        return run.model(**batch).loss

    run = Run(tmp_path / "parts", keep_epochs=2, keep=1, loss=loss)
    with pytest.raises(type(failure)):
        run.trainer.train()
    assert average_of(tmp_path / "parts") == whole


def test_moving_averages_by_hand() -> None:
    model = TinyModel(2)
    average = ExponentialMovingAverage(model, 0.75)
    expected = np.zeros(2)
    for step in range(40):
        model.scale.data[...] = np.array([step, math.sin(step)], np.float32)
        average.update(step)
        decay = min(0.75, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.scale.data
    np.testing.assert_allclose(average.state_dict()["scale"], expected, rtol=1e-5)
    assert average.state_dict()["shift"].tolist() == [0.0]


def test_no_decay_is_no_average() -> None:
    model = TinyModel(2)
    average = ExponentialMovingAverage(model, 0)
    model.scale.data[...] = 3
    average.update(0)
    assert average.state_dict()["scale"].tolist() == [3.0, 3.0]


def test_averages_take_the_weights_place_for_a_while() -> None:
    model = TinyModel(2)
    average = ExponentialMovingAverage(model, 0.5)
    model.scale.data[...] = 4
    array = model.scale.data
    with contextlib.suppress(RuntimeError), average.applied():
        assert model.scale.data.tolist() == [0.0, 0.0]
        raise RuntimeError
    assert model.scale.data is array
    assert array.tolist() == [4.0, 4.0]
    assert average.state_dict()["scale"].tolist() == [0.0, 0.0]


def test_the_state_of_averages() -> None:
    first, second = (ExponentialMovingAverage(TinyModel(2), 0.5) for _ in range(2))
    first.state_dict()["scale"][...] = 7
    second.load_state_dict(first.state_dict())
    first.state_dict()["scale"][...] = 8
    assert second.state_dict()["scale"].tolist() == [7.0, 7.0]
    for state in ({}, {"scale": np.zeros(3, np.float32), "shift": np.zeros(1, np.float32)}):
        with pytest.raises(ValueError, match=r"the state does not fit the model: scale"):
            second.load_state_dict(state)


@pytest.mark.parametrize(("decay", "error"), [(1.0, ValueError), (-0.1, ValueError), ("x", TypeError)])
def test_bad_decays(decay: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="ExponentialMovingAverage: decay must be"):
        ExponentialMovingAverage(TinyModel(), decay)


def test_evaluations_and_the_best_model_are_averages(tmp_path: Path) -> None:
    seen: list[bytes] = []
    scores = iter([1.0, 5.0, 2.0])

    def evaluate() -> dict[str, float]:
        assert run.model.scale.data.tobytes() == average.state_dict()["scale"].tobytes()
        seen.append(run.model.scale.data.tobytes())
        return {"score": next(scores)}

    model = TinyModel()
    average = ExponentialMovingAverage(model, 0.9)
    run = Run(tmp_path, model=model, average=average, evaluate=evaluate)
    run.trainer.train()
    own = Run()
    own.trainer.train()
    assert run.bits().startswith(own.bits())  # the averages change nothing of the run
    assert run.model.scale.data.tobytes() not in seen
    assert run.trainer.load_best() == run.trainer.evaluations[1]["step"]
    assert run.model.scale.data.tobytes() == seen[1]


def test_the_best_may_be_the_last(tmp_path: Path) -> None:
    for folder in (tmp_path, None):
        model = TinyModel()
        average = ExponentialMovingAverage(model, 0.9)
        run = Run(folder, model=model, average=average, evaluate=lambda: {"score": 1.0}, evaluate_every=10**6)
        run.trainer.train()
        assert run.trainer.load_best() == run.total
        assert model.scale.data.tobytes() == average.state_dict()["scale"].tobytes()


# The mean of the steps since a run stopped improving


def triggered(folder: Path | None, scores: list[float], seen: list[Any] | None = None, **options: Any) -> Run:
    """A run of SGD that is evaluated after every second step, with these errors."""
    model = TinyModel()

    def evaluate() -> dict[str, float]:
        if seen is not None:
            seen.append(model.scale.data.copy())
        return {"error": scores[len(run.trainer.evaluations)]}

    average = TriggeredAverage(model, options.pop("window", 1))
    options = {"evaluate": evaluate, "evaluate_every": 2, "higher_is_better": False, "optimizer": SGD, **options}
    run = Run(folder, model=model, average=average, **options)
    return run


@pytest.mark.parametrize(
    ("window", "scores", "since"),
    [
        (1, [5, 4, 6, 7, 8, 9, 9, 9, 9, 9, 9, 9], 6),  # worse than the first
        (1, [5, 6, 5.5, 7, 8, 9, 9, 9, 9, 9, 9, 9], 6),
        (2, [5, 6, 5.5, 7, 8, 9, 9, 9, 9, 9, 9, 9], 8),
        (1, [5, 9, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5], None),  # the one before does not count, and equal is not worse
        (9, [5, 6, 7, 8, 9, 9, 9, 9, 9, 4, 3, 2], None),
        (1, [math.nan, 5, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9], 8),
    ],
)
def test_the_steps_since_a_run_stopped_improving(window: int, scores: list[float], since: int | None) -> None:
    seen: list[Any] = []
    weights: list[Any] = []
    run = triggered(None, scores, seen, window=window)
    update = run.average.update

    def updated(step: int) -> None:
        update(step)
        weights.append(run.model.scale.data.copy())

    run.average.update = updated
    run.trainer.train()
    assert run.average.since == since
    if since is None:
        assert run.average.state_dict() == {}
        np.testing.assert_array_equal(seen[-1], weights[-1])
        return
    mean = np.mean(weights[since - 1 :], axis=0)
    np.testing.assert_allclose(run.average.state_dict()["scale"], mean, rtol=1e-5)
    np.testing.assert_array_equal(seen[since // 2 - 1], weights[since - 1])
    np.testing.assert_allclose(seen[since // 2], np.mean(weights[since - 1 : since + 2], axis=0), rtol=1e-5)
    np.testing.assert_array_equal(run.model.scale.data, weights[-1])  # the run itself is not averaged


def test_looking_for_progress_reads_each_score_a_few_times() -> None:
    compared: list[int] = []

    class Score(float):
        def __rmul__(self, sign: float) -> Score:
            return Score(sign * float(self))

        def __lt__(self, other: float) -> bool:
            compared.append(1)
            return float(self) < float(other)

        def __gt__(self, other: float) -> bool:
            compared.append(1)
            return float(self) > float(other)

    evaluations = Evaluations("error", False, None, 1)
    evaluations.entries = [{"step": i, "metrics": {"error": Score(1 / i)}} for i in range(1, 201)]
    assert evaluations.stalled(5) is None
    assert len(compared) < 3 * 200


def test_a_triggered_average_may_have_none() -> None:
    average = TriggeredAverage(TinyModel(2))
    average.load_state_dict({name: p.data for name, p in TinyModel(2).named_parameters()})
    assert average.state_dict() != {}
    average.load_state_dict({})
    assert average.state_dict() == {}


@pytest.mark.parametrize("step", [3, 5, 6, 7, 12])
def test_a_triggered_average_goes_on(tmp_path: Path, step: int) -> None:
    scores = [5, 4, *range(6, 20)]
    whole = triggered(tmp_path / "whole", scores)
    whole.trainer.train()
    assert whole.average.since == 6

    def loss(batch: Any) -> Any:
        if run.trainer.step == step:
            raise OSError("full")
        return run.model(**batch).loss

    run = triggered(tmp_path / "parts", scores, loss=loss)
    with pytest.raises(OSError, match="full"):
        run.trainer.train()
    run = triggered(tmp_path / "parts", scores)
    assert run.trainer.resume()
    assert run.trainer.step == step
    run.trainer.train()
    assert run.bits() == whole.bits()


def test_a_triggered_average_needs_evaluations(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Trainer: average needs evaluate"):
        triggered(None, [], evaluate=None, evaluate_every=None)
    for window, error in ((0, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="TriggeredAverage: window must be a positive integer"):
            TriggeredAverage(TinyModel(), window)  # type: ignore[arg-type]
    scores = [5.0] * 20
    triggered(tmp_path, scores).trainer.train()
    for options, message in (
        ({"window": 2}, "average.window is 1 there, 2 here"),
        ({"evaluate_every": 3}, "average_by.evaluate_every is 2 there, 3 here"),
    ):
        with pytest.raises(ValueError, match=message):
            triggered(tmp_path, scores, **options).trainer.resume()
