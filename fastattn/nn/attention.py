"""Multi-head self-attention over ragged batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import functional as F
from fastattn.autograd import mode
from fastattn.nn.linear import Linear, StackedLinear
from fastattn.nn.module import Module, Values
from fastattn.nn.parameter import Array
from fastattn.nn.workspace import Workspace


class SelfAttention(Module):
    """Every token attends to all tokens of its own sequence: `[tokens, dim]` to `[tokens, dim]`.

    `dropout_p` is the part of the attention weights that is dropped while training; `std` is that of `Linear`.

    Source: Vaswani et al. 2017, section 3.2.2; query, key and value are one matrix product.
    """

    def __init__(self, dim: int, num_heads: int, *, dropout_p: float = 0.0, std: float | None = None) -> None:
        self.num_heads = num_heads
        self.dropout_p = dropout_p
        self.query_key_value = StackedLinear(dim, {"query": dim, "key": dim, "value": dim}, std=std)
        self.output = Linear(dim, dim, std=std)

    def forward(
        self,
        x: Values,
        cu_seqlens: NDArray[np.int32],
        *,
        workspace: Workspace | None = None,
        attn_weights: list[Array] | None = None,
    ) -> Any:
        """`x` `[tokens, dim]`, an array or a Tensor, gives `[tokens, dim]`.

        Sequence i is the tokens from `cu_seqlens[i]` to `cu_seqlens[i + 1]`, int32 `[batch + 1]`. With a `workspace`,
        for arrays that nothing is recorded from, nothing is dropped and the result is its `output`: valid until the
        workspace is used again.
        A list given as `attn_weights` gets the attention weights appended, an array `[batch, heads, longest,
        longest]`, 0 outside a sequence.

        >>> layer = SelfAttention(8, num_heads=2)
        >>> layer(np.ones((5, 8), np.float32), np.array([0, 2, 5], np.int32)).shape
        (5, 8)
        """
        w = workspace
        if w is None:
            tokens, dim = x.shape
            parts = self.query_key_value(x).reshape(tokens, 3, self.num_heads, dim // self.num_heads)
            dropout_p = self.dropout_rate(self.dropout_p)
            context = F.qkv_attention(parts, cu_seqlens, dropout_p, return_attn_weights=attn_weights is not None)
            if attn_weights is not None:
                context, weights = context
                attn_weights.append(weights)
            return self.output(context.reshape(tokens, dim))
        self.query_key_value(x, out=w.query_key_value)
        attend = mode.ops.scaled_dot_product_attention
        if attn_weights is None:
            attend(w.query, w.key, w.value, cu_seqlens_q=cu_seqlens, out=w.heads)
        else:
            options = {"return_attn_weights": True, "out": w.heads}
            attn_weights.append(attend(w.query, w.key, w.value, cu_seqlens_q=cu_seqlens, **options)[1])
        return self.output(w.context, out=w.output)
