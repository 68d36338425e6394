"""Vectors of words in their sentence, from every layer of ELMo.

    >>> encoder = WordEncoder.from_pretrained("options.json", "weights.hdf5")    # doctest: +SKIP
    >>> [x.shape for x in encoder([["The", "cat", "sleeps"], ["Go", "!"]])]      # doctest: +SKIP
    [(3, 3, 1024), (3, 2, 1024)]

Source: Peters et al. 2018, "Deep contextualized word representations".
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import functional as F
from fastattn import nn, ragged, runtime
from fastattn.checks import config_integer, texts
from fastattn.models.elmo.model import Elmo, ElmoOutput
from fastattn.models.elmo.network import detached
from fastattn.nn.parameter import Parameter
from fastattn.tasks.words.state import ElmoState
from fastattn.text import gather, token_budget_batches
from fastattn.text.characters import character_ids, index_words

__all__ = ["WordEncoder"]

BATCH_TOKENS = 2048
"""Of a stateless call, read at once: a step reads all recurrent weights, which pays with some dozens of sentences."""
WORDS = 1024
"""Given to the token encoder at once, which has some 32 kB of intermediate results for each in the original model."""


class WordEncoder(nn.Module):
    """Sentences of words in, a vector for every word out of every layer of an `Elmo`, its `model`.

    Any number of threads may call it at once. It reads every sentence on its own, unless a state is given: results
    have the same bits whatever else is in the call, and for any number of threads. `<S>` and `</S>` are put around
    every sentence, an empty one too, and left out of the results unless the model's `keep_sentence_boundaries` says
    otherwise. Words are read as UTF-8, of which the first `max_characters_per_token - 2` bytes count (48).

    Raises TypeError for a `model` that is no `Elmo`.
    """

    checkpoint_names: Mapping[str, str] = {"model": ""}

    def __init__(self, model: Elmo) -> None:
        if not isinstance(model, Elmo):
            raise TypeError(f"WordEncoder: model must be an Elmo, got {type(model).__name__}")
        self.model = model
        self._cache: _Cache | None = None

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | os.PathLike[str], weight_file: str | os.PathLike[str] | None = None, **options: Any
    ) -> WordEncoder:
        """Load the model as `Elmo.from_pretrained` does, with the same arguments and errors."""
        return cls(Elmo.from_pretrained(name_or_folder, weight_file, **options))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the model's config.json and model.safetensors, each whole or not at all."""
        self.model.save_pretrained(folder)

    def export(self, options_file: str | os.PathLike[str], weight_file: str | os.PathLike[str]) -> None:
        """Write the files of bilm-tf, see `Elmo.export`."""
        self.model.export(options_file, weight_file)

    def new_state(self) -> ElmoState:
        """A state for `self(sentences, state=...)`, whose slots hold zeros."""
        return ElmoState(self.model.config)

    def forward(self, sentences: Iterable[Sequence[str]], state: ElmoState | None = None) -> list[Any]:
        """Every layer of every sentence: float32 `[n_layers + 1, words, 2 * projection_dim]` for each.

        Layer 0 is the token vectors, twice; then come the LSTM layers, the forward direction's half first. An empty
        sentence gives `[n_layers + 1, 0, 2 * projection_dim]`. A call takes any number of sentences of any length.
        Where the network is trainable they are Tensors, else arrays.

        Args:
            sentences: sequences of words, which are not changed in any way.
            state: sentence i begins with slot i of the state, which is then replaced. All sentences are read at once
                then. The state stays as it was when an error is raised.

        Raises TypeError for a sentence that is one str or no sequence and for a word that is not a str; ValueError for
        a word that cannot be written as UTF-8, all by index, and for a state of another model.
        """
        return self._embed(sentences, state)

    def _embed(self, sentences: Iterable[Sequence[str]], state: ElmoState | None, first: int = 0) -> list[Any]:
        """A call; `first` is the index of the first sentence, for errors."""
        words, index, cu_seqlens = index_words(sentences, first)
        results: list[Any] = [None] * (len(cu_seqlens) - 1)
        everything = [np.arange(len(results))]
        stack: Any = np.array if self.model.network.frozen else F.stack  # the faster one, of arrays alone
        vectors, lengths = self._vectors(words), ragged.lengths(cu_seqlens)
        for batch in everything if state is not None else token_budget_batches(lengths, BATCH_TOKENS):
            places, offsets = gather(index, cu_seqlens, batch)
            x = F.embedding(places, vectors)
            outputs, after = self.model.network.lstm(x, x, offsets, self._begin(state, len(batch)))
            if state is not None:
                state.end(detached(after))
            layers = [F.cat([x, x], 1), *outputs]
            for i, start, stop in zip(batch, *self.model.rows(offsets), strict=True):
                results[i] = stack([layer[start:stop] for layer in layers])
        return results

    def represent(self, sentences: Iterable[Sequence[str]], state: ElmoState | None = None) -> ElmoOutput:
        """The scalar mixes of every word, for a model above; `backward()` goes through them.

        All sentences are read at once; a gradient does not reach back through the state. Arguments and errors are
        those of a call.
        """
        words, index, cu_seqlens = index_words(sentences)
        before = self._begin(state, len(cu_seqlens) - 1)
        output = self.model.read(self._vectors(words), index, cu_seqlens, before)
        if state is not None:
            state.end(output.state)
        return output

    def embed_sentence(self, sentence: Sequence[str], state: ElmoState | None = None) -> Any:
        """`[n_layers + 1, words, 2 * projection_dim]` of one sentence, a sequence of words; see a call for `state`."""
        return self._embed([sentence], state)[0]

    embed_batch = forward
    """The call under the name that AllenNLP's `ElmoEmbedder` has for it."""

    def embed_sentences(
        self, sentences: Iterable[Sequence[str]], batch_size: int = 64, state: ElmoState | None = None
    ) -> Iterator[Any]:
        """The results of a call, sentence by sentence, with `batch_size` sentences read and held at once.

        Unlike `ElmoEmbedder`'s, they do not depend on `batch_size`, unless a `state` is given.
        """
        batch_size = config_integer("embed_sentences: batch_size", batch_size)
        rest, first = iter(sentences), 0
        while batch := list(islice(rest, batch_size)):
            yield from self._embed(batch, state, first)
            first += len(batch)

    def cache_vocabulary(self, words: Iterable[str]) -> None:
        """Keep the token vectors of these words, in place of those that were kept before; none: keep nothing.

        They are used wherever the word occurs from now on, with the same bits as without, and take `4 *
        projection_dim` bytes each. `<S>` and `</S>` are added. The vectors count for the current instruction set and
        weights; after a change of these every word is computed again.

        Raises ValueError when the network is trainable, so that its vectors change; TypeError for one str in place of
        `words`, and else as a call.
        """
        if not self.model.network.frozen:
            raise ValueError("cache_vocabulary: the network is trainable and its vectors change; load it frozen")
        distinct, _, _ = index_words([texts("cache_vocabulary: words", words, "words")])
        self._cache = None
        if len(distinct) > 2:
            weights = [(p, p.value) for p in self.model.network.token_encoder._arrays()]
            places = {word: i for i, word in enumerate(distinct)}
            self._cache = _Cache(runtime.isa(), weights, places, self._vectors(distinct))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_cache": None}

    def _begin(self, state: ElmoState | None, sentences: int) -> Any:
        """What the sentences begin with."""
        if state is not None and not isinstance(state, ElmoState):
            raise TypeError(f"WordEncoder: state must be an ElmoState or None, got {type(state).__name__}")
        return None if state is None else state.begin(sentences, self.model.config)

    def _vectors(self, words: list[str]) -> Any:
        """The token vectors of distinct words, `[words, projection_dim]`."""
        cache = self._cache
        if cache is None or not cache.counts():
            return self._encode(words)
        rows = np.array([cache.places.get(word, -1) for word in words])
        new = np.flatnonzero(rows < 0)
        vectors = cache.vectors[rows]
        vectors[new] = self._encode([words[i] for i in new])
        return vectors

    def _encode(self, words: list[str]) -> Any:
        network, length = self.model.network, self.model.config.max_characters_per_token
        step = len(words) if network.records() else WORDS
        starts = range(0, max(1, len(words)), max(1, step))
        parts = [network.tokens(character_ids(words[i : i + step], length)) for i in starts]
        return F.cat(parts) if len(parts) > 1 else parts[0]


@dataclass(frozen=True, slots=True)
class _Cache:
    """Token vectors of words, which count for an instruction set and for weights. Slots hide these from `Module`."""

    isa: str
    weights: list[tuple[Parameter, Any]]
    places: dict[str, int]
    vectors: NDArray[np.float32]

    def counts(self) -> bool:
        return self.isa == runtime.isa() and all(parameter.value is value for parameter, value in self.weights)
