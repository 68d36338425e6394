"""Gaussian error linear units."""

from __future__ import annotations

from fastattn import _core
from fastattn._types import FloatArray


def gelu(x: FloatArray, approximate: str = "none", *, out: FloatArray | None = None) -> FloatArray:
    """x Phi(x), where Phi is the normal distribution function; approximate="tanh" computes the older tanh form.

    x `[..., D]`, float32, with evenly spaced rows; `out` may be x. Returns an array of x's shape.

    Raises TypeError for another dtype, ValueError for an unknown form, a strided last axis or an `out` that overlaps x
    otherwise.

    Source: Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2.

    >>> import numpy as np
    >>> gelu(np.array([-1.0, 0.0, 1.0], np.float32)).round(4).tolist()
    [-0.15870000422000885, 0.0, 0.8413000106811523]
    """
    return _core.gelu(x, approximate, out)


def gelu_backward(
    dy: FloatArray, x: FloatArray, approximate: str = "none", *, out: FloatArray | None = None
) -> FloatArray:
    """The gradient of `gelu` with respect to x, given dy, the gradient of its result: dy (Phi(x) + x phi(x)) if exact.

    dy, x `[..., D]`, float32, with evenly spaced rows; `approximate` is "none" or "tanh", as in the forward call. `out`
    may be dy or x. Returns an array of x's shape.

    Raises TypeError for another dtype, ValueError for shapes that differ, a strided last axis, an unknown `approximate`
    or an `out` that cannot be written or overlaps an input otherwise.

    Source: Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2, differentiated.

    >>> import numpy as np
    >>> gelu_backward(np.array([1.0, 2.0], np.float32), np.array([-40.0, 0.0], np.float32)).tolist()
    [-0.0, 1.0]
    """
    return _core.gelu_backward(dy, x, approximate, out)
