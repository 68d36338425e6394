"""Reference of `scaled_dot_product_attention`, ragged and padded: softmax(q k^T * scale + mask) v."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ._seqlens import bounds

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]
NAME = "scaled_dot_product_attention"
BLOCK = 1 << 18
"""Scores treated at a time (whole heads, at least one), so that they stay in the cache."""


def scaled_dot_product_attention(
    q: FloatArray,
    k: FloatArray,
    v: FloatArray,
    *,
    cu_seqlens_q: npt.NDArray[np.int32] | None = None,
    cu_seqlens_k: npt.NDArray[np.int32] | None = None,
    attn_mask: npt.NDArray[Any] | None = None,
    is_causal: bool = False,
    softmax_scale: float | None = None,
    causal_alignment: str = "bottom_right",
    return_softmax_lse: bool = False,
    return_attn_weights: bool = False,
    out: FloatArray | None = None,
) -> FloatArray | tuple[FloatArray, ...]:
    """Attention of every query over the keys of its own sequence: softmax(q k^T * softmax_scale + mask) v.

    Ragged, with `cu_seqlens_q`: q `[total_q, heads, dim]`, k and v `[total_k, heads, dim]`, `cu_seqlens_q`
    and `cu_seqlens_k` int32 `[batch + 1]`, the latter the former unless given. Padded, without: q `[batch,
    heads, seq_q, dim]`, k and v `[batch, heads, seq_k, dim]`; `attn_mask` broadcasts to `[batch, heads,
    seq_q, seq_k]` and is bool (True: may attend) or float (added to the scores; -inf: may not attend). One
    float dtype throughout, strides of any kind.

    `is_causal` lets query i see keys 0 .. i, aligned by `causal_alignment`: the last query with the last key
    ("bottom_right") or the first with the first ("top_left"). `softmax_scale` is 1 / sqrt(dim) unless given.
    A key that may not be attended to has no effect, whatever its value; a query with no key gives 0.

    Returns the output in `q`'s shape, in `out` if given; with `return_softmax_lse` then softmax_lse, the
    natural log of each row's sum of exponentials, `[heads, total_q]` or `[batch, heads, seq_q]`, -inf where
    there is no key; with `return_attn_weights` then attn_weights, the softmax itself, `[batch, heads,
    longest_q, longest_k]`, 0 outside a sequence. Raises ValueError for bad `cu_seqlens_q` or `cu_seqlens_k`,
    an unknown `causal_alignment`, a mask in a ragged call, or shapes that do not match.

    Source: Vaswani et al. 2017, equation 1; ragged batches, lse and alignment as in flash-attention (Dao
    2023).

    >>> q = k = v = np.eye(2).reshape(2, 1, 2)  # two sequences of one token each
    >>> scaled_dot_product_attention(q, k, v, cu_seqlens_q=np.array([0, 1, 2], np.int32)).tolist()
    [[[1.0, 0.0]], [[0.0, 1.0]]]
    """
    if causal_alignment not in ("bottom_right", "top_left"):
        raise ValueError(
            f"{NAME}: causal_alignment must be one of 'bottom_right', 'top_left', got {causal_alignment!r}"
        )
    y = np.empty(q.shape, q.dtype) if out is None else out
    sequences = _ragged if cu_seqlens_q is not None else _padded
    lse, weights, pieces = sequences(q, k, v, y, cu_seqlens_q, cu_seqlens_k, attn_mask, return_attn_weights)
    scale = q.dtype.type(1 / math.sqrt(q.shape[-1]) if softmax_scale is None else softmax_scale)
    for q_s, k_s, v_s, y_s, lse_s, weights_s, mask in pieces:
        allowed = _causal(q_s.shape[1], k_s.shape[1], causal_alignment) if is_causal else None
        heads = max(1, BLOCK // max(1, q_s.shape[1] * k_s.shape[1]))
        for h in (slice(i, i + heads) for i in range(0, len(q_s), heads)):
            mask_h, weights_h = (None if a is None else a[h] for a in (mask, weights_s))
            with np.errstate(all="ignore"):  # log(0) where there is no key; inf and NaN where they were given
                _attend(q_s[h], k_s[h], v_s[h], scale, allowed, mask_h, y_s[h], lse_s[h], weights_h)
    wanted = ((lse, return_softmax_lse), (weights, return_attn_weights))
    extras = [array for array, asked in wanted if asked and array is not None]
    return (y, *extras) if extras else y


def _ragged(
    q: FloatArray,
    k: FloatArray,
    v: FloatArray,
    y: FloatArray,
    cu_seqlens_q: Any,
    cu_seqlens_k: Any,
    attn_mask: Any,
    want_weights: bool,
) -> tuple[FloatArray, FloatArray | None, list[tuple[Any, ...]]]:
    """lse, attn_weights and, for every sequence, heads-first views of its part of everything."""
    if attn_mask is not None:
        raise ValueError(f"{NAME}: attn_mask is for padded arrays, cu_seqlens say it all for ragged ones")
    cu_seqlens_k = cu_seqlens_q if cu_seqlens_k is None else cu_seqlens_k
    ends_q = bounds(NAME, "cu_seqlens_q", cu_seqlens_q, len(q))
    ends_k = bounds(NAME, "cu_seqlens_k", cu_seqlens_k, len(k))
    if len(ends_q) != len(ends_k):
        raise ValueError(f"{NAME}: cu_seqlens_k must have shape ({len(ends_q)},), got ({len(ends_k)},)")
    heads = q.shape[1]
    lse = np.empty((heads, len(q)), q.dtype)
    spans = [
        (slice(a, b), slice(c, d)) for a, b, c, d in zip(ends_q[:-1], ends_q[1:], ends_k[:-1], ends_k[1:], strict=True)
    ]
    weights = None
    if want_weights:
        longest_q, longest_k = (max((s[i].stop - s[i].start for s in spans), default=0) for i in (0, 1))
        weights = np.zeros((len(spans), heads, longest_q, longest_k), q.dtype)
    q, k, v, y = (a.transpose(1, 0, 2) for a in (q, k, v, y))
    pieces: list[tuple[Any, ...]] = []
    for i, (a, b) in enumerate(spans):
        part = None if weights is None else weights[i, :, : a.stop - a.start, : b.stop - b.start]
        pieces.append((q[:, a], k[:, b], v[:, b], y[:, a], lse[:, a], part, None))
    return lse, weights, pieces


def _padded(
    q: FloatArray,
    k: FloatArray,
    v: FloatArray,
    y: FloatArray,
    cu_seqlens_q: Any,
    cu_seqlens_k: Any,
    attn_mask: Any,
    want_weights: bool,
) -> tuple[FloatArray, FloatArray | None, list[tuple[Any, ...]]]:
    """lse, attn_weights and, for every sequence, its part of everything."""
    if cu_seqlens_k is not None:
        raise ValueError(f"{NAME}: cu_seqlens_k needs cu_seqlens_q")
    scores = (*q.shape[:3], k.shape[2])
    lse = np.empty(scores[:3], q.dtype)
    weights = np.empty(scores, q.dtype) if want_weights else None
    masks = [None] * len(q) if attn_mask is None else np.broadcast_to(attn_mask, scores)
    parts = [None] * len(q) if weights is None else weights
    return lse, weights, list(zip(q, k, v, y, lse, parts, masks, strict=True))


def _causal(seq_q: int, seq_k: int, alignment: str) -> BoolArray:
    """`[seq_q, seq_k]`, True where key j is not after query i."""
    return np.tri(seq_q, seq_k, seq_k - seq_q if alignment == "bottom_right" else 0, dtype=np.bool_)


def _attend(
    q: FloatArray,
    k: FloatArray,
    v: FloatArray,
    scale: Any,
    allowed: BoolArray | None,
    mask: npt.NDArray[Any] | None,
    y: FloatArray,
    lse: FloatArray,
    weights: FloatArray | None,
) -> None:
    """Some heads of a sequence: q `[heads, seq_q, dim]`, k and v `[heads, seq_k, dim]`; fills the outputs."""
    s = np.matmul(q * scale, k.transpose(0, 2, 1))
    if mask is not None and mask.dtype == np.bool_:
        allowed = mask if allowed is None else allowed & mask
    elif mask is not None:
        s += mask
        attended = mask != -np.inf
        allowed = attended if allowed is None else allowed & attended
    if allowed is not None:
        np.copyto(s, -np.inf, where=~allowed)
    top = s.max(axis=-1, keepdims=True, initial=-np.inf)
    top[top == -np.inf] = 0
    s -= top
    np.exp(s, out=s)
    total = s.sum(axis=-1, keepdims=True)
    lse[...] = (np.log(total) + top)[..., 0]
    total[total == 0] = 1
    if allowed is None or np.isfinite(v).all():
        np.matmul(s, v, out=y)
    else:  # 0 * inf is NaN, so what may not be attended to must be left out of the sum
        keys = np.broadcast_to(allowed, s.shape)
        for head, row in np.ndindex(s.shape[:2]):
            seen = keys[head, row]
            np.matmul(s[head, row, seen], v[head, seen], out=y[head, row])
    y /= total
    if weights is not None:
        np.divide(s, total, out=weights)
