"""Training of any model whose forward returns a loss: steps, evaluation, saved states, log.

    manual_seed(0)                                  # before the model is made
    optimizer = AdamW(model.parameters(), lr=1e-4)
    batches = TokenBatches(lengths, load, batch_tokens=1024, seed=0)
    schedule = get_linear_schedule_with_warmup(optimizer, 50, count_steps(batches, epochs=3))
    trainer = Trainer(model, optimizer, schedule, batches, epochs=3, folder="run")
    trainer.resume()                                # continues where a run in this folder stopped, if there is one
    trainer.train()

A model needs `named_parameters`, `state_dict`, `load_state_dict`, `train` and `eval`.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastattn.autograd import no_grad
from fastattn.checks import POSITIVE, integer, number
from fastattn.progress import progress_bar
from fastattn.random import get_rng_state, set_rng_state
from fastattn.training.averaging import ExponentialMovingAverage
from fastattn.training.batches import Batches
from fastattn.training.evaluations import Evaluations
from fastattn.training.interrupts import interrupts
from fastattn.training.metrics import checked_metrics
from fastattn.training.micro_batches import add_gradients, checked_loss
from fastattn.training.optimizers import Optimizer, clip_grad_norm
from fastattn.training.plot import import_matplotlib, plot_format, plot_log
from fastattn.training.run_lock import locked
from fastattn.training.run_log import RunLog
from fastattn.training.run_state import (
    STATES,
    Carried,
    NothingCarried,
    OtherRunError,
    as_json,
    averages,
    carried,
    check_configuration,
    collect,
    not_finite,
    read_newest,
    read_state,
    remove_old_states,
    restore,
    saved_states,
    state_path,
    weights,
    write_state,
)
from fastattn.training.schedules import Schedule

LOG = "log.jsonl"


class NonFiniteLossError(ValueError):
    """The loss, the norm of the gradients, or a weight is NaN or infinite; the message names the last good state."""


class Trainer:
    """One run. `train` continues the run from its current step to the end.

    A step computes the gradients of `accumulation` micro-batches, each on its own, and adds them in order. The loss of
    a step is the mean of their losses. It clips the sum to `max_norm`, and steps the optimizer and the schedule. With a
    `folder`, the run writes `log.jsonl`, one line for each step and evaluation, and its states,
    `states/step-*.safetensors`. A run that died continues from its last state. On the same instruction set, weights and
    log have the bits of an uninterrupted run. Ctrl-C waits for the end of the step or evaluation, saves the state and
    raises KeyboardInterrupt; a second Ctrl-C does not wait.

    Args:
        model: a `fastattn.nn.Module`; it is in training mode while it trains.
        optimizer: the optimizer of the model's parameters.
        schedule: the schedule of this optimizer; None keeps its rates.
        batches: the source of the batches; see `TokenBatches`.
        epochs: how often all batches are seen, at most.
        folder: where the run writes; None writes nothing, and keeps the best weights in memory.
        loss: computes the loss, a Tensor, of a result of `batches.load`; by default `model(**batch).loss`.
        carried: what a step leaves to the next one, with `state_dict` and `load_state_dict`. It is saved and restored.
        average: moving averages of the weights, updated after every step and saved. Evaluations and `load_best` use
            them instead of the weights.
        accumulation: micro-batches per step, the results of `batches.load`. The last step of an epoch has those left.
        max_norm: the maximum norm of the gradients; None does not clip.
        evaluate: returns metrics by name. It is called with the model in evaluation mode, and nothing is recorded.
        evaluate_every: steps between evaluations; by default once an epoch. An evaluation also follows the last step.
        metric: the metric that compares models; by default the first one of `evaluate`.
        higher_is_better: whether a higher `metric` is better.
        patience: stop after this many evaluations without an improvement.
        save_every: steps between saved states, in addition to the states after evaluations and epochs.
        keep: how many of the latest states are kept. The best one is always kept.
        keep_epochs: how many of the latest states at ends of epochs are always kept, for `average_states`.
        progress: show a bar; None shows it if standard error is a terminal, and otherwise writes a line to the log
            "fastattn", level INFO, after evaluations and now and then.
        plot: the name of a picture of the log, such as "loss.svg", drawn in `folder` after epochs and evaluations.
        configuration: more values for JSON that must be equal for a run to go on.
        options: values for JSON that the caller chose. They are saved, and `OtherRunError` has them.

    Attributes:
        step: steps done.
        epoch: epochs done.

    Raises, by name, ValueError for an optimizer without a trainable parameter, a number out of range, another format of
    a plot and an argument that needs another one (`evaluate` or `folder`), TypeError for what is not a number, and
    ImportError for a plot without matplotlib.
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
        carried: Carried | None = None,
        average: ExponentialMovingAverage | None = None,
        accumulation: int = 1,
        max_norm: float | None = 1.0,
        evaluate: Callable[[], Mapping[str, float]] | None = None,
        evaluate_every: int | None = None,
        metric: str | None = None,
        higher_is_better: bool = True,
        patience: int | None = None,
        save_every: int | None = None,
        keep: int = 2,
        keep_epochs: int = 0,
        progress: bool | None = None,
        plot: str | None = None,
        configuration: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        for name, given, wanted, there in (
            ("patience", patience, "evaluate", evaluate),
            ("evaluate_every", evaluate_every, "evaluate", evaluate),
            ("plot", plot, "folder", folder),
            ("save_every", save_every, "folder", folder),
            ("keep_epochs", keep_epochs or None, "folder", folder),
        ):
            if given is not None and there is None:
                raise ValueError(f"Trainer: {name} needs {wanted}")
        if not any(p.requires_grad for group in optimizer.param_groups for p in group["params"]):
            raise ValueError("Trainer: no parameter of the optimizer is trainable; load the model with trainable=True")
        self.model, self.optimizer, self.schedule, self.batches = model, optimizer, schedule, batches
        self.epochs = integer("Trainer: epochs", epochs, 1)
        self.folder = None if folder is None else Path(folder)
        self._loss = loss or (lambda batch: model(**batch).loss)
        self._carried, self._average = carried or NothingCarried(), average
        self._carried_state = self._carried.state_dict()
        self._accumulation = integer("Trainer: accumulation", accumulation, 1)
        self._max_norm = None if max_norm is None else number("Trainer: max_norm", max_norm, **POSITIVE)
        self._evaluate_model, self._evaluate_every = evaluate, _count("evaluate_every", evaluate_every)
        self._metric, self._evaluations = metric, Evaluations(metric, higher_is_better, patience)
        self._save_every, self._keep = _count("save_every", save_every), integer("Trainer: keep", keep, 1)
        self._keep_epochs = integer("Trainer: keep_epochs", keep_epochs, 0)
        self._progress, self._plot = progress, plot
        if plot is not None:
            plot_format(plot)
            import_matplotlib()
        self._configuration = as_json({**self._settings(), **(configuration or {})})
        self._options = as_json({"epochs": self.epochs, **(options or {})})
        self.step = self.epoch = 0
        self._batch = 0  # batches done of the epoch
        self._epoch_ends: list[int] = []  # steps
        self._log_size = 0  # bytes of the log up to the steps done
        self._best: dict[str, Any] = {}  # the weights of the best evaluation, if no folder has them
        self._saved: Path | None = None  # the state that was saved last, or loaded
        self._known: list[Path] = []  # the states that `resume` met
        self._locked = False
        self._notes: list[str] = []  # what is shown of the last step
        self._unsaved = False  # whether there were steps or an evaluation since
        self._random = get_rng_state()  # after the steps done

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
            "average_decay": None if self._average is None else self._average.decay,
            "patience": (stop := self._evaluations.settings) and {**stop, "evaluate_every": self._evaluate_every},
        }

    # The run

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """Step, epoch and metrics of each evaluation. A metric that is NaN or infinite is None."""
        return self._evaluations.entries

    @property
    def best(self) -> dict[str, Any] | None:
        """The evaluation with the best metric, the first of equals; None if there is none yet."""
        return self._evaluations.best

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or patience has run out."""
        return self.epoch >= self.epochs or self._evaluations.out_of_patience

    def train(self) -> None:
        """Train to the end. Call `load_best` afterwards for the weights of the best evaluation.

        An error in a step gets a note (`__notes__`) with step, epoch and batch. The state from before the step is
        saved then, no earlier one is removed, and `resume` goes on there. A state is also saved before an evaluation,
        so a run that dies in one repeats it.

        Raises:
            NonFiniteLossError: a loss, norm or weight is not finite. Weights that are not finite are never saved.
            ValueError: `folder` holds states of a run and `resume` was not called, another process trains there, the
                model gives no loss, or `evaluate` gives no numbers by name or no `metric`.
            OSError: log or state cannot be written. The states saved before are as they were.
        """
        with self.locked():
            self._train()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """No other trainer, here or in another process, trains in `folder` inside the `with` block.

        `train` does this itself. Whoever also writes the model there holds the lock from `resume` on. The folder is
        created. Raises ValueError if another one trains, and OSError.
        """
        if self.folder is None or self._locked:
            yield
            return
        with locked(self.folder):
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    def _train(self) -> None:
        states = self._states()
        found = [] if states is None else saved_states(states)
        if self._saved is None and found:
            raise ValueError(f"{states}: holds states of a run; resume it, or choose another folder")
        if new := [path for step, path in found if step > self.step and path not in self._known]:
            raise ValueError(f"{new[0]}: another run wrote this since `resume`; resume again")
        if self._saved is None:
            self._random = get_rng_state()
        set_rng_state(self._random)
        self._carried.load_state_dict(self._carried_state)
        with (
            RunLog(None if self.folder is None else self.folder / LOG, self._log_size) as log,
            progress_bar(None, show=self._progress, unit="step", done=self.step, extra="train") as advance,
            interrupts() as interrupted,
        ):
            self.model.train()
            try:
                if self._evaluation_is_due():
                    self._pause(log, advance, interrupted)
                while not self.finished:
                    self._train_epoch(log, advance, interrupted)
            finally:
                self.model.eval()
                self.optimizer.zero_grad()

    def _train_epoch(self, log: RunLog, advance: Callable[..., None], interrupted: list[int]) -> None:
        """Train the rest of the epoch, or until patience runs out."""
        batches = self.batches.epoch(self.epoch)
        steps, left = (-(-count // self._accumulation) for count in (len(batches), len(batches) - self._batch))
        total = self.step + left + (self.epochs - self.epoch - 1) * steps  # if all epochs have as many as this one
        while self._batch < len(batches) and not self._evaluations.out_of_patience:
            start = time.perf_counter()
            group = batches[self._batch : self._batch + self._accumulation]
            record = {"step": self.step + 1, "epoch": self.epoch + 1, **self._train_step(group, log)}
            rate = record["tokens"] / (time.perf_counter() - start)
            log.write({**record, "tokens_per_second": round(rate, 1)})
            self._notes = [f"loss {record['loss']:.4f}", f"{rate:,.0f} tokens/s"]
            advance(note=", ".join([*self._notes, *self._evaluations.latest()]), total=total)
            self.step, self._random, self._unsaved = self.step + 1, get_rng_state(), True
            self._batch += len(group)
            if self._batch == len(batches):
                self.epoch, self._batch = self.epoch + 1, 0
                self._epoch_ends.append(self.step)
            self._carried_state = self._carried.state_dict()
            self._after_step(log, advance, interrupted)
            if self._batch == 0:
                break

    def _train_step(self, group: Sequence[Any], log: RunLog) -> dict[str, Any]:
        loss, done = 0.0, self._batch
        parameters = [p for each in self.optimizer.param_groups for p in each["params"]]
        try:
            for batch in group:
                done += 1
                loss_of_batch = checked_loss(self._loss(self.batches.load(batch)))
                share = loss_of_batch if len(group) == 1 else loss_of_batch / len(group)
                loss += share.item()
                if not math.isfinite(loss):
                    raise NonFiniteLossError(f"the loss is {loss}")
                add_gradients(share, parameters)
            norm = clip_grad_norm(parameters, self._max_norm or math.inf)
            if not math.isfinite(norm):
                raise NonFiniteLossError(f"the norm of the gradients is {norm}")
        except Exception as error:
            self._save_before(error, f"step {self.step + 1}, epoch {self.epoch + 1}, batch {done} of the epoch", log)
            raise
        rate = float(self.optimizer.param_groups[0]["lr"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.schedule is not None:
            self.schedule.step()
        if self._average is not None:
            self._average.update(self.step)
        tokens = sum(int(self.batches.tokens(batch)) for batch in group)
        return {"loss": loss, "learning_rate": rate, "gradient_norm": norm, "tokens": tokens}

    def _save_before(self, error: Exception, place: str, log: RunLog) -> None:
        """Save the state from before the step that failed, and add to `error` where both are."""
        try:
            self._save(log, remove=False)  # if the loss is NaN, an earlier state may be better
            kept = "" if self._saved is None else f"; the state after step {self.step} is in {self._saved}"
        except (OSError, NonFiniteLossError) as failure:
            kept = f"; {failure}"
        if isinstance(error, NonFiniteLossError):
            error.args = (f"{place}: {error}{kept}",)
        else:  # add_note, which Python 3.10 does not have
            error.__notes__ = [*getattr(error, "__notes__", ()), place + kept]  # type: ignore[attr-defined]

    def _after_step(self, log: RunLog, advance: Callable[..., None], interrupted: list[int]) -> None:
        if interrupted or self._batch == 0 or self._evaluation_is_due():
            self._pause(log, advance, interrupted)
        elif self._save_every and self.step % self._save_every == 0:
            self._save(log)

    def _evaluation_is_due(self) -> bool:
        """Whether an evaluation belongs after this step and has not been done."""
        done = self.evaluations and self.evaluations[-1]["step"] == self.step
        if self._evaluate_model is None or self.step == 0 or done:
            return False
        due = self.step % self._evaluate_every == 0 if self._evaluate_every else self._batch == 0
        return due or self.epoch == self.epochs

    def _pause(self, log: RunLog, advance: Callable[..., None], interrupted: list[int]) -> None:
        """Save, evaluate if that is due, and draw. After Ctrl-C, the run ends here."""
        self._save(log)
        if not interrupted and self._evaluation_is_due():
            self._evaluate(log)
            advance(0, ", ".join([*self._notes, *self._evaluations.latest()]), line=True)
            self._save(log)
        if self.folder is not None and self._plot is not None:
            try:
                plot_log(self.folder / LOG, self.folder / self._plot)
            except OSError as error:  # a run goes on without its picture
                warnings.warn(f"{self.folder / self._plot}: {error.strerror}; it is not drawn", stacklevel=2)
        if interrupted:
            raise KeyboardInterrupt

    def _evaluate(self, log: RunLog) -> None:
        assert self._evaluate_model is not None
        self.model.eval()
        with no_grad(), contextlib.nullcontext() if self._average is None else self._average.applied():
            metrics = checked_metrics(self._evaluate_model(), self._metric)
        self.model.train()
        set_rng_state(self._random)  # a run that goes on from here does not evaluate again
        epoch = self.epoch if self._batch == 0 else self.epoch + 1
        record = {"step": self.step, "epoch": epoch, "metrics": metrics}
        log.write(record)
        self.evaluations.append(record)
        if self.folder is None and self.best is record:
            self._best = {name: np.array(x) for name, x in self._evaluated().items()}
        self._unsaved = True

    def _evaluated(self) -> Mapping[str, Any]:
        """What is evaluated: the weights, or their averages."""
        state: Mapping[str, Any] = (self._average or self.model).state_dict()
        return state

    # Saved states

    def _states(self) -> Path | None:
        return None if self.folder is None else self.folder / STATES

    def _save(self, log: RunLog, remove: bool = True) -> None:
        """Save the state if it is new, and remove old ones. Raises NonFiniteLossError for weights not finite."""
        if not self._unsaved:
            return
        average = {} if self._average is None else self._average.state_dict()
        tensors, values = collect(self.model, self.optimizer, self.schedule, self._carried_state, average)
        if broken := not_finite(tensors):
            more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
            kept = "no state was saved" if self._saved is None else f"the last good state is {self._saved}"
            raise NonFiniteLossError(f"NaN or infinite after step {self.step}: {broken[0]}{more}; {kept}")
        folder = self._states()
        if folder is None:
            return
        self._log_size = log.flush()
        values |= {
            "step": self.step,
            "epoch": self.epoch,
            "batch": self._batch,
            "epoch_ends": self._epoch_ends,
            "random": self._random,
            "evaluations": self.evaluations,
            "log_size": self._log_size,
            "configuration": self._configuration,
            "options": self._options,
        }
        self._saved, self._unsaved = write_state(folder, self.step, tensors, values), False
        if remove:
            needed = self._epoch_ends[::-1][: self._keep_epochs] + ([self.best["step"]] if self.best else [])
            remove_old_states(folder, self.step, self._keep, needed)

    def resume(self) -> bool:
        """Go on from the newest state in `folder` that can be read. Returns whether there is one.

        A DamagedStateWarning names a state that is damaged, cut short or cannot be read, and an earlier one is read.
        Raises OtherRunError (a ValueError), with file and reason, for a state of another model or configuration, and
        ValueError if no state can be read.
        """
        folder = self._states()
        self._known = [] if folder is None else [path for _, path in saved_states(folder)]
        found = read_newest(self._known)
        if found is not None:
            self._load(*found)
        return found is not None

    def _load(self, path: Path, tensors: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        check_configuration(path, values, self._configuration, self._options)
        try:
            self._evaluations.load(values["evaluations"])
            self._epoch_ends = values["epoch_ends"]
            restore(tensors, values, self.model, self.optimizer, self.schedule)
            if self._average is not None:
                self._average.load_state_dict(averages(tensors))
            self.step, self.epoch, self._batch, self._log_size = (
                integer(name, values[name], 0) for name in ("step", "epoch", "batch", "log_size")
            )
            self._random = values["random"]
        except (KeyError, ValueError, TypeError) as error:
            raise OtherRunError(f"{path}: does not fit this run: {error}", values) from error
        self._saved = path
        self._carried_state = carried(tensors)

    def load_best(self) -> int | None:
        """Load the weights of the best evaluation and return its step, or None if there is no evaluation yet.

        Raises as `resume` does. Training cannot continue from these weights.
        """
        folder = self._states()
        if self.best is None:
            return None
        step = int(self.best["step"])
        if folder is None:
            self.model.load_state_dict(self._best)
        elif step == self.step:
            self.model.load_state_dict(self._evaluated())
        else:
            tensors, _ = read_state(state_path(folder, step))
            self.model.load_state_dict(averages(tensors) or weights(tensors))
        return step


def _count(name: str, value: int | None) -> int | None:
    return None if value is None else integer(f"Trainer: {name}", value, 1)
