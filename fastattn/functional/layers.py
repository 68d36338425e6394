"""Linear layers and layer normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastattn.autograd import mode, needs, record, recording, values
from fastattn.checks import PROBABILITY, number, operand
from fastattn.errors import ERRORS, explained
from fastattn.functional._common import Array, Values, Weights, gradient, plain, reshape_out
from fastattn.random import next_seed


def linear(
    input: Values,
    weight: Weights,
    bias: Values | None = None,
    *,
    residual: Values | None = None,
    activation: str | None = None,
    dropout_p: float = 0.0,
    out: Array | None = None,
) -> Any:
    """`dropout(activation(input weight^T + bias)) + residual`.

    `input` is `[..., in]`, `weight` `[out, in]` (an array, a Tensor or a `PackedMatrix`, which has no gradient), `bias`
    `[out]` and `residual` `[..., out]`. Returns `[..., out]`. `activation` is None, "relu", "gelu", "gelu_tanh", "silu"
    or "tanh"; a fraction `dropout_p` of its result is dropped. `out`, an array, is written and returned. Raises the
    errors of `fastattn.kernels.linear` and `fastattn.kernels.dropout`.

    >>> from fastattn import Tensor
    >>> x = Tensor(np.array([[1.0, -2.0]], np.float32), requires_grad=True)
    >>> y = linear(x, np.array([[3.0, 1.0], [0.0, 5.0]], np.float32), activation="relu")
    >>> y.numpy().tolist()
    [[1.0, 0.0]]
    >>> y.sum().backward()
    >>> x.grad.tolist()
    [[3.0, 1.0]]
    """
    try:
        arrays = plain("linear", out, input, weight, bias, residual)
        if dropout_p or arrays is None:
            return _linear(input, weight, bias, residual, activation, dropout_p, out, arrays)
        x, w, b, r = arrays
        return mode.ops.linear(x, w, b, r, activation=activation, out=out)
    except ERRORS as error:
        raise explained(error, linear, locals(), "dropout", x="input") from None


def _linear(
    input: Values,
    weight: Weights,
    bias: Values | None,
    residual: Values | None,
    activation: str | None,
    dropout_p: float,
    out: Array | None,
    arrays: list[Any] | None,
) -> Any:
    """`linear` with dropout or a Tensor result. (Calling a function that has a closure takes 0.3 us more.)"""
    if dropout_p:
        dropout_p = number("linear: dropout_p", dropout_p, **PROBABILITY)
    ops = mode.ops
    seed = next_seed() if dropout_p else 0
    operands = (input, weight, bias, residual)
    x, w, b, r = arrays or values(*operands)
    need_dx, need_dweight, need_dbias, need_dresidual = needs(*operands)
    multiplies = need_dx or need_dweight or need_dbias
    pre_activation = None
    added = None if dropout_p else r
    if activation is not None and multiplies and recording(*operands):
        y, pre_activation = ops.linear(x, w, b, added, activation=activation, return_pre_activation=True)
    else:
        y = ops.linear(x, w, b, added, activation=activation)
    if dropout_p:
        y = ops.dropout(y, dropout_p, seed, residual=r, out=y if out is None else out)
        if arrays is not None:
            return y

    def backward(dy: Array) -> tuple[Array | None, ...]:
        gradients: tuple[Array | None, ...] = (None, None, None)
        if multiplies:
            gradients = ops.linear_backward(
                ops.dropout_backward(dy, dropout_p, seed) if dropout_p else dy,
                x,
                w,
                activation=activation,
                pre_activation=pre_activation,
                need_dx=need_dx,
                need_dweight=need_dweight,
                need_dbias=need_dbias,
                dweight=gradient(weight),
                dbias=gradient(bias),
            )
        return (*gradients, dy if need_dresidual else None)

    return record(y, operands, backward)


ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "tanh")
"""The activations of `linear`."""


def layer_norm(
    input: Values,
    normalized_shape: Sequence[int],
    weight: Values | None = None,
    bias: Values | None = None,
    eps: float = 1e-5,
    *,
    residual: Values | None = None,
    dropout_p: float = 0.0,
    out: Array | None = None,
) -> Any:
    """Layer normalisation of `dropout(input) + residual` over the last axes, whose shape is `normalized_shape`.

    `input`, `residual` and the result are `[..., *normalized_shape]`; `weight` and `bias` have `normalized_shape`;
    `eps` is added to the variance; a fraction `dropout_p` of `input` is dropped. `out`, an array, is written and
    returned, and may be `input` or `residual`. Raises ValueError if the shape of `input` does not end in
    `normalized_shape`.

    >>> layer_norm(np.array([[1.0, 2.0, 3.0]], np.float32), (3,)).round(3).tolist()
    [[-1.225000023841858, 0.0, 1.225000023841858]]
    """
    try:
        shape: tuple[int, ...] = getattr(input, "shape", ())
        if len(normalized_shape) == 1 and shape[-1:] == normalized_shape:
            return _layer_norm(input, weight, bias, eps, residual, dropout_p, out)
        axes = len(normalized_shape)
        if axes == 0 or shape[-axes:] != tuple(normalized_shape):
            operand("layer_norm: input", input)
            wanted = (..., *normalized_shape)
            raise ValueError(f"layer_norm: input must have shape {wanted}, got {shape}".replace("Ellipsis", "..."))
        rows = (*shape[:-axes], -1)
        y = _layer_norm(
            input.reshape(rows),
            None if weight is None else weight.reshape(-1),
            None if bias is None else bias.reshape(-1),
            eps,
            None if residual is None else residual.reshape(rows),
            dropout_p,
            reshape_out("layer_norm", out, shape, rows),
        )
        return y.reshape(shape) if out is None else out
    except ERRORS as error:
        raise explained(error, layer_norm, locals(), x="input") from None


def _layer_norm(
    input: Values,
    weight: Values | None,
    bias: Values | None,
    eps: float,
    residual: Values | None,
    dropout_p: float,
    out: Array | None,
) -> Any:
    arrays = plain("layer_norm", out, input, weight, bias, residual)
    if arrays is None:
        return _record_layer_norm(input, weight, bias, eps, residual, dropout_p)
    x, w, b, r = arrays
    if dropout_p:
        return mode.ops.layer_norm(x, w, b, eps, residual=r, dropout_p=dropout_p, seed=next_seed(), out=out)
    return mode.ops.layer_norm(x, w, b, eps, residual=r, out=out)


def _record_layer_norm(
    input: Values,
    weight: Values | None,
    bias: Values | None,
    eps: float,
    residual: Values | None,
    dropout_p: float,
) -> Any:
    ops = mode.ops
    options: dict[str, Any] = {"dropout_p": dropout_p, "seed": next_seed()} if dropout_p else {}
    operands = (input, weight, bias, residual)
    x, w, b, r = values(*operands)
    need_dx, need_dweight, need_dbias, need_dresidual = needs(*operands)
    mean = rstd = None
    if recording(*operands):
        y, mean, rstd = ops.layer_norm(x, w, b, eps, residual=r, return_stats=True, **options)
    else:
        y = ops.layer_norm(x, w, b, eps, residual=r, **options)
    if w is None and need_dbias:
        w = np.ones(x.shape[-1], x.dtype)  # the kernel computes dbias only with a weight

    def backward(dy: Array) -> tuple[Array | None, ...]:
        dx, dresidual, dweight, dbias = ops.layer_norm_backward(
            dy,
            x,
            w,
            mean,
            rstd,
            residual=r,
            need_dx=need_dx,
            need_dresidual=need_dresidual,
            need_dweight=need_dweight,
            need_dbias=need_dbias,
            dweight=gradient(weight),
            dbias=None if bias is weight else gradient(bias),
            **options,
        )
        return dx, dweight, dbias, dresidual

    return record(y, operands, backward)
