"""Multi-head attention over ragged batches, from a sequence to itself or to another one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import functional as F
from fastattn import ragged
from fastattn.checks import PROBABILITY, boolean, integer, number, sequence
from fastattn.nn.layer_norm import LayerNorm
from fastattn.nn.linear import Linear, StackedLinear
from fastattn.nn.module import Module, NamedParts, Values
from fastattn.nn.positions import SinusoidalPositions
from fastattn.nn.quantization import Normed

MAX_HEAD_DIM = 256  # the limit of the attention kernel


def sides(name: str, window: Any) -> tuple[int, int]:
    """The two sides of a window, checked."""
    found = tuple(integer(name, side, -1) for side in sequence(name, window, "int"))
    if len(found) != 2:
        raise ValueError(f"{name} must have 2 items, got {len(found)}")
    return found


class MultiHeadAttention(Module):
    """Each query attends to all keys of its own sequence, in `num_heads` heads. The shape stays `[tokens, embed_dim]`.

    The parameters belong to `q_proj`, `k_proj`, `v_proj` and `out_proj`, without biases if `bias` is False. One matrix
    product computes keys and values. With `self_attention` it also computes the queries, and a sequence can only attend
    to itself. `dropout` acts on the attention weights while training. `std` is as in `Linear`.

    `window` `(left, right)` lets a token see those from `left` tokens before it to `right` tokens after it, -1 for no
    limit; what lies outside costs nothing.

    Two options are for `self_attention` alone. `rotary_theta` turns queries and keys by angles that grow with the
    position, whose wavelengths end at 2 pi `rotary_theta`. With `fused` the parameters of queries, keys and values are
    one, `in_proj`.

    Raises ValueError for sizes below 1, a `num_heads` that does not divide `embed_dim` or makes heads larger than 256,
    a `dropout` outside [0, 1), `rotary_theta` or `fused` without `self_attention`, and `rotary_theta` with heads of an
    odd size.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2.2; Su et al. 2021 (arXiv 2104.09864) for `rotary_theta`.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        self_attention: bool = False,
        rotary_theta: float | None = None,
        fused: bool = False,
        window: tuple[int, int] | None = None,
        std: float | None = None,
    ) -> None:
        embed_dim = integer("MultiHeadAttention: embed_dim", embed_dim)
        num_heads = integer("MultiHeadAttention: num_heads", num_heads)
        if embed_dim % num_heads or embed_dim // num_heads > MAX_HEAD_DIM:
            raise ValueError(
                f"MultiHeadAttention: num_heads must divide embed_dim into heads of at most {MAX_HEAD_DIM}, "
                f"got {num_heads} and {embed_dim}"
            )
        dropout = number("MultiHeadAttention: dropout", dropout, **PROBABILITY)
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.self_attention = self_attention
        self.window = None if window is None else sides("MultiHeadAttention: window", window)
        names = ("q_proj", "k_proj", "v_proj") if self_attention else ("k_proj", "v_proj")
        self.q_proj = None if self_attention else Linear(embed_dim, embed_dim, bias, std=std)
        if (fused or rotary_theta is not None) and not self_attention:
            name = "fused" if fused else "rotary_theta"
            raise ValueError(f"MultiHeadAttention: {name} cannot be given without self_attention")
        if rotary_theta is not None and self.head_dim % 2:
            raise ValueError(f"MultiHeadAttention: rotary_theta needs heads of an even size, got {self.head_dim}")
        self.rotary: Any = None
        if rotary_theta is not None:
            self.rotary = SinusoidalPositions(self.head_dim, order="concatenated", max_timescale=rotary_theta)
        self.fused = boolean("MultiHeadAttention: fused", fused, error=TypeError)
        self.stacked: Linear = (
            Linear(embed_dim, 3 * embed_dim, bias, std=std)
            if fused
            else StackedLinear(embed_dim, dict.fromkeys(names, embed_dim), bias, std=std)
        )
        self.out_proj = Linear(embed_dim, embed_dim, bias, std=std)

    def stacked_after(self, norm: LayerNorm) -> Normed:
        """That the input of `stacked` is the result of a norm. The rows of the values are the last."""
        return Normed(norm, self.stacked, slice(-self.num_heads * self.head_dim, None))

    def _named_parts(self) -> NamedParts:
        if self.fused:
            return [], [("in_proj", self.stacked), ("out_proj", self.out_proj)]
        parts = {"q_proj": self.q_proj, "out_proj": self.out_proj}
        return self.stacked._named_parts()[0], [(name, part) for name, part in parts.items() if part is not None]

    def forward(
        self,
        query: Values,
        key_value: Values | None = None,
        *,
        cu_seqlens_q: ArrayLike,
        cu_seqlens_k: ArrayLike | None = None,
        is_causal: bool = False,
        position_bias: Values | None = None,
        need_weights: bool = False,
        position_ids: NDArray[np.int64] | None = None,
        residual: Values | None = None,
        dropout_p: float = 0.0,
    ) -> Any:
        """From `query` `[tokens_q, embed_dim]`, an array or a Tensor, to the same shape.

        Sequence i is tokens `cu_seqlens_q[i]` to `cu_seqlens_q[i + 1]`, integers `[batch + 1]`. It attends to sequence
        i of `key_value` `[tokens_k, embed_dim]`, split by `cu_seqlens_k`; both default to the query's. With `is_causal`
        a token sees the tokens up to its own position. `position_bias` `[2 n + 1, num_heads]` is added to the scores:
        row n + d for a key d positions after the query, the first or last row beyond n. The result for a query without
        keys is the bias of `out_proj`. With `need_weights` the result is a pair; its second item, an array or a Tensor
        like the first, is `[batch, num_heads, longest_q, longest_k]`, 0 outside a sequence. With `rotary_theta`,
        positions count from 0 in each sequence unless `position_ids`, int64 `[tokens]`, are given. Dropout with
        `dropout_p` acts on the result, then `residual` `[tokens_q, embed_dim]` is added. Raises ValueError for a
        `key_value` or `cu_seqlens_k` with `self_attention`.

        >>> layer = MultiHeadAttention(8, num_heads=2)
        >>> offsets, others = np.array([0, 2, 5], np.int32), np.array([0, 4, 7], np.int32)
        >>> x, memory = np.ones((5, 8), np.float32), np.ones((7, 8), np.float32)
        >>> y, weights = layer(x, memory, cu_seqlens_q=offsets, cu_seqlens_k=others, need_weights=True)
        >>> y.shape, weights.shape, weights[0, 0, 0].tolist()
        ((5, 8), (2, 2, 3, 4), [0.25, 0.25, 0.25, 0.25])
        """
        ends: dict[str, Any] = {"residual": residual, "dropout_p": dropout_p}
        if self.self_attention:
            for name, value in (("key_value", key_value), ("cu_seqlens_k", cu_seqlens_k)):
                if value is not None:
                    raise ValueError(f"MultiHeadAttention: {name} cannot be given to a layer with self_attention")
            parts = self.stacked(query).reshape(-1, 3, self.num_heads, self.head_dim)
            if self.rotary is not None:
                parts = self._turned(parts, cu_seqlens_q, position_ids)
            p = self.dropout_rate(self.dropout)
            context = F.qkv_attention(
                parts, cu_seqlens_q, p, is_causal, position_bias=position_bias, window=self.window,
                return_attn_weights=need_weights,
            )  # fmt: skip
            return self._finish(context, need_weights, **ends)
        keys = self.keys_values(query if key_value is None else key_value)
        return self.attend(
            query,
            keys,
            cu_seqlens_q=cu_seqlens_q,
            cu_seqlens_k=cu_seqlens_q if cu_seqlens_k is None else cu_seqlens_k,
            is_causal=is_causal,
            position_bias=position_bias,
            need_weights=need_weights,
            **ends,
        )

    def _turned(self, parts: Any, cu_seqlens: ArrayLike, position_ids: NDArray[np.int64] | None) -> Any:
        if position_ids is None:
            position_ids = ragged.positions(ragged.int32_offsets(cu_seqlens, "MultiHeadAttention: cu_seqlens_q"))
        table, rows = self.rotary.lookup(position_ids, parts.dtype)
        return F.rotary_embedding(parts, rows, table)

    def keys_values(self, memory: Values) -> Any:
        """Keys and values of `memory` `[tokens, embed_dim]`, for `attend`: `[tokens, 2, num_heads, head_dim]`."""
        return self.stacked(memory).reshape(-1, 2, self.num_heads, self.head_dim)

    def attend(
        self,
        query: Values,
        keys_values: Values,
        *,
        cu_seqlens_q: ArrayLike,
        cu_seqlens_k: ArrayLike,
        is_causal: bool = False,
        position_bias: Values | None = None,
        need_weights: bool = False,
        **ends: Any,
    ) -> Any:
        """The result of a call, given the `keys_values` of a memory. The other arguments are as in the call.

        Raises ValueError for a layer with `self_attention`.
        """
        if self.q_proj is None:
            raise ValueError("MultiHeadAttention: attend is for a layer without self_attention")
        q, p = self.q_proj(query).reshape(-1, self.num_heads, self.head_dim), self.dropout_rate(self.dropout)
        context = F.kv_attention(
            q, keys_values, cu_seqlens_q, cu_seqlens_k, p, is_causal, position_bias=position_bias, window=self.window,
            return_attn_weights=need_weights,
        )  # fmt: skip
        return self._finish(context, need_weights, **ends)

    def _finish(self, context: Any, need_weights: bool, **options: Any) -> Any:
        context, *weights = context if need_weights else (context,)
        out, rows = self.out_proj, context.reshape(-1, self.num_heads * self.head_dim)
        y = F.linear(rows, out.weight, out.bias, **options)
        return (y, *weights) if weights else y
