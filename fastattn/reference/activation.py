"""Reference of `activation` and `activation_backward`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .linear import _activate, _activate_backward

FloatArray = npt.NDArray[np.floating[Any]]
FUNCTIONS = ("relu", "sigmoid", "silu", "tanh")


def activation(x: FloatArray, function: str, *, out: FloatArray | None = None) -> FloatArray:
    """The function named `function`, applied to each element. See `fastattn.kernels.activation`.

    >>> activation(np.array([-1.0, 0.0, 40.0]), "sigmoid").round(4).tolist()
    [0.2689, 0.5, 1.0]
    """
    _check("activation", function)
    y = np.empty(x.shape, x.dtype) if out is None else out
    y[...] = x
    if function == "sigmoid":  # neither side overflows
        tail = np.exp(-np.abs(y))
        y[...] = np.where(y < 0, tail, 1) / (1 + tail)
    else:
        _activate(y, function)
    return y


def activation_backward(dy: FloatArray, x: FloatArray, function: str, *, out: FloatArray | None = None) -> FloatArray:
    """dy * function'(x), elementwise. See `fastattn.kernels.activation_backward`.

    >>> activation_backward(np.array([2.0]), np.array([0.0]), "sigmoid").tolist()
    [0.5]
    """
    _check("activation_backward", function)
    dx = np.empty(x.shape, x.dtype) if out is None else out
    if function == "sigmoid":  # s (1 - s) = e / (1 + e)^2, e = e^-|x|
        tail = np.exp(-np.abs(x))
        dx[...] = dy * (tail / (1 + tail) ** 2)
    else:
        dx[...] = _activate_backward(dy, x, function)
    return dx


def _check(called: str, function: str) -> None:
    if function not in FUNCTIONS:
        names = ", ".join(map(repr, FUNCTIONS))
        raise ValueError(f"{called}: function must be one of {names}, got {function!r}")
