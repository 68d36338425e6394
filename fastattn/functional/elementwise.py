"""Functions of each element, or of each row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastattn.autograd import Tensor, mode, record, values
from fastattn.checks import PROBABILITY, number, operand
from fastattn.errors import ERRORS, explained, named
from fastattn.functional._common import Array, Values, along, plain
from fastattn.random import next_seed


@named(x="input")
def gelu(input: Values, approximate: str = "none", *, out: Array | None = None) -> Any:
    """`input * Phi(input)`, with erf (`approximate="none"`) or its tanh form (`"tanh"`).

    `input` is `[..., D]`. The result has its shape and is written to `out` if given, which may be `input`. Raises
    ValueError for another `approximate`.

    >>> gelu(np.array([-1.0, 0.0, 40.0], np.float32)).round(4).tolist()
    [-0.15870000422000885, 0.0, 40.0]
    """
    return _elementwise("gelu", mode.ops.gelu, approximate, input, out)


@named("activation", x="input")
def relu(input: Values, *, out: Array | None = None) -> Any:
    """`max(input, 0)` of each element; its gradient at 0 is 0.

    `input` is `[...]`. The result has its shape and is written to `out` if given, which may be `input`. The same holds
    for `tanh`, `sigmoid` and `silu`.

    >>> relu(np.array([-1.0, 2.0], np.float32)).tolist()
    [0.0, 2.0]
    """
    return _elementwise("relu", mode.ops.activation, "relu", input, out)


@named("activation", x="input")
def tanh(input: Values, *, out: Array | None = None) -> Any:
    """The hyperbolic tangent of each element of `input` `[...]`, in `out` if given.

    >>> tanh(np.array([0.0, 100.0], np.float32)).tolist()
    [0.0, 1.0]
    """
    return _elementwise("tanh", mode.ops.activation, "tanh", input, out)


@named("activation", x="input")
def sigmoid(input: Values, *, out: Array | None = None) -> Any:
    """`1 / (1 + exp(-input))` of each element of `input` `[...]`, in `out` if given.

    >>> sigmoid(np.array([-200.0, 0.0], np.float32)).tolist()
    [0.0, 0.5]
    """
    return _elementwise("sigmoid", mode.ops.activation, "sigmoid", input, out)


@named("activation", x="input")
def silu(input: Values, *, out: Array | None = None) -> Any:
    """`input * sigmoid(input)` of each element of `input` `[...]`, in `out` if given.

    >>> silu(np.array([-200.0, 200.0], np.float32)).tolist()
    [-0.0, 200.0]
    """
    return _elementwise("silu", mode.ops.activation, "silu", input, out)


@named(x="input")
def gated_activation(input: Values, activation: str, *, out: Array | None = None) -> Any:
    """`activation(a) * b`, where a and b are the first and the second half of a row of `input` `[..., 2 * D]`.

    `activation` is "relu", "gelu", "gelu_tanh", "silu" or "tanh". The result is `[..., D]` and is written to `out` if
    given, which may be the first half of `input`. Raises ValueError for another `activation` and an odd number of
    columns.

    >>> gated_activation(np.array([[-1.0, 3.0, 5.0, 0.5]], np.float32), "relu").tolist()
    [[0.0, 1.5]]
    """
    return _elementwise("gated_activation", mode.ops.gated_activation, activation, input, out)


def dropout(input: Values, p: float = 0.5, training: bool = True) -> Any:
    """`input` with a fraction `p` of its elements set to 0 and the others divided by 1 - p.

    `input` is an array or a Tensor `[..., D]`, and so is the result, which is `input` itself if `training` is False.
    The choice of elements depends on `fastattn.manual_seed` and the draws since. Raises ValueError for a `p` outside
    [0, 1).

    >>> y = dropout(np.ones((100, 100), np.float32), 0.2)
    >>> sorted(set(y.ravel().tolist())), bool(0.7 < (y != 0).mean() < 0.9)
    ([0.0, 1.25], True)
    """
    try:
        if p != 0.0:
            p = number("dropout: p", p, **PROBABILITY)
        if not training or p == 0.0:
            return input.data if isinstance(input, Tensor) and input.frozen else input
        ops, seed = mode.ops, next_seed()
        (x,) = values(input)
        y = ops.dropout(x, p, seed)
        return record(y, (input,), lambda dy: (ops.dropout_backward(dy, p, seed),))
    except ERRORS as error:
        raise explained(error, dropout, locals(), x="input") from None


@named(x="input")
def softmax(input: Values, dim: int, *, out: Array | None = None) -> Any:
    """`exp(input) / sum(exp(input))` along the axis `dim`; 0 where all elements along it are -inf.

    `input` has one or more axes. The result has its shape and is written to `out` if given. Raises IndexError if `dim`
    is not an axis.

    >>> softmax(np.log(np.array([[1.0, 3.0]], np.float32)), dim=1).round(4).tolist()
    [[0.25, 0.75]]
    """
    return _softmax("softmax", input, dim, out)


@named(x="input")
def log_softmax(input: Values, dim: int, *, out: Array | None = None) -> Any:
    """The logarithm of `softmax(input, dim)`, without the loss of precision; shapes and errors are the same.

    `out` is written and returned.

    >>> log_softmax(np.array([[0.0, 200.0]], np.float32), dim=1).tolist()
    [[-200.0, 0.0]]
    """
    return _softmax("log_softmax", input, dim, out)


@named("l2_normalize", x="input")
def normalize(input: Values, p: float = 2.0, dim: int = 1, eps: float = 1e-12, *, out: Array | None = None) -> Any:
    """`input / max(norm, eps)`, with the Euclidean norm along the axis `dim`.

    `input` has one or more axes. The result has its shape and is written to `out` if given. Raises ValueError unless
    `p` is 2, IndexError if `dim` is not an axis.

    >>> normalize(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)).round(4).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    if p != 2.0:
        raise ValueError(f"normalize: p must be 2.0, got {p}")
    ops = mode.ops
    arrays = plain("normalize", out, input)
    (x,) = arrays or values(input)
    y = along("normalize", lambda x, out=None: ops.l2_normalize(x, eps, out=out), dim, out, x)
    if arrays:
        return y

    def backward(dy: Array) -> tuple[Array]:
        return (along("normalize", lambda dy, x, out=None: ops.l2_normalize_backward(dy, x, eps), dim, None, dy, x),)

    return record(y, (input,), backward)


def _elementwise(name: str, kernel: Callable[..., Array], option: str, input: Values, out: Array | None) -> Any:
    """Apply a kernel `f(x, option)` whose gradient is `f_backward(dy, x, option)`."""
    if not getattr(input, "shape", ()) and out is None:  # kernels take rows
        row = operand(f"{name}: input", input).reshape(1)
        return _elementwise(name, kernel, option, row, None).reshape(())
    arrays = plain(name, out, input)
    if arrays is not None:
        return kernel(arrays[0], option, out=out)
    (x,) = values(input)
    differentiate = getattr(mode.ops, f"{kernel.__name__}_backward")
    return record(kernel(x, option), (input,), lambda dy: (differentiate(dy, x, option),))


def _softmax(name: str, input: Values, dim: int, out: Array | None) -> Any:
    arrays = plain(name, out, input)
    (x,) = arrays or values(input)
    y = along(name, getattr(mode.ops, name), dim, out, x)
    if arrays:
        return y
    differentiate = getattr(mode.ops, f"{name}_backward")
    return record(y, (input,), lambda dy: (along(name, differentiate, dim, None, dy, y),))
