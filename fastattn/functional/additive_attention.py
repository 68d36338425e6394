"""Attention with scores from a small network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastattn import kernels
from fastattn._types import CuSeqlens
from fastattn.autograd import mode, needs, record, recording, values
from fastattn.errors import named
from fastattn.functional._common import Array, Values
from fastattn.ragged import check_cu_seqlens


@named("tanh", "linear", "softmax", "cu_seqlens")
def additive_attention(
    query: Values,
    key: Values,
    value: Values,
    weight: Values,
    *,
    cu_seqlens_q: ArrayLike,
    cu_seqlens_k: ArrayLike | None = None,
    return_attn_weights: bool = False,
) -> Any:
    """`softmax(scores) value` with `scores[i, j] = weight . tanh(query[i] + key[j])`, for every sequence.

    `query` `[tokens_q, hidden]` is ragged by `cu_seqlens_q`, integers `[batch + 1]`; `key` `[tokens_k, hidden]` and
    `value` `[tokens_k, dim]` by `cu_seqlens_k`, by default the same. `weight` is `[1, hidden]`. Returns `[tokens_q,
    dim]`, 0 for a query without keys. With `return_attn_weights` returns `(out, weights)`: weights are `[batch,
    longest_q, longest_k]`, 0 outside a sequence, and a Tensor if `out` is one. A sequence needs memory for `hidden`
    numbers per pair of query and key; the backward pass computes them again.

    Raises TypeError for another dtype, ValueError for shapes that do not fit.

    Source: Bahdanau et al. 2015 (arXiv 1409.0473), appendix A.1.2.

    >>> keys, values = np.zeros((2, 3), np.float32), np.array([[2.0], [4.0]], np.float32)
    >>> one, two, w = np.array([0, 1], np.int32), np.array([0, 2], np.int32), np.ones((1, 3), np.float32)
    >>> additive_attention(keys[:1], keys, values, w, cu_seqlens_q=one, cu_seqlens_k=two).tolist()
    [[3.0]]
    """
    ops = mode.ops
    operands = (query, key, value, weight)
    q, k, v, w = values(*operands)
    offsets_q, offsets_k = _check(q, k, v, w, cu_seqlens_q, cu_seqlens_q if cu_seqlens_k is None else cu_seqlens_k)

    def sequences() -> Iterator[tuple[int, slice, slice]]:
        for i in range(len(offsets_q) - 1):
            rows, columns = (slice(*map(int, offsets[i : i + 2])) for offsets in (offsets_q, offsets_k))
            if rows.start < rows.stop and columns.start < columns.stop:
                yield i, rows, columns

    y, kept = np.zeros((len(q), v.shape[1]), v.dtype), []
    keeps = return_attn_weights or recording(*operands)
    for _, rows, columns in sequences():
        scores = ops.linear(_pairs(ops, q[rows], k[columns]), w)
        probabilities = ops.softmax(scores.reshape(rows.stop - rows.start, -1))
        if keeps:
            kept.append(probabilities)
        y[rows] = ops.linear(probabilities, np.ascontiguousarray(v[columns].T))
    need_dw = needs(weight)[0]

    def backward(dy: Any, dweights: Array | None = None) -> tuple[Array, Array, Array, Array | None]:
        dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
        dw = np.zeros_like(w) if need_dw else None
        options = {"need_dbias": False}
        for (i, rows, columns), probabilities in zip(sequences(), kept, strict=True):
            if dweights is not None:
                n, m = probabilities.shape
                dp = np.ascontiguousarray(dweights[i, :n, :m])
            else:
                transposed = np.ascontiguousarray(v[columns].T)
                dp, dtransposed, _ = ops.linear_backward(dy[rows], probabilities, transposed, **options)
                dv[columns] = dtransposed.T
            dscores = ops.softmax_backward(dp, probabilities).reshape(-1, 1)
            t = _pairs(ops, q[rows], k[columns])
            dt, _, _ = ops.linear_backward(dscores, t, w, need_dweight=need_dw, dweight=dw, **options)
            dt *= 1 - t * t
            dpairs = dt.reshape(*probabilities.shape, -1)
            dq[rows], dk[columns] = dpairs.sum(axis=1), dpairs.sum(axis=0)
        return dq, dk, dv, dw

    result = record(y, operands, backward)
    if not return_attn_weights:
        return result
    longest = [int((offsets[1:] - offsets[:-1]).max(initial=0)) for offsets in (offsets_q, offsets_k)]
    weights = np.zeros((len(offsets_q) - 1, *longest), y.dtype)
    for (i, _, _), probabilities in zip(sequences(), kept, strict=True):
        weights[i, : probabilities.shape[0], : probabilities.shape[1]] = probabilities
    return result, record(weights, operands, lambda dweights: backward(None, dweights))


def _pairs(ops: Any, q: Array, k: Array) -> Array:
    """`tanh(q[i] + k[j])`, `[pairs, hidden]`."""
    t: Array = ops.activation((q[:, None] + k).reshape(-1, q.shape[1]), "tanh")
    return t


def _check(
    q: Array, k: Array, v: Array, w: Array, cu_seqlens_q: ArrayLike, cu_seqlens_k: ArrayLike
) -> tuple[CuSeqlens, CuSeqlens]:
    """Both arrays of offsets, after all checks."""
    name = "additive_attention"
    for argument, array, wanted in (("query", q, "(tokens_q, hidden)"), ("value", v, "(tokens_k, dim)")):
        if array.ndim != 2 or 0 in array.shape[1:]:
            raise ValueError(f"{name}: {argument} must have shape {wanted}, got {array.shape}")
    hidden, tokens = q.shape[1], len(v)
    for argument, array, shape in (("key", k, (tokens, hidden)), ("weight", w, (1, hidden))):
        if array.shape != shape:
            raise ValueError(f"{name}: {argument} must have shape {shape}, got {array.shape}")
    dtype = np.dtype(np.float32) if mode.ops is kernels else q.dtype
    for argument, array in (("query", q), ("key", k), ("value", v), ("weight", w)):
        if array.dtype != dtype:
            raise TypeError(f"{name}: {argument} must be {dtype}, got {array.dtype}")
    offsets_q = check_cu_seqlens(cu_seqlens_q, len(q), f"{name}: cu_seqlens_q")
    offsets_k = check_cu_seqlens(cu_seqlens_k, tokens, f"{name}: cu_seqlens_k")
    if len(offsets_q) != len(offsets_k):
        raise ValueError(f"{name}: cu_seqlens_k must have shape {offsets_q.shape}, got {offsets_k.shape}")
    return offsets_q, offsets_k
