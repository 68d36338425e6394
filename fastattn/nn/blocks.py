"""The encoder block and the decoder block: attention and a feed-forward network, each with a norm and a residual."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastattn import functional as F
from fastattn.autograd import Tensor, checkpoint, mode, recording
from fastattn.checks import PROBABILITY, boolean, number
from fastattn.nn.attention import MultiHeadAttention
from fastattn.nn.layer_norm import LayerNorm
from fastattn.nn.linear import Linear
from fastattn.nn.module import Module, Values
from fastattn.nn.parameter import Array

Sublayer = Callable[..., Any]
"""`sublayer(x, residual=None, dropout_p=0.0)`: `dropout(f(x)) + residual`."""


class _Block(Module):
    """The parts that both blocks share."""

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
        cross_attention: bool = False,
    ) -> None:
        def attention(self_attention: bool) -> MultiHeadAttention:
            return MultiHeadAttention(dim, num_heads, attention_dropout, bias, self_attention=self_attention, std=std)

        hidden_std = std if hidden_std is None else hidden_std
        name = type(self).__name__
        self.dropout = number(f"{name}: dropout", dropout, **PROBABILITY)
        self.activation_dropout = number(f"{name}: activation_dropout", activation_dropout, **PROBABILITY)
        self.norm_first = boolean(f"{name}: norm_first", norm_first, error=TypeError)
        self.self_attn = attention(True)
        self.self_attn_layer_norm = LayerNorm(dim, eps, bias=bias)
        if cross_attention:
            self.encoder_attn = attention(False)
            self.encoder_attn_layer_norm = LayerNorm(dim, eps, bias=bias)
        self.fc1 = Linear(dim, hidden_dim, bias, activation=activation, std=hidden_std)
        self.fc2 = Linear(hidden_dim, dim, bias, std=hidden_std)
        self.final_layer_norm = LayerNorm(dim, eps, bias=bias)

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


class EncoderBlock(_Block):
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

    Raises what `fastattn.nn.MultiHeadAttention` and `fastattn.nn.Linear` raise.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), sections 3.1 and 3.3; Xiong et al. 2020 (arXiv 2002.04745) for
    `norm_first`.
    """

    def forward(self, x: Values, cu_seqlens: ArrayLike, *, attn_weights: list[Any] | None = None) -> Any:
        """From `x` `[tokens, dim]`, an array or a Tensor, to the same shape.

        Sequence i is tokens `cu_seqlens[i]` to `cu_seqlens[i + 1]`, integers `[batch + 1]`. The attention weights,
        `[batch, num_heads, longest, longest]`, 0 outside a sequence, are appended to `attn_weights` if it is a list.

        >>> block = EncoderBlock(8, 2, 16, "gelu", norm_first=True).freeze()
        >>> block(np.ones((5, 8), np.float32), np.array([0, 2, 5], np.int32)).shape
        (5, 8)
        """

        def attend(h: Values, **options: Any) -> Any:
            return _keep(attn_weights, self.self_attn, h, cu_seqlens_q=cu_seqlens, **options)

        x = self._sublayer(self.self_attn_layer_norm, attend, x)
        return self._sublayer(self.final_layer_norm, self._feed_forward, x)

    def _infer(
        self, x: Array, cu_seqlens: ArrayLike, w: _Workspace, attn_weights: list[Any] | None, out: Array | None
    ) -> Array:
        """The result of `forward` if nothing is recorded or dropped, computed in the buffers. `out` may be `x`."""
        attention, fc1, fc2, ops = self.self_attn, self.fc1, self.fc2, mode.ops
        h = _norm(ops, self.self_attn_layer_norm, x, w.output) if self.norm_first else x
        _linear(ops, attention.stacked, h, w.query_key_value)
        attended = ops.scaled_dot_product_attention(
            w.query, w.key, w.value, cu_seqlens_q=cu_seqlens, return_attn_weights=attn_weights is not None, out=w.heads
        )
        if attn_weights is not None:
            attn_weights.append(attended[1])
        if self.norm_first:
            x = _linear(ops, attention.out_proj, w.context, w.sum, x)
            hidden = _linear(ops, fc1, _norm(ops, self.final_layer_norm, x, w.output), w.hidden)
            return _linear(ops, fc2, hidden, out, x)
        x = _norm(ops, self.self_attn_layer_norm, _linear(ops, attention.out_proj, w.context, w.output), out, x)
        hidden = _linear(ops, fc1, x, w.hidden)
        return _norm(ops, self.final_layer_norm, _linear(ops, fc2, hidden, w.output), out, x)


class DecoderBlock(_Block):
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
        if (memory is None) == self.cross_attention:
            wanted = "must be given" if self.cross_attention else "must be None without cross_attention"
            raise ValueError(f"DecoderBlock: memory {wanted}")

        def attend(h: Values, **options: Any) -> Any:
            return _keep(attn_weights, self.self_attn, h, cu_seqlens_q=cu_seqlens_q, is_causal=True, **options)

        def attend_memory(h: Values, **options: Any) -> Any:
            offsets = {"cu_seqlens_q": cu_seqlens_q, "cu_seqlens_k": cu_seqlens_k}
            return _keep(cross_weights, self.encoder_attn, h, memory, **offsets, **options)

        return self._compute(x, attend, attend_memory)

    def step(
        self, x: Values, keys_values: Array, own: dict[str, Any], memory: Any = None,
        cross: dict[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        """The result of a call for the last tokens `x` `[rows, dim]` of sequences, given a cache of earlier tokens.

        `keys_values` and `own` (places and offsets) are arguments of `fastattn.nn.MultiHeadAttention.step`; a
        `fastattn.nn.Cache` has both. `memory` holds the keys and values of the memory, from `encoder_attn.keys_values`.
        `cross` holds `cu_seqlens_q` of the rows and `cu_seqlens_k` of the memory. The bits are the same as in a call.
        """

        def attend(h: Values, **options: Any) -> Any:
            return self.self_attn.step(h, keys_values, **own, **options)

        def attend_memory(h: Values, **options: Any) -> Any:
            return self.encoder_attn.attend(h, memory, **(cross or {}), **options)

        return self._compute(x, attend, attend_memory)

    def _compute(self, x: Values, attend: Sublayer, attend_memory: Sublayer) -> Any:
        x = self._sublayer(self.self_attn_layer_norm, attend, x)
        if self.cross_attention:
            x = self._sublayer(self.encoder_attn_layer_norm, attend_memory, x)
        return self._sublayer(self.final_layer_norm, self._feed_forward, x)


def encode(
    blocks: Iterable[EncoderBlock],
    x: Values,
    cu_seqlens: ArrayLike,
    *,
    states: list[Any] | None = None,
    attn_weights: list[Any] | None = None,
    checkpointing: bool = False,
) -> Any:
    """Pass `x` `[tokens, dim]` through a stack of encoder blocks. The results are the same as calling each in turn.

    If nothing is recorded or dropped, all blocks compute in the same buffers, and `x` itself is overwritten unless
    there is a list `states`, to which the result of each block is appended. With `checkpointing` a recorded block keeps
    only its input and is computed again in `backward()`. The rest is as in a call of `EncoderBlock`.
    """
    workspace: _Workspace | None = None
    for block in blocks:
        if block.training or (mode.grad and (recording(x) or block.records())):
            if checkpointing and attn_weights is None:
                x = checkpoint(block, x, cu_seqlens)
            else:
                x = block(x, cu_seqlens, attn_weights=attn_weights)
        else:
            tensor = isinstance(x, Tensor) or not block.frozen
            array: Array = x.data if isinstance(x, Tensor) else x
            if workspace is None or not workspace.fits(block):
                workspace = _Workspace(block, array)
            result = block._infer(array, cu_seqlens, workspace, attn_weights, array if states is None else None)
            if result is not array or tensor != isinstance(x, Tensor):
                x = Tensor(result) if tensor else result
            if tensor and attn_weights is not None:
                attn_weights[-1] = Tensor(attn_weights[-1])
        if states is not None:
            states.append(x)
    return x


def _linear(ops: Any, layer: Linear, x: Array, out: Array | None, residual: Array | None = None) -> Array:
    weight, bias = layer.weight.value, None if layer.bias is None else layer.bias.value
    result: Array = ops.linear(x, weight, bias, residual, activation=layer.activation, out=out)
    return result


def _norm(ops: Any, layer: LayerNorm, x: Array, out: Array | None, residual: Array | None = None) -> Array:
    weight: Any = layer.weight  # the norms of blocks always have one
    bias = None if layer.bias is None else layer.bias.value
    result: Array = ops.layer_norm(x, weight.value, bias, layer.eps, residual=residual, out=out)
    return result


def _keep(weights: list[Any] | None, attention: Sublayer, *arguments: Any, **options: Any) -> Any:
    """The result of an attention. Its weights are appended to the list, if there is one."""
    if weights is None:
        return attention(*arguments, **options)
    result, own = attention(*arguments, need_weights=True, **options)
    weights.append(own)
    return result


class _Workspace:
    """Memory for the steps between the layers of an encoder, allocated once per call and used by all its blocks.

    Fresh memory costs as much as a pass over it, and a view costs a microsecond. Each call has its own workspace, so
    threads do not interfere. `hidden` shares its memory with the attention's buffers: their uses do not overlap in
    time.

    - `query_key_value` `[tokens, 3 * dim]`; its thirds `query`, `key`, `value` `[tokens, heads, head_dim]`
    - `context` `[tokens, dim]`, the same memory as `heads` `[tokens, heads, head_dim]`: attention's result
    - `hidden` `[tokens, hidden_dim]`: the inner layer of the feed-forward network
    - `output` `[tokens, dim]`: the result of either sub-layer, or its input with `norm_first`
    - `sum` `[tokens, dim]`, with `norm_first`: the value between the sub-layers
    """

    def __init__(self, block: EncoderBlock, x: Array) -> None:
        tokens, dim = x.shape
        self.sizes = _sizes(block)
        heads, head_dim, hidden_dim, norm_first = self.sizes
        size = tokens * (max(4 * dim, hidden_dim) + (2 if norm_first else 1) * dim)
        memory, end = np.empty(size, x.dtype), tokens * dim
        self.output = memory[:end].reshape(tokens, dim)
        self.hidden = memory[end : end + tokens * hidden_dim].reshape(tokens, hidden_dim)
        self.query_key_value = memory[end : 4 * end].reshape(tokens, 3 * dim)
        self.context = memory[4 * end : 5 * end].reshape(tokens, dim)
        self.sum = memory[size - end :].reshape(tokens, dim)
        parts = self.query_key_value.reshape(tokens, 3, heads, head_dim)
        self.query, self.key, self.value = parts[:, 0], parts[:, 1], parts[:, 2]
        self.heads = self.context.reshape(tokens, heads, head_dim)

    def fits(self, block: EncoderBlock) -> bool:
        return self.sizes == _sizes(block)


def _sizes(block: EncoderBlock) -> tuple[int, int, int, bool]:
    attention = block.self_attn
    return attention.num_heads, attention.head_dim, block.fc1.out_features, block.norm_first
