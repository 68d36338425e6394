"""What a run tells while it trains: its log, a bar or lines, and a picture of the log."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fastattn.progress import progress_bar
from fastattn.training.plot import plot_log
from fastattn.training.run_folder import RunFolder
from fastattn.training.run_log import RunLog


class RunReport:
    """The log, the bar and the picture of a run. `reporting` makes one."""

    def __init__(self, files: RunFolder, log: RunLog, advance: Callable[..., None], plot: str | None) -> None:
        self.log, self._files, self._advance, self._plot = log, files, advance, plot
        self._notes: list[str] = []  # of the last step

    def step(self, record: Mapping[str, Any], seconds: float, evaluated: list[str], total: int) -> None:
        """A step, the metrics of the last evaluation, and how many steps there will be."""
        rate = record["tokens"] / seconds
        self.log.write({**record, "tokens_per_second": round(rate, 1)})
        self._notes = [f"loss {record['loss']:.4f}", f"{rate:,.0f} tokens/s"]
        self._advance(note=", ".join([*self._notes, *evaluated]), total=total)

    def evaluation(self, evaluated: list[str]) -> None:
        """The metrics of an evaluation: a line of their own where there is no bar."""
        self._advance(0, ", ".join([*self._notes, *evaluated]), line=True)

    def draw(self) -> None:
        """Draw the log. A run goes on without its picture, after a warning."""
        folder = self._files.path
        if folder is None or self._files.log is None or self._plot is None:
            return
        try:
            plot_log(self._files.log, folder / self._plot)
        except OSError as error:
            warnings.warn(f"{folder / self._plot}: {error.strerror}; it is not drawn", stacklevel=2)


@contextlib.contextmanager
def reporting(files: RunFolder, size: int, step: int, progress: bool | None, plot: str | None) -> Iterator[RunReport]:
    """The report of a run that begins after `step`, with the first `size` bytes of its log."""
    with (
        RunLog(files.log, size) as log,
        progress_bar(None, show=progress, unit="step", done=step, extra="train") as advance,
    ):
        yield RunReport(files, log, advance, plot)
