"""Gaussian error linear units."""

from __future__ import annotations

from fastattn import _core

from ._types import FloatArray


def gelu(x: FloatArray, approximate: str = "none", *, out: FloatArray | None = None) -> FloatArray:
    """x Phi(x), Phi being the normal distribution function; approximate="tanh" for the older tanh form.

    x `[..., D]`, float32, with evenly spaced rows; `out` may be x. Returns an array of x's shape.

    Raises TypeError for another dtype, ValueError for an unknown form, a strided last axis or an `out` that overlaps x
    otherwise.

    Source: Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2.

    >>> import numpy as np
    >>> gelu(np.array([-1.0, 0.0, 1.0], np.float32)).round(4).tolist()
    [-0.15870000422000885, 0.0, 0.8413000106811523]
    """
    return _core.gelu(x, approximate, out)
