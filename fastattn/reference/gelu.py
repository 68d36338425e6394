"""Reference of `gelu` and `gelu_backward`."""

from __future__ import annotations

import math

import numpy as np

from fastattn._types import Floats

from ._blocks import BLOCK
from ._erf import erf

FAR = 40.0
"""Beyond this, Phi is 0 or 1 and its derivative 0, even in float64."""


def gelu(x: Floats, approximate: str = "none", *, out: Floats | None = None) -> Floats:
    """x * Phi(x), elementwise; 0 at -inf, the limit. See `fastattn.kernels.gelu`.

    >>> gelu(np.array([-1.0, 0.0, 1.0])).round(6).tolist()
    [-0.158655, 0.0, 0.841345]
    """
    _check("gelu", approximate)
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


def gelu_backward(dy: Floats, x: Floats, approximate: str = "none", *, out: Floats | None = None) -> Floats:
    """dy * (Phi(x) + x * Phi'(x)), elementwise; the factor is 0 at -inf and 1 at +inf, the limits.

    See `fastattn.kernels.gelu_backward`.

    >>> gelu_backward(np.ones(3), np.array([-1.0, 0.0, 1.0])).round(6).tolist()
    [-0.083315, 0.5, 1.083315]
    """
    _check("gelu_backward", approximate)
    dx = np.empty(x.shape, x.dtype) if out is None else out
    if not (dy.flags.c_contiguous and x.flags.c_contiguous and dx.flags.c_contiguous):
        dx[...] = gelu_backward(np.ascontiguousarray(dy), np.ascontiguousarray(x), approximate)
        return dx
    incoming, source, target = dy.reshape(-1), x.reshape(-1), dx.reshape(-1)
    for i in range(0, source.size, BLOCK):
        # the slope is constant beyond FAR, and inf * 0 is NaN
        block = np.clip(source[i : i + BLOCK], -FAR, FAR)
        slope = _slope_none(block) if approximate == "none" else _slope_tanh(block)
        np.multiply(incoming[i : i + BLOCK], slope, out=target[i : i + BLOCK])
    return dx


def _cdf(x: Floats, approximate: str) -> Floats:
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


def _slope_none(x: Floats) -> Floats:
    """Phi(x) + x * exp(-x^2 / 2) / sqrt(2 pi)."""
    real = x.dtype.type
    density = x * x
    density *= real(-0.5)
    np.exp(density, out=density)
    density *= real(1 / math.sqrt(2 * math.pi))
    density *= x
    density += _cdf(x, "none")
    return density


def _slope_tanh(x: Floats) -> Floats:
    """s + x * s', s = (1 + tanh(u)) / 2, s' = 2 s (1 - s) u', u = sqrt(2 / pi) * (x + 0.044715 x^3)."""
    real = x.dtype.type
    s = _cdf(x, "tanh")
    slope = x * x
    slope *= real(3 * 0.044715)
    slope += real(1)
    slope *= real(2 * math.sqrt(2 / math.pi))
    slope *= x
    slope *= s
    slope *= 1 - s
    slope += s
    return slope


def _check(function: str, approximate: str) -> None:
    if approximate not in ("none", "tanh"):
        raise ValueError(f"{function}: approximate must be one of 'none', 'tanh', got {approximate!r}")
