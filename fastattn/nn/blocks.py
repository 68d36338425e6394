"""The encoder block and the decoder block: attention and a feed-forward network, each with a norm and a residual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike

from fastattn import functional as F
from fastattn.checks import PROBABILITY, boolean, number
from fastattn.nn.attention import MultiHeadAttention
from fastattn.nn.layer_norm import LayerNorm
from fastattn.nn.linear import Linear
from fastattn.nn.module import Module, Values

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
        attention_dropout: float = 0.0,
        activation_dropout: float = 0.0,
        norm_first: bool = False,
        bias: bool = True,
        eps: float = 1e-5,
        std: float | None = None,
        hidden_std: float | None = None,
        window: tuple[int, int] | None = None,
        cross_attention: bool = False,
    ) -> None:
        def attention(self_attention: bool, **options: Any) -> MultiHeadAttention:
            return MultiHeadAttention(
                dim, num_heads, attention_dropout, bias, self_attention=self_attention, std=std, **options
            )

        hidden_std = std if hidden_std is None else hidden_std
        name = type(self).__name__
        self.dropout = number(f"{name}: dropout", dropout, **PROBABILITY)
        self.activation_dropout = number(f"{name}: activation_dropout", activation_dropout, **PROBABILITY)
        self.norm_first = boolean(f"{name}: norm_first", norm_first, error=TypeError)
        self.self_attn = attention(True, window=window)
        self.self_attn_layer_norm = LayerNorm(dim, eps, bias=bias)
        if cross_attention:
            self.encoder_attn = attention(False)
            self.encoder_attn_layer_norm = LayerNorm(dim, eps, bias=bias)
        self.fc1 = Linear(dim, hidden_dim, bias, activation=activation, std=hidden_std)
        self.fc2 = Linear(hidden_dim, dim, bias, std=hidden_std)
        self.final_layer_norm = LayerNorm(dim, eps, bias=bias)
        self.sizes = num_heads, self.self_attn.head_dim, hidden_dim, self.norm_first, cross_attention

    def _sublayer(self, norm: LayerNorm, function: Sublayer, x: Values) -> Any:
        """`x + dropout(function(norm(x)))` with `norm_first`, else `norm(x + dropout(function(x)))`."""
        p = self.dropout_rate(self.dropout)
        if self.norm_first:
            return function(norm(x), residual=x, dropout_p=p)
        return norm(function(x), residual=x, dropout_p=p)

    def _feed_forward(self, x: Values, *, residual: Values | None = None, dropout_p: float = 0.0) -> Any:
        fc1, fc2, p = self.fc1, self.fc2, self.dropout_rate(self.activation_dropout)
        h = F.linear(x, fc1.weight, fc1.bias, activation=fc1.activation, dropout_p=p)
        return F.linear(h, fc2.weight, fc2.bias, residual=residual, dropout_p=dropout_p)


class EncoderBlock(Block):
    """Self-attention and a feed-forward network over ragged batches. The shape stays `[tokens, dim]`.

    Both sub-layers are an `f` in `norm(x + dropout(f(x)))`, or in `x + dropout(f(norm(x)))` with `norm_first`.

    Args:
        dim, num_heads: the sizes of the attention.
        hidden_dim, activation: the feed-forward network; see `fastattn.functional.linear`.
        dropout: acts on the results of attention and feed-forward network while training.
        attention_dropout: acts on the attention weights.
        activation_dropout: acts on the hidden activations.
        norm_first: normalise the input of each sub-layer instead of the sum after it.
        bias: whether linear layers and norms have a bias.
        eps: the epsilon of the norms.
        std: the standard deviation of new matrices, see `fastattn.nn.Linear`.
        hidden_std: the same for the feed-forward network, `std` by default.
        window: how far a token sees, see `fastattn.nn.MultiHeadAttention`.

    Raises what `fastattn.nn.MultiHeadAttention` and `fastattn.nn.Linear` raise.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), sections 3.1 and 3.3; Xiong et al. 2020 (arXiv 2002.04745) for
    `norm_first`.
    """

    def forward(
        self,
        x: Values,
        cu_seqlens: ArrayLike,
        position_bias: Values | None = None,
        *,
        attn_weights: list[Any] | None = None,
    ) -> Any:
        """From `x` `[tokens, dim]`, an array or a Tensor, to the same shape.

        Sequence i is tokens `cu_seqlens[i]` to `cu_seqlens[i + 1]`, integers `[batch + 1]`. `position_bias` is as in
        `MultiHeadAttention`. The attention weights, `[batch, num_heads, longest, longest]`, 0 outside a sequence, are
        appended to `attn_weights` if it is a list.

        >>> block = EncoderBlock(8, 2, 16, "gelu", norm_first=True).freeze()
        >>> block(np.ones((5, 8), np.float32), np.array([0, 2, 5], np.int32)).shape
        (5, 8)
        """

        def attend(h: Values, **options: Any) -> Any:
            given = {"cu_seqlens_q": cu_seqlens, "position_bias": position_bias}
            return _keep(attn_weights, self.self_attn, h, **given, **options)

        x = self._sublayer(self.self_attn_layer_norm, attend, x)
        return self._sublayer(self.final_layer_norm, self._feed_forward, x)


class DecoderBlock(Block):
    """Causal self-attention, attention to a memory, and a feed-forward network. The shape stays `[tokens, dim]`.

    Arguments are as in `EncoderBlock`, plus `cross_attention`. Without `cross_attention` there is no memory.
    """

    def __init__(
        self, dim: int, num_heads: int, hidden_dim: int, activation: str | None = "relu", *,
        cross_attention: bool = True, **options: Any,
    ) -> None:  # fmt: skip
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

        x = self._sublayer(self.self_attn_layer_norm, attend, x)
        if self.cross_attention:
            x = self._sublayer(self.encoder_attn_layer_norm, attend_memory, x)
        return self._sublayer(self.final_layer_norm, self._feed_forward, x)

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
