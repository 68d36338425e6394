"""Activations."""

from __future__ import annotations

from fastattn import _core
from fastattn._types import FloatArray


def activation(x: FloatArray, function: str, *, out: FloatArray | None = None) -> FloatArray:
    """`function` of each element: "relu", max(x, 0); "sigmoid", 1 / (1 + e^-x); "silu", x sigmoid(x); or "tanh".

    x `[..., D]`, float32, with evenly spaced rows; `out` may be x. Returns an array of x's shape.

    Raises TypeError for another dtype, ValueError for an unknown `function`, a strided last axis or an `out` that
    overlaps x otherwise.

    Source of silu: Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2.

    >>> import numpy as np
    >>> activation(np.array([-1.0, 0.0, 40.0], np.float32), "sigmoid").round(4).tolist()
    [0.2689000070095062, 0.5, 1.0]
    """
    return _core.activation(x, function, out)


def activation_backward(dy: FloatArray, x: FloatArray, function: str, *, out: FloatArray | None = None) -> FloatArray:
    """The gradient of `activation` with respect to x, given dy, the gradient of its result. For relu it is 0 at x = 0.

    dy, x `[..., D]`, float32, with evenly spaced rows; `function` as in the forward call. `out` may be dy or x.
    Returns an array of x's shape.

    Raises TypeError for another dtype, ValueError for shapes that differ, a strided last axis, an unknown `function`
    or an `out` that cannot be written or overlaps an input otherwise.

    >>> import numpy as np
    >>> activation_backward(np.array([2.0, 2.0], np.float32), np.array([0.0, 200.0], np.float32), "sigmoid").tolist()
    [0.5, 0.0]
    """
    return _core.activation_backward(dy, x, function, out)
