"""Softmax over the last axis."""

from __future__ import annotations

from fastattn import _core
from fastattn._types import FloatArray


def softmax(x: FloatArray, *, out: FloatArray | None = None) -> FloatArray:
    """exp(x) / sum(exp(x)) over the last axis, shifted by the row's maximum; 0 for a row of -inf.

    x `[..., D]`, float32, with evenly spaced rows; `out` may be x. Returns an array of x's shape.

    Raises TypeError for another dtype, ValueError for a strided last axis or an `out` that overlaps x otherwise.

    Source: Goodfellow, Bengio and Courville 2016, "Deep Learning", section 4.1.

    >>> import numpy as np
    >>> softmax(np.array([0.0, -np.inf], np.float32)).tolist()
    [1.0, 0.0]
    """
    return _core.softmax(x, out)


def softmax_backward(dy: FloatArray, y: FloatArray, *, out: FloatArray | None = None) -> FloatArray:
    """The gradient of `softmax` with respect to x, given its result y and dy, the gradient of y: y (dy - sum(dy y)).

    dy, y `[..., D]`, float32, with evenly spaced rows; `out` may be dy or y. Returns an array of their shape.

    Raises TypeError for another dtype, ValueError for shapes that differ, a strided last axis or an `out` that cannot
    be written or overlaps an input otherwise.

    Source: Bridle 1990 (Neurocomputing, F 68), "Probabilistic interpretation of feedforward classification network
    outputs", section 3.

    >>> import numpy as np
    >>> softmax_backward(np.array([1.0, 0.0], np.float32), np.array([0.5, 0.5], np.float32)).tolist()
    [0.25, -0.25]
    """
    return _core.softmax_backward(dy, y, out)
