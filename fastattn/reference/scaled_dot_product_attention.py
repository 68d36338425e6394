"""Reference of `scaled_dot_product_attention` and its backward pass, ragged and padded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fastattn._types import Floats

from ._random import check, kept, select
from ._seqlens import bounds

BoolArray = npt.NDArray[np.bool_]
Spans = list[tuple[slice, slice]]
NAME = "scaled_dot_product_attention"
BLOCK = 1 << 18
"""Scores computed at a time (whole heads, at least one), few enough to stay in the cache."""


def scaled_dot_product_attention(
    q: Floats,
    k: Floats,
    v: Floats,
    *,
    cu_seqlens_q: npt.NDArray[np.int32] | None = None,
    cu_seqlens_k: npt.NDArray[np.int32] | None = None,
    attn_mask: npt.NDArray[Any] | None = None,
    position_bias: Floats | None = None,
    window: tuple[int, int] | None = None,
    is_causal: bool = False,
    softmax_scale: float | None = None,
    causal_alignment: str = "bottom_right",
    dropout_p: float = 0.0,
    seed: int = 0,
    return_softmax_lse: bool = False,
    return_attn_weights: bool = False,
    out: Floats | None = None,
) -> Any:
    """softmax(q k^T * softmax_scale + bias + mask) v for every sequence and head.

    See `fastattn.kernels.scaled_dot_product_attention`.

    >>> q = k = v = np.eye(2).reshape(2, 1, 2)  # two sequences of one token each
    >>> scaled_dot_product_attention(q, k, v, cu_seqlens_q=np.array([0, 1, 2], np.int32)).tolist()
    [[[1.0, 0.0]], [[0.0, 1.0]]]
    """
    spans = _check(NAME, q, k, cu_seqlens_q, cu_seqlens_k, attn_mask, causal_alignment, dropout_p, seed)
    y = np.empty(q.shape, q.dtype) if out is None else out
    lse = np.empty(_rows(q, spans), q.dtype)
    weights = _weights(q, k, spans) if return_attn_weights else None
    factor = _factor(q, softmax_scale)
    pieces = _pieces(spans, [q, y], [k, v], [lse, _numbers(lse)], attn_mask)
    limits = _limits(NAME, window, is_causal)
    with np.errstate(all="ignore"):  # log(0) without keys; inf and NaN in the inputs
        for (i, h), (q_h, y_h), (k_h, v_h), (lse_h, numbers), mask in pieces:
            s, allowed = _scores(q_h, k_h, factor, mask, _table(position_bias, h), limits, causal_alignment)
            if allowed is not None:
                np.copyto(s, -np.inf, where=~allowed)
            top = s.max(axis=-1, keepdims=True, initial=-np.inf)
            top[top == -np.inf] = 0
            s -= top
            np.exp(s, out=s)
            total = s.sum(axis=-1, keepdims=True)
            lse_h[...] = (np.log(total) + top)[..., 0]
            total[total == 0] = 1
            if weights is not None:
                counted = True if allowed is None else allowed  # a masked key has 0 even beside NaN
                np.divide(s, total, out=weights[i, h, : s.shape[1], : s.shape[2]], where=counted)
            if dropout_p:
                select(s, kept(numbers, s.shape[2], dropout_p, seed), dropout_p, out=s)
            _multiply(s, v_h, allowed, y_h)
            y_h /= total
    extras = [a for a, asked in ((lse, return_softmax_lse), (weights, return_attn_weights)) if asked]
    return (y, *extras) if extras else y


def scaled_dot_product_attention_backward(
    dout: Floats,
    q: Floats,
    k: Floats,
    v: Floats,
    out: Floats,
    softmax_lse: Floats,
    *,
    cu_seqlens_q: npt.NDArray[np.int32] | None = None,
    cu_seqlens_k: npt.NDArray[np.int32] | None = None,
    attn_mask: npt.NDArray[Any] | None = None,
    position_bias: Floats | None = None,
    window: tuple[int, int] | None = None,
    is_causal: bool = False,
    softmax_scale: float | None = None,
    causal_alignment: str = "bottom_right",
    dropout_p: float = 0.0,
    seed: int = 0,
    need_dposition_bias: bool = True,
    dq: Floats | None = None,
    dk: Floats | None = None,
    dv: Floats | None = None,
) -> Any:
    """The gradients of `scaled_dot_product_attention`, from the recomputed softmax.

    See `fastattn.kernels.scaled_dot_product_attention_backward`.

    P is the softmax, M dropout's factors (0 or 1 / (1 - dropout_p)), D the sum of dout * out over dim, and
    dS = P * (M * (dout v^T) - D). Then dq = dS k * softmax_scale, dk = dS^T q * softmax_scale, dv = (M * P)^T dout, and
    the gradient of position_bias is the sum of dS over the pairs of a head and a distance.

    >>> q, k, v = np.ones((1, 1, 1, 1)), np.array([[[[0.0], [0.0]]]]), np.array([[[[1.0], [3.0]]]])
    >>> out, lse = scaled_dot_product_attention(q, k, v, return_softmax_lse=True)
    >>> dq, dk, dv = scaled_dot_product_attention_backward(np.ones(out.shape), q, k, v, out, lse)
    >>> dk.ravel().tolist(), dv.ravel().tolist()
    ([-0.5, 0.5], [0.5, 0.5])
    """
    name = f"{NAME}_backward"
    spans = _check(name, q, k, cu_seqlens_q, cu_seqlens_k, attn_mask, causal_alignment, dropout_p, seed)
    dq, dk, dv = (np.empty(a.shape, a.dtype) if d is None else d for d, a in ((dq, q), (dk, k), (dv, v)))
    factor = _factor(q, softmax_scale)
    rows = [softmax_lse, _numbers(softmax_lse)]
    limits = _limits(name, window, is_causal)
    dbias = None if position_bias is None or not need_dposition_bias else np.zeros_like(position_bias)
    pieces = _pieces(spans, [q, out, dout, dq], [k, v, dk, dv], rows, attn_mask)
    with np.errstate(all="ignore"):  # inf and NaN in the inputs, or where nothing is allowed
        for (_, h), (q_h, y_h, dy_h, dq_h), (k_h, v_h, dk_h, dv_h), (lse_h, numbers), mask in pieces:
            p, allowed = _scores(q_h, k_h, factor, mask, _table(position_bias, h), limits, causal_alignment)
            p -= np.where(lse_h == -np.inf, 0, lse_h)[..., None]
            np.exp(p, out=p)
            if allowed is not None:
                np.copyto(p, 0, where=~allowed)
            ds = np.matmul(dy_h, v_h.transpose(0, 2, 1))
            keep = kept(numbers, p.shape[2], dropout_p, seed) if dropout_p else None
            if keep is not None:
                select(ds, keep, dropout_p, out=ds)
            ds -= np.einsum("hid,hid->hi", dy_h, y_h)[..., None]
            ds *= p
            if allowed is not None:
                np.copyto(ds, 0, where=~allowed)  # NaN * 0
            if dbias is not None:
                _add_by_distance(dbias.T[h], ds, causal_alignment)
            ds *= factor
            if keep is not None:
                select(p, keep, dropout_p, out=p)
            backwards = None if allowed is None else allowed.transpose(0, 2, 1)
            _multiply(ds, k_h, allowed, dq_h)
            _multiply(ds.transpose(0, 2, 1), q_h, backwards, dk_h)
            _multiply(p.transpose(0, 2, 1), dy_h, backwards, dv_h)
    return (dq, dk, dv) if position_bias is None else (dq, dk, dv, dbias)


def _check(
    name: str,
    q: Floats,
    k: Floats,
    cu_seqlens_q: Any,
    cu_seqlens_k: Any,
    attn_mask: Any,
    causal_alignment: str,
    dropout_p: float,
    seed: int,
) -> Spans | None:
    """Check the arguments. Returns the queries and keys of each sequence of a ragged call."""
    if causal_alignment not in ("bottom_right", "top_left"):
        raise ValueError(
            f"{name}: causal_alignment must be one of 'bottom_right', 'top_left', got {causal_alignment!r}"
        )
    check(name, "dropout_p", dropout_p, seed)
    if cu_seqlens_q is None:
        if cu_seqlens_k is not None:
            raise ValueError(f"{name}: cu_seqlens_k must be given with cu_seqlens_q")
        return None
    if attn_mask is not None:
        raise ValueError(f"{name}: attn_mask goes with padded q, not with cu_seqlens_q")
    ends_q = bounds(name, "cu_seqlens_q", cu_seqlens_q, len(q))
    ends_k = bounds(name, "cu_seqlens_k", cu_seqlens_q if cu_seqlens_k is None else cu_seqlens_k, len(k))
    if len(ends_q) != len(ends_k):
        raise ValueError(f"{name}: cu_seqlens_k must have shape ({len(ends_q)},), got ({len(ends_k)},)")
    queries, keys = (map(slice, ends[:-1], ends[1:]) for ends in (ends_q, ends_k))
    return list(zip(queries, keys, strict=True))


def _factor(q: Floats, softmax_scale: float | None) -> Any:
    """The factor of the scores, in `q`'s dtype."""
    return q.dtype.type(1 / math.sqrt(q.shape[-1]) if softmax_scale is None else softmax_scale)


def _rows(q: Floats, spans: Spans | None) -> tuple[int, ...]:
    """The shape of softmax_lse."""
    return q.shape[:3] if spans is None else (q.shape[1], len(q))


def _numbers(lse: Floats) -> npt.NDArray[np.int64]:
    """The number of each row of the softmax, for dropout."""
    return np.arange(lse.size, dtype=np.int64).reshape(lse.shape)


def _weights(q: Floats, k: Floats, spans: Spans | None) -> Floats:
    """Zeros for attn_weights."""
    if spans is None:
        return np.zeros((*q.shape[:3], k.shape[2]), q.dtype)
    longest_q, longest_k = (max((pair[i].stop - pair[i].start for pair in spans), default=0) for i in (0, 1))
    return np.zeros((len(spans), q.shape[1], longest_q, longest_k), q.dtype)


def _pieces(
    spans: Spans | None, queries: list[Any], keys: list[Any], rows: list[Any], mask: npt.NDArray[Any] | None
) -> Iterator[tuple[tuple[int, slice], list[Any], list[Any], list[Any], npt.NDArray[Any] | None]]:
    """For one sequence after another, blocks of heads: their indices, and as views their parts of `queries` `[heads,
    seq_q, dim]`, `keys` `[heads, seq_k, dim]` and `rows` `[heads, seq_q]`, and the mask `[heads, seq_q, seq_k]`.
    """
    if spans is None and mask is not None:
        mask = np.broadcast_to(mask, (*queries[0].shape[:3], keys[0].shape[2]))
    for i in range(len(queries[0]) if spans is None else len(spans)):
        if spans is None:
            parts = [[a[i] for a in arrays] for arrays in (queries, keys, rows)]
        else:
            at, seen = spans[i]
            parts = [
                [a[at].transpose(1, 0, 2) for a in queries],
                [a[seen].transpose(1, 0, 2) for a in keys],
                [a[:, at] for a in rows],
            ]
        heads, seq_q = parts[2][0].shape
        step = max(1, BLOCK // max(1, seq_q * parts[1][0].shape[1]))
        for h in (slice(start, start + step) for start in range(0, heads, step)):
            queries_h, keys_h, rows_h = ([a[h] for a in part] for part in parts)
            yield (i, h), queries_h, keys_h, rows_h, None if mask is None else mask[i, h]


def _limits(name: str, window: tuple[int, int] | None, is_causal: bool) -> tuple[int, int]:
    """How far a query sees to the left and to the right, -1 for no limit."""
    left, right = (-1, -1) if window is None else window
    if min(left, right) < -1:
        raise ValueError(f"{name}: window must be integers >= 0, or -1 for no limit, got {window}")
    return left, 0 if is_causal else right


def _table(position_bias: Floats | None, heads: slice) -> Floats | None:
    """The biases of some heads by distance, `[heads, 2 n + 1]`."""
    return None if position_bias is None else position_bias.T[heads]


def _distances(scores: Floats, alignment: str) -> npt.NDArray[np.int64]:
    """The position of each key less that of each query, for scores `[heads, seq_q, seq_k]`."""
    _, seq_q, seq_k = scores.shape
    first = seq_k - seq_q if alignment == "bottom_right" else 0
    return np.arange(seq_k) - np.arange(first, first + seq_q)[:, None]


def _columns(distances: npt.NDArray[np.int64], table: Floats) -> npt.NDArray[np.int64]:
    """The columns of the table for these distances."""
    most = table.shape[1] // 2
    columns: npt.NDArray[np.int64] = distances.clip(-most, most) + most
    return columns


def _scores(
    q: Floats,
    k: Floats,
    factor: Any,
    mask: npt.NDArray[Any] | None,
    table: Floats | None,
    limits: tuple[int, int],
    alignment: str,
) -> tuple[Floats, BoolArray | None]:
    """q k^T * factor + bias + mask `[heads, seq_q, seq_k]`, and which of them count (None: all)."""
    s = np.matmul(q * factor, k.transpose(0, 2, 1))
    allowed: BoolArray | None = None
    if table is not None or limits != (-1, -1):
        distances = _distances(s, alignment)
        if table is not None:
            s += table[:, _columns(distances, table)]
        for side, limit in ((-distances, limits[0]), (distances, limits[1])):
            if limit >= 0:
                allowed = side <= limit if allowed is None else allowed & (side <= limit)
    if mask is not None:
        attended = mask if mask.dtype == np.bool_ else mask != -np.inf
        allowed = attended if allowed is None else allowed & attended
        if mask.dtype != np.bool_:
            s += mask
    return s, None if allowed is None else np.broadcast_to(allowed, s.shape)


def _add_by_distance(dtable: Floats, dscores: Floats, alignment: str) -> None:
    """Add the gradients of scores `[heads, seq_q, seq_k]` to the gradient of their biases."""
    columns = _columns(_distances(dscores, alignment), dtable).ravel()
    for row, values in zip(dtable, dscores, strict=True):
        row += np.bincount(columns, values.ravel(), len(row)).astype(row.dtype)


def _multiply(weights: Floats, x: Floats, seen: BoolArray | None, out: Floats) -> None:
    """`weights` `[heads, rows, n]` times x `[heads, n, dim]`. Unseen rows of x have weight 0 and no effect."""
    if seen is None or np.isfinite(x).all():
        np.matmul(weights, x, out=out)
        return
    for head, row in np.ndindex(out.shape[:2]):  # 0 * inf is NaN
        at = seen[head, row]
        np.matmul(weights[head, row, at], x[head, at], out=out[head, row])
