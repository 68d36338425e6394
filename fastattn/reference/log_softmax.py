"""Reference of `log_softmax` and `log_softmax_backward`."""

from __future__ import annotations

import numpy as np

from fastattn._types import Floats

from .softmax import _shift


def log_softmax(x: Floats, *, out: Floats | None = None) -> Floats:
    """x - log(sum(exp(x))) over the last axis. See `fastattn.kernels.log_softmax`.

    >>> log_softmax(np.array([0.0, 0.0])).round(6).tolist()
    [-0.693147, -0.693147]
    """
    with np.errstate(invalid="ignore"):  # inf - inf in a row with +inf
        y = np.subtract(x, _shift(x), out=out)
    total = np.exp(y).sum(axis=-1, keepdims=True)
    total[total == 0] = 1
    y -= np.log(total, out=total)
    return y


def log_softmax_backward(dy: Floats, y: Floats, *, out: Floats | None = None) -> Floats:
    """dy - exp(y) * sum(dy) over the last axis. See `fastattn.kernels.log_softmax_backward`.

    >>> log_softmax_backward(np.array([1.0, 0.0]), np.log([0.25, 0.75])).round(6).tolist()
    [0.75, -0.75]
    """
    total = dy.sum(axis=-1, keepdims=True)
    if out is dy:
        out -= np.exp(y) * total
        return out
    dx: Floats = np.exp(y, out=out)
    dx *= total
    np.subtract(dy, dx, out=dx)
    return dx
