"""Decoding with a Transformer, token by token. The decoder keeps the keys and values of all earlier tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import _core, nn, ragged
from fastattn._types import IntArray
from fastattn.autograd import Tensor, mode, no_grad, values
from fastattn.checks import integers
from fastattn.nn.cache import Cache
from fastattn.nn.module import Values
from fastattn.nn.parameter import Array


class TransformerDecoder:
    """The scores of the next words of some sequences; see `fastattn.generation.Decoder`. Nothing is recorded.

    `model` is a `Transformer` (which imports this module) and `memory` the encoded sources. Row j belongs to source
    `sources[j]`. Rows of the same source are adjacent, and the sources are in order: they are the queries of one
    sequence, which share its keys and values.
    """

    def __init__(
        self,
        model: Any,
        memory: Values,
        cu_seqlens: NDArray[np.int32],
        max_length: int,
        use_cache: bool = True,
        vocabulary: IntArray | None = None,
    ) -> None:
        self._model, self._memory, self._cu_seqlens = model, memory, cu_seqlens
        self._set_sources(np.arange(len(cu_seqlens) - 1))
        self._ids: IntArray = np.empty((len(self.sources), 0), np.int64)  # without a cache
        self._weight, self._bias = model.output_layer(vocabulary)
        self._vocabulary, self._vocab_size = vocabulary, model.config.decoder_vocab_size
        self._cache: Cache | None = None
        if use_cache:
            with _core.Pass():
                kept = values(*(block.encoder_attn.keys_values(memory) for block in model.decoder.layers))
            self._memories = [(keys_values[:, 0], keys_values[:, 1]) for keys_values in kept]
            shapes = [keys_values.shape[2:] for keys_values in kept]
            self._cache = Cache(shapes, len(self.sources), max_length, kept[0].dtype)

    @no_grad()
    def step(self, tokens: IntArray) -> Array:
        """Read one more token per row, `[rows]`. Returns the scores of the next, `[rows, decoder_vocab_size]`."""
        if self._cache is None:
            scores = self._scores(tokens)
        else:
            with _core.Pass():
                scores = self._scores(tokens)
        if self._vocabulary is None:
            return scores
        every = np.full((len(scores), self._vocab_size), -np.inf, scores.dtype)
        every[:, self._vocabulary] = scores
        return every

    def _scores(self, tokens: IntArray) -> Array:
        scores: Array = mode.ops.linear(self.read(tokens), self._weight, self._bias)
        return scores

    def keep(self, rows: IntArray) -> None:
        """Continue with these rows, in this order. A row listed twice continues as two rows.

        Raises ValueError for rows that are not in the order of their sources.
        """
        sources = self.sources[rows]
        if (np.diff(sources) < 0).any():
            raise ValueError(f"keep: rows must be in the order of their sources, got {rows} of {sources}")
        self._set_sources(sources)
        if self._cache is None:
            self._ids = self._ids[rows]
        else:
            self._cache.keep(rows)

    def _set_sources(self, sources: IntArray) -> None:
        counts = np.bincount(sources, minlength=len(self._cu_seqlens) - 1)
        self.sources = sources
        self._cross = {"cu_seqlens_q": ragged.cu_seqlens(counts), "cu_seqlens_k": self._cu_seqlens}

    def read(self, tokens: IntArray) -> Array:
        """Read one more token per row, `[rows]`. Returns its hidden state, `[rows, d_model]`."""
        model, cache, tokens = self._model, self._cache, integers("TransformerDecoder: tokens", tokens)
        hidden: Any
        if cache is None:
            self._ids = np.concatenate([self._ids, tokens[:, None]], axis=1)
            rows, length = self._ids.shape
            memory = self._memory.data if isinstance(self._memory, Tensor) else self._memory
            places = [np.arange(0), *(np.arange(*self._cu_seqlens[i : i + 2]) for i in self.sources)]
            offsets = ragged.cu_seqlens([len(part) for part in places[1:]])
            own = ragged.cu_seqlens(np.full(rows, length))
            hidden = model.decode_ragged(self._ids.reshape(-1), own, memory[np.concatenate(places)], offsets)
            hidden = hidden[length - 1 :: length]
        else:
            decoder = model.decoder
            cache.make_room()  # while nothing is deferred
            (x,) = values(decoder.embed(tokens, np.full(len(tokens), cache.length)))
            hidden = decoder.finish(nn.decode_step(decoder.layers, x, cache, self._memories, self._cross))
        array: Array = hidden.data if isinstance(hidden, Tensor) else hidden
        return array
