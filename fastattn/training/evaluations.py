"""The evaluations of a run: which was the best, and whether a better one is still waited for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastattn.checks import integer


class Evaluations:
    """What the evaluations of a run gave, in order.

    Args:
        metric: the metric by which models are compared; None: the first one of each evaluation.
        higher_is_better: whether that is so for `metric`.
        patience: how many evaluations may follow the best one; None: any number.

    Attributes:
        entries: for each evaluation its step, epoch and metrics.

    Raises ValueError and TypeError for a patience that is not an integer above 0.
    """

    def __init__(self, metric: str | None, higher_is_better: bool, patience: int | None) -> None:
        self._metric, self._higher_is_better = metric, higher_is_better
        self._patience = None if patience is None else integer("Trainer: patience", patience, 1)
        self.entries: list[dict[str, Any]] = []

    @property
    def settings(self) -> dict[str, Any] | None:
        """What decides when a run ends, for JSON; None where that does not depend on evaluations."""
        if self._patience is None:
            return None
        return {"evaluations": self._patience, "metric": self._metric, "higher_is_better": self._higher_is_better}

    @property
    def best(self) -> dict[str, Any] | None:
        """The one with the best metric, the first of equals; None before there is one."""
        sign = 1 if self._higher_is_better else -1
        scored = [entry for entry in self.entries if math.isfinite(self._score(entry["metrics"]))]
        return max(scored, key=lambda entry: sign * self._score(entry["metrics"]), default=None)

    @property
    def out_of_patience(self) -> bool:
        """Whether more than `patience` of them followed the best one."""
        best = self.best
        if self._patience is None or best is None:
            return False
        return len(self.entries) - self.entries.index(best) > self._patience

    def load(self, entries: list[dict[str, Any]]) -> None:
        """Go on with those of a saved run. Raises ValueError where one does not have the metric."""
        for entry in entries:
            if self._metric is not None and self._metric not in entry["metrics"]:
                raise ValueError(f"its evaluations have no {self._metric!r}, only {', '.join(entry['metrics'])}")
        self.entries = entries

    def latest(self) -> list[str]:
        """The metrics of the last one, as a text each."""
        metrics = self.entries[-1]["metrics"] if self.entries else {}
        return [f"{name} {value:.4f}" for name, value in metrics.items() if value is not None]

    def _score(self, metrics: Mapping[str, float | None]) -> float:
        score = metrics[next(iter(metrics)) if self._metric is None else self._metric]
        return math.nan if score is None else score
