"""Attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn._types import CuSeqlens
from fastattn.autograd import mode, needs, record, values
from fastattn.errors import named
from fastattn.functional._common import Array, Values, plain
from fastattn.ragged import int32_offsets
from fastattn.random import next_seed


@named(q="query", k="key", v="value", softmax_scale="scale")
def scaled_dot_product_attention(
    query: Values,
    key: Values,
    value: Values,
    attn_mask: NDArray[Any] | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    cu_seqlens_q: ArrayLike | None = None,
    cu_seqlens_k: ArrayLike | None = None,
    position_bias: Values | None = None,
    window: tuple[int, int] | None = None,
    return_attn_weights: bool = False,
    out: Array | None = None,
) -> Any:
    """`softmax(query key^T * scale + position_bias + attn_mask) value`, for every head of every sequence.

    `scale` is dim ** -0.5 by default.

    Padded: `query` `[batch, heads, seq_q, dim]`, `key` and `value` `[batch, heads, seq_k, dim]`. Ragged, if
    `cu_seqlens_q`, integers `[batch + 1]`, is given: `[tokens, heads, dim]`. Sequence i is rows `cu_seqlens_q[i]` to
    `cu_seqlens_q[i + 1]` of `query`; `key` and `value` are split by `cu_seqlens_k`, by default the same.
    The result has the shape of `query`; `out`, an array, is written and returned.

    `attn_mask` is bool (True: may attend) or float32 (added), broadcast to `[batch, heads, seq_q, seq_k]`. It is an
    array and gets no gradient. `dropout_p` is the fraction of attention weights to drop. With `is_causal`, query i
    sees keys 0 to i, as in PyTorch; `fastattn.kernels.scaled_dot_product_attention` aligns the last ones instead.
    `window` `(left, right)` lets it see keys i - left to i + right, -1 for no limit. `position_bias` `[2 n + 1, heads]`
    is added to the scores: row n + d for a key d positions after the query, the first or last row beyond n.

    With `return_attn_weights` the result is `(out, weights)`: the weights before dropout, `[batch, heads, longest_q,
    longest_k]`, 0 outside a sequence. If `out` is a Tensor, the weights are one too, with a gradient.

    Raises ValueError for `attn_mask` together with `is_causal`, and for shapes that do not fit.

    Two sequences of two tokens and one, with one head. Equal scores give equal weights.

    >>> q = np.zeros((3, 1, 2), np.float32)
    >>> v = np.array([[[2.0, 0.0]], [[4.0, 2.0]], [[7.0, 7.0]]], np.float32)
    >>> cu_seqlens = np.array([0, 2, 3], np.int32)
    >>> scaled_dot_product_attention(q, q, v, cu_seqlens_q=cu_seqlens)[:, 0].tolist()
    [[3.0, 1.0], [3.0, 1.0], [7.0, 7.0]]
    >>> scaled_dot_product_attention(q, q, v, is_causal=True, cu_seqlens_q=cu_seqlens)[:, 0].tolist()
    [[2.0, 0.0], [3.0, 1.0], [7.0, 7.0]]
    """
    if is_causal and attn_mask is not None:
        raise ValueError("scaled_dot_product_attention: attn_mask must be None when is_causal=True")
    if cu_seqlens_q is not None:
        cu_seqlens_q = int32_offsets(cu_seqlens_q, "scaled_dot_product_attention: cu_seqlens_q")
    if cu_seqlens_k is not None:
        cu_seqlens_k = int32_offsets(cu_seqlens_k, "scaled_dot_product_attention: cu_seqlens_k")
    operands = (query, key, value)
    options: dict[str, Any] = {
        "cu_seqlens_q": cu_seqlens_q,
        "cu_seqlens_k": cu_seqlens_k,
        "attn_mask": attn_mask,
        "window": window,
        "is_causal": is_causal,
        "softmax_scale": scale,
        "causal_alignment": "top_left",
    }
    return _attention(
        operands,
        values(*operands),
        lambda backward: backward(),
        position_bias,
        dropout_p,
        return_attn_weights,
        options,
        out,
    )


@named(
    "scaled_dot_product_attention",
    **dict.fromkeys("qkv", "query_key_value"),
    cu_seqlens_q="cu_seqlens",
    softmax_scale="scale",
)
def qkv_attention(
    query_key_value: Values,
    cu_seqlens: ArrayLike,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    position_bias: Values | None = None,
    window: tuple[int, int] | None = None,
    return_attn_weights: bool = False,
) -> Any:
    """Self-attention over one fused projection: from `[tokens, 3, heads, dim]` to `[tokens, heads, dim]`.

    The same as `scaled_dot_product_attention` over the three parts and ragged `cu_seqlens`, integers `[batch + 1]`,
    except that the gradient of `query_key_value` is one array too, without a copy. `dropout_p`, `is_causal`, `scale`,
    `position_bias`, `window` and `return_attn_weights` have the same meaning. Raises ValueError for another shape.

    >>> from fastattn import Tensor
    >>> x = Tensor(np.ones((3, 3, 1, 2), np.float32), requires_grad=True)
    >>> y = qkv_attention(x, np.array([0, 2, 3], np.int32))
    >>> y.shape
    (3, 1, 2)
    >>> y.sum().backward()
    >>> x.grad[:, 2, 0].tolist()
    [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """
    (x,) = values(query_key_value)
    if x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"qkv_attention: query_key_value must have shape (tokens, 3, heads, dim), got {x.shape}")
    offsets = int32_offsets(cu_seqlens, "qkv_attention: cu_seqlens")
    options: dict[str, Any] = {
        "cu_seqlens_q": offsets,
        "window": window,
        "is_causal": is_causal,
        "softmax_scale": scale,
    }

    def gradients(backward: Callable[..., Any]) -> tuple[Array]:
        dx = np.empty_like(x)
        backward(dq=dx[:, 0], dk=dx[:, 1], dv=dx[:, 2])
        return (dx,)

    parts = x[:, 0], x[:, 1], x[:, 2]
    return _attention((query_key_value,), parts, gradients, position_bias, dropout_p, return_attn_weights, options)


@named("scaled_dot_product_attention", q="query", k="key_value", v="key_value", softmax_scale="scale")
def kv_attention(
    query: Values,
    key_value: Values,
    cu_seqlens_q: ArrayLike,
    cu_seqlens_k: ArrayLike,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    position_bias: Values | None = None,
    window: tuple[int, int] | None = None,
    return_attn_weights: bool = False,
) -> Any:
    """Attention of `query` `[tokens_q, heads, dim]` over one fused projection, `key_value` `[tokens_k, 2, heads, dim]`.

    The same as `scaled_dot_product_attention` over the two parts, ragged by `cu_seqlens_q` and `cu_seqlens_k`, integers
    `[batch + 1]`, except that the gradient of `key_value` is one array too, without a copy. `dropout_p`, `is_causal`,
    `scale`, `position_bias`, `window` and `return_attn_weights` have the same meaning. Raises ValueError for another
    shape of `key_value`.

    >>> from fastattn import Tensor
    >>> memory = Tensor(np.ones((3, 2, 1, 2), np.float32), requires_grad=True)
    >>> y = kv_attention(np.ones((1, 1, 2), np.float32), memory, np.array([0, 1], np.int32), np.array([0, 3], np.int32))
    >>> y.shape
    (1, 1, 2)
    >>> y.sum().backward()
    >>> memory.grad[:, 1, 0].round(2).tolist() == np.full((3, 2), 0.33, np.float32).tolist()
    True
    """
    operands = (query, key_value)
    q, kv = values(*operands)
    if kv.ndim != 4 or kv.shape[1] != 2:
        raise ValueError(f"kv_attention: key_value must have shape (tokens, 2, heads, dim), got {kv.shape}")
    options: dict[str, Any] = {
        "cu_seqlens_q": int32_offsets(cu_seqlens_q, "kv_attention: cu_seqlens_q"),
        "cu_seqlens_k": int32_offsets(cu_seqlens_k, "kv_attention: cu_seqlens_k"),
        "window": window,
        "is_causal": is_causal,
        "softmax_scale": scale,
        "causal_alignment": "top_left",
    }

    def gradients(backward: Callable[..., Any]) -> tuple[Array, Array]:
        dkv = np.empty_like(kv)
        dq, _, _ = backward(dk=dkv[:, 0], dv=dkv[:, 1])
        return dq, dkv

    parts = q, kv[:, 0], kv[:, 1]
    return _attention(operands, parts, gradients, position_bias, dropout_p, return_attn_weights, options)


@named(x="query_key_value")
def rotary_embedding(
    query_key_value: Values, position_ids: NDArray[np.int64], table: Array, *, out: Array | None = None
) -> Any:
    """Queries and keys of a fused projection `[tokens, 3, heads, dim]`, turned by their positions; the values stay.

    `position_ids`, int64 `[tokens]`, are rows of `table` `[positions, dim]`, an array that has the sines of the
    positions' angles, then their cosines: see `fastattn.nn.SinusoidalPositions`. There may be other parts than the
    values, or none. The result has the shape of `query_key_value` and is written to `out` if given, which may be
    `query_key_value`. Raises the errors of `fastattn.kernels.rotary_embedding`.

    >>> quarter = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)  # turns by nothing, and by 90 degrees
    >>> x = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]], np.float32).reshape(1, 3, 1, 2)
    >>> rotary_embedding(x, np.array([1]), quarter)[0, :, 0].tolist()
    [[0.0, 1.0], [-2.0, 0.0], [3.0, 4.0]]
    """
    ops = mode.ops
    arrays = plain("rotary_embedding", out, query_key_value)
    if arrays is not None:
        return ops.rotary_embedding(arrays[0], position_ids, table, out=out)
    (x,) = values(query_key_value)
    y = ops.rotary_embedding(x, position_ids, table)
    return record(y, (query_key_value,), lambda dy: (ops.rotary_embedding_backward(dy, position_ids, table),))


def _attention(
    operands: Sequence[Values],
    parts: Sequence[Array],
    gradients: Callable[[Callable[..., Any]], tuple[Array | None, ...]],
    position_bias: Values | None,
    dropout_p: float,
    return_attn_weights: bool,
    options: dict[str, Any],
    out: Array | None = None,
) -> Any:
    """Attention over `parts`, the query, key and value in `operands`.

    `gradients` receives the backward kernel, calls it with any of `dq`, `dk` and `dv` for `(dq, dk, dv)`, and returns
    the gradients of `operands`.
    """
    ops = mode.ops
    if position_bias is not None:
        operands = (*operands, position_bias)
        options["position_bias"] = values(position_bias)[0]
        gradients = partial(_with_bias, gradients, needs(position_bias)[0])
    if dropout_p:
        options |= {"dropout_p": dropout_p, "seed": next_seed()}
    if plain("scaled_dot_product_attention", out, *operands) is not None:
        return ops.scaled_dot_product_attention(*parts, return_attn_weights=return_attn_weights, out=out, **options)
    y, lse, *weights = ops.scaled_dot_product_attention(
        *parts, return_softmax_lse=True, return_attn_weights=return_attn_weights, **options
    )

    def backward(dy: Array) -> tuple[Array | None, ...]:
        return gradients(partial(ops.scaled_dot_product_attention_backward, dy, *parts, y, lse, **options))

    result = record(y, operands, backward)
    if not weights:
        return result

    def backward_weights(dweights: Array) -> tuple[Array | None, ...]:
        return gradients(partial(_weights_backward, ops, dweights, parts[0], parts[1], weights[0], **options))

    return result, record(weights[0], operands, backward_weights)


def _with_bias(
    gradients: Callable[[Callable[..., Any]], tuple[Array | None, ...]], need: bool, backward: Callable[..., Any]
) -> tuple[Array | None, ...]:
    """What `gradients` returns, and the gradient of position_bias."""
    found: list[Array | None] = []

    def others(**given: Array) -> Any:
        *rest, dposition_bias = backward(need_dposition_bias=need, **given)
        found.append(dposition_bias)
        return rest

    return (*gradients(others), *found)


def _weights_backward(
    ops: Any,
    dweights: Array,
    query: Array,
    key: Array,
    weights: Array,
    *,
    cu_seqlens_q: CuSeqlens | None = None,
    cu_seqlens_k: CuSeqlens | None = None,
    position_bias: Array | None = None,
    need_dposition_bias: bool = False,
    softmax_scale: float | None = None,
    dq: Array | None = None,
    dk: Array | None = None,
    dv: Array | None = None,
    **_: Any,
) -> tuple[Array | None, ...]:
    """The gradients of query, key and position_bias, from that of `weights` `[batch, heads, longest_q, longest_k]`.

    The gradient of value is 0. Masked pairs have weight 0, so no gradient passes through them.
    """
    dq = np.empty_like(query) if dq is None else dq
    dk = np.empty_like(key) if dk is None else dk
    for array in (dq, dk, dv):
        if array is not None:
            array[...] = 0
    dbias = np.zeros_like(position_bias) if position_bias is not None and need_dposition_bias else None
    scale = query.dtype.type(query.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale)
    for i, head in np.ndindex(weights.shape[:2]):
        rows: Any = i, head  # of padded sequences
        columns: Any = i, head
        if cu_seqlens_q is not None:
            offsets_k = cu_seqlens_q if cu_seqlens_k is None else cu_seqlens_k
            rows = slice(*cu_seqlens_q[i : i + 2]), head
            columns = slice(*offsets_k[i : i + 2]), head
        q, k = (np.ascontiguousarray(array) for array in (query[rows], key[columns]))
        place = i, head, slice(len(q)), slice(len(k))
        if q.size and k.size:
            dscores = ops.softmax_backward(np.ascontiguousarray(dweights[place]), np.ascontiguousarray(weights[place]))
            dq[rows], dk[columns], _ = ops.linear_backward(dscores * scale, q, k, need_dbias=False)
            if dbias is not None:
                most = len(dbias) // 2
                distances = np.arange(len(k)) - np.arange(len(q))[:, None]
                bias_rows = distances.clip(-most, most) + most
                dbias[:, head] += np.bincount(bias_rows.ravel(), dscores.ravel(), len(dbias))
    return (dq, dk, dv) if position_bias is None else (dq, dk, dv, dbias)
