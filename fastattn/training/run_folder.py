"""The folder of one run: its log and its states, which of them are its own, and which are kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastattn.checks import integer
from fastattn.training.micro_batches import NonFiniteLossError
from fastattn.training.run_lock import locked
from fastattn.training.run_state import (
    STATES,
    Tensors,
    averages,
    not_finite,
    read_newest,
    read_state,
    remove_old_states,
    saved_states,
    state_path,
    weights,
    write_state,
)

LOG = "log.jsonl"


class RunFolder:
    """What a `Trainer` knows of its folder, if it has one. Arguments are as in `Trainer`.

    Attributes:
        path: the folder, or None.
        saved: the state that was saved last, or loaded.
    """

    def __init__(self, path: Path | None, keep: int, keep_epochs: int) -> None:
        self.path, self._keep = path, integer("Trainer: keep", keep, 1)
        self._keep_epochs = integer("Trainer: keep_epochs", keep_epochs, 0)
        self.saved: Path | None = None
        self._met: list[Path] = []  # the states that `newest` found
        self._locked = False

    @property
    def log(self) -> Path | None:
        """The file of the log."""
        return None if self.path is None else self.path / LOG

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the folder inside the `with` block, unless it is held. See `Trainer.locked`."""
        if self.path is None or self._locked:
            yield
            return
        with locked(self.path):
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    def newest(self) -> tuple[Path, Tensors, Mapping[str, Any]] | None:
        """The newest state that can be read. Raises as `read_newest`."""
        self._met = [path for _, path in self._states()]
        return read_newest(self._met)

    def check_free(self, step: int) -> None:
        """Raise ValueError if the folder has states, after `step`, that this run neither wrote nor met."""
        found = self._states()
        if self.saved is None and found:
            raise ValueError(f"{found[0][1].parent}: holds states of a run; resume it, or choose another folder")
        if new := [path for number, path in found if number > step and path not in self._met]:
            raise ValueError(f"{new[0]}: another run wrote this since `resume`; resume again")

    def check_finite(self, step: int, tensors: Tensors) -> None:
        """Raise NonFiniteLossError, which names the last good state, for tensors that are not finite."""
        if broken := not_finite(tensors):
            more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
            kept = "no state was saved" if self.saved is None else f"the last good state is {self.saved}"
            raise NonFiniteLossError(f"NaN or infinite after step {step}: {broken[0]}{more}; {kept}")

    def write(self, step: int, tensors: Tensors, values: Mapping[str, Any]) -> None:
        """Save the state of a step. Raises OSError."""
        if self.path is not None:
            self.saved = write_state(self.path / STATES, step, tensors, values)

    def remove_old(self, step: int, epoch_ends: Sequence[int], best: int | None) -> None:
        """Remove the states that `keep` and `keep_epochs` do not keep, and that are not the best one."""
        if self.path is not None:
            needed = [*epoch_ends[::-1][: self._keep_epochs], *([] if best is None else [best])]
            remove_old_states(self.path / STATES, step, self._keep, needed)

    def weights(self, step: int) -> Tensors:
        """The weights that were evaluated after a step: the averages, if the run has any. Raises as `read_state`."""
        assert self.path is not None
        tensors, _ = read_state(state_path(self.path / STATES, step))
        return averages(tensors) or weights(tensors)

    def _states(self) -> list[tuple[int, Path]]:
        return [] if self.path is None else saved_states(self.path / STATES)
