"""Additive attention."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import functional as F
from fastattn.checks import integer
from fastattn.nn import init
from fastattn.nn.linear import Linear
from fastattn.nn.module import Module, Values
from fastattn.nn.parameter import Parameter


class AdditiveAttention(Module):
    """Attention with the score `v . tanh(W query + U key)`, the perceptron of Bahdanau et al.

    This equals the concatenation score: `[W U]` is the matrix of `[query, key]`. Parameters are W and U, the layers
    `query` (`[hidden_dim, query_dim]` and a bias) and `key` (`[hidden_dim, key_dim]` and a bias, which just adds to
    query's bias), and v, `weight` `[1, hidden_dim]`. `std` is as in `Linear`. Raises ValueError for a size below 1.

    Source: Bahdanau et al. 2015 (arXiv 1409.0473), appendix A.1.2.
    """

    def __init__(self, query_dim: int, key_dim: int, hidden_dim: int, *, std: float | None = None) -> None:
        query_dim = integer("AdditiveAttention: query_dim", query_dim)
        key_dim = integer("AdditiveAttention: key_dim", key_dim)
        hidden_dim = integer("AdditiveAttention: hidden_dim", hidden_dim)
        self.query = Linear(query_dim, hidden_dim, std=std)
        self.key = Linear(key_dim, hidden_dim, std=std)
        self.weight = Parameter((1, hidden_dim), init.uniform(hidden_dim**-0.5) if std is None else init.normal(std))

    def forward(
        self,
        query: Values,
        key: Values,
        value: Values | None = None,
        *,
        cu_seqlens_q: NDArray[np.int32],
        cu_seqlens_k: NDArray[np.int32] | None = None,
        need_weights: bool = False,
    ) -> Any:
        """From arrays or Tensors `query` `[tokens_q, query_dim]` and `key` `[tokens_k, key_dim]` to `[tokens_q, dim]`.

        The result averages `value` `[tokens_k, dim]`, or the keys themselves if it is None. Sequences, the pair
        returned with `need_weights`, and errors are as in `fastattn.functional.additive_attention`.

        >>> layer = AdditiveAttention(4, 6, hidden_dim=16)
        >>> one, two = np.array([0, 1], np.int32), np.array([0, 2], np.int32)
        >>> layer(np.ones((1, 4), "f4"), np.ones((2, 6), "f4"), cu_seqlens_q=one, cu_seqlens_k=two).shape
        (1, 6)
        """
        return F.additive_attention(
            self.query(query),
            self.key(key),
            key if value is None else value,
            self.weight,
            cu_seqlens_q=cu_seqlens_q,
            cu_seqlens_k=cu_seqlens_k,
            return_attn_weights=need_weights,
        )
