"""BERT, the bidirectional encoder.

    >>> model = BertModel.from_pretrained("all-MiniLM-L6-v2")                 # doctest: +SKIP
    >>> model(np.array([[101, 7592, 102]])).last_hidden_state.shape           # doctest: +SKIP
    (1, 3, 384)

Source: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding". Names, files and numbers are those of Hugging Face's `BertModel`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import functional as F
from fastattn import nn, ragged
from fastattn.formats import hugging_face
from fastattn.models.bert_config import ACTIVATIONS, BertConfig
from fastattn.nn.module import Array

__all__ = ["BertConfig", "BertModel", "BertOutput"]


@dataclass
class BertOutput:
    """What a forward pass gives; shapes are those of the padded call, then of `forward_ragged`.

    - `last_hidden_state`: `[batch, seq, hidden_size]`, 0 at the padding; `[tokens, hidden_size]`
    - `pooler_output`: `[batch, hidden_size]`, from each sequence's first token, 0 for a sequence without
      tokens; None when the checkpoint has no pooler
    - `hidden_states`, on request: `num_hidden_layers + 1` arrays like `last_hidden_state`, the embeddings
      first
    - `attentions`, on request: the attention weights of each layer, `[batch, heads, seq, seq]`, 0 at the
      padding; `[batch, heads, longest, longest]`, 0 outside a sequence
    """

    last_hidden_state: Array
    pooler_output: Array | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


class BertEmbeddings(nn.Module):
    """Word, token type and position rows summed, then normalised: `[tokens]` to `[tokens, hidden_size]`."""

    def __init__(self, config: BertConfig) -> None:
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(
        self,
        input_ids: NDArray[np.int64],
        token_type_ids: NDArray[np.int64],
        position_ids: NDArray[np.int64],
    ) -> Array:
        return F.embedding_sum(
            input_ids,
            self.word_embeddings.weight.value,
            position_ids=position_ids,
            position_weight=self.position_embeddings.weight.value,
            token_type_ids=token_type_ids,
            token_type_weight=self.token_type_embeddings.weight.value,
            norm_weight=self.LayerNorm.weight.value,
            norm_bias=self.LayerNorm.bias.value,
            eps=self.LayerNorm.eps,
        )


class BertLayer(nn.Module):
    """One encoder layer, normalised after each residual: `[tokens, hidden_size]` to the same."""

    def __init__(self, config: BertConfig) -> None:
        dim, eps = config.hidden_size, config.layer_norm_eps
        self.attention = nn.SelfAttention(dim, config.num_attention_heads)
        self.attention_norm = nn.LayerNorm(dim, eps)
        self.feed_forward = nn.FeedForward(dim, config.intermediate_size, ACTIVATIONS[config.hidden_act])
        self.output_norm = nn.LayerNorm(dim, eps)

    def children(self) -> Iterator[tuple[str, nn.Module]]:
        yield "attention.self", self.attention.query_key_value
        yield "attention.output.dense", self.attention.output
        yield "attention.output.LayerNorm", self.attention_norm
        yield "intermediate.dense", self.feed_forward.input
        yield "output.dense", self.feed_forward.output
        yield "output.LayerNorm", self.output_norm

    def __call__(
        self,
        x: Array,
        cu_seqlens: NDArray[np.int32],
        *,
        workspace: nn.Workspace | None = None,
        attn_weights: list[Array] | None = None,
        out: Array | None = None,
    ) -> Array:
        """The result goes into `out`, which may be `x`. See `fastattn.nn.SelfAttention` for the rest."""
        attended = self.attention(x, cu_seqlens, workspace=workspace, attn_weights=attn_weights)
        h = self.attention_norm(attended, residual=x, out=out)
        return self.output_norm(self.feed_forward(h, workspace=workspace), residual=h, out=out)


class BertModel(nn.Module):
    """A BERT encoder with frozen weights; any number of threads may call it at once.

    `tensors` are the weights, float32, under Hugging Face's names for a `BertModel`, and are copied; without
    a `pooler.dense.weight`, or without `add_pooling_layer`, the model has no pooler. Raises ValueError when
    one is missing or does not have the shape that `config` says.
    """

    def __init__(self, config: BertConfig, tensors: Mapping[str, Array], *, add_pooling_layer: bool = True) -> None:
        if not isinstance(tensors, hugging_face.StateDict):  # which gives new arrays, ours to keep
            tensors = {name: np.array(tensor) for name, tensor in tensors.items()}
        _check_layers(config, tensors)
        self.config = config
        self.embeddings = BertEmbeddings(config)
        self.layers = [BertLayer(config) for _ in range(config.num_hidden_layers)]
        self.pooler = None
        if add_pooling_layer and "pooler.dense.weight" in tensors:
            self.pooler = nn.Linear(config.hidden_size, config.hidden_size, activation="tanh")
        _check_shapes(dict(self.named_parameters()), tensors)
        self.load_state_dict(tensors)

    def children(self) -> Iterator[tuple[str, nn.Module]]:
        yield "embeddings", self.embeddings
        for i, layer in enumerate(self.layers):
            yield f"encoder.layer.{i}", layer
        if self.pooler is not None:
            yield "pooler.dense", self.pooler

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], *, add_pooling_layer: bool = True) -> BertModel:
        """Load a Hugging Face BERT folder: config.json and safetensors, single or sharded, F32, F16 or BF16.

        The weights of a head beside the encoder are passed over, and so is the pooler without
        `add_pooling_layer`: who reads hidden states only saves its time and memory. Raises FileNotFoundError
        or ValueError, naming the file and the value, for a file that is missing or damaged, another
        architecture, and weights that do not fit the config.
        """
        config = BertConfig.from_dict(hugging_face.read_config(folder), source=str(Path(folder) / hugging_face.CONFIG))
        with hugging_face.read_state_dict(folder) as tensors:
            return cls(config, tensors.renamed(_current_name), add_pooling_layer=add_pooling_layer)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors, each whole or not at all; transformers reads them back."""
        hugging_face.write_checkpoint(folder, self.config.to_dict(), self.state_dict())

    def __call__(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> BertOutput:
        """Encode a padded batch; no padding token is computed.

        All arguments are `[batch, seq]`, ids of any integer dtype, the mask bool or integers with 1 at the
        tokens (None: everywhere). Tokens keep their column as their position, behind left padding and holes
        too, and the pooler reads the first token that the mask keeps. Padding ids are never looked at.

        Raises TypeError for ids or a mask that are not integers; ValueError for shapes that differ, ids
        outside the vocabulary and positions from `max_position_embeddings` on.
        """
        ids = _integers("input_ids", input_ids)
        if ids.ndim != 2:
            raise ValueError(f"BertModel: input_ids must have shape (batch, seq), got {ids.shape}")
        mask = None
        if attention_mask is not None:
            mask = ragged.check_mask(attention_mask, ids.shape, "BertModel: attention_mask")
        tokens, cu_seqlens, position_ids = ragged.pack(ids, mask)
        seq = ids.shape[1]
        if seq > self.config.max_position_embeddings:
            self._check_positions(position_ids)
        types = None
        if token_type_ids is not None:
            types = _integers("token_type_ids", token_type_ids, ids.shape)
            types = ragged.pack(types, mask)[0]
        output = self._encode(tokens, cu_seqlens, types, position_ids, output_hidden_states, output_attentions)
        last, states, attentions = output.last_hidden_state, output.hidden_states, output.attentions
        if mask is None:
            padded = (*ids.shape, last.shape[1])
            states = states and tuple(x.reshape(padded) for x in states)
            last = last.reshape(padded)
        else:
            states = states and tuple(ragged.unpack(x, cu_seqlens, mask) for x in states)
            last = states[-1] if states else ragged.unpack(last, cu_seqlens, mask)
        if attentions and (mask is not None or len(ids) == 0):
            attentions = tuple(_unpack_weights(x, cu_seqlens, position_ids, seq) for x in attentions)
        return BertOutput(last, output.pooler_output, states, attentions)

    def forward_ragged(
        self,
        input_ids: ArrayLike,
        cu_seqlens: ArrayLike,
        token_type_ids: ArrayLike | None = None,
        position_ids: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> BertOutput:
        """Encode sequences that stand one after the other without padding.

        Ids are integers `[tokens]`, and sequence i is `cu_seqlens[i]` to `cu_seqlens[i + 1]` of them;
        positions count from 0 in each sequence unless given. Errors as for the padded call.
        """
        ids = _integers("input_ids", input_ids)
        if ids.ndim != 1:
            raise ValueError(f"BertModel: input_ids must have shape (tokens,), got {ids.shape}")
        offsets = ragged.check_cu_seqlens(cu_seqlens, len(ids), "BertModel: cu_seqlens")
        types = None if token_type_ids is None else _integers("token_type_ids", token_type_ids, ids.shape)
        if position_ids is None:
            places = ragged.positions(offsets)
        else:
            places = _integers("position_ids", position_ids, ids.shape)
        if position_ids is not None or len(ids) > self.config.max_position_embeddings:
            self._check_positions(places)
        return self._encode(ids, offsets, types, places, output_hidden_states, output_attentions)

    def _check_positions(self, position_ids: NDArray[np.int64]) -> None:
        last, limit = position_ids.max(initial=0), self.config.max_position_embeddings
        if last >= limit:
            raise ValueError(
                f"BertModel: input_ids has a token at position {last}, but max_position_embeddings is {limit}"
            )

    def _encode(
        self,
        input_ids: NDArray[np.int64],
        cu_seqlens: NDArray[np.int32],
        token_type_ids: NDArray[np.int64] | None,
        position_ids: NDArray[np.int64],
        output_hidden_states: bool,
        output_attentions: bool,
    ) -> BertOutput:
        config, tokens = self.config, len(input_ids)
        if token_type_ids is None:
            token_type_ids = np.zeros(tokens, np.int64)
        x = self.embeddings(input_ids, token_type_ids, position_ids)
        workspace = nn.Workspace(tokens, config.hidden_size, config.num_attention_heads, config.intermediate_size)
        states = [x] if output_hidden_states else None
        attentions: list[Array] | None = [] if output_attentions else None
        for layer in self.layers:
            out = x if states is None else None
            x = layer(x, cu_seqlens, workspace=workspace, attn_weights=attentions, out=out)
            if states is not None:
                states.append(x)
        return BertOutput(
            x,
            None if self.pooler is None else self._pool(self.pooler, x, cu_seqlens),
            None if states is None else tuple(states),
            None if attentions is None else tuple(attentions),
        )

    def _pool(self, pooler: nn.Linear, x: Array, cu_seqlens: NDArray[np.int32]) -> Array:
        pooled = pooler(F.pooling(x, cu_seqlens, "cls"))
        empty = cu_seqlens[1:] == cu_seqlens[:-1]
        if np.count_nonzero(empty):
            pooled[empty] = 0
        return pooled


def _integers(name: str, array: ArrayLike, shape: tuple[int, ...] | None = None) -> NDArray[np.int64]:
    """`array` as contiguous int64, once it is known to hold integers and to have `shape`."""
    ids = np.asarray(array)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"BertModel: {name} must be an integer array, got {ids.dtype}")
    if shape is not None and ids.shape != shape:
        raise ValueError(f"BertModel: {name} must have shape {shape}, got {ids.shape}")
    return np.ascontiguousarray(ids, np.int64)


def _unpack_weights(weights: Array, cu_seqlens: NDArray[np.int32], position_ids: NDArray[np.int64], seq: int) -> Array:
    """Attention weights `[batch, heads, longest, longest]`, moved to their tokens' columns among `seq`."""
    batch, heads = weights.shape[:2]
    padded = np.zeros((batch, heads, seq, seq), np.float32)
    for i in range(batch):
        columns = position_ids[cu_seqlens[i] : cu_seqlens[i + 1]]
        n = len(columns)
        padded[i][:, columns[:, None], columns] = weights[i, :, :n, :n]
    return padded


def _current_name(name: str) -> str:
    """A tensor's name in today's `BertModel`: without the `bert.` beside a head, `weight` for `gamma`."""
    name = name.removeprefix("bert.")
    return re.sub(r"LayerNorm\.(gamma|beta)$", lambda m: f"LayerNorm.{_NORM_NAMES[m[1]]}", name)


_NORM_NAMES = {"gamma": "weight", "beta": "bias"}


def _check_layers(config: BertConfig, tensors: Mapping[str, Array]) -> None:
    """Raise ValueError when there are not as many layers as `config` says."""
    numbers = {int(match[1]) for name in tensors if (match := re.match(r"encoder\.layer\.(\d+)\.", name))}
    if numbers != set(range(len(numbers))) or len(numbers) != config.num_hidden_layers:
        raise ValueError(
            f"{_source(tensors)}: num_hidden_layers is {config.num_hidden_layers}, but there are tensors of "
            f"{len(numbers)} layers{f', the last one numbered {max(numbers)}' if numbers else ''}"
        )


def _check_shapes(parameters: Mapping[str, nn.Parameter | nn.ParameterRows], tensors: Mapping[str, Array]) -> None:
    """Raise ValueError for a parameter whose tensor is missing or has another shape; reads no tensor."""
    for name, parameter in parameters.items():
        if name not in tensors:
            raise ValueError(f"{_source(tensors)}: tensor {name!r} is missing")
        shape = tensors.shape(name) if isinstance(tensors, hugging_face.StateDict) else tensors[name].shape
        if shape != parameter.shape:
            raise ValueError(f"{_source(tensors)}: tensor {name!r} has shape {shape}, config says {parameter.shape}")


def _source(tensors: Mapping[str, Array]) -> str:
    return str(tensors.source) if isinstance(tensors, hugging_face.StateDict) else "BertModel"
