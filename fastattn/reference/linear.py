"""Reference of `linear`: y = act(x W^T + b) + residual."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .gelu import gelu

FloatArray = npt.NDArray[np.floating[Any]]
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "tanh")


class Packed(Protocol):
    """What `linear` needs of a `fastattn.kernels.PackedMatrix`."""

    def unpack(self) -> npt.NDArray[np.float32]: ...


def linear(
    x: FloatArray,
    weight: FloatArray | Packed,
    bias: FloatArray | None = None,
    residual: FloatArray | None = None,
    *,
    activation: str | None = None,
    out: FloatArray | None = None,
) -> FloatArray:
    """act(x W^T + b) + residual: a linear layer with its activation and the residual connection after it.

    x `[..., K]`, weight `[N, K]` (an array or a `PackedMatrix`), bias `[N]`, residual `[..., N]`, all of one
    float dtype; activation None, "relu", "gelu" (erf), "gelu_tanh", "silu" or "tanh". Returns `[..., N]`, in
    `out` if given. Raises ValueError for an unknown activation or shapes that do not match.

    Source: Vaswani et al. 2017, section 3.3, equation 2 (one of its two linear maps); silu: Elfwing et al.
    2017.

    >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [-5.0, 0.0]]), activation="relu").tolist()
    [[11.0, 0.0]]
    """
    if activation is not None and activation not in ACTIVATIONS:
        names = ", ".join(map(repr, ACTIVATIONS))
        raise ValueError(f"linear: activation must be one of {names}, got {activation!r}")
    w = weight if isinstance(weight, np.ndarray) else weight.unpack()
    n, k = w.shape
    y = np.empty((*x.shape[:-1], n), x.dtype) if out is None else out
    m = math.prod(x.shape[:-1])
    rows = y.reshape(m, n)  # views: y is contiguous
    np.matmul(x.reshape(m, k), w.T, out=rows)
    if bias is not None:
        rows += bias
    _activate(rows, activation)
    if residual is not None:
        y += residual
    return y


def _activate(y: FloatArray, activation: str | None) -> None:
    """The activation, in place."""
    if activation == "relu":
        np.maximum(y, 0, out=y)
    elif activation == "gelu":
        gelu(y, out=y)
    elif activation == "gelu_tanh":
        gelu(y, "tanh", out=y)
    elif activation == "tanh":
        np.tanh(y, out=y)
    elif activation == "silu":  # y / (1 + e^-y), written so that neither side overflows
        tail = np.exp(-np.abs(y))
        gate = np.where(y < 0, tail, 1) / (1 + tail)
        np.maximum(y, np.finfo(y.dtype).min, out=y)  # -inf * 0 is NaN
        y *= gate
