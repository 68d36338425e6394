"""The evaluations of a run: which is the best, and whether to wait for a better one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

from fastattn.checks import integer, number, shown


class Evaluations:
    """The results of a run's evaluations, in order. Arguments are as in `Trainer`.

    Attributes:
        entries: step, epoch and metrics of each evaluation.

    Raises ValueError and TypeError for a patience or an `evaluate_every` that is not an integer above 0.
    """

    def __init__(
        self, metric: str | None, higher_is_better: bool, patience: int | None, evaluate_every: int | None
    ) -> None:
        self._metric, self._higher_is_better = metric, higher_is_better
        self._patience = None if patience is None else integer("Trainer: patience", patience, 1)
        self._every = None if evaluate_every is None else integer("Trainer: evaluate_every", evaluate_every, 1)
        self.entries: list[dict[str, Any]] = []

    @property
    def settings(self) -> dict[str, Any] | None:
        """The criterion that ends a run, for JSON; None if evaluations do not end it."""
        if self._patience is None:
            return None
        return {"evaluations": self._patience, **self.criterion}

    @property
    def criterion(self) -> dict[str, Any]:
        """What tells a better evaluation, and when there is one, for JSON."""
        return {"metric": self._metric, "higher_is_better": self._higher_is_better, "evaluate_every": self._every}

    @property
    def best(self) -> dict[str, Any] | None:
        """The evaluation with the best metric, the first if several are equal; None before the first evaluation."""
        sign = 1 if self._higher_is_better else -1
        scored = [entry for entry in self.entries if math.isfinite(self._score(entry["metrics"]))]
        return max(scored, key=lambda entry: sign * self._score(entry["metrics"]), default=None)

    @property
    def out_of_patience(self) -> bool:
        """Whether `patience` evaluations followed the best one. One without a metric is no improvement."""
        if self._patience is None:
            return False  # asked after every step
        best = self.best
        return len(self.entries) - (0 if best is None else self.entries.index(best) + 1) >= self._patience

    def stalled(self, window: int) -> int | None:
        """The steps done at the first evaluation that is worse than the best of those more than `window` evaluations
        before it; None if there is none. One without a metric is neither worse nor better than another."""
        sign, best = 1 if self._higher_is_better else -1, -math.inf
        scores = [sign * self._score(entry["metrics"]) for entry in self.entries]
        for entry, score, before in zip(self.entries[window + 1 :], scores[window + 1 :], scores, strict=False):
            best = max(best, before)  # NaN is not larger
            if score < best:
                return int(entry["step"])
        return None

    def due(self, step: int, epoch_ended: bool, run_ended: bool) -> bool:
        """Whether an evaluation belongs after this step and has not been done."""
        if step == 0 or (self.entries and self.entries[-1]["step"] == step):
            return False
        return run_ended or (step % self._every == 0 if self._every else epoch_ended)

    def load(self, entries: list[dict[str, Any]]) -> None:
        """Take over the evaluations of a saved run. Raises ValueError if one does not have the metric, and an error of
        `MALFORMED` for what is none."""
        for entry in entries:
            integer("the step of an evaluation", entry["step"], 0)
            metrics = {name: value for name, value in entry["metrics"].items() if value is not None}
            for name, value in metrics.items():
                number(f"the metric {shown(name)}", value, -math.inf)
            if not entry["metrics"]:
                raise ValueError("an evaluation has no metrics")
            if self._metric is not None and self._metric not in entry["metrics"]:
                raise ValueError(f"its evaluations have no {shown(self._metric)}, only {', '.join(entry['metrics'])}")
        self.entries = [*entries]

    def latest(self, step: int) -> list[str]:
        """The metrics of the last evaluation, each as text that tells it from a training step's. One that does not
        follow `step` is told with its own."""
        if not self.entries:
            return []
        metrics, measured = self.entries[-1]["metrics"], self.entries[-1]["step"]
        told = {name: "undefined" if value is None else f"{value:.4f}" for name, value in metrics.items()}
        texts = [f"eval {name} {value}" for name, value in told.items()]
        return texts if measured == step else [f"after step {measured}: {texts[0]}", *texts[1:]]

    def warn_of_undefined(self) -> None:
        """Warn if the last evaluation has no metric for patience to compare it by."""
        entry = self.entries[-1]
        if self._patience is not None and not math.isfinite(self._score(entry["metrics"])):
            name = next(iter(entry["metrics"])) if self._metric is None else self._metric
            told = f"after step {entry['step']} {name} is undefined: this evaluation counts as no improvement"
            warnings.warn(told, stacklevel=2)

    def _score(self, metrics: Mapping[str, float | None]) -> float:
        score = metrics[next(iter(metrics)) if self._metric is None else self._metric]
        return math.nan if score is None else score
