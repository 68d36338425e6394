"""Fused attention over ragged or padded batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastattn import _core

from ._types import CuSeqlens, FloatArray


def scaled_dot_product_attention(
    q: FloatArray,
    k: FloatArray,
    v: FloatArray,
    *,
    cu_seqlens_q: CuSeqlens | None = None,
    cu_seqlens_k: CuSeqlens | None = None,
    attn_mask: npt.NDArray[np.bool_] | FloatArray | None = None,
    is_causal: bool = False,
    softmax_scale: float | None = None,
    causal_alignment: str = "bottom_right",
    return_softmax_lse: bool = False,
    return_attn_weights: bool = False,
    out: FloatArray | None = None,
) -> Any:
    """softmax(q k^T * softmax_scale + mask) v, without ever holding the matrix of scores.

    Ragged, when `cu_seqlens_q` is given: q `[total_q, heads, dim]`, k and v `[total_k, heads, dim]`, the sequences one
    after the other; cu_seqlens int32 `[batch + 1]`, from 0 to the number of rows; `cu_seqlens_k` is `cu_seqlens_q`
    unless given. Padded: q `[batch, heads, seq_q, dim]`, k and v `[batch, heads, seq_k, dim]`, and `attn_mask`,
    broadcastable to `[batch, heads, seq_q, seq_k]`: bool (True: may attend) or float32 (added to the scores; -inf: may
    not attend). float32, dim 1 to 256, strides free but for the last axis, so views of one fused projection do.

    `is_causal` lets a query see the keys up to its own place, counted by `causal_alignment` from the last query and key
    ("bottom_right", as in flash-attention) or from the first ones ("top_left", as in PyTorch). `softmax_scale`
    is 1 / sqrt(dim) by default. A key that may not be attended to adds exactly nothing, even when it is NaN; a query
    without any gives 0.

    Returns the result in q's shape, followed by what was asked for, as a tuple:
    softmax_lse (`return_softmax_lse`): natural log of the sum of the exponentials, `[heads, total_q]` or
    `[batch, heads, seq_q]`, -inf where there is no key; attn_weights (`return_attn_weights`): the softmax itself,
    `[batch, heads, longest_q, longest_k]`, 0 beyond the ends.

    Raises TypeError for another dtype, ValueError for shapes that do not match, bad cu_seqlens, a mask that does not
    broadcast or comes with cu_seqlens, or an `out` that overlaps an input.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1, computed as in Dao et al. 2022 (arXiv 2205.14135),
    algorithm 1.

    >>> import numpy as np
    >>> q = k = v = np.eye(2, dtype=np.float32).reshape(2, 1, 2)  # two sequences of one token, one head
    >>> scaled_dot_product_attention(q, k, v, cu_seqlens_q=np.array([0, 1, 2], np.int32)).tolist()
    [[[1.0, 0.0]], [[0.0, 1.0]]]
    """
    return _core.scaled_dot_product_attention(
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        attn_mask,
        is_causal,
        softmax_scale,
        causal_alignment,
        return_softmax_lse,
        return_attn_weights,
        out,
    )
