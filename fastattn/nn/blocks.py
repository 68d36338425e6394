"""The encoder block and the decoder block: attention and a feed-forward network, each with a norm and a residual."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import functional as F
from fastattn.checks import PROBABILITY, boolean, choice, number
from fastattn.functional.layers import ACTIVATIONS
from fastattn.nn.attention import MultiHeadAttention
from fastattn.nn.layer_norm import LayerNorm
from fastattn.nn.linear import Linear, StackedLinear
from fastattn.nn.module import Module, Values
from fastattn.nn.quantization import Normed

Sublayer = Callable[..., Any]
"""`sublayer(x, residual=None, dropout_p=0.0)`: `dropout(f(x)) + residual`."""


class Block(Module):
    """The parts that both blocks share."""

    cross_attention = False

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden_dim: int,
        activation: str | None = "relu",
        *,
        dropout: float = 0.0,
        hidden_dropout: float | None = None,
        attention_dropout: float = 0.0,
        activation_dropout: float = 0.0,
        gated: bool = False,
        fused: bool = False,
        rotary_theta: float | None = None,
        norm_first: bool = False,
        attention_norm: bool = True,
        bias: bool = True,
        attention_bias: bool | None = None,
        hidden_bias: bool | None = None,
        norm_bias: bool | None = None,
        eps: float = 1e-5,
        std: float | None = None,
        hidden_std: float | None = None,
        window: tuple[int, int] | None = None,
        cross_attention: bool = False,
    ) -> None:
        attention_bias, hidden_bias, norm_bias = (
            bias if own is None else own for own in (attention_bias, hidden_bias, norm_bias)
        )

        def attention(**options: Any) -> MultiHeadAttention:
            return MultiHeadAttention(dim, num_heads, attention_dropout, attention_bias, std=std, **options)

        def norm() -> LayerNorm:
            return LayerNorm(dim, eps, bias=norm_bias)

        hidden_std = std if hidden_std is None else hidden_std
        hidden_dropout = dropout if hidden_dropout is None else hidden_dropout
        name = type(self).__name__
        self.dropout = number(f"{name}: dropout", dropout, **PROBABILITY)
        self.hidden_dropout = number(f"{name}: hidden_dropout", hidden_dropout, **PROBABILITY)
        self.activation_dropout = number(f"{name}: activation_dropout", activation_dropout, **PROBABILITY)
        self.norm_first = boolean(f"{name}: norm_first", norm_first, error=TypeError)
        self.gate = activation if boolean(f"{name}: gated", gated, error=TypeError) else None
        if self.gate is not None:
            choice(f"{name}: activation", self.gate, ACTIVATIONS)
        elif gated:
            raise ValueError(f"{name}: activation must not be None if gated")
        if not (attention_norm or norm_first):
            raise ValueError(f"{name}: attention_norm must be True without norm_first, got False")
        self.self_attn = attention(self_attention=True, fused=fused, rotary_theta=rotary_theta, window=window)
        self.self_attn_layer_norm = norm() if attention_norm else None
        if cross_attention:
            self.encoder_attn = attention()
            self.encoder_attn_layer_norm = norm()
        self.fc1: Linear = (
            StackedLinear(dim, dict.fromkeys(("gate_proj", "up_proj"), hidden_dim), hidden_bias, std=hidden_std)
            if gated and not fused
            else Linear(
                dim,
                2 * hidden_dim if gated else hidden_dim,
                hidden_bias,
                activation=None if gated else activation,
                std=hidden_std,
            )
        )
        self.fc2 = Linear(hidden_dim, dim, bias, std=hidden_std)
        self.final_layer_norm = norm()
        self.sizes = num_heads, self.self_attn.head_dim, self.fc1.out_features, self.norm_first, cross_attention

    def normed_layers(self) -> Iterator[Normed]:
        norm, crosses = self.self_attn_layer_norm, self.cross_attention
        if self.norm_first:
            if norm is not None:
                yield self.self_attn.stacked_after(norm)
            yield Normed(self.final_layer_norm, self.fc1)
        else:
            yield Normed(norm, self.encoder_attn.q_proj if crosses else self.fc1)
        if crosses:
            yield Normed(self.encoder_attn_layer_norm, self.encoder_attn.q_proj if self.norm_first else self.fc1)

    def _sublayer(self, norm: LayerNorm | None, function: Sublayer, x: Values, dropout: float) -> Any:
        """`x + dropout(function(norm(x)))` with `norm_first`, else `norm(x + dropout(function(x)))`."""
        p = self.dropout_rate(dropout)
        if self.norm_first or norm is None:
            return function(x if norm is None else norm(x), residual=x, dropout_p=p)
        return norm(function(x), residual=x, dropout_p=p)

    def _feed_forward(self, x: Values, *, residual: Values | None = None, dropout_p: float = 0.0) -> Any:
        fc1, fc2, p = self.fc1, self.fc2, self.dropout_rate(self.activation_dropout)
        if self.gate is None:
            h = F.linear(x, fc1.weight, fc1.bias, activation=fc1.activation, dropout_p=p)
        else:
            h = F.dropout(F.gated_activation(F.linear(x, fc1.weight, fc1.bias), self.gate), p)
        return F.linear(h, fc2.weight, fc2.bias, residual=residual, dropout_p=dropout_p)


class EncoderBlock(Block):
    """Self-attention and a feed-forward network over ragged batches. The shape stays `[tokens, dim]`.

    Both sub-layers are an `f` in `norm(x + dropout(f(x)))`, or in `x + dropout(f(norm(x)))` with `norm_first`.

    Args:
        dim, num_heads: the sizes of the attention.
        hidden_dim, activation: the feed-forward network; see `fastattn.functional.linear`.
        dropout: acts on the results of attention and feed-forward network while training.
        hidden_dropout: the same for the feed-forward network, `dropout` by default.
        attention_dropout: acts on the attention weights.
        activation_dropout: acts on the hidden activations.
        gated: the feed-forward network multiplies the activation with another projection of its input, `up_proj`; see
            `fastattn.functional.gated_activation`.
        fused: projections of one input are one parameter: `in_proj` of the attention, and `fc1` if it is `gated`.
        rotary_theta: rotary positions in the attention, see `fastattn.nn.MultiHeadAttention`.
        norm_first: normalise the input of each sub-layer instead of the sum after it.
        attention_norm: False, with `norm_first`, leaves out the norm of the attention, as after normalised embeddings.
        bias: whether linear layers and norms have a bias.
        attention_bias, hidden_bias, norm_bias: the same for the attention, for `fc1`, and for the norms.
        eps: the epsilon of the norms.
        std: the standard deviation of new matrices, see `fastattn.nn.Linear`.
        hidden_std: the same for the feed-forward network, `std` by default.
        window: how far a token sees, see `fastattn.nn.MultiHeadAttention`.

    Raises what `fastattn.nn.MultiHeadAttention` and `fastattn.nn.Linear` raise, and ValueError for `gated` without an
    activation and for no `attention_norm` without `norm_first`.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), sections 3.1 and 3.3; Xiong et al. 2020 (arXiv 2002.04745) for
    `norm_first`; Shazeer 2020 (arXiv 2002.05202) for `gated`.
    """

    def forward(
        self,
        x: Values,
        cu_seqlens: ArrayLike,
        position_bias: Values | None = None,
        position_ids: NDArray[np.int64] | None = None,
        *,
        attn_weights: list[Any] | None = None,
    ) -> Any:
        """From `x` `[tokens, dim]`, an array or a Tensor, to the same shape.

        Sequence i is tokens `cu_seqlens[i]` to `cu_seqlens[i + 1]`, integers `[batch + 1]`. `position_bias` is as in
        `MultiHeadAttention`. With `rotary_theta`, positions count from 0 in each sequence unless `position_ids`, int64
        `[tokens]`, are given. The attention weights, `[batch, num_heads, longest, longest]`, 0 outside a sequence, are
        appended to `attn_weights` if it is a list.

        >>> block = EncoderBlock(8, 2, 16, "gelu", norm_first=True).freeze()
        >>> block(np.ones((5, 8), np.float32), np.array([0, 2, 5], np.int32)).shape
        (5, 8)
        """

        def attend(h: Values, **options: Any) -> Any:
            given = {"cu_seqlens_q": cu_seqlens, "position_bias": position_bias, "position_ids": position_ids}
            return _keep(attn_weights, self.self_attn, h, **given, **options)

        x = self._sublayer(self.self_attn_layer_norm, attend, x, self.dropout)
        return self._sublayer(self.final_layer_norm, self._feed_forward, x, self.hidden_dropout)


class DecoderBlock(Block):
    """Causal self-attention, attention to a memory, and a feed-forward network. The shape stays `[tokens, dim]`.

    Arguments are as in `EncoderBlock`, without `rotary_theta`, plus `cross_attention`. Without `cross_attention` there
    is no memory.
    """

    def __init__(
        self, dim: int, num_heads: int, hidden_dim: int, activation: str | None = "relu", *,
        cross_attention: bool = True, **options: Any,
    ) -> None:  # fmt: skip
        if options.get("rotary_theta") is not None:
            raise ValueError("DecoderBlock: rotary_theta must be None")
        super().__init__(dim, num_heads, hidden_dim, activation, cross_attention=cross_attention, **options)
        self.cross_attention = cross_attention

    def forward(
        self,
        x: Values,
        cu_seqlens_q: ArrayLike,
        memory: Values | None = None,
        cu_seqlens_k: ArrayLike | None = None,
        *,
        attn_weights: list[Any] | None = None,
        cross_weights: list[Any] | None = None,
    ) -> Any:
        """Let `x` `[tokens, dim]`, split by `cu_seqlens_q`, attend to itself and to `memory` `[tokens_k, dim]`.

        Both are arrays or Tensors. `cu_seqlens_k` splits the memory; offsets are integers `[batch + 1]`. The weights of
        the two attentions, `[batch, num_heads, longest_q, longest_q]` and `[.., longest_k]`, are appended to
        `attn_weights` and `cross_weights` if these are lists. Raises ValueError for a missing `memory`, and for a
        `memory` without `cross_attention`.

        >>> block = DecoderBlock(8, 2, 16).freeze()
        >>> x, memory = np.ones((3, 8), np.float32), np.ones((5, 8), np.float32)
        >>> block(x, np.array([0, 1, 3], np.int32), memory, np.array([0, 2, 5], np.int32)).shape
        (3, 8)
        """
        self.check_memory(memory)

        def attend(h: Values, **options: Any) -> Any:
            return _keep(attn_weights, self.self_attn, h, cu_seqlens_q=cu_seqlens_q, is_causal=True, **options)

        def attend_memory(h: Values, **options: Any) -> Any:
            offsets = {"cu_seqlens_q": cu_seqlens_q, "cu_seqlens_k": cu_seqlens_k}
            return _keep(cross_weights, self.encoder_attn, h, memory, **offsets, **options)

        x = self._sublayer(self.self_attn_layer_norm, attend, x, self.dropout)
        if self.cross_attention:
            x = self._sublayer(self.encoder_attn_layer_norm, attend_memory, x, self.dropout)
        return self._sublayer(self.final_layer_norm, self._feed_forward, x, self.hidden_dropout)

    def check_memory(self, memory: Any) -> None:
        """Raise ValueError for a missing `memory`, and for a `memory` without `cross_attention`."""
        if (memory is None) == self.cross_attention:
            wanted = "must be given" if self.cross_attention else "must be None without cross_attention"
            raise ValueError(f"DecoderBlock: memory {wanted}")


def _keep(weights: list[Any] | None, attention: Sublayer, *arguments: Any, **options: Any) -> Any:
    """The result of an attention. Its weights are appended to the list, if there is one."""
    if weights is None:
        return attention(*arguments, **options)
    result, own = attention(*arguments, need_weights=True, **options)
    weights.append(own)
    return result
