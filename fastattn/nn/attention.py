"""Multi-head self-attention over ragged batches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastattn import functional as F
from fastattn.nn.linear import Linear, StackedLinear
from fastattn.nn.module import Array, Module
from fastattn.nn.workspace import Workspace


class SelfAttention(Module):
    """Every token attends to all tokens of its own sequence: `[tokens, dim]` to `[tokens, dim]`.

    Source: Vaswani et al. 2017, section 3.2.2; query, key and value are one matrix product.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        self.num_heads = num_heads
        self.query_key_value = StackedLinear(dim, {"query": dim, "key": dim, "value": dim})
        self.output = Linear(dim, dim)

    def __call__(
        self,
        x: Array,
        cu_seqlens: NDArray[np.int32],
        *,
        workspace: Workspace | None = None,
        attn_weights: list[Array] | None = None,
    ) -> Array:
        """`x` `[tokens, dim]`, `cu_seqlens` int32 `[batch + 1]`. The result lives in `workspace` if given.

        The attention weights `[batch, heads, longest, longest]`, 0 outside a sequence, are appended to
        `attn_weights`.
        """
        w = Workspace(len(x), x.shape[1], self.num_heads) if workspace is None else workspace
        self.query_key_value(x, out=w.query_key_value)
        if attn_weights is None:
            F.scaled_dot_product_attention(w.query, w.key, w.value, cu_seqlens_q=cu_seqlens, out=w.heads)
        else:
            _, weights = F.scaled_dot_product_attention(
                w.query, w.key, w.value, cu_seqlens_q=cu_seqlens, return_attn_weights=True, out=w.heads
            )
            attn_weights.append(weights)
        return self.output(w.context, out=w.output)
