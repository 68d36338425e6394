"""Reference of `pooling` and `pooling_backward`: one vector per sequence of a ragged batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastattn._types import Floats

from ._seqlens import bounds

MODES = ("mean", "cls", "max", "last", "mean_sqrt_len", "weighted_mean")


def pooling(
    x: Floats,
    cu_seqlens: npt.NDArray[np.int32],
    mode: str = "mean",
    *,
    out: Floats | None = None,
) -> Floats:
    """One row per sequence, from the rows of its tokens. See `fastattn.kernels.pooling`.

    >>> pooling(np.array([[1.0], [3.0], [8.0]]), np.array([0, 2, 3], np.int32)).tolist()
    [[2.0], [8.0]]
    """
    _check("pooling", mode)
    ends = bounds("pooling", "cu_seqlens", cu_seqlens, len(x))
    y = np.empty((len(ends) - 1, x.shape[1]), x.dtype) if out is None else out
    for row, start, end in zip(y, ends[:-1], ends[1:], strict=True):
        _pool(x[start:end], mode, row)
    return y


def pooling_backward(
    dy: Floats,
    x: Floats,
    cu_seqlens: npt.NDArray[np.int32],
    mode: str = "mean",
    *,
    out: Floats | None = None,
) -> Floats:
    """Each sequence's row of dy, distributed to its tokens. See `fastattn.kernels.pooling_backward`.

    >>> x = np.array([[1.0], [3.0], [8.0]])
    >>> pooling_backward(np.array([[2.0], [5.0]]), x, np.array([0, 2, 3], np.int32)).tolist()
    [[1.0], [1.0], [5.0]]
    """
    _check("pooling_backward", mode)
    ends = bounds("pooling_backward", "cu_seqlens", cu_seqlens, len(x))
    dx = np.empty(x.shape, x.dtype) if out is None else out
    for row, start, end in zip(dy, ends[:-1], ends[1:], strict=True):
        if end > start:
            _pool_backward(row, x[start:end], mode, dx[start:end])
    return dx


def _check(function: str, mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"{function}: mode must be one of {', '.join(map(repr, MODES))}, got {mode!r}")


def _pool(x: Floats, mode: str, row: Floats) -> None:
    """Pool one sequence `[n, D]` into `row` `[D]`."""
    n = len(x)
    if n == 0:
        row[...] = 0
    elif mode == "cls":
        row[...] = x[0]
    elif mode == "last":
        row[...] = x[-1]
    elif mode == "max":
        x.max(axis=0, out=row)
    elif mode == "weighted_mean":
        weights = np.arange(1, n + 1, dtype=x.dtype)
        np.matmul(weights, x, out=row)
        row /= weights.sum()
    else:
        x.sum(axis=0, out=row)
        row /= x.dtype.type(n if mode == "mean" else np.sqrt(n))


def _pool_backward(row: Floats, x: Floats, mode: str, dx: Floats) -> None:
    """Distribute `row` `[D]` into the gradient `dx` of one sequence x, both `[n, D]`, n > 0."""
    n = len(x)
    if mode in ("cls", "last"):
        dx[...] = 0
        dx[0 if mode == "cls" else -1] = row
    elif mode == "max":
        dx[...] = 0
        dx[x.argmax(axis=0), np.arange(len(row))] = row
    elif mode == "weighted_mean":
        weights = np.arange(1, n + 1, dtype=x.dtype)
        weights /= weights.sum()
        np.multiply(weights[:, None], row, out=dx)
    else:
        np.divide(row, x.dtype.type(n if mode == "mean" else np.sqrt(n)), out=dx)
