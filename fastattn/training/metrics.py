"""How good predictions are. Labels are integers of any array shape; those equal to `ignore_index` do not count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn.functional.losses import IGNORE_INDEX


def accuracy(predictions: ArrayLike, labels: ArrayLike, ignore_index: int = IGNORE_INDEX) -> float:
    """The share of predictions that are right; NaN where no label counts.

    Args:
        predictions: integers.
        labels: integers of the same shape.
        ignore_index: labels that do not count.

    Raises ValueError for shapes that differ.

    >>> accuracy([1, 2, 3, 0], [1, 2, 2, -100]).__round__(4)
    0.6667
    """
    predicted, right = _counted(predictions, labels, ignore_index)
    return float(np.count_nonzero(predicted == right) / len(right)) if len(right) else float("nan")


def f1_scores(
    predictions: ArrayLike, labels: ArrayLike, num_labels: int, ignore_index: int = IGNORE_INDEX
) -> NDArray[np.float64]:
    """The F1 score of each label, 2 * precision * recall / (precision + recall): float64 `[num_labels]`.

    A label that is neither predicted nor there has NaN; `np.nanmean` of the scores is the macro average.

    Args:
        predictions: integers.
        labels: integers of the same shape.
        num_labels: how many labels there are; they count from 0.
        ignore_index: labels that do not count.

    Raises ValueError for shapes that differ and for labels or predictions that are none of `num_labels`.

    >>> f1_scores([0, 1, 1, 1], [0, 0, 1, 1], num_labels=3).round(3).tolist()
    [0.667, 0.8, nan]
    """
    predicted, right = _counted(predictions, labels, ignore_index)
    for name, values in (("predictions", predicted), ("labels", right)):
        if values.size and not 0 <= values.min() <= values.max() < num_labels:
            outside = values[(values < 0) | (values >= num_labels)][0]
            raise ValueError(f"f1_scores: {name} must be from 0 to {num_labels - 1}, got {outside}")
    hits = np.bincount(right[predicted == right], minlength=num_labels)
    total = np.bincount(predicted, minlength=num_labels) + np.bincount(right, minlength=num_labels)
    scores = np.full(num_labels, np.nan)
    np.divide(2.0 * hits, total, out=scores, where=total > 0)
    return scores


def checked_metrics(metrics: Any, wanted: str | None = None) -> dict[str, float | None]:
    """What an evaluation gave, as floats by name, None for one that is no finite number.

    Raises ValueError for anything else than numbers by name, none at all, and where `wanted` is not among them.

    >>> checked_metrics({"loss": np.float32(0.5), "f1": float("nan")})
    {'loss': 0.5, 'f1': None}
    """
    try:
        values = {str(name): float(value) for name, value in metrics.items()}
    except (AttributeError, TypeError, ValueError):
        values = {}
    if not values:
        raise ValueError(f"Trainer: evaluate must give numbers by name, got {metrics!r}")
    if wanted is not None and wanted not in values:
        raise ValueError(f"Trainer: evaluate gave no metric {wanted!r}, only {', '.join(values)}")
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _counted(
    predictions: ArrayLike, labels: ArrayLike, ignore_index: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    predicted, right = np.asarray(predictions, np.int64), np.asarray(labels, np.int64)
    if predicted.shape != right.shape:
        raise ValueError(f"predictions and labels must have one shape, got {predicted.shape} and {right.shape}")
    counted = right != ignore_index
    return predicted[counted], right[counted]
