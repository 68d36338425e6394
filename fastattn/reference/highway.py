"""Reference of `highway` and `highway_backward`: a layer that mixes its result with its input."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastattn._types import Floats

from ._recurrent import sigmoid
from .linear import Packed, linear, linear_backward


def highway(
    x: Floats,
    weight: Floats | Packed,
    bias: Floats,
    *,
    return_projection: bool = False,
    out: Floats | None = None,
) -> Any:
    """sigmoid(t) relu(h) + (1 - sigmoid(t)) x, where h and t are the halves of x W^T + b.

    See `fastattn.kernels.highway`.

    >>> weight, bias = np.array([[2.0], [0.0]]), np.array([0.0, np.log(3.0)])  # h = 2 x, a gate of 3/4
    >>> highway(np.array([[4.0], [-4.0]]), weight, bias).round(6).tolist()
    [[7.0], [-1.0]]
    """
    projection = linear(x, weight, bias)
    h, t = np.split(projection, 2, axis=-1)
    gate = t.copy()
    sigmoid(gate)
    carry = (1 - gate) * x
    y = np.empty_like(x) if out is None else out  # which may be x
    np.maximum(h, 0, out=y)
    y *= gate
    y += carry
    return (y, projection) if return_projection else y


def highway_backward(
    dy: Floats,
    x: Floats,
    weight: Floats | Packed,
    projection: Floats,
    *,
    need_dx: bool = True,
    need_dweight: bool = True,
    need_dbias: bool = True,
    dweight: Floats | None = None,
    dbias: Floats | None = None,
) -> tuple[Floats | None, Floats | None, Floats | None]:
    """The gradients of `highway` with respect to x, weight and bias; the gradient of relu at 0 is 0.

    See `fastattn.kernels.highway_backward`.

    >>> x, weight, projection = np.array([[4.0]]), np.array([[2.0], [0.0]]), np.array([[8.0, 0.0]])
    >>> dx, dweight, dbias = highway_backward(np.ones((1, 1)), x, weight, projection)
    >>> dx.tolist(), dweight.tolist(), dbias.tolist()
    ([[1.5]], [[2.0], [4.0]], [0.5, 1.0])
    """
    h, t = np.split(projection, 2, axis=-1)
    gate = t.copy()
    sigmoid(gate)
    carry = 1 - gate
    d = np.empty_like(projection)
    dh, dt = np.split(d, 2, axis=-1)  # views
    np.maximum(h, 0, out=dt)
    dt -= x
    gate *= dy
    dt *= gate
    dt *= carry
    dh[...] = np.where(h <= 0, gate.dtype.type(0), gate)
    dx, dweight, dbias = linear_backward(
        d,
        x,
        weight,
        need_dx=need_dx,
        need_dweight=need_dweight,
        need_dbias=need_dbias,
        dweight=dweight,
        dbias=dbias,
    )
    if dx is not None:
        carry *= dy
        dx += carry
    return dx, dweight, dbias
