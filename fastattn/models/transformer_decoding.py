"""Greedy decoding of a Transformer, token by token, with the keys and values of all tokens before kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import kernels, ragged
from fastattn._types import IntArray
from fastattn.autograd import mode, no_grad
from fastattn.checks import config_integer
from fastattn.models.inputs import Tokens
from fastattn.models.transformer_config import TransformerConfig, bad_words, token
from fastattn.nn.parameter import Array

FIRST_CAPACITY = 32
"""Tokens of each sequence that there is room for at first; twice as many whenever it is full."""

# Settings of transformers that change greedy decoding and are not here, each with the value that changes nothing.
UNSUPPORTED: dict[str, Any] = {
    "begin_suppress_tokens": None,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "forced_bos_token_id": None,
    "guidance_scale": 1.0,
    "max_time": None,
    "min_length": 0,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "sequence_bias": None,
    "stop_strings": None,
    "suppress_tokens": None,
    "watermarking_config": None,
}


@dataclass(frozen=True)
class Settings:
    """What a folder says about decoding for which the config has no field: `values`, and the file that they are of."""

    source: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise ValueError for what would change the result and is not supported."""
        for name, usual in UNSUPPORTED.items():
            value = self.values.get(name)
            if value not in (None, [], usual):
                raise ValueError(f"generate: {self.source}: {name} is {value!r}; only {usual!r} is supported")


class Rules:
    """What is decoded: `max_length`, tokens to begin with (`start`) and to end with (`end`, and `last` where a sequence
    reaches `max_length`), what follows an end (`pad`), and what must not occur. See `Transformer.generate` for the
    arguments and errors."""

    def __init__(
        self,
        config: TransformerConfig,
        settings: Settings,
        *,
        max_length: int | None,
        max_new_tokens: int | None,
        bad_words_ids: Sequence[Sequence[int]] | None,
        forced_eos_token_id: int | None,
        decoder_start_token_id: int | None,
    ) -> None:
        settings.check()
        size, limit = config.decoder_vocab_size, config.max_position_embeddings + 1  # the last token is never read
        if max_length is not None and max_new_tokens is not None:
            raise ValueError("generate: max_length and max_new_tokens must not both be given")
        if max_new_tokens is not None:
            text = f"from 1 to max_position_embeddings = {limit - 1}"
            max_length = 1 + config_integer("generate: max_new_tokens", max_new_tokens, high=limit, wanted=text)
        elif max_length is not None:
            text = f"from 2 to max_position_embeddings + 1 = {limit}"
            max_length = config_integer("generate: max_length", max_length, 2, high=limit + 1, wanted=text)
        self.max_length = max_length or min(config.max_length or limit - 1, limit)
        self.end, self.last, self.start = config.eos_token_id, config.forced_eos_token_id, config.decoder_start_token_id
        if forced_eos_token_id is not None:
            self.last = token("generate: forced_eos_token_id", forced_eos_token_id, size)
        if decoder_start_token_id is not None:
            self.start = token("generate: decoder_start_token_id", decoder_start_token_id, size)
        pad = settings.values.get("pad_token_id", config.pad_token_id)
        self.pad = self.end if pad is None else token(f"generate: {settings.source}: pad_token_id", pad, size)
        words = config.bad_words_ids or ()
        if bad_words_ids is not None:
            words = bad_words("generate: bad_words_ids", bad_words_ids, size)
        words = tuple(word for word in words if word != (self.end,))  # as in transformers
        self.bad = [word[0] for word in words if len(word) == 1]
        self.phrases = [np.array(word) for word in words if len(word) > 1]

    def choose(self, scores: Array, before: IntArray) -> IntArray:
        """The next token of each sequence: `scores` `[sequences, vocab]`, changed, `before` `[sequences, length]`."""
        scores[:, self.bad] = -np.inf
        for phrase in self.phrases:
            head = phrase[:-1]
            if len(head) <= before.shape[1]:
                scores[(before[:, -len(head) :] == head).all(1), phrase[-1]] = -np.inf
        best: IntArray = scores.argmax(1)
        return best


def decode(model: Any, source: Tokens, rules: Rules, use_cache: bool = True) -> IntArray:
    """What `Transformer.generate` returns, for the packed sources."""
    if model.training:
        raise ValueError("generate: the model is in training mode; call eval() first")
    empty = ragged.lengths(source.cu_seqlens) == 0
    if empty.any():
        raise ValueError(f"generate: input_ids must have a token in each sequence, got none in {int(empty.argmax())}")
    if not model.frozen and mode.ops is kernels:
        model = _packed(model)  # else every step would pack every weight
    ids: IntArray = np.full((source.sequences, 1), rules.start)
    length, rows = 1, np.arange(source.sequences)  # those that have not ended
    with no_grad():
        memory, scores_of = model._encode(source), _output_layer(model)
        last_hidden: Callable[[IntArray, IntArray], Array] = (
            Cache(model, memory, source.cu_seqlens, rules.max_length)
            if use_cache
            else partial(_recompute, model, memory, source.cu_seqlens)
        )
        while length < rules.max_length and len(rows):
            if length == ids.shape[1]:
                ids = np.concatenate([ids, np.full_like(ids, rules.pad)], axis=1)
            if length == rules.max_length - 1 and rules.last is not None:
                ids[rows, length] = rules.last
            else:
                scores = scores_of(last_hidden(ids[:, :length], rows))
                ids[rows, length] = rules.choose(scores, ids[rows, :length])
            rows = rows[ids[rows, length] != rules.end]
            length += 1
    return np.ascontiguousarray(ids[:, :length])


class Cache:
    """The decoder's keys and values of all tokens so far, and those of the memory, `[tokens, d_model]`.

    A layer's are rows of one array: sequence i of `held` has `capacity` of them, from i * capacity on. A sequence that
    ends stays where it is, and no query goes there, until there is not enough room and the others move.
    """

    def __init__(self, model: Any, memory: Array, cu_seqlens: NDArray[np.int32], max_length: int) -> None:
        self.decoder = model.decoder
        self.cu_seqlens = cu_seqlens
        self.memory = [layer.encoder_attn.keys_values(memory) for layer in self.decoder.layers]
        self.held = np.arange(len(cu_seqlens) - 1)
        self.capacity = min(FIRST_CAPACITY, max_length)
        self.keys_values = [self._room(part) for part in self.memory]

    def __call__(self, ids: IntArray, rows: IntArray) -> Array:
        """The last hidden states, `[rows, d_model]`, of sequences `rows` of `ids` `[batch, length]`; those before have
        been asked for in the calls before."""
        place = ids.shape[1] - 1
        if place == self.capacity:
            self._grow(rows)
        slots = np.searchsorted(self.held, rows)
        own = {
            "places": slots * self.capacity + place,
            "cu_seqlens_q": _one_each(2 * slots, 2 * len(self.held)),  # between the sequences: the room that is left
            "cu_seqlens_k": ragged.cu_seqlens(np.tile([place + 1, self.capacity - place - 1], len(self.held))),
        }
        others = {"cu_seqlens_q": _one_each(rows, len(ids)), "cu_seqlens_k": self.cu_seqlens}
        x = self.decoder.embed(ids[rows, place], np.full(len(rows), place))
        for layer, keys_values, memory in zip(self.decoder.layers, self.keys_values, self.memory, strict=True):
            attend = partial(layer.self_attn.step, keys_values=keys_values, **own)
            x = layer.compute(x, attend, partial(layer.encoder_attn.attend, keys_values=memory, **others))
        result: Array = self.decoder.finish(x)
        return result

    def _room(self, like: Array) -> Array:
        return np.empty((len(self.held) * self.capacity, *like.shape[1:]), like.dtype)

    def _grow(self, rows: IntArray) -> None:
        kept, before = np.searchsorted(self.held, rows), self.capacity
        self.held, self.capacity = rows, 2 * before
        for i, old in enumerate(self.keys_values):
            new = self.keys_values[i] = self._room(old)
            new.reshape(len(rows), 2 * before, -1)[:, :before] = old.reshape(-1, before, old[0].size)[kept]


def _packed(model: Any) -> Any:
    """A frozen copy, which shares with `model` the arrays that are not packed, and copies no gradient."""
    parameters = {id(parameter): copy.copy(parameter) for parameter in model._arrays()}
    return copy.deepcopy(model, parameters).freeze()


def _output_layer(model: Any) -> Callable[[Array], Array]:
    """`model.logits` with a packed matrix, which one that is a table of embeddings, too, is not: a step of one sequence
    and 58101 words takes half the time, and packing that of three steps."""
    weight, bias = model.lm_head.weight.value, model.final_logits_bias.value.reshape(-1)
    if mode.ops is kernels and not isinstance(weight, kernels.PackedMatrix):
        weight = kernels.PackedMatrix(weight)
    return lambda hidden: mode.ops.linear(hidden, weight, bias)


def _recompute(model: Any, memory: Array, cu_seqlens: NDArray[np.int32], ids: IntArray, rows: IntArray) -> Array:
    """What `Cache` gives, without one."""
    length = ids.shape[1]
    hidden = model.decode_ragged(ids[rows].reshape(-1), _one_each(rows, len(ids), length), memory, cu_seqlens)
    last: Array = hidden[length - 1 :: length]
    return last


def _one_each(rows: IntArray, sequences: int, length: int = 1) -> NDArray[np.int32]:
    """`cu_seqlens` of `sequences` sequences, of which `rows` have `length` tokens and the others none."""
    counts = np.zeros(sequences, np.int64)
    counts[rows] = length
    return ragged.cu_seqlens(counts)
