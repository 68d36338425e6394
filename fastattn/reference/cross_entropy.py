"""Reference of `cross_entropy` and `cross_entropy_backward`: the loss of a classifier, row by row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastattn._types import DoubleArray, Floats, IntArray

from ._blocks import row_blocks
from .softmax import _shift


def cross_entropy(
    logits: Floats, target: IntArray, *, ignore_index: int = -100, label_smoothing: float = 0.0
) -> tuple[Floats, DoubleArray]:
    """-log softmax(logits)[target] of each row, smoothed on request, and the log of the sum of exponentials (float64).

    See `fastattn.kernels.cross_entropy`.

    >>> loss, lse = cross_entropy(np.log([[1.0, 3.0], [1.0, 1.0]]), np.array([1, -100]))
    >>> loss.round(6).tolist(), lse.round(6).tolist()
    ([0.287682, 0.0], [1.386294, 0.0])
    """
    counted = _counted("cross_entropy", logits, target, ignore_index)
    loss, lse = np.empty(len(logits), logits.dtype), np.empty(len(logits), np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # log(0), inf - inf: in a row without a finite sum
        for rows in row_blocks(*logits.shape):
            top = _shift(logits[rows])
            x = logits[rows] - top
            log_sum = np.log(np.exp(x).sum(axis=-1))
            np.add(log_sum, top[:, 0], out=lse[rows], dtype=np.float64)
            log_sum -= (1 - label_smoothing) * x[np.arange(len(x)), np.where(counted[rows], target[rows], 0)]
            if label_smoothing:
                log_sum -= label_smoothing * x.mean(axis=-1)
            loss[rows] = log_sum
    loss[~counted] = lse[~counted] = 0
    return loss, lse


def cross_entropy_backward(
    dloss: Floats,
    logits: Floats,
    target: IntArray,
    lse: DoubleArray,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    out: Floats | None = None,
) -> Floats:
    """dloss * (softmax(logits) - the smoothed target); 0 in ignored rows.

    See `fastattn.kernels.cross_entropy_backward`.

    >>> logits, target = np.log([[1.0, 3.0], [1.0, 1.0]]), np.array([1, -100])
    >>> loss, lse = cross_entropy(logits, target)
    >>> cross_entropy_backward(np.ones(2), logits, target, lse).round(6).tolist()
    [[0.25, -0.25], [0.0, 0.0]]
    """
    counted = _counted("cross_entropy_backward", logits, target, ignore_index)
    dx = np.empty(logits.shape, logits.dtype) if out is None else out
    with np.errstate(over="ignore", invalid="ignore"):  # ignored rows may hold anything
        for rows in row_blocks(*logits.shape):
            y = np.subtract(logits[rows], lse[rows, None], out=dx[rows])
            np.exp(y, out=y)
            if label_smoothing:
                y -= y.dtype.type(label_smoothing / y.shape[1])
            y[np.arange(len(y)), np.where(counted[rows], target[rows], 0)] -= 1 - label_smoothing
            y *= dloss[rows, None]
    dx[~counted] = 0
    return dx


def _counted(function: str, logits: Floats, target: IntArray, ignore_index: int) -> npt.NDArray[np.bool_]:
    """`[rows]`, True where the row is not ignored. Raises ValueError for the first target out of range."""
    classes = logits.shape[1]
    counted: npt.NDArray[np.bool_] = target != ignore_index
    wrong = counted & ((target < 0) | (target >= classes))
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(
            f"{function}: target must be in [0, {classes}) or ignore_index ({ignore_index}), "
            f"got {target[i]} at index {i}"
        )
    return counted
