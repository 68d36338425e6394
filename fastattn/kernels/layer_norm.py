"""LayerNorm over the last axis."""

from __future__ import annotations

from typing import Any

from fastattn import _core

from ._types import FloatArray


def layer_norm(
    x: FloatArray,
    weight: FloatArray | None = None,
    bias: FloatArray | None = None,
    eps: float = 1e-5,
    *,
    residual: FloatArray | None = None,
    return_stats: bool = False,
    out: FloatArray | None = None,
) -> Any:
    """Normalise the last axis of x + residual to mean 0 and variance 1, then scale and shift it.

    x, residual `[..., D]` with evenly spaced rows; weight, bias `[D]`; float32. `out` may be x or residual.

    Returns y `[..., D]`, or `(y, mean, rstd)` with `return_stats`: mean and rstd = 1 / sqrt(variance + eps) are
    `[...]`, the variance is the biased one.

    Raises TypeError for another dtype, ValueError for shapes that do not match, a strided last axis, a negative eps or
    an `out` that cannot be written or overlaps an input otherwise.

    Source: Ba, Kiros and Hinton 2016 (arXiv 1607.06450), equations 3 and 4.

    >>> import numpy as np
    >>> layer_norm(np.array([[1.0, 3.0]], np.float32), eps=0.0).tolist()
    [[-1.0, 1.0]]
    """
    return _core.layer_norm(x, weight, bias, eps, residual, return_stats, out)
