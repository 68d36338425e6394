"""Softmax over the last axis."""

from __future__ import annotations

from fastattn import _core

from ._types import FloatArray


def softmax(x: FloatArray, *, out: FloatArray | None = None) -> FloatArray:
    """exp(x) / sum(exp(x)) over the last axis, shifted by its maximum; a row that is -inf throughout gives 0.

    x `[..., D]`, float32, with evenly spaced rows; `out` may be x. Returns an array of x's shape.

    Raises TypeError for another dtype, ValueError for a strided last axis or an `out` that overlaps x otherwise.

    Source: Goodfellow, Bengio and Courville 2016, "Deep Learning", section 4.1.

    >>> import numpy as np
    >>> softmax(np.array([0.0, -np.inf], np.float32)).tolist()
    [1.0, 0.0]
    """
    return _core.softmax(x, out)
