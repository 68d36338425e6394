"""Functions that map an array to one of its shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastattn.autograd import mode, record, values
from fastattn.functional._common import Array, Values, reshape_out, tensors
from fastattn.random import next_seed


def gelu(input: Values, approximate: str = "none", *, out: Array | None = None) -> Any:
    """`input * Phi(input)`, with erf (`approximate="none"`) or its tanh form (`"tanh"`)."""
    ops = mode.ops
    if out is not None or not tensors(input):
        return ops.gelu(input, approximate, out=out)
    (x,) = values(input)
    return record(ops.gelu(x, approximate), (input,), lambda dy: (ops.gelu_backward(dy, x, approximate),))


def dropout(input: Values, p: float = 0.5, training: bool = True) -> Any:
    """`input` with a part `p` of its elements set to 0 and the others divided by 1 - p; `input` itself unless
    `training`.

    Raises ValueError for a `p` outside [0, 1).
    """
    if not 0.0 <= p < 1.0:
        raise ValueError(f"dropout: p must be in [0, 1), got {p}")
    if not training or p == 0.0:
        return input
    ops, seed = mode.ops, next_seed()
    (x,) = values(input)
    y = ops.dropout(x, p, seed)
    if not tensors(input):
        return y
    return record(y, (input,), lambda dy: (ops.dropout_backward(dy, p, seed),))


def softmax(input: Values, dim: int, *, out: Array | None = None) -> Any:
    """`exp(input) / sum(exp(input))` along the axis `dim`; 0 where all of it is -inf."""
    ops = mode.ops
    (x,) = values(input)
    y = _along("softmax", ops.softmax, dim, out, x)
    if not tensors(input):
        return y
    return record(y, (input,), lambda dy: (_along("softmax", ops.softmax_backward, dim, None, dy, y),))


def log_softmax(input: Values, dim: int, *, out: Array | None = None) -> Any:
    """The logarithm of `softmax(input, dim)`, without its loss of digits."""
    ops = mode.ops
    (x,) = values(input)
    y = _along("log_softmax", ops.log_softmax, dim, out, x)
    if not tensors(input):
        return y
    return record(y, (input,), lambda dy: (_along("log_softmax", ops.log_softmax_backward, dim, None, dy, y),))


def normalize(input: Values, p: float = 2.0, dim: int = 1, eps: float = 1e-12, *, out: Array | None = None) -> Any:
    """`input / max(norm, eps)`, Euclidean norms along the axis `dim`. Raises ValueError for another `p`."""
    if p != 2.0:
        raise ValueError(f"normalize: p must be 2.0, got {p}")
    ops = mode.ops
    (x,) = values(input)
    y = _along("normalize", lambda x, out=None: ops.l2_normalize(x, eps, out=out), dim, out, x)
    if not tensors(input):
        return y

    def backward(dy: Array) -> tuple[Array]:
        return (_along("normalize", lambda dy, x, out=None: ops.l2_normalize_backward(dy, x, eps), dim, None, dy, x),)

    return record(y, (input,), backward)


def _along(name: str, kernel: Callable[..., Array], dim: int, out: Array | None, *arrays: Array) -> Array:
    """A kernel that works on the last axis of arrays of one shape, along their axis `dim`."""
    shape, ndim = arrays[0].shape, arrays[0].ndim
    if not -ndim <= dim < ndim:
        raise IndexError(f"{name}: dim must be an axis of input, which has {ndim}, got {dim}")
    if dim in (-1, ndim - 1):
        return kernel(*arrays, out=out)
    reshape_out(name, out, shape, shape)
    y = np.moveaxis(kernel(*(np.ascontiguousarray(np.moveaxis(x, dim, -1)) for x in arrays)), -1, dim)
    if out is None:
        return np.ascontiguousarray(y)
    out[...] = y
    return out
