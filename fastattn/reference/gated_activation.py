"""Reference of `gated_activation` and `gated_activation_backward`."""

from __future__ import annotations

import numpy as np

from fastattn._types import Floats

from .linear import ACTIVATIONS, _activate, _activate_backward


def gated_activation(x: Floats, activation: str, *, out: Floats | None = None) -> Floats:
    """activation(a) * b, where a and b are the halves of a row. See `fastattn.kernels.gated_activation`.

    >>> gated_activation(np.array([[-1.0, 3.0, 5.0, 0.5]]), "relu").tolist()
    [[0.0, 1.5]]
    """
    a, b = _halves("gated_activation", x, activation)
    acted = a.copy()
    _activate(acted, activation)
    y = acted if out is None else out
    np.multiply(acted, b, out=y)
    return y


def gated_activation_backward(dy: Floats, x: Floats, activation: str, *, out: Floats | None = None) -> Floats:
    """dy * b * activation'(a), and dy * activation(a). See `fastattn.kernels.gated_activation_backward`.

    >>> gated_activation_backward(np.array([[2.0]]), np.array([[3.0, 5.0]]), "relu").tolist()
    [[10.0, 6.0]]
    """
    a, b = _halves("gated_activation_backward", x, activation)
    dx = np.empty(x.shape, x.dtype) if out is None else out
    dim = a.shape[-1]
    dx[..., :dim] = _activate_backward(dy * b, a, activation)
    y = a.copy()
    _activate(y, activation)
    np.multiply(dy, y, out=dx[..., dim:])
    return dx


def _halves(function: str, x: Floats, activation: str) -> tuple[Floats, Floats]:
    if activation not in ACTIVATIONS:
        names = ", ".join(map(repr, ACTIVATIONS))
        raise ValueError(f"{function}: activation must be one of {names}, got {activation!r}")
    if x.shape[-1] % 2:
        raise ValueError(f"{function}: x must have an even number of columns, got shape {x.shape}")
    dim = x.shape[-1] // 2
    return x[..., :dim], x[..., dim:]
