"""Linear layers and layer normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastattn.autograd import Tensor, mode, needs, record, recording, values
from fastattn.functional._common import Array, Values, Weights, gradient, reshape_out, tensors
from fastattn.random import next_seed


def linear(
    input: Values,
    weight: Weights,
    bias: Values | None = None,
    *,
    residual: Values | None = None,
    activation: str | None = None,
    out: Array | None = None,
) -> Any:
    """`activation(input weight^T + bias) + residual`: `[..., in]` times `[out, in]` gives `[..., out]`.

    `activation` is None, "relu", "gelu", "gelu_tanh", "silu" or "tanh". See `fastattn.kernels.linear`.
    """
    ops = mode.ops
    if out is not None or not tensors(input, weight, bias, residual):
        return ops.linear(input, weight, bias, residual, activation=activation, out=out)
    operands = (input, weight, bias, residual)
    x, w, b, r = values(*operands)
    need_dx, need_dweight, need_dbias, need_dresidual = needs(*operands)
    pre_activation = None
    multiplies = need_dx or need_dweight or need_dbias
    if activation is not None and multiplies and recording(*operands):
        y, pre_activation = ops.linear(x, w, b, r, activation=activation, return_pre_activation=True)
    else:
        y = ops.linear(x, w, b, r, activation=activation)

    def backward(dy: Array) -> tuple[Array | None, ...]:
        gradients: tuple[Array | None, ...] = (None, None, None)
        if multiplies:
            gradients = ops.linear_backward(
                dy,
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
    """Layer normalisation of `dropout(input) + residual` over its last axes, which are `normalized_shape`.

    `weight` and `bias` have `normalized_shape`; `dropout_p` is the part of `input` that is dropped. `out` may be
    `input` or `residual`. Raises ValueError when `input` does not end in `normalized_shape`.
    """
    shape: tuple[int, ...] = input.shape
    if len(normalized_shape) == 1 and shape[-1:] == normalized_shape:
        return _layer_norm(input, weight, bias, eps, residual, dropout_p, out)
    axes = len(normalized_shape)
    if axes == 0 or shape[-axes:] != tuple(normalized_shape):
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


def _layer_norm(
    input: Values,
    weight: Values | None,
    bias: Values | None,
    eps: float,
    residual: Values | None,
    dropout_p: float,
    out: Array | None,
) -> Any:
    ops = mode.ops
    options: dict[str, Any] = {"dropout_p": dropout_p, "seed": next_seed()} if dropout_p else {}
    if out is not None or not tensors(input, weight, bias, residual):
        return ops.layer_norm(input, weight, bias, eps, residual=residual, out=out, **options)
    operands = (input, weight, bias, residual)
    x, w, b, r = values(*operands)
    if not recording(*operands):
        return Tensor(ops.layer_norm(x, w, b, eps, residual=r, **options))
    need_dx, need_dweight, need_dbias, need_dresidual = needs(*operands)
    y, mean, rstd = ops.layer_norm(x, w, b, eps, residual=r, return_stats=True, **options)
    if w is None and need_dbias:
        w = np.ones(x.shape[-1], x.dtype)  # the kernel has a gradient of bias beside a weight only

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
