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
    """-log softmax(logits)[target] of each row, smoothed if asked.

    logits `[rows, classes]` of any float dtype, target int64 `[rows]`. With `label_smoothing` e the loss is (1 - e)
    times that of the target plus e times the mean of the loss over all classes. A row whose target is
    `ignore_index` has the loss 0. Returns (loss, lse), both `[rows]`; lse, the log of the sum of a row's
    exponentials in float64, is for `cross_entropy_backward` and 0 where the row is ignored. Raises ValueError for
    another target outside [0, classes).

    Source: Goodfellow et al. 2016, section 6.2.1.1; label smoothing: Szegedy et al. 2016, section 7, spread as in
    PyTorch.

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
    """The gradient of `cross_entropy`'s logits: dloss * (softmax(logits) - the smoothed target).

    dloss `[rows]` and logits `[rows, classes]` of one float dtype, lse (float64 `[rows]`, from `cross_entropy`), target
    int64 `[rows]`, `ignore_index` and `label_smoothing` as in the forward call. Returns `[rows, classes]`, in `out`
    if given (which may be `logits`); 0 in ignored rows. Raises ValueError for a target out of range.

    Source: Bridle 1990; Szegedy et al. 2016, section 7.

    >>> logits, target = np.log([[1.0, 3.0], [1.0, 1.0]]), np.array([1, -100])
    >>> loss, lse = cross_entropy(logits, target)
    >>> cross_entropy_backward(np.ones(2), logits, target, lse).round(6).tolist()
    [[0.25, -0.25], [0.0, 0.0]]
    """
    counted = _counted("cross_entropy_backward", logits, target, ignore_index)
    dx = np.empty(logits.shape, logits.dtype) if out is None else out
    with np.errstate(over="ignore", invalid="ignore"):  # what is there in rows that are ignored
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
    """`[rows]`, True where the row is not ignored; ValueError for the first target out of range."""
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
