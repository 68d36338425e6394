"""Fused attention over ragged or padded batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastattn import _core
from fastattn._types import CuSeqlens, FloatArray


def scaled_dot_product_attention(
    q: FloatArray,
    k: FloatArray,
    v: FloatArray,
    *,
    cu_seqlens_q: CuSeqlens | None = None,
    cu_seqlens_k: CuSeqlens | None = None,
    attn_mask: npt.NDArray[np.bool_] | FloatArray | None = None,
    position_bias: FloatArray | None = None,
    window: tuple[int, int] | None = None,
    is_causal: bool = False,
    softmax_scale: float | None = None,
    causal_alignment: str = "bottom_right",
    dropout_p: float = 0.0,
    seed: int = 0,
    return_softmax_lse: bool = False,
    return_attn_weights: bool = False,
    out: FloatArray | None = None,
) -> Any:
    """softmax(q k^T * softmax_scale + bias + mask) v, without ever holding the matrix of scores.

    Ragged, if `cu_seqlens_q` is given: q `[total_q, heads, dim]`, k and v `[total_k, heads, dim]`, the sequences one
    after the other; cu_seqlens int32 `[batch + 1]`, from 0 to the number of rows; `cu_seqlens_k` defaults to
    `cu_seqlens_q`. Padded: q `[batch, heads, seq_q, dim]`, k and v `[batch, heads, seq_k, dim]`, and `attn_mask`,
    broadcastable to `[batch, heads, seq_q, seq_k]`: bool (True: may attend) or float32 (added to the scores; -inf: may
    not attend). Floats are float32, dim is 1 to 256, and only the last axis must be contiguous, so views of one fused
    projection work.

    `is_causal` lets a query see the keys up to its own position, and `window` `(left, right)` those from its position -
    left to its position + right, -1 for no limit; what lies outside a window costs nothing. `position_bias` `[2 n + 1,
    heads]`, float32 and finite, is added to the scores: row n + d if the key is d positions after the query, the first
    or last row beyond n. `causal_alignment` counts positions from the last query and key ("bottom_right", as
    in flash-attention) or from the first ones ("top_left", as in PyTorch).
    `softmax_scale` is 1 / sqrt(dim) by default. A masked key contributes exactly nothing, even if it is NaN. The result
    of a query without keys is 0. `dropout_p` in [0, 1) drops probabilities like `fastattn.kernels.dropout` with this
    `seed`; the rows are the elements of softmax_lse, the columns the keys of the sequence.

    Returns the result in q's shape, or a tuple of it and the requested extras. softmax_lse (`return_softmax_lse`) is
    the natural log of the sum of the exponentials, `[heads, total_q]` or `[batch, heads, seq_q]`, -inf without keys.
    attn_weights (`return_attn_weights`) is the softmax before dropout, `[batch, heads, longest_q, longest_k]`, 0
    outside a sequence.

    Raises TypeError for another dtype, ValueError for shapes that do not match, bad cu_seqlens, a mask that does not
    broadcast or comes with cu_seqlens, a window below -1, or an `out` that overlaps an input.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1, computed as in Dao et al. 2022 (arXiv 2205.14135),
    algorithm 1; Shaw et al. 2018 (arXiv 1803.02155) for biases by distance; Beltagy et al. 2020 (arXiv 2004.05150),
    section 3.1, for windows.

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
        position_bias,
        window,
        is_causal,
        softmax_scale,
        causal_alignment,
        dropout_p,
        seed,
        return_softmax_lse,
        return_attn_weights,
        out,
    )


def scaled_dot_product_attention_backward(
    dout: FloatArray,
    q: FloatArray,
    k: FloatArray,
    v: FloatArray,
    out: FloatArray,
    softmax_lse: FloatArray,
    *,
    cu_seqlens_q: CuSeqlens | None = None,
    cu_seqlens_k: CuSeqlens | None = None,
    attn_mask: npt.NDArray[np.bool_] | FloatArray | None = None,
    position_bias: FloatArray | None = None,
    window: tuple[int, int] | None = None,
    is_causal: bool = False,
    softmax_scale: float | None = None,
    causal_alignment: str = "bottom_right",
    dropout_p: float = 0.0,
    seed: int = 0,
    need_dposition_bias: bool = True,
    dq: FloatArray | None = None,
    dk: FloatArray | None = None,
    dv: FloatArray | None = None,
) -> Any:
    """The gradients of `scaled_dot_product_attention`. The probabilities are recomputed from softmax_lse.

    dout and `out`, the result, have q's shape. `softmax_lse` was returned with `out`. cu_seqlens_q, cu_seqlens_k,
    attn_mask, position_bias, window, is_causal, softmax_scale, causal_alignment, dropout_p and seed are as in the
    forward call. Only the last axis must be contiguous.

    Returns `(dq, dk, dv)` in the shapes of q, k and v, with a `position_bias` also its gradient, or None if
    `need_dposition_bias` is False. The arguments `dq`, `dk` and `dv`, if given, are overwritten and
    returned. They must be writable, and may be strided views of one gradient of a fused projection. A query without
    keys and a key without queries have the gradient 0, even if they are NaN. `attn_mask` has no gradient. Mask keys
    with False or -inf: next to a finite value such as -1e9, float32 has no digits left for the scores, and softmax_lse
    none to recompute the probabilities from.

    Each sequence and head is summed in a fixed order, so the bits depend neither on the other sequences nor on the
    number of threads.

    Raises TypeError for another dtype, ValueError for shapes that do not match, bad cu_seqlens, or a gradient that
    overlaps an input.

    Source: Dao et al. 2022 (arXiv 2205.14135), algorithm 4.

    >>> import numpy as np
    >>> q = k = v = np.ones((2, 1, 1), np.float32)  # one sequence of two tokens, one head
    >>> bounds = np.array([0, 2], np.int32)
    >>> out, lse = scaled_dot_product_attention(q, k, v, cu_seqlens_q=bounds, return_softmax_lse=True)
    >>> dq, dk, dv = scaled_dot_product_attention_backward(out, q, k, v, out, lse, cu_seqlens_q=bounds)
    >>> dv.ravel().round(6).tolist()
    [1.0, 1.0]
    """
    return _core.scaled_dot_product_attention_backward(
        dout,
        q,
        k,
        v,
        out,
        softmax_lse,
        cu_seqlens_q,
        cu_seqlens_k,
        attn_mask,
        position_bias,
        window,
        is_causal,
        softmax_scale,
        causal_alignment,
        dropout_p,
        seed,
        need_dposition_bias,
        dq,
        dk,
        dv,
    )
