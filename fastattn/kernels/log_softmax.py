"""The logarithm of the softmax over the last axis."""

from __future__ import annotations

from fastattn import _core
from fastattn._types import FloatArray


def log_softmax(x: FloatArray, *, out: FloatArray | None = None) -> FloatArray:
    """x - log(sum(exp(x))) over the last axis; a row of -inf stays -inf.

    x `[..., D]`, float32, with evenly spaced rows; `out` may be x. Returns an array of x's shape.

    Raises TypeError for another dtype, ValueError for a strided last axis or an `out` that overlaps x otherwise.

    Source: Goodfellow, Bengio and Courville 2016, "Deep Learning", section 6.2.2.3.

    >>> import numpy as np
    >>> log_softmax(np.array([0.0, -np.inf], np.float32)).tolist()
    [0.0, -inf]
    """
    return _core.log_softmax(x, out)


def log_softmax_backward(dy: FloatArray, y: FloatArray, *, out: FloatArray | None = None) -> FloatArray:
    """The gradient of `log_softmax` with respect to x, given its result y and dy, the gradient of y: dy - e^y sum(dy).

    dy, y `[..., D]`, float32, with evenly spaced rows; `out` may be dy or y. Returns an array of their shape.

    Raises TypeError for another dtype, ValueError for shapes that differ, a strided last axis or an `out` that cannot
    be written or overlaps an input otherwise.

    Source: Goodfellow, Bengio and Courville 2016, section 6.2.2.3, equation 6.30, differentiated.

    >>> import numpy as np
    >>> y = np.array([0.0, -np.inf], np.float32)
    >>> log_softmax_backward(np.array([1.0, 0.5], np.float32), y).tolist()
    [-0.5, 0.5]
    """
    return _core.log_softmax_backward(dy, y, out)
