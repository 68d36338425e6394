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

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from fastattn.checks import POSITIVE, integer, number
from fastattn.training.averaging import WeightAverage
from fastattn.training.batches import Batches
from fastattn.training.callbacks import TrainerCallback, checked_callbacks
from fastattn.training.configuration import as_json, check_configuration, read_position
from fastattn.training.evaluations import Evaluations
from fastattn.training.interrupts import interrupts
from fastattn.training.metrics import checked_metrics
from fastattn.training.micro_batches import NonFiniteLossError, add_gradients
from fastattn.training.optimizers import Optimizer, clip_grad_norm
from fastattn.training.plot import import_matplotlib, plot_format
from fastattn.training.run_folder import RunFolder
from fastattn.training.run_report import RunReport, reporting
from fastattn.training.run_state import MALFORMED, Carried, OtherRunError
from fastattn.training.schedules import Schedule
from fastattn.training.trained import Trained


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
        layers: the parameters of each layer, the lowest first, for gradual unfreezing: the first epoch trains the
            highest layer, each later one the next layer too. The others get no gradient. By default all are trained.
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
        callbacks: see `TrainerCallback`. They are called in this order.
        progress: show a bar; None shows it if standard error is a terminal, and otherwise writes a line to the log
            "fastattn", level INFO, after evaluations and now and then.
        plot: the name of a picture of the log, such as "loss.svg", drawn in `folder` after epochs and evaluations.
        configuration: more values for JSON that must be equal for a run to go on.
        options: values for JSON that the caller chose. They are saved, and `OtherRunError` has them.

    Attributes:
        step: steps done.
        epoch: epochs done.
        scores: metrics of the final model by data, which `fastattn.training.train` measures.
        planned: `[step, epochs]` for each number of epochs that the run had, and the step from which on it had it.

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
        average: WeightAverage | None = None,
        layers: Sequence[Sequence[Any]] = (),
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
        callbacks: Sequence[TrainerCallback] = (),
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
            ("average", average if average is not None and average.needs_evaluations else None, "evaluate", evaluate),
        ):
            if given is not None and there is None:
                raise ValueError(f"Trainer: {name} needs {wanted}")
        self.model, self.optimizer, self.schedule, self.batches = model, optimizer, schedule, batches
        self._trained = Trained(model, optimizer, schedule, carried, average, layers)
        self.epochs = integer("Trainer: epochs", epochs, 1)
        self.folder = None if folder is None else Path(folder)
        self._files = RunFolder(self.folder, keep, keep_epochs)
        self._loss = loss or (lambda batch: model(**batch).loss)
        self._accumulation = integer("Trainer: accumulation", accumulation, 1)
        self._max_norm = None if max_norm is None else number("Trainer: max_norm", max_norm, **POSITIVE)
        self._evaluate_model, self._metric = evaluate, metric
        self._evaluations = Evaluations(metric, higher_is_better, patience, evaluate_every)
        self._save_every = None if save_every is None else integer("Trainer: save_every", save_every, 1)
        self._callbacks = checked_callbacks(callbacks)
        self._progress, self._plot = progress, plot
        if plot is not None:
            plot_format(plot)
            import_matplotlib()
        settings = {
            **self._trained.settings,
            "batches": dict(batches.settings),
            "accumulation": self._accumulation,
            "max_norm": self._max_norm,
            "patience": self._evaluations.settings,
            "average_by": self._evaluations.criterion if average is not None and average.needs_evaluations else None,
        }
        self._configuration = as_json({**settings, **(configuration or {})})
        self._options = as_json({"epochs": self.epochs, **(options or {})})
        self.step = self.epoch = 0
        self.planned: list[list[int]] = [[0, self.epochs]]
        self.scores: dict[str, Mapping[str, float | None]] = {}
        self._batch = 0  # batches done of the epoch
        self._epoch_ends: list[int] = []  # steps
        self._log_size = 0  # bytes of the log up to the steps done
        self._best: dict[str, Any] = {}  # the weights of the best evaluation, if no folder has them
        self._stopped = False  # whether a callback asked for the end
        self._unsaved = False  # whether there were steps or an evaluation since

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

    def stop(self) -> None:
        """End the run after the present step: save its state, and return from `train`. For callbacks.

        No evaluation is added. If the run is resumed it goes on, and its bits are those of a run that was not stopped.
        """
        self._stopped = True

    def locked(self) -> AbstractContextManager[None]:
        """No other trainer, here or in another process, trains in `folder` inside the `with` block.

        `train` does this itself. Whoever also writes the model there holds the lock from `resume` on. The folder is
        created. Raises ValueError if another one trains, and OSError.
        """
        return self._files.locked()

    def _train(self) -> None:
        self._files.check_free(self.step)
        self._trained.to_mark(new=self._files.saved is None)
        self._stopped = False
        with (
            reporting(self._files, self._log_size, self.step, self._progress, self._plot) as report,
            interrupts() as interrupted,
        ):
            self.model.train()
            try:
                self._tell("on_train_begin", report)
                if self._evaluation_is_due():
                    self._pause(report, interrupted)
                while not (self.finished or self._stopped):
                    self._train_epoch(report, interrupted)
                self._save(report)
                self._remove_old()  # also of a run that was killed when its last state was saved
                self._tell("on_train_end", report)
            finally:
                self.model.eval()
                self._trained.unfreeze()
                self.optimizer.zero_grad()

    def _tell(self, event: str, report: RunReport, *values: Any) -> None:
        """Call the callbacks."""
        for callback in self._callbacks:
            try:
                getattr(callback, event)(self, *values)
            except Exception as error:
                self._save_at(error, f"{type(callback).__name__}.{event}, after step {self.step}", report)
                raise
        if self._callbacks:
            self._trained.to_training()

    def _train_epoch(self, report: RunReport, interrupted: list[int]) -> None:
        """Train the rest of the epoch, or until the run ends."""
        self._trained.unfreeze(self.epoch)
        batches = self.batches.epoch(self.epoch)
        steps, left = (-(-count // self._accumulation) for count in (len(batches), len(batches) - self._batch))
        total = self.step + left + (self.epochs - self.epoch - 1) * steps  # if all epochs have as many as this one
        while self._batch < len(batches) and not (self._evaluations.out_of_patience or self._stopped):
            start = time.perf_counter()
            group = batches[self._batch : self._batch + self._accumulation]
            record = {"step": self.step + 1, "epoch": self.epoch + 1, **self._train_step(group, report)}
            report.step(record, time.perf_counter() - start, self._evaluations.latest(record["step"]), total)
            self.step, self._batch, self._unsaved = self.step + 1, self._batch + len(group), True
            if self._batch == len(batches):
                self.epoch, self._batch = self.epoch + 1, 0
                self._epoch_ends.append(self.step)
            self._trained.mark()
            self._after_step(record, report, interrupted)
            if self._batch == 0:
                break

    def _train_step(self, group: Sequence[Any], report: RunReport) -> dict[str, Any]:
        loss, done, parameters = 0.0, self._batch, self._trained.parameters
        try:
            for batch in group:
                done += 1
                loss += add_gradients(self._loss(self.batches.load(batch)), parameters, len(group))
            norm = clip_grad_norm(parameters, self._max_norm or math.inf)
            if not math.isfinite(norm):
                raise NonFiniteLossError(f"the norm of the gradients is {norm}")
        except Exception as error:
            self._save_at(error, f"step {self.step + 1}, epoch {self.epoch + 1}, batch {done} of the epoch", report)
            raise
        rate = self._trained.update(self.step)
        tokens = sum(int(self.batches.tokens(batch)) for batch in group)
        return {"loss": loss, "learning_rate": rate, "gradient_norm": norm, "tokens": tokens}

    def _save_at(self, error: Exception, place: str, report: RunReport) -> None:
        """Save the state after the steps done, and add to `error` the `place` where it was, and where the state is."""
        try:
            self._save(report, ended=True)
            saved = self._files.saved
            kept = "" if saved is None else f"; the state after step {self.step} is in {saved}"
        except (OSError, NonFiniteLossError) as failure:
            kept = f"; {failure}"
        if isinstance(error, NonFiniteLossError):
            error.args = (f"{place}: {error}{kept}",)
        else:  # add_note, which Python 3.10 does not have
            error.__notes__ = [*getattr(error, "__notes__", ()), place + kept]  # type: ignore[attr-defined]

    def _after_step(self, record: Mapping[str, Any], report: RunReport, interrupted: list[int]) -> None:
        self._tell("on_step_end", report, record)
        if self._batch == 0:
            self._tell("on_epoch_end", report)
        if interrupted or self._batch == 0 or self._evaluation_is_due():
            self._pause(report, interrupted)
        elif self._save_every and self.step % self._save_every == 0:
            self._save(report)

    def _evaluation_is_due(self) -> bool:
        """Whether an evaluation belongs after this step and has not been done."""
        due = self._evaluations.due(self.step, self._batch == 0, self.epoch == self.epochs)
        return due and self._evaluate_model is not None

    def _pause(self, report: RunReport, interrupted: list[int]) -> None:
        """Save, evaluate if that is due, and draw. After Ctrl-C, the run ends here."""
        self._save(report)
        if not interrupted and self._evaluation_is_due():
            self._evaluate(report)
            self._save(report)
        report.draw()
        if interrupted:
            raise KeyboardInterrupt

    def _evaluate(self, report: RunReport) -> None:
        assert self._evaluate_model is not None
        with self._trained.evaluated():
            metrics = checked_metrics(self._evaluate_model(), self._metric)
        epoch = self.epoch if self._batch == 0 else self.epoch + 1
        record = {"step": self.step, "epoch": epoch, "metrics": metrics}
        report.log.write(record)
        self.evaluations.append(record)
        self._trained.measured(self._evaluations)
        if self.folder is None and self.best is record:
            self._best = {name: np.array(x) for name, x in self._trained.weights().items()}
        self._unsaved = True
        report.evaluation(self._evaluations.latest(self.step))
        self._evaluations.warn_of_undefined()
        self._tell("on_evaluate", report, metrics)

    # Saved states

    def _save(self, report: RunReport, ended: bool = False) -> None:
        """Save the state if it is new. Raises NonFiniteLossError for weights that are not finite.

        If the run has `ended` by an error, no old state is removed: if the loss is NaN, an earlier one may be better.
        """
        if not self._unsaved:
            return
        tensors, values = self._trained.collect()
        self._files.check_finite(self.step, tensors)
        if self.folder is None:
            return
        self._log_size = report.log.flush()
        values |= {
            "step": self.step,
            "epoch": self.epoch,
            "batch": self._batch,
            "epoch_ends": self._epoch_ends,
            "planned": self.planned,
            "evaluations": self.evaluations,
            "log_size": self._log_size,
            "configuration": self._configuration,
            "options": self._options,
        }
        self._files.write(self.step, tensors, values)
        self._unsaved = False
        if not ended:
            self._remove_old()
            self._tell("on_save", report, self._files.saved)

    def _remove_old(self) -> None:
        self._files.remove_old(self.step, self._epoch_ends, None if self.best is None else self.best["step"])

    def resume(self) -> bool:
        """Go on from the newest state in `folder` that can be read. Returns whether there is one.

        Other `epochs` make the run longer or shorter: from the present step on, the rate is that of the new schedule,
        of whose settings only `num_training_steps`, and `num_warmup_steps` beside it, may differ.

        A DamagedStateWarning names a state that is damaged, cut short or cannot be read, and an earlier one is read.
        Raises OtherRunError (a ValueError), with file and reason, for a state of another model or configuration, and
        ValueError if no state can be read, or if more epochs were begun than `epochs`.
        """
        found = self._files.newest()
        if found is None:
            return False
        path, tensors, values = found
        check_configuration(path, values, self._configuration, self.epochs)
        position = read_position(path, values, self.epochs)
        try:
            self._evaluations.load(values["evaluations"])
            self._trained.restore(tensors, values)
            self._trained.measured(self._evaluations)
        except MALFORMED as error:
            raise OtherRunError(f"{path}: does not fit this run: {error}", values) from error
        self.step, self.epoch, self._batch, self._log_size, self._epoch_ends, self.planned = position
        self._files.saved = path
        return True

    def load_best(self) -> int | None:
        """Load the weights of the best evaluation and return its step, or None if there is no evaluation yet.

        Raises as `resume` does. Training cannot continue from these weights.
        """
        if self.best is None:
            return None
        step = int(self.best["step"])
        if self.folder is None:
            self.model.load_state_dict(self._best)
        elif step == self.step:
            self.model.load_state_dict(self._trained.weights())
        else:
            self.model.load_state_dict(self._files.weights(step))
        return step
