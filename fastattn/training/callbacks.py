"""What a user's code sees of a run, and how it may stop it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastattn import checks


class TrainerCallback:
    """Methods that a `Trainer` calls while it trains. They have transformers' names, and do nothing unless overridden.

    Each gets the trainer: `trainer.step`, `epoch`, `epochs`, `model`, `optimizer`, `evaluations` and `best`.
    `trainer.stop()` ends the run after the present step. The state is saved then, and a run that is resumed goes on.

    A callback does not change the bits of a run unless it changes its weights: the random state and the mode of the
    model are restored after each call. What a callback remembers is not saved. An error in a callback ends the run as
    an error in a step does: the state is saved, and the error has a note with callback, method and step.

    >>> class Enough(TrainerCallback):
    ...     def on_step_end(self, trainer, record):
    ...         if record["loss"] < 0.01:
    ...             trainer.stop()
    """

    def on_train_begin(self, trainer: Any) -> None:
        """Before the first step, also of a run that goes on."""

    def on_step_end(self, trainer: Any, record: Mapping[str, Any]) -> None:
        """After each step. `record` is its line of the log, without the rate: `loss`, `gradient_norm` and others."""

    def on_epoch_end(self, trainer: Any) -> None:
        """After the last step of an epoch, before the evaluation that belongs there."""

    def on_evaluate(self, trainer: Any, metrics: Mapping[str, float | None]) -> None:
        """After each evaluation. A metric that is NaN or infinite is None."""

    def on_save(self, trainer: Any, path: Path) -> None:
        """After each saved state; `path` is its file."""

    def on_train_end(self, trainer: Any) -> None:
        """At the end of the run: all epochs are done, patience has run out, or `stop` was called."""


def checked_callbacks(callbacks: Any) -> list[TrainerCallback]:
    """`callbacks` as a list. Raises TypeError for anything but a sequence of `TrainerCallback`s, by index."""
    found = list(checks.sequence("Trainer: callbacks", callbacks, "TrainerCallback"))
    for i, callback in enumerate(found):
        if not isinstance(callback, TrainerCallback):
            raise TypeError(f"Trainer: callbacks[{i}] must be a TrainerCallback, got {checks.shown(callback)}")
    return found
