"""Training of any model whose forward gives a loss: steps, evaluation, saved states, log.

    manual_seed(0)                                  # before the model is made
    optimizer = AdamW(model.parameters(), lr=1e-4)
    batches = TokenBatches(lengths, load, batch_tokens=1024, seed=0)
    schedule = get_linear_schedule_with_warmup(optimizer, 50, count_steps(batches, epochs=3))
    trainer = Trainer(model, optimizer, schedule, batches, epochs=3, folder="run")
    trainer.resume()                                # goes on where a run in that folder was, if there is one
    trainer.train()

What the trainer needs of a model are `named_parameters`, `state_dict`, `load_state_dict`, `train` and `eval`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastattn.autograd import no_grad
from fastattn.random import get_rng_state, set_rng_state
from fastattn.training.batches import Batches, count_steps
from fastattn.training.optimizers import Optimizer, clip_grad_norm
from fastattn.training.plot import import_matplotlib, plot_log
from fastattn.training.progress import training_bar
from fastattn.training.run_log import RunLog
from fastattn.training.run_state import (
    collect,
    differences,
    read_state,
    remove_old_states,
    restore,
    saved_states,
    state_path,
    weights,
    write_state,
)
from fastattn.training.schedules import Schedule

STATES, LOG = "states", "log.jsonl"


class NonFiniteLossError(ValueError):
    """The loss, or the norm of the gradients, is NaN or infinite; the weights are those from before the step."""


class DamagedStateWarning(UserWarning):
    """A saved state cannot be read; an earlier one is used."""


class Trainer:
    """One run: `train` goes on from wherever the run is to its end.

    A step takes `accumulation` batches, whose gradients are averaged, clips them to `max_norm` and steps the
    optimizer and the schedule. With a `folder` the run writes `log.jsonl`, one line a step and one an
    evaluation, and its states, `states/step-*.safetensors`; a run that died is continued from its last state
    with the bits, in weights and log, of one that never stopped, on the same instruction set. Ctrl-C ends the
    step, saves the state and raises KeyboardInterrupt; a second one does not wait.

    Args:
        model: a `fastattn.nn.Module`; it is in training mode while it trains.
        optimizer: over the model's parameters.
        schedule: of this optimizer; None keeps its rates.
        batches: where the batches come from, see `TokenBatches`.
        epochs: how often all batches are seen, at most.
        folder: where the run writes; None writes nothing.
        loss: computes the loss (a Tensor) of what `batches.load` gave; default `model(**batch).loss`.
        accumulation: batches of a step.
        max_norm: the largest norm of the gradients; None does not clip.
        evaluate: gives metrics by name; called with the model in evaluation mode, without recording.
        evaluate_every: steps from one evaluation to the next; default once an epoch. The last step is
            followed by an evaluation, too.
        metric: the metric by which models are compared; default the first one that `evaluate` gives.
        higher_is_better: whether that is so for `metric`.
        patience: stop after so many evaluations without a better one.
        save_every: steps from one saved state to the next, beside those after evaluations and epochs.
        keep: how many of the latest states are kept; the best one is kept anyway.
        progress: show a bar; None shows it when standard error is a terminal.
        plot: name of a picture of the log, such as "loss.svg", drawn in `folder` after epochs and evaluations.
        configuration: whatever else must be equal for a run to be continued, for JSON.

    Attributes:
        step: steps done.
        epoch: epochs done.
        evaluations: for each evaluation its step, epoch and metrics, None for a metric that is no finite number.

    Raises ValueError for a number out of range, by name, and ImportError for a plot without matplotlib.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Optimizer,
        schedule: Schedule | None,
        batches: Batches,
        *,
        epochs: int,
        folder: str | os.PathLike[str] | None = None,
        loss: Callable[[Mapping[str, Any]], Any] | None = None,
        accumulation: int = 1,
        max_norm: float | None = 1.0,
        evaluate: Callable[[], Mapping[str, float]] | None = None,
        evaluate_every: int | None = None,
        metric: str | None = None,
        higher_is_better: bool = True,
        patience: int | None = None,
        save_every: int | None = None,
        keep: int = 2,
        progress: bool | None = None,
        plot: str | None = None,
        configuration: Mapping[str, Any] | None = None,
    ) -> None:
        numbers = {"epochs": epochs, "accumulation": accumulation, "keep": keep, "patience": patience}
        for name, value in {**numbers, "evaluate_every": evaluate_every, "save_every": save_every}.items():
            if value is not None and value < 1:
                raise ValueError(f"Trainer: {name} must be at least 1, got {value}")
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"Trainer: max_norm must be above 0, got {max_norm}")
        if patience is not None and evaluate is None:
            raise ValueError("Trainer: patience needs evaluate")
        self.model, self.optimizer, self.schedule, self.batches = model, optimizer, schedule, batches
        self.epochs = epochs
        self.folder = None if folder is None else Path(folder)
        self._loss = loss or (lambda batch: model(**batch).loss)
        self._accumulation, self._max_norm = accumulation, max_norm
        self._evaluate_model, self._evaluate_every = evaluate, evaluate_every
        self._metric, self._higher_is_better, self._patience = metric, higher_is_better, patience
        self._save_every, self._keep, self._progress, self._plot = save_every, keep, progress, plot
        if plot is not None:
            import_matplotlib()
        self._configuration = _as_json({**self._settings(), **(configuration or {})})
        self.step = self.epoch = 0
        self.evaluations: list[dict[str, Any]] = []
        self._batch = 0  # batches done of the epoch
        self._log_size = 0  # bytes of the log that belong to the steps done
        self._saved: int | None = None  # the step of the state saved last
        self._random = get_rng_state()  # as it was after the steps done

    def _settings(self) -> dict[str, Any]:
        groups = self.optimizer.state_dict()["param_groups"]
        return {
            "parameters": {name: list(p.shape) for name, p in self.model.named_parameters()},
            "optimizer": type(self.optimizer).__name__,
            "param_groups": [{k: v for k, v in group.items() if k != "lr"} for group in groups],
            "schedule": None if self.schedule is None else self.schedule.settings,
            "batches": dict(self.batches.settings),
            "accumulation": self._accumulation,
            "max_norm": self._max_norm,
        }

    # The run

    @property
    def best(self) -> dict[str, Any] | None:
        """The evaluation with the best metric, the first of equals; None before there is one."""
        sign = 1 if self._higher_is_better else -1
        scored = [entry for entry in self.evaluations if math.isfinite(self._score(entry))]
        return max(scored, key=lambda entry: sign * self._score(entry), default=None)

    def _score(self, evaluation: Mapping[str, Any]) -> float:
        metrics: dict[str, float | None] = evaluation["metrics"]
        score = metrics[next(iter(metrics)) if self._metric is None else self._metric]
        return math.nan if score is None else score

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or patience is at its end."""
        return self.epoch >= self.epochs or self._out_of_patience()

    def _out_of_patience(self) -> bool:
        if self._patience is None or self.best is None:
            return False
        return len(self.evaluations) - self.evaluations.index(self.best) > self._patience

    def train(self) -> None:
        """Train to the end. Call `load_best` afterwards for the weights of the best evaluation.

        Raises:
            NonFiniteLossError: with the step; a state from before it is saved, and weights are as they were.
            ValueError: `folder` holds states of a run that `resume` was not called for, or nothing that the
                model's output calls a loss.
            OSError: log or state could not be written; the states saved before are as they were.
        """
        states = self._states()
        if states is not None and self._saved is None and saved_states(states):
            raise ValueError(f"{states}: holds states of a run; resume it, or choose another folder")
        if self._saved is None:
            self._random = get_rng_state()
        set_rng_state(self._random)
        total = count_steps(self.batches, self.epochs, self._accumulation)
        with (
            RunLog(None if self.folder is None else self.folder / LOG, self._log_size) as log,
            training_bar(self._progress, total, self.step) as advance,
            _interrupts() as interrupted,
        ):
            self.model.train()
            try:
                while not self.finished:
                    self._train_epoch(log, advance, interrupted)
            finally:
                self.model.eval()
                self.optimizer.zero_grad()

    def _train_epoch(self, log: RunLog, advance: Callable[[str], None], interrupted: list[int]) -> None:
        """The rest of the epoch, or until patience is at its end."""
        batches = self.batches.epoch(self.epoch)
        while self._batch < len(batches) and not self._out_of_patience():
            start = time.perf_counter()
            group = batches[self._batch : self._batch + self._accumulation]
            record = {"step": self.step + 1, "epoch": self.epoch + 1, **self._train_step(group, log)}
            rate = record["tokens"] / (time.perf_counter() - start)
            log.write({**record, "tokens_per_second": round(rate, 1)})
            advance(", ".join([f"loss {record['loss']:.4f}", f"{rate:,.0f} tokens/s", *self._latest_metrics()]))
            self._batch += len(group)
            if self._batch == len(batches):
                self.epoch, self._batch = self.epoch + 1, 0
            self.step, self._random = self.step + 1, get_rng_state()
            self._after_step(log, bool(interrupted))
            if self._batch == 0:
                break

    def _train_step(self, group: Sequence[Any], log: RunLog) -> dict[str, Any]:
        loss = 0.0
        for i, batch in enumerate(group):
            output = self._loss(self.batches.load(batch))
            if output is None:
                raise ValueError("Trainer: the model gave no loss; do the batches have labels?")
            share = output if len(group) == 1 else output / len(group)
            loss += share.item()
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss} (batch {self._batch + i + 1} of the epoch)", log)
            share.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = clip_grad_norm(parameters, self._max_norm or math.inf)
        if not math.isfinite(norm):
            raise self._diverged(f"the norm of the gradients is {norm}", log)
        rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.schedule is not None:
            self.schedule.step()
        tokens = sum(self.batches.tokens(batch) for batch in group)
        return {"loss": loss, "learning_rate": rate, "gradient_norm": norm, "tokens": tokens}

    def _diverged(self, reason: str, log: RunLog) -> NonFiniteLossError:
        path = self._save(log)
        kept = "" if path is None else f"; the state after step {self.step} is in {path}"
        return NonFiniteLossError(f"step {self.step + 1}, epoch {self.epoch + 1}: {reason}{kept}")

    def _after_step(self, log: RunLog, interrupted: bool) -> None:
        ends_epoch = self._batch == 0
        due = self.step % self._evaluate_every == 0 if self._evaluate_every else ends_epoch
        evaluated = self._evaluate_model is not None and (due or self.epoch == self.epochs)
        if evaluated:
            self._evaluate(log)
        pauses = evaluated or ends_epoch or interrupted
        if pauses or (self._save_every and self.step % self._save_every == 0):
            self._save(log)
        if pauses and self.folder is not None and self._plot is not None:
            plot_log(self.folder / LOG, self.folder / self._plot)
        if interrupted:
            raise KeyboardInterrupt

    def _latest_metrics(self) -> list[str]:
        metrics = self.evaluations[-1]["metrics"] if self.evaluations else {}
        return [f"{name} {value:.4f}" for name, value in metrics.items() if value is not None]

    def _evaluate(self, log: RunLog) -> None:
        assert self._evaluate_model is not None
        self.model.eval()
        with no_grad():
            metrics = {name: float(value) for name, value in self._evaluate_model().items()}
        self.model.train()
        set_rng_state(self._random)  # a run that is continued from here does not evaluate again
        epoch = self.epoch if self._batch == 0 else self.epoch + 1
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        record = {"step": self.step, "epoch": epoch, "metrics": finite}
        if self._metric is not None and self._metric not in metrics:
            raise ValueError(f"Trainer: evaluate gave no metric {self._metric!r}, only {', '.join(metrics)}")
        self.evaluations.append(record)
        log.write(record)

    # Saved states

    def _states(self) -> Path | None:
        return None if self.folder is None else self.folder / STATES

    def _save(self, log: RunLog) -> Path | None:
        folder = self._states()
        if folder is None:
            return None
        if self._saved == self.step:
            return state_path(folder, self.step)
        self._log_size = log.flush()
        tensors, values = collect(self.model, self.optimizer, self.schedule)
        values |= {
            "step": self.step,
            "epoch": self.epoch,
            "batch": self._batch,
            "random": self._random,
            "evaluations": self.evaluations,
            "log_size": self._log_size,
            "configuration": self._configuration,
        }
        path = write_state(folder, self.step, tensors, values)
        self._saved = self.step
        remove_old_states(folder, self.step, self._keep, None if self.best is None else self.best["step"])
        return path

    def resume(self) -> bool:
        """Go on from the newest state in `folder` that can be read, and say whether there is one.

        A damaged state, or one cut short, is named in a DamagedStateWarning and passed over. Raises ValueError,
        with the file and the reason, for a state of another model or configuration, and when every state is
        damaged.
        """
        folder = self._states()
        damaged = []
        for _, path in [] if folder is None else saved_states(folder):
            try:
                tensors, values = read_state(path)
            except ValueError as error:
                damaged.append(str(error))
                warnings.warn(f"{error}; an earlier state is looked for", DamagedStateWarning, stacklevel=2)
                continue
            self._load(path, tensors, values)
            return True
        if damaged:
            raise ValueError("no saved state can be used:\n" + "\n".join(damaged))
        return False

    def _load(self, path: Path, tensors: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        different = list(differences(values.get("configuration", {}), self._configuration))
        if different:
            more = f" and {len(different) - 3} more" if len(different) > 3 else ""
            raise ValueError(f"{path}: of another model or configuration: {'; '.join(different[:3])}{more}")
        try:
            restore(tensors, values, self.model, self.optimizer, self.schedule)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path}: does not fit this run: {error}") from error
        self.step, self.epoch, self._batch = values["step"], values["epoch"], values["batch"]
        self.evaluations, self._log_size = values["evaluations"], values["log_size"]
        self._random, self._saved = values["random"], self.step

    def load_best(self) -> int | None:
        """Load the weights of the best evaluation, and give its step; None, and nothing done, if there is none.

        Raises as `resume` does. Training cannot go on with these weights.
        """
        folder = self._states()
        if self.best is None or folder is None or self.best["step"] == self.step:
            return None if self.best is None else int(self.best["step"])
        tensors, _ = read_state(state_path(folder, self.best["step"]))
        self.model.load_state_dict(weights(tensors))
        return int(self.best["step"])


def _as_json(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """As it will come back from a file: tuples are lists there."""
    value: dict[str, Any] = json.loads(json.dumps(configuration, allow_nan=False))
    return value


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """A list that is empty until Ctrl-C is pressed; the second one raises KeyboardInterrupt as usual."""
    seen: list[int] = []
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or usual is not signal.default_int_handler:
        yield seen
        return

    def note(number: int, _: Any) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, usual)
