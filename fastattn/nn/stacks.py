"""Stacks of blocks: an encoder, a decoder, and a decoder that reads one more token of each sequence.

If nothing is recorded or dropped, `_infer` computes the blocks of all three, in buffers that they share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastattn._core import pass_keeps
from fastattn.autograd import Tensor, checkpoint, mode, recording, tensors, values
from fastattn.nn.blocks import Block, DecoderBlock, EncoderBlock
from fastattn.nn.cache import Cache
from fastattn.nn.layer_norm import LayerNorm
from fastattn.nn.linear import Linear
from fastattn.nn.module import Values
from fastattn.nn.parameter import Array
from fastattn.nn.quantization import Normed
from fastattn.ragged import int32_offsets, positions

KeysValues = tuple[Array, Array]
"""The keys and the values of a memory, each `[tokens, heads, head_dim]`."""
Turn = tuple[Array, NDArray[np.int64]]
"""A table of the angles of rotary positions, and its row for each token."""


def normed_layers(blocks: Iterable[Block], before: LayerNorm | None = None) -> Iterator[Normed]:
    """The attentions of a stack that read the result of a norm outside their block: `before` the first block, or the
    last one of the block before. See `Module.normed_layers`. Blocks that come several times are left out."""
    blocks = list(blocks)
    for block in blocks:
        reads_it = block.self_attn_layer_norm is None or not block.norm_first
        if before is not None and reads_it and sum(block is other for other in blocks) == 1:
            yield block.self_attn.stacked_after(before)
        before = None if block.norm_first else block.final_layer_norm


def encode(
    blocks: Iterable[EncoderBlock],
    x: Values,
    cu_seqlens: ArrayLike,
    position_bias: Values | None = None,
    position_ids: NDArray[np.int64] | None = None,
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
    offsets = int32_offsets(cu_seqlens, "encode: cu_seqlens")
    own, blocks = {"cu_seqlens_q": offsets, "position_bias": values(position_bias)[0]}, list(blocks)
    if position_ids is None and any(block.self_attn.rotary is not None for block in blocks):
        position_ids = positions(offsets)
    given = offsets, position_bias, position_ids
    return _run(blocks, x, None, given, own, None, {"attn_weights": attn_weights}, states, checkpointing)


def decode(
    blocks: Iterable[DecoderBlock],
    x: Values,
    cu_seqlens_q: ArrayLike,
    memory: Values | None = None,
    cu_seqlens_k: ArrayLike | None = None,
    *,
    attn_weights: list[Any] | None = None,
    cross_weights: list[Any] | None = None,
) -> Any:
    """Pass `x` `[tokens, dim]` through a stack of decoder blocks. The results are the same as calling each in turn.

    If nothing is recorded or dropped, all blocks compute in the same buffers, and `x` itself is overwritten. The rest
    is as in a call of `DecoderBlock`.
    """
    offsets_q = int32_offsets(cu_seqlens_q, "decode: cu_seqlens_q")
    offsets_k = offsets_q if cu_seqlens_k is None else int32_offsets(cu_seqlens_k, "decode: cu_seqlens_k")
    blocks = list(blocks)
    for block in blocks:
        block.check_memory(memory)
    own, cross = {"cu_seqlens_q": offsets_q, "is_causal": True}, {"cu_seqlens_q": offsets_q, "cu_seqlens_k": offsets_k}
    weights = {"attn_weights": attn_weights, "cross_weights": cross_weights}
    return _run(blocks, x, memory, (offsets_q, memory, offsets_k), own, cross, weights)


def decode_step(
    blocks: Iterable[DecoderBlock],
    x: Array,
    cache: Cache,
    memories: Sequence[KeysValues] = (),
    cross: dict[str, Any] | None = None,
) -> Array:
    """The result of `decode` for the last tokens `x` `[rows, dim]` of sequences, given a cache of the earlier tokens.

    The keys and values of the tokens are added to the cache, which also keeps the buffers. `memories` holds the keys
    and values of the memory for each block, the parts of `encoder_attn.keys_values`, and `cross` the `cu_seqlens_q` of
    the rows and the `cu_seqlens_k` of the memory, both int32. The result has the bits of `decode` over whole sequences,
    and is `x` itself, overwritten. Nothing is recorded or dropped. Raises ValueError as `DecoderBlock` for `memories`.

    >>> block, cache = DecoderBlock(8, 2, 16, cross_attention=False).freeze(), Cache([(2, 4)], rows=1, max_length=3)
    >>> x = np.random.default_rng(0).normal(size=(3, 8)).astype("f4")
    >>> steps = [decode_step([block], x[i : i + 1].copy(), cache) for i in range(3)]
    >>> np.concatenate(steps).tobytes() == decode([block], x, [0, 3]).tobytes()
    True
    """
    cache.advance()
    memories = memories or [None] * len(cache.layers)  # type: ignore[list-item]  # without cross-attention
    for block, layer, memory in zip(blocks, cache.layers, memories, strict=True):
        block.check_memory(memory)
        workspace = cache.workspace = _fitting(cache.workspace, block, x)
        x = _infer(block, x, workspace, x, cache.offsets, cross, memory, (cache.places, *layer))
    return x


def _run(
    blocks: Iterable[Any],
    x: Values,
    memory: Values | None,
    arguments: tuple[Any, ...],
    own: dict[str, Any],
    cross: dict[str, Any] | None,
    weights: dict[str, list[Any] | None],
    states: list[Any] | None = None,
    checkpointing: bool = False,
) -> Any:
    """Pass `x` through the blocks: call them with `arguments`, or compute in buffers."""
    workspace: Workspace | None = None
    turns: dict[Any, Turn] = {}
    read = memory.data if isinstance(memory, Tensor) else memory
    given = [argument for argument in arguments if isinstance(argument, Tensor)]
    for block in blocks:
        tensor = not block.frozen or tensors(x, *given)
        if block.training or (tensor and mode.grad and (recording(x, *given) or block.records())):
            if checkpointing and weights["attn_weights"] is None:
                x = checkpoint(block, x, *arguments)
            else:
                x = block(x, *arguments, **weights)
        else:
            array: Array = x.data if isinstance(x, Tensor) else x
            workspace = _fitting(workspace, block, array, 0 if memory is None else len(memory))
            out = array if states is None else None
            kept = weights["attn_weights"], weights.get("cross_weights") if block.cross_attention else None
            turn, rotary = None, block.self_attn.rotary
            if rotary is not None:
                kind = rotary.dim, rotary.max_timescale
                turn = turns[kind] = turns.get(kind) or rotary.lookup(arguments[-1], array.dtype)
            result = _infer(block, array, workspace, out, own, cross, read, None, *kept, turn)
            if result is not array or tensor != isinstance(x, Tensor):
                x = Tensor(result) if tensor else result
            for found in kept if tensor else ():
                if found is not None:
                    found[-1] = Tensor(found[-1])
        if states is not None:
            states.append(x)
    if workspace is not None:
        pass_keeps(workspace.nbytes)
    return x


def _infer(
    block: Block,
    x: Array,
    w: Workspace,
    out: Array | None,
    own: dict[str, Any],
    cross: dict[str, Any] | None,
    memory: Array | KeysValues | None,
    past: tuple[Any, ...] | None = None,
    attn_weights: list[Any] | None = None,
    cross_weights: list[Any] | None = None,
    turn: Turn | None = None,
) -> Array:
    """The result of a call if nothing is recorded or dropped, computed in the buffers. `out` may be `x`.

    `own` and `cross` are options of the two attentions. `past` has the places of the tokens in a cache, and the
    cache's rows, keys and values. `turn` has the angles of rotary positions.
    """
    ops, first, attention = mode.ops, block.norm_first, block.self_attn
    norm: Any = block.self_attn_layer_norm
    normed = w.output
    _linear(ops, attention.stacked, _norm(ops, norm, x, w.output) if first and norm else x, w.query_key_value)
    if turn is not None:
        ops.rotary_embedding(w.parts, turn[1], turn[0], out=w.parts)
    key, value = w.key, w.value
    if past is not None:
        places, rows, key, value = past
        ops.scatter_rows(w.key_value, places, rows)
    if attention.window is not None:
        own = {**own, "window": attention.window}
    _attend(ops, w.query, key, value, w.heads, own, attn_weights)
    if first:
        x = _linear(ops, attention.out_proj, w.context, w.sum, x)
    else:
        x = _norm(ops, norm, _linear(ops, attention.out_proj, w.context, w.output), out, x)

    if block.cross_attention:
        attention, norm = block.encoder_attn, block.encoder_attn_layer_norm
        query: Any = attention.q_proj
        _linear(ops, query, _norm(ops, norm, x, w.output) if first else x, w.cross_rows)
        if isinstance(memory, tuple):
            key, value = memory
        else:
            _linear(ops, attention.stacked, memory, w.memory)
            key, value = w.memory_key, w.memory_value
        _attend(ops, w.cross_query, key, value, w.heads, cross, cross_weights)
        if first:
            x, normed = _linear(ops, attention.out_proj, w.context, w.output, x), w.sum
        else:
            x = _norm(ops, norm, _linear(ops, attention.out_proj, w.context, w.output), x, x)

    norm = block.final_layer_norm
    hidden = _linear(ops, block.fc1, _norm(ops, norm, x, normed) if first else x, w.hidden)
    if block.gate is not None:
        hidden = ops.gated_activation(hidden, block.gate, out=w.gated)
    if first:
        return _linear(ops, block.fc2, hidden, out, x)
    return _norm(ops, norm, _linear(ops, block.fc2, hidden, w.output), x, x)


def _linear(ops: Any, layer: Linear, x: Any, out: Array | None, residual: Array | None = None) -> Array:
    weight, bias = layer.weight.value, None if layer.bias is None else layer.bias.value
    result: Array = ops.linear(x, weight, bias, residual, activation=layer.activation, out=out)
    return result


def _norm(ops: Any, layer: LayerNorm, x: Array, out: Array | None, residual: Array | None = None) -> Array:
    weight: Any = layer.weight  # the norms of blocks always have one
    bias = None if layer.bias is None else layer.bias.value
    result: Array = ops.layer_norm(x, weight.value, bias, layer.eps, residual=residual, out=out)
    return result


def _attend(
    ops: Any, query: Array, key: Array, value: Array, out: Array, options: Any, weights: list[Any] | None
) -> None:
    if weights is None:
        ops.scaled_dot_product_attention(query, key, value, out=out, **options)
    else:
        found = ops.scaled_dot_product_attention(query, key, value, return_attn_weights=True, out=out, **options)
        weights.append(found[1])


class Workspace:
    """Memory for the steps between the layers of a stack, allocated once per call and used by all its blocks.

    Fresh memory costs as much as a pass over it, and a view costs a microsecond. Each call, or cache, has its own
    workspace, so threads do not interfere. `hidden` shares its memory with the buffers of the attentions, and these
    with each other: their uses do not overlap in time.

    - `query_key_value` `[tokens, 3 * dim]`; its thirds `query`, `key`, `value` `[tokens, heads, head_dim]`, and the
      last two together, `key_value` `[tokens, 2 * dim]`; all together, `parts` `[tokens, 3, heads, head_dim]`
    - `context` `[tokens, dim]`, the same memory as `heads` `[tokens, heads, head_dim]`: attention's result
    - with cross-attention: `cross_rows` `[tokens, dim]`, the same memory as `cross_query` `[tokens, heads, head_dim]`;
      `memory` `[memory_tokens, 2 * dim]`, and its halves `memory_key`, `memory_value`
    - `hidden` `[tokens, hidden_dim]`: the inner layer of the feed-forward network, twice as wide if it is gated; then
      its first half, `gated`, holds the product
    - `output` `[tokens, dim]`: the result of a sub-layer, or its input with `norm_first`
    - `sum` `[tokens, dim]`, with `norm_first`: the values after self-attention. After cross-attention they are in
      `output`, and the input of the last sub-layer is here
    """

    def __init__(self, block: Block, tokens: int, memory_tokens: int, dtype: DTypeLike) -> None:
        self.tokens, self.sizes = tokens, block.sizes
        heads, head_dim, hidden_dim, norm_first, crosses = self.sizes
        dim = heads * head_dim
        part = tokens * dim
        shared = max(4 * part, tokens * hidden_dim, 2 * part + 2 * memory_tokens * dim)
        own = (1 + norm_first) * part
        memory = np.empty(own + shared, dtype)
        self.nbytes = memory.nbytes
        self.output, *others = memory[:own].reshape(1 + norm_first, tokens, dim)
        if norm_first:
            self.sum = others[0]
        memory = memory[own:]
        self.hidden = memory[: tokens * hidden_dim].reshape(tokens, hidden_dim)
        self.gated = self.hidden[:, : hidden_dim // 2]
        self.context = memory[:part].reshape(tokens, dim)
        self.heads = self.context.reshape(tokens, heads, head_dim)
        self.query_key_value = memory[part : 4 * part].reshape(tokens, 3 * dim)
        self.parts = self.query_key_value.reshape(tokens, 3, heads, head_dim)
        self.key_value = self.query_key_value[:, dim:]
        self.query, self.key, self.value = _parts(self.query_key_value, 3, heads, head_dim)
        if crosses:
            self.cross_rows = memory[part : 2 * part].reshape(tokens, dim)
            self.cross_query = self.cross_rows.reshape(tokens, heads, head_dim)
            self.memory = memory[2 * part : 2 * part + 2 * memory_tokens * dim].reshape(memory_tokens, 2 * dim)
            self.memory_key, self.memory_value = _parts(self.memory, 2, heads, head_dim)


def _parts(rows: Array, count: int, heads: int, head_dim: int) -> list[Array]:
    parts = rows.reshape(len(rows), count, heads, head_dim)
    return [parts[:, i] for i in range(count)]


def _fitting(workspace: Any, block: Block, x: Array, memory_tokens: int = 0) -> Workspace:
    """This workspace, or another one if it does not fit."""
    if workspace is None or workspace.tokens != len(x) or workspace.sizes != block.sizes:
        return Workspace(block, len(x), memory_tokens, x.dtype)
    found: Workspace = workspace
    return found
