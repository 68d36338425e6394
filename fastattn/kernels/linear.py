"""A linear layer with its activation and residual, and the packed form of its weight."""

from __future__ import annotations

from fastattn import _core
from fastattn._core import PackedMatrix

from ._types import FloatArray

__all__ = ["PackedMatrix", "linear"]


def linear(
    x: FloatArray,
    weight: FloatArray | PackedMatrix,
    bias: FloatArray | None = None,
    residual: FloatArray | None = None,
    *,
    activation: str | None = None,
    out: FloatArray | None = None,
) -> FloatArray:
    """act(x W^T + bias) + residual.

    x `[..., K]` with evenly spaced rows; weight `[N, K]`, an array or, for a weight that is used more than once, a
    `PackedMatrix` made of it (the same bits, without packing it on every call); bias `[N]`; residual `[..., N]`;
    float32. activation: None, "relu", "gelu" (with erf), "gelu_tanh", "silu" or "tanh".

    Returns `[..., N]`. Each element is one chain of fused multiply-adds over K from 0 upwards, so a row of the result
    has the same bits whatever the other rows are.

    Raises TypeError for another dtype, ValueError for shapes that do not match, a strided last axis, an unknown
    activation or an `out` that overlaps an input.

    Source: the position-wise map of Vaswani et al. 2017 (arXiv 1706.03762), section 3.3; GELU: Hendrycks and Gimpel
    2016 (arXiv 1606.08415); SiLU: Elfwing et al. 2017 (arXiv 1702.03118).

    >>> import numpy as np
    >>> x = np.array([[1.0, 2.0]], np.float32)
    >>> weight = np.array([[3.0, 4.0], [-5.0, 0.0]], np.float32)
    >>> linear(x, weight, activation="relu").tolist()
    [[11.0, 0.0]]
    >>> linear(x, PackedMatrix(weight)).tolist()
    [[11.0, -5.0]]
    """
    return _core.linear(x, weight, bias, residual, activation, out)
