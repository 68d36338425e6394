"""Reference of `softmax` and `softmax_backward`."""

from __future__ import annotations

import numpy as np

from fastattn._types import Floats


def softmax(x: Floats, *, out: Floats | None = None) -> Floats:
    """exp(x) / sum(exp(x)) over the last axis, shifted by the row's maximum so that nothing overflows.

    See `fastattn.kernels.softmax`.

    >>> softmax(np.array([[0.0, 0.0], [-np.inf, -np.inf]])).tolist()
    [[0.5, 0.5], [0.0, 0.0]]
    """
    with np.errstate(invalid="ignore"):  # inf - inf in a row with +inf
        y = np.subtract(x, _shift(x), out=out)
    np.exp(y, out=y)
    total = y.sum(axis=-1, keepdims=True)
    total[total == 0] = 1
    y /= total
    return y


def softmax_backward(dy: Floats, y: Floats, *, out: Floats | None = None) -> Floats:
    """y * (dy - sum(dy * y)) over the last axis. See `fastattn.kernels.softmax_backward`.

    >>> softmax_backward(np.array([1.0, 0.0]), np.array([0.5, 0.5])).tolist()
    [0.25, -0.25]
    """
    total = np.einsum("...i,...i->...", dy, y)[..., None]
    dx: Floats = np.subtract(dy, total, out=None if out is y else out)
    return np.multiply(dx, y, out=dx if out is None else out)


def _shift(x: Floats) -> Floats:
    """The maximum of each row, 0 for a row of -inf."""
    top: Floats = x.max(axis=-1, keepdims=True, initial=-np.inf)
    top[top == -np.inf] = 0
    return top
