"""Reference of `linear` and `linear_backward`: y = act(x W^T + b) + residual."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastattn._types import Floats

from .gelu import gelu, gelu_backward
from .quantization import integer_linear

ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "tanh")


class Packed(Protocol):
    """The part of `fastattn.kernels.PackedMatrix` that `linear` uses."""

    @property
    def dtype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    def numbers(self) -> dict[str, npt.NDArray[Any]]: ...

    def unpack(self) -> npt.NDArray[np.float32]: ...


def linear(
    x: Floats,
    weight: Floats | Packed,
    bias: Floats | None = None,
    residual: Floats | None = None,
    *,
    activation: str | None = None,
    return_pre_activation: bool = False,
    out: Floats | None = None,
) -> Any:
    """act(x W^T + b) + residual. See `fastattn.kernels.linear`.

    >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [-5.0, 0.0]]), activation="relu").tolist()
    [[11.0, 0.0]]
    """
    _check("linear", activation)
    n, k = weight.shape
    y = np.empty((*x.shape[:-1], n), x.dtype) if out is None else out
    m = math.prod(x.shape[:-1])
    rows = y.reshape(m, n)  # views: y is contiguous
    if isinstance(weight, np.ndarray) or weight.dtype != "int8":
        np.matmul(x.reshape(m, k), _plain(weight).T, out=rows)
    else:
        parts = weight.numbers()
        x32 = x.reshape(m, k).astype(np.float32, copy=False)
        rows[...] = integer_linear(x32, parts["weight"], parts["scales"], parts.get("input_scales"))
    if bias is not None:
        rows += bias
    pre_activation = y.copy() if return_pre_activation else None
    _activate(rows, activation)
    if residual is not None:
        y += residual
    return (y, pre_activation) if return_pre_activation else y


def linear_backward(
    dy: Floats,
    x: Floats,
    weight: Floats | Packed,
    *,
    activation: str | None = None,
    pre_activation: Floats | None = None,
    need_dx: bool = True,
    need_dweight: bool = True,
    need_dbias: bool = True,
    dweight: Floats | None = None,
    dbias: Floats | None = None,
) -> tuple[Floats | None, Floats | None, Floats | None]:
    """With d = dy * act'(pre_activation): d W, d^T x and the sum of d over rows.

    See `fastattn.kernels.linear_backward`.

    >>> dx, dweight, dbias = linear_backward(np.array([[1.0, 2.0]]), np.array([[3.0]]), np.array([[4.0], [5.0]]))
    >>> dx.tolist(), dweight.tolist(), dbias.tolist()
    ([[14.0]], [[3.0], [6.0]], [1.0, 2.0])
    """
    _check("linear_backward", activation)
    if activation is not None:
        if pre_activation is None:
            raise ValueError(f"linear_backward: pre_activation must be given with activation {activation!r}")
        dy = _activate_backward(dy, pre_activation, activation)
    w = _plain(weight)
    n, k = w.shape
    m = math.prod(x.shape[:-1])
    d = dy.reshape(m, n)
    dx = np.matmul(d, w).reshape(x.shape) if need_dx else None
    return (
        dx,
        _add(dweight, np.matmul(d.T, x.reshape(m, k))) if need_dweight else None,
        _add(dbias, d.sum(axis=0)) if need_dbias else None,
    )


def _check(function: str, activation: str | None) -> None:
    if activation is not None and activation not in ACTIVATIONS:
        names = ", ".join(map(repr, ACTIVATIONS))
        raise ValueError(f"{function}: activation must be one of {names}, got {activation!r}")


def _plain(weight: Floats | Packed) -> Floats:
    return weight if isinstance(weight, np.ndarray) else weight.unpack()


def _add(total: Floats | None, gradient: Floats) -> Floats:
    """`gradient`, added to `total` if there is one."""
    return gradient if total is None else np.add(total, gradient, out=total)


def _activate(y: Floats, activation: str | None) -> None:
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


def _activate_backward(dy: Floats, pre: Floats, activation: str) -> Floats:
    """dy * act'(pre)."""
    if activation == "relu":
        return np.where(pre <= 0, pre.dtype.type(0), dy)
    if activation == "gelu":
        return gelu_backward(dy, pre)
    if activation == "gelu_tanh":
        return gelu_backward(dy, pre, "tanh")
    tail = np.exp(-np.abs(pre))
    if activation == "tanh":  # 1 - tanh^2 = 4 e / (1 + e)^2, e = e^-2|pre|, which does not cancel
        tail *= tail
        slope = 4 * tail
    else:  # silu: s + pre * s * (1 - s), s = 1 / (1 + e^-pre), s * (1 - s) = e / (1 + e)^2, e = e^-|pre|
        limit = np.finfo(pre.dtype).max
        slope = np.clip(pre, -limit, limit)  # inf * 0 is NaN
        slope *= tail
        slope += np.where(pre < 0, tail, 1) * (1 + tail)
    tail += 1
    tail *= tail
    slope /= tail
    slope *= dy
    return slope
