"""The trainer: steps, evaluation, early stopping, what it says and what it refuses."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import Run, TinyModel

from fastattn.autograd import is_grad_enabled, record
from fastattn.random import get_rng_state, next_seed
from fastattn.training import AdamW, NonFiniteLossError, TokenBatches, Trainer
from fastattn.training.run_state import read_state, saved_states


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def steps_saved(folder: Path) -> list[int]:
    return [step for step, _ in saved_states(folder / "states")]


def test_no_epoch_is_built_before_it_is_trained() -> None:
    built: list[int] = []
    epoch = TokenBatches.epoch

    def counted(self: TokenBatches, number: int) -> Any:
        built.append(number)
        return epoch(self, number)

    run = Run(evaluate=lambda: {"a": len(built)}, progress=False)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(TokenBatches, "epoch", counted)
        run.trainer.train()
    assert built == [0, 1, 2]
    assert [entry["metrics"]["a"] for entry in run.trainer.evaluations] == [1, 2, 3]


def test_it_learns() -> None:
    run = Run(epochs=60, lr=0.1)
    before = run.metrics()["error"]
    run.trainer.train()
    assert run.trainer.finished
    assert run.trainer.step == run.total
    assert run.metrics()["error"] < before
    assert run.model.scale.data[0] == pytest.approx(2, abs=0.3)  # y is twice the first number of x


def test_the_log(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", evaluate=lambda: run.metrics())
    run.trainer.train()
    log = log_of(tmp_path / "run")
    steps = [record for record in log if "metrics" not in record]
    assert [record["step"] for record in steps] == list(range(1, run.total + 1))
    assert {record["epoch"] for record in steps} == {1, 2, 3}
    assert sum(record["tokens"] for record in steps) == 3 * run.batches.lengths.sum()
    assert steps[0]["learning_rate"] == 0.0
    assert steps[2]["learning_rate"] == 0.05
    for name in ("loss", "gradient_norm", "tokens_per_second"):
        assert all(step[name] > 0 for step in steps)
    evaluations = [record for record in log if "metrics" in record]
    assert evaluations == run.trainer.evaluations
    assert [record["epoch"] for record in evaluations] == [1, 2, 3]


def test_nothing_is_written_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Run(evaluate=lambda: {"a": 1.0}).trainer.train()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("accumulation", [20, 100])
def test_gradients_of_accumulated_batches_are_averaged(accumulation: int) -> None:
    """Also if an epoch has fewer batches than a step takes."""
    whole, parts = Run(batch_tokens=10_000, epochs=1), Run(batch_tokens=1, epochs=1, accumulation=accumulation)
    for run in (whole, parts):
        run.model.train = run.model.eval  # type: ignore[method-assign]  # without dropout
        run.trainer.train()
        assert run.trainer.step == 1
    for a, b in zip(whole.optimizer.state, parts.optimizer.state, strict=True):
        np.testing.assert_allclose(a["exp_avg"], b["exp_avg"], rtol=1e-5, atol=1e-7)


def test_what_is_left_of_an_epoch_is_a_step() -> None:
    run = Run(batch_tokens=1, epochs=2, accumulation=8)
    run.trainer.train()
    assert run.trainer.step == run.total == 2 * 3


def test_clipping(tmp_path: Path) -> None:
    for max_norm, name in ((0.5, "clipped"), (None, "free")):
        run = Run(tmp_path / name, epochs=1, batch_tokens=10_000, max_norm=max_norm)
        run.trainer.train()
        norm = log_of(tmp_path / name)[0]["gradient_norm"]  # that from before it is clipped
        assert norm > 0.6
        averages = np.concatenate([state["exp_avg"] for state in run.optimizer.state])
        length = np.sqrt((averages.astype(np.float64) ** 2).sum()) / 0.1  # 1 - beta1
        assert length == pytest.approx(0.5 if max_norm else norm, rel=1e-4)


def test_a_loss_of_ones_own() -> None:
    run = Run(epochs=1, loss=lambda batch: run.model(**batch).loss * 0.0)
    run.trainer.train()
    assert not run.model.scale.data.any()


def test_modes() -> None:
    seen = []

    def evaluate() -> dict[str, float]:
        seen.append((run.model.training, is_grad_enabled()))
        next_seed()  # what an evaluation draws is not missing afterwards
        return {"a": 1.0}

    run = Run(evaluate=evaluate)
    run.trainer.train()
    assert seen == [(False, False)] * 3
    assert not run.model.training
    assert get_rng_state()["counter"] == run.total
    assert all(parameter.grad is None for parameter in run.model.parameters())


def test_evaluation_every_few_steps() -> None:
    run = Run(evaluate=lambda: {"a": 1.0}, evaluate_every=10)
    run.trainer.train()
    assert run.total == 23
    assert [(entry["step"], entry["epoch"]) for entry in run.trainer.evaluations] == [(10, 2), (20, 3), (23, 3)]


@pytest.mark.parametrize(
    ("higher", "values", "best", "stopped"),
    [
        (True, [1, 3, 2, 3, 9], 2, 4),  # as good as the best is not better
        (True, [1, 2, 3, 4, 5], 5, 5),
        (False, [5, 3, 4, 2, 9], 4, 5),
        (False, [5, 6, 7, 2, 9], 1, 3),
        (True, [math.nan, 1, math.nan, math.nan, 9], 2, 4),
    ],
)
@pytest.mark.filterwarnings("ignore:after step .* score is undefined")
def test_early_stopping(tmp_path: Path, higher: bool, values: list[float], best: int, stopped: int) -> None:
    scores = iter(values)
    bits = []

    def evaluate() -> dict[str, float]:
        bits.append(run.model.scale.data.tobytes())
        return {"other": 0.0, "score": next(scores)}

    options: dict[str, Any] = {"epochs": 5, "metric": "score", "higher_is_better": higher, "patience": 2, "keep": 1}
    run = Run(tmp_path, evaluate=evaluate, **options)
    run.trainer.train()
    assert len(run.trainer.evaluations) == stopped
    assert run.trainer.finished
    assert run.trainer.best is not None
    assert run.trainer.best["epoch"] == best
    assert set(steps_saved(tmp_path)) == {run.trainer.best["step"], run.trainer.step}
    assert run.trainer.load_best() == run.trainer.best["step"]
    assert run.model.scale.data.tobytes() == bits[best - 1]
    again = Run(tmp_path, evaluate=evaluate, **options)
    assert again.trainer.resume()
    assert again.trainer.finished
    again.trainer.train()
    assert again.trainer.step == run.trainer.step


@pytest.mark.parametrize("averages", [False, True])
@pytest.mark.parametrize("best", [1, 2, 3])
def test_the_best_weights_without_a_folder(best: int, averages: bool) -> None:
    bits = []

    def evaluate() -> dict[str, float]:
        bits.append(run.model.scale.data.tobytes())
        return {"score": float(len(bits) == best)}

    run = Run(evaluate=evaluate, averages=averages)
    run.trainer.train()
    assert len(set(bits)) == 3
    for _ in range(2):
        assert run.trainer.load_best() == run.trainer.evaluations[best - 1]["step"]
        assert run.model.scale.data.tobytes() == bits[best - 1]


def test_without_an_evaluation_there_is_no_best(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.trainer.train()
    assert run.trainer.best is None
    assert run.trainer.load_best() is None


def test_states_are_kept_and_removed(tmp_path: Path) -> None:
    errors = iter([3.0, 1.0, 2.0])
    run = Run(tmp_path, evaluate=lambda: {"error": next(errors)}, higher_is_better=False, save_every=2, keep=3)
    run.trainer.train()
    assert [entry["step"] for entry in run.trainer.evaluations] == [8, 16, 23]
    assert steps_saved(tmp_path) == [23, 22, 20, 16]


class Failing:
    """Batches that make the loss something else at a step."""

    def __init__(self, step: int, value: float) -> None:
        self.step, self.value, self.calls = step, value, 0

    def __call__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        self.calls += 1
        x, y = np.ones((len(indices), 4), np.float32), np.ones(len(indices), np.float32)
        return {"x": x, "y": y * np.float32(self.value) if self.calls == self.step else y}


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e20])  # 1e20 squared is infinite in float32
@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, value: float) -> None:
    run = Run(tmp_path, load=Failing(12, value))
    with pytest.raises(NonFiniteLossError) as caught:
        run.trainer.train()
    word = "nan" if math.isnan(value) else "inf"
    path = tmp_path / "states" / "step-00000011.safetensors"
    assert str(caught.value) == (
        f"step 12, epoch 2, batch 4 of the epoch: the loss is {word}; the state after step 11 is in {path}"
    )
    assert np.isfinite(run.model.scale.data).all()
    assert len(log_of(tmp_path)) == 11
    # That state is good: with good data the run goes on as if nothing had been.
    again = Run(tmp_path, load=Failing(0, 1.0))
    assert again.trainer.resume()
    assert again.bits() == run.bits()
    again.trainer.train()
    whole = Run(load=Failing(0, 1.0))
    whole.trainer.train()
    assert again.bits() == whole.bits()


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
def test_a_gradient_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    def loss(batch: Any) -> Any:
        output = run.model(**batch).loss
        if run.trainer.step < 3:
            return output
        return record(output.data, (output,), lambda dy: (dy * np.float32(np.nan),))

    run = Run(tmp_path, loss=loss)
    with pytest.raises(
        NonFiniteLossError, match=r"^step 4, epoch 1, batch 4 of the epoch: the norm of the gradients is nan; the"
    ):
        run.trainer.train()
    assert np.isfinite(run.model.shift.data).all()


@pytest.mark.parametrize("step", [12, 15, 23])  # between two states, where one is due, at the end
@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
def test_weights_that_are_no_numbers_are_never_saved(tmp_path: Path, step: int) -> None:
    run = Run(tmp_path, keep=1, save_every=5, evaluate=lambda: run.metrics())
    update = run.optimizer.step

    def overflow() -> None:
        if run.trainer.step == step - 1:
            run.optimizer.param_groups[0]["lr"] = 1e39  # finite gradients, and an update that is not
        update()

    run.optimizer.step = overflow  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLossError) as caught:
        run.trainer.train()
    last = {12: 10, 15: 10, 23: 20}[step]
    path = tmp_path / "states" / f"step-{last:08d}.safetensors"
    broken = f"NaN or infinite after step {step}: model.scale and 1 more; the last good state is {path}"
    found = f"step 13, epoch 2, batch 5 of the epoch: the loss is nan; {broken}"
    assert str(caught.value) == (found if step == 12 else broken)
    assert steps_saved(tmp_path)[0] == last
    assert all(np.isfinite(tensor).all() for tensor in read_state(path)[0].values())
    again = Run(tmp_path, keep=1, save_every=5, evaluate=lambda: again.metrics())
    assert again.trainer.resume()
    again.trainer.train()
    assert steps_saved(tmp_path)[0] == 23


def test_weights_are_looked_at_without_a_folder_too() -> None:
    run = Run(epochs=1)
    run.optimizer.step = lambda: run.model.scale.data.fill(np.inf if run.trainer.step == 7 else 0)  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLossError, match=r"^NaN or infinite after step 8: model\.scale; no state was saved$"):
        run.trainer.train()


def test_a_loss_that_is_no_number_removes_no_state(tmp_path: Path) -> None:
    """Weights that are finite but lost make such a loss, too: then an earlier state is what is wanted."""
    with pytest.raises(NonFiniteLossError):
        Run(tmp_path, load=Failing(12, math.nan), keep=1).trainer.train()
    assert steps_saved(tmp_path) == [11, 8]


def test_a_model_without_a_loss() -> None:
    run = Run(loss=lambda batch: None)
    with pytest.raises(ValueError, match="the model gave no loss; do the batches have labels"):
        run.trainer.train()


def test_a_frozen_model_leaves_no_folder(tmp_path: Path) -> None:
    model = TinyModel()
    for parameter in model.parameters():
        parameter.requires_grad = False
    with pytest.raises(ValueError, match="Trainer: no parameter of the optimizer is trainable; load the model with"):
        Run(tmp_path / "run", model=model).trainer.train()
    assert not (tmp_path / "run").exists()


def test_an_unknown_metric(tmp_path: Path) -> None:
    run = Run(tmp_path, evaluate=lambda: {"a": 1.0}, metric="b")
    with pytest.raises(ValueError, match="evaluate gave no metric 'b', only a"):
        run.trainer.train()
    assert steps_saved(tmp_path) == [8]


@pytest.mark.parametrize("given", [None, {}, 0.5, {"a": None}, {"a": "good"}])
def test_an_evaluation_that_gives_no_metrics(tmp_path: Path, given: Any) -> None:
    with pytest.raises(ValueError, match=r"Trainer: evaluate must give numbers by name, got " + re.escape(repr(given))):
        Run(tmp_path, evaluate=lambda: given).trainer.train()
    assert steps_saved(tmp_path) == [8]


def test_numpy_numbers_are_as_good_as_pythons(tmp_path: Path) -> None:
    def make() -> Run:
        return Run(
            tmp_path,
            epochs=np.int64(2),  # type: ignore[arg-type]
            lr=np.float32(0.05),
            max_norm=np.float32(1),
            keep=np.int8(3),
            optimizer=lambda params, lr: AdamW(params, lr=lr, weight_decay=np.float32(0.1), betas=np.array([0.8, 0.9])),
            evaluate=lambda: {"a": np.float32(0.5)},
            configuration={"data": np.arange(2), "seed": np.int64(3)},
        )

    run = make()
    run.trainer.train()
    assert log_of(tmp_path)[-1]["metrics"] == {"a": 0.5}
    again = make()
    assert again.trainer.resume()
    assert again.bits() == run.bits()


@pytest.mark.parametrize("name", ["epochs", "accumulation", "evaluate_every", "patience", "save_every", "keep"])
def test_numbers_out_of_range(name: str) -> None:
    model = TinyModel()
    options: dict[str, Any] = {"epochs": 1, "evaluate": dict, "folder": "folder", name: 0}
    batches = TokenBatches([1], lambda indices: {}, batch_size=1)
    with pytest.raises(ValueError, match=f"Trainer: {name} must be a positive integer, got 0"):
        Trainer(model, AdamW(model.parameters()), None, batches, **options)
    with pytest.raises(TypeError, match=rf"Trainer: {name} must be a positive integer, got 1\.5"):
        Trainer(model, AdamW(model.parameters()), None, batches, **{**options, name: 1.5})


def test_options_that_do_not_go_together() -> None:
    for name, wanted in (("patience", "evaluate"), ("evaluate_every", "evaluate"), ("save_every", "folder")):
        with pytest.raises(ValueError, match=f"^Trainer: {name} needs {wanted}$"):
            Run(**{name: 1})
    with pytest.raises(ValueError, match=r"^Trainer: keep_epochs needs folder$"):
        Run(keep_epochs=2)
    with pytest.raises(ValueError, match=r"^Trainer: plot needs folder$"):
        Run(plot="loss.svg")
    with pytest.raises(ValueError, match=r"Trainer: max_norm must be a number above 0, got 0\.0"):
        Run(max_norm=0.0)
    with pytest.raises(TypeError, match="Trainer: max_norm must be a number above 0, got '1'"):
        Run(max_norm="1")
    with pytest.raises(ValueError, match=r"loss\.pdf: a plot is written as png or svg"):
        Run("folder", plot="loss.pdf")


def test_an_undefined_metric_is_no_improvement(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fastattn")
    run = Run(evaluate=lambda: {"score": math.nan}, epochs=5, patience=2)
    with pytest.warns(
        UserWarning, match=r"^after step \d+ score is undefined: this evaluation counts as no improvement$"
    ):
        run.trainer.train()
    assert len(run.trainer.evaluations) == 2
    assert run.trainer.finished
    assert run.trainer.best is run.trainer.load_best() is None
    assert any(record.getMessage().endswith("eval score undefined") for record in caplog.records)


def test_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm", reason="needs tqdm")
    run = Run(progress=True, evaluate=lambda: {"accuracy": 0.75, "undefined": math.nan})
    run.trainer.train()
    text = capsys.readouterr().err
    assert f"{run.total}/{run.total}" in text
    assert re.search(r"loss \d\.\d{4}, [\d,]+ tokens/s, eval accuracy 0\.7500", text)


def test_lines_where_there_is_no_bar(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fastattn")
    run = Run(evaluate=lambda: {"accuracy": 0.75, "undefined": math.nan})
    run.trainer.train()
    lines = [record.getMessage() for record in caplog.records]
    told = r", (after step \d+: )?eval accuracy 0\.7500, eval undefined undefined"
    numbers = [
        re.match(rf"step (\d+) of (\d+): (?:loss \d+\.\d{{4}}, [\d,]+ tokens/s({told})?)$", line) for line in lines
    ]
    assert [(int(found[1]), bool(found[3]), found[4]) for found in numbers if found] == [
        (1, False, None),
        (8, True, None),
        (10, True, "after step 8: "),
        (16, True, None),
        (23, True, None),
    ]
    assert len(lines) == 5
    assert numbers[-1] is not None
    assert numbers[-1][2] == "23"
    caplog.clear()
    Run(evaluate=lambda: {"a": 1.0}, progress=False).trainer.train()
    assert caplog.records == []


def test_no_bar_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    Run().trainer.train()
    assert capsys.readouterr().err == ""


def test_a_bar_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r'pip install "fastattn\[train\]"'):
        Run(progress=True).trainer.train()
    Run(progress=None).trainer.train()


def test_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    Run(tmp_path, plot="loss.svg", epochs=1, evaluate=lambda: {"a": 1.0}).trainer.train()
    assert (tmp_path / "loss.svg").read_bytes().startswith(b"<?xml")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
        with pytest.raises(ImportError, match=r'pip install "fastattn\[train\]"'):
            Run(tmp_path, plot="loss.svg")
