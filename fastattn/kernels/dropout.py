"""Dropout that keeps a seed instead of a mask."""

from __future__ import annotations

from fastattn import _core
from fastattn._types import FloatArray


def dropout(
    x: FloatArray,
    p: float = 0.5,
    seed: int = 0,
    *,
    residual: FloatArray | None = None,
    out: FloatArray | None = None,
) -> FloatArray:
    """Each element is 0 with probability p, else x / (1 - p); then `residual` is added, if given.

    x and `residual` `[..., D]`, float32, with evenly spaced rows; 0 <= p < 1, and p = 0 drops nothing. `out` may be x,
    but must not overlap `residual`. Whether an element is kept depends only on `seed` (in [0, 2^64)) and the indices of
    its row and column.

    Returns an array of x's shape.

    Raises TypeError for another dtype, ValueError for p or seed out of range, a `residual` of another shape, a strided
    last axis or an `out` that cannot be written or overlaps x otherwise.

    Source: Srivastava et al. 2014 (JMLR 15), section 10, scaled in training; the row's random bits: SplitMix64, Steele,
    Lea and Flood 2014, figure 17.

    >>> import numpy as np
    >>> dropout(np.ones(8, np.float32), 0.5, seed=3).tolist()
    [0.0, 2.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0]
    """
    return _core.dropout(x, p, seed, residual, out)


def dropout_backward(dy: FloatArray, p: float = 0.5, seed: int = 0, *, out: FloatArray | None = None) -> FloatArray:
    """The gradient of `dropout` with respect to x: dy / (1 - p) where x was kept, 0 elsewhere.

    dy `[..., D]` is the gradient of the result, float32, with evenly spaced rows. p and seed are as in the forward
    call. `out` may be dy.

    Returns an array of dy's shape.

    Raises TypeError for another dtype, ValueError for p or seed out of range, a strided last axis or an `out` that
    cannot be written or overlaps dy otherwise.

    Source: Srivastava et al. 2014 (JMLR 15), section 10.

    >>> import numpy as np
    >>> dropout_backward(np.ones(8, np.float32), 0.5, seed=3).tolist()
    [0.0, 2.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0]
    """
    return _core.dropout_backward(dy, p, seed, out)
