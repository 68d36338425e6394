"""Reference of `gelu`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ._erf import BLOCK, erf

FloatArray = npt.NDArray[np.floating[Any]]


def gelu(x: FloatArray, approximate: str = "none", *, out: FloatArray | None = None) -> FloatArray:
    """The Gaussian error linear unit, x * Phi(x), elementwise.

    x of any shape and float dtype; approximate "none" (erf) or "tanh". Returns an array of `x`'s shape and
    dtype, in `out` if given (which may be `x` itself). -inf gives 0, the limit. Raises ValueError for
    another `approximate`.

    Source: Hendrycks and Gimpel 2016, section 2 (the tanh form is its first approximation).

    >>> gelu(np.array([-1.0, 0.0, 1.0])).round(6).tolist()
    [-0.158655, 0.0, 0.841345]
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate must be one of 'none', 'tanh', got {approximate!r}")
    y = np.empty(x.shape, x.dtype) if out is None else out
    if not (x.flags.c_contiguous and y.flags.c_contiguous):
        y[...] = gelu(np.ascontiguousarray(x), approximate)
        return y
    source, target = x.reshape(-1), y.reshape(-1)
    with np.errstate(over="ignore"):  # the cube of a huge value
        for i in range(0, source.size, BLOCK):
            block = np.maximum(source[i : i + BLOCK], np.finfo(x.dtype).min)  # -inf * 0 is NaN
            np.multiply(block, _cdf(block, approximate), out=target[i : i + BLOCK])
    return y


def _cdf(x: FloatArray, approximate: str) -> FloatArray:
    """Phi(x), the normal distribution function: exact by erf, or its tanh approximation."""
    real = x.dtype.type
    if approximate == "none":
        y = erf(x * real(math.sqrt(0.5)))
    else:  # tanh(sqrt(2 / pi) * (x + 0.044715 x^3))
        y = x * x
        y *= real(0.044715)
        y += real(1)
        y *= x
        y *= real(math.sqrt(2 / math.pi))
        np.tanh(y, out=y)
    y += real(1)
    y *= real(0.5)
    return y
