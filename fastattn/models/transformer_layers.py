"""The layers and stacks of the Transformer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import functional as F
from fastattn import nn
from fastattn._types import CuSeqlens
from fastattn.models.transformer_config import ACTIVATIONS, TransformerConfig
from fastattn.nn.module import Values
from fastattn.nn.parameter import Array, Parameter

Attend = Callable[..., Any]
"""`attend(x, residual=None, dropout_p=0.0)`, an attention over keys that it knows."""


class TransformerLayer(nn.Module):
    """What the layers of both stacks share: residuals around sub-layers, and the feed-forward network."""

    def __init__(self, config: TransformerConfig, heads: int) -> None:
        dim = config.d_model
        self.normalize_before = config.normalize_before
        self.dropout = config.dropout
        self.activation_dropout = config.activation_dropout
        self.self_attn = self.attention(config, heads, self_attention=True)
        self.self_attn_layer_norm = nn.LayerNorm(dim, config.layer_norm_eps)

    def attention(self, config: TransformerConfig, heads: int, self_attention: bool = False) -> nn.MultiHeadAttention:
        """A new attention of this configuration."""
        dim, p = config.d_model, config.attention_dropout
        return nn.MultiHeadAttention(dim, heads, p, self_attention=self_attention, std=config.std(dim, dim))

    def add_feed_forward(self, config: TransformerConfig, hidden: int) -> None:
        """The last sub-layer, behind the others in the checkpoint too."""
        dim, std = config.d_model, config.std(config.d_model, hidden)
        self.fc1 = nn.Linear(dim, hidden, activation=ACTIVATIONS[config.activation_function], std=std)
        self.fc2 = nn.Linear(hidden, dim, std=std)
        self.final_layer_norm = nn.LayerNorm(dim, config.layer_norm_eps)

    def sublayer(self, norm: nn.LayerNorm, function: Attend, x: Values) -> Any:
        """`x + dropout(function(norm(x)))` with `normalize_before`, else `norm(x + dropout(function(x)))`."""
        p = self.dropout_rate(self.dropout)
        if self.normalize_before:
            return function(norm(x), residual=x, dropout_p=p)
        return norm(function(x), residual=x, dropout_p=p)

    def feed_forward(self, x: Values, *, residual: Values | None = None, dropout_p: float = 0.0) -> Any:
        """`[tokens, d_model]` to the same; `residual` and `dropout_p` are those of `fastattn.functional.linear`."""
        fc1, fc2, p = self.fc1, self.fc2, self.dropout_rate(self.activation_dropout)
        h = F.linear(x, fc1.weight, fc1.bias, activation=fc1.activation, dropout_p=p)
        return F.linear(h, fc2.weight, fc2.bias, residual=residual, dropout_p=dropout_p)


class EncoderLayer(TransformerLayer):
    """Self-attention and the feed-forward network: `[tokens, d_model]` to the same."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config, config.encoder_attention_heads)
        self.add_feed_forward(config, config.encoder_ffn_dim)

    def forward(self, x: Values, cu_seqlens: CuSeqlens, *, attn_weights: list[Array] | None = None) -> Any:
        """A list given as `attn_weights` gets the attention weights appended, `[batch, heads, longest, longest]`."""

        def attend(h: Values, **options: Any) -> Any:
            return keep(attn_weights, self.self_attn, h, cu_seqlens_q=cu_seqlens, **options)

        x = self.sublayer(self.self_attn_layer_norm, attend, x)
        return self.sublayer(self.final_layer_norm, self.feed_forward, x)


class DecoderLayer(TransformerLayer):
    """Causal self-attention, attention to the memory, and the feed-forward network: `[tokens, d_model]` to the same."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config, config.decoder_attention_heads)
        self.encoder_attn = self.attention(config, config.decoder_attention_heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model, config.layer_norm_eps)
        self.add_feed_forward(config, config.decoder_ffn_dim)

    def forward(
        self,
        x: Values,
        memory: Values,
        cu_seqlens_q: CuSeqlens,
        cu_seqlens_k: CuSeqlens,
        *,
        attn_weights: list[Array] | None = None,
        cross_weights: list[Array] | None = None,
    ) -> Any:
        """`x` by `cu_seqlens_q` attends to itself and to `memory`, which the encoder gave, by `cu_seqlens_k`.

        Lists given as `attn_weights` and `cross_weights` get the weights of both attentions appended.
        """

        def attend(h: Values, **options: Any) -> Any:
            return keep(attn_weights, self.self_attn, h, cu_seqlens_q=cu_seqlens_q, is_causal=True, **options)

        def attend_memory(h: Values, **options: Any) -> Any:
            offsets = {"cu_seqlens_q": cu_seqlens_q, "cu_seqlens_k": cu_seqlens_k}
            return keep(cross_weights, self.encoder_attn, h, memory, **offsets, **options)

        return self.compute(x, attend, attend_memory)

    def compute(self, x: Values, attend: Attend, attend_memory: Attend) -> Any:
        """The layer, given its two attentions: of whole sequences, or of one token over what is in a cache."""
        x = self.sublayer(self.self_attn_layer_norm, attend, x)
        x = self.sublayer(self.encoder_attn_layer_norm, attend_memory, x)
        return self.sublayer(self.final_layer_norm, self.feed_forward, x)


def keep(weights: list[Array] | None, attention: Attend, *arguments: Any, **options: Any) -> Any:
    """What an attention gives; its weights go to the list, if there is one."""
    if weights is None:
        return attention(*arguments, **options)
    result, own = attention(*arguments, need_weights=True, **options)
    weights.append(own)
    return result


class Stack(nn.Module):
    """An encoder or a decoder: embeddings, whose table may be another stack's too, and the layers above them."""

    def __init__(self, config: TransformerConfig, embed_tokens: nn.Embedding, layers: Sequence[nn.Module]) -> None:
        dim = config.d_model
        self.scale = dim**0.5 if config.scale_embedding else 1.0
        self.embed_tokens = embed_tokens
        self.embed_positions: nn.Embedding | nn.SinusoidalPositions
        if config.position_embedding_type == "learned":
            self.embed_positions = nn.Embedding(config.max_position_embeddings, dim, std=config.embedding_std)
        else:
            order = "concatenated" if config.position_embedding_type == "marian" else "interleaved"
            self.embed_positions = nn.SinusoidalPositions(
                dim, order=order, first_position=config.first_position, max_timescale=config.max_timescale
            )
        self.dropout = nn.Dropout(config.dropout)
        self.layers: list[Any] = list(layers)
        self.layer_norm = nn.LayerNorm(dim, config.layer_norm_eps) if config.normalize_before else None

    def embed(self, ids: NDArray[np.int64], position_ids: NDArray[np.int64]) -> Any:
        """Scaled embeddings plus positions, of which dropout takes its part: `[tokens]` to `[tokens, d_model]`."""
        x = self.embed_tokens(ids)
        if self.scale != 1.0:
            x = x * self.scale
        positions = self.embed_positions(position_ids)
        if isinstance(positions, np.ndarray):
            positions = positions.astype(x.dtype, copy=False)  # float64 within use_reference
        return self.dropout(x + positions)

    def finish(self, x: Values) -> Any:
        """The norm behind the last layer, if layers normalise before; else `x` as it is."""
        return x if self.layer_norm is None else self.layer_norm(x)


class OutputLayer(nn.Module):
    """The matrix of the scores, `[vocabulary, d_model]`, which may be a table of embeddings."""

    def __init__(self, weight: Parameter) -> None:
        self.weight = weight
