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
from operator import is_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import checks, nn, ragged, runtime
from fastattn import functional as F
from fastattn._core import run_pass
from fastattn.models.elmo.model import Elmo, ElmoOutput
from fastattn.models.elmo.network import detached
from fastattn.tasks.words.state import ElmoState
from fastattn.tasks.work import Together, Work
from fastattn.text import gather, token_budget_batches
from fastattn.text.characters import character_ids, index_words

__all__ = ["WordEncoder"]

BATCH_TOKENS = 2048
"""Tokens read at once in a call without a state. A step reads all recurrent weights, for however many sentences."""
WORDS = 1024
"""Words given to the token encoder at once. The original model needs about 32 kB of memory for each."""


class WordEncoder(nn.Module):
    """Sentences of words in, a vector of every word from every layer of `model`, an `Elmo`, out.

    Many threads may call it at once. Without a state, each sentence is read on its own, and the bits of its results do
    not depend on the other sentences or the number of threads. `<S>` and `</S>` are put around every sentence, even an
    empty one. The results leave them out, unless the model has `keep_sentence_boundaries`. Words are read as UTF-8,
    and the first `max_characters_per_token - 2` bytes (48) count.

    Raises TypeError for a `model` that is not an `Elmo`.
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
        """Load the model. Arguments and errors are as in `Elmo.from_pretrained`."""
        return cls(Elmo.from_pretrained(name_or_folder, weight_file, **options))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the model's config.json and model.safetensors, each whole or not at all."""
        self.model.save_pretrained(checks.path("save_pretrained: folder", folder))

    def export(self, options_file: str | os.PathLike[str], weight_file: str | os.PathLike[str]) -> None:
        """Write the files of bilm-tf; see `Elmo.export`."""
        self.model.export(options_file, weight_file)

    def new_state(self) -> ElmoState:
        """A state of zeros, for `self(sentences, state=...)`."""
        return ElmoState(self.model.config)

    def forward(self, sentences: Iterable[Sequence[str]], state: ElmoState | None = None) -> list[Any]:
        """Every layer of every sentence: float32 `[n_layers + 1, words, 2 * projection_dim]` for each.

        Layer 0 is the token vectors, twice. The LSTM layers follow, with the forward direction's half first. The result
        for an empty sentence is `[n_layers + 1, 0, 2 * projection_dim]`. A trainable network returns Tensors.

        Args:
            sentences: any number of sequences of words, of any length.
            state: sentence i starts from slot i of the state and replaces it. All sentences are then read at once. An
                error leaves the state unchanged.

        Raises TypeError, naming the index, for a sentence that is a str or not a sequence and for a word that is not a
        str. Raises ValueError for a word that UTF-8 cannot encode, and for a state of another model.
        """
        return self._embed("WordEncoder", sentences, state)

    def _embed(
        self, owner: str, sentences: Iterable[Sequence[str]], state: ElmoState | None, first: int = 0
    ) -> list[Any]:
        """A call, in whose errors `first` is the index of the first sentence."""
        words, index, cu_seqlens = index_words(sentences, first, f"{owner}: sentences")
        results: list[Any] = [None] * (len(cu_seqlens) - 1)
        everything = [np.arange(len(results))]
        network = self.model.network
        stack: Any = np.array if network.frozen else F.stack  # faster, but for arrays alone
        lengths = ragged.lengths(cu_seqlens)
        with network.one_pass():
            vectors = self._vectors(words)
            for batch in everything if state is not None else token_budget_batches(lengths, BATCH_TOKENS):
                places, offsets = gather(index, cu_seqlens, batch)
                x = F.embedding(places, vectors)
                outputs, after = network.lstm(x, x, offsets, self._begin(state, len(batch)))
                run_pass()
                if state is not None:
                    state.end(detached(after))
                layers = [F.cat([x, x], 1), *outputs]
                for i, start, stop in zip(batch, *self.model.rows(offsets), strict=True):
                    results[i] = stack([layer[start:stop] for layer in layers])
        return results

    def represent(self, sentences: Iterable[Sequence[str]], state: ElmoState | None = None) -> ElmoOutput:
        """The scalar mixes of every word, for a model on top. `backward()` goes through them.

        All sentences are read at once. No gradient goes back through the state. Arguments and errors are those of a
        call.
        """
        words, index, cu_seqlens = index_words(sentences, name="represent: sentences")
        before = self._begin(state, len(cu_seqlens) - 1)
        with self.model.network.one_pass():
            output = self.model.read(self._vectors(words), index, cu_seqlens, before)
        if state is not None:
            state.end(output.state)
        return output

    def prepare(self, sentences: Iterable[Sequence[str]], method: str | None = None) -> list[Work]:
        """Each of `sentences`, checked, for `fastattn.tasks.work.compute`, which gives what a call without a state
        does. There is no other `method`."""
        checks.choice("prepare: method", method or "__call__", ("__call__",))
        some = [list(words) if isinstance(words, list | tuple) else words for words in sentences]
        _, _, cu_seqlens = index_words(some, name="WordEncoder: sentences")
        sizes = ragged.lengths(cu_seqlens).tolist()
        return [Work(Together(self), words, size, size) for words, size in zip(some, sizes, strict=True)]

    def embed_sentence(self, sentence: Sequence[str], state: ElmoState | None = None) -> Any:
        """A call with one sentence, a sequence of words: `[n_layers + 1, words, 2 * projection_dim]`."""
        return self._embed("embed_sentence", [checks.texts("embed_sentence: sentence", sentence, "words")], state)[0]

    embed_batch = forward
    """A call, under the name of AllenNLP's `ElmoEmbedder`."""

    def embed_sentences(
        self, sentences: Iterable[Sequence[str]], batch_size: int = 64, state: ElmoState | None = None
    ) -> Iterator[Any]:
        """The results of a call, sentence by sentence. `batch_size` sentences are read and held at once.

        Unlike `ElmoEmbedder`'s, the results do not depend on `batch_size`, unless there is a `state`.
        """
        batch_size = checks.integer("embed_sentences: batch_size", batch_size, high=2**31)
        wanted = "sentences, each a sequence of words"
        rest, first = iter(checks.sequence("embed_sentences: sentences", sentences, wanted)), 0
        while batch := list(islice(rest, batch_size)):
            yield from self._embed("embed_sentences", batch, state, first)
            first += len(batch)

    def cache_vocabulary(self, words: Iterable[str]) -> None:
        """Keep the token vectors of these words, of `<S>` and of `</S>`, and drop those kept before.

        Calls use the vectors from now on, for the same bits. Each takes `4 * projection_dim` bytes. They are valid for
        the current instruction set and weights; if these change, calls compute every word again. No words: keep none.

        Raises ValueError if the network is trainable, TypeError for one str, and otherwise as a call.
        """
        if not self.model.network.frozen:
            raise ValueError("cache_vocabulary: the network is trainable and its vectors change; load it frozen")
        distinct, _, _ = index_words([checks.texts("cache_vocabulary: words", words, "words")])
        self._cache = None
        if len(distinct) > 2:
            places = {word: i for i, word in enumerate(distinct)}
            self._cache = _Cache(runtime.isa(), self._weights(), places, self._vectors(distinct))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_cache": None}

    def _weights(self) -> list[Any]:
        """What the vectors of words depend on."""
        return [parameter.value for parameter in self.model.network.token_encoder._arrays()]

    def _begin(self, state: ElmoState | None, sentences: int) -> Any:
        """The states that the sentences begin with."""
        if state is not None and not isinstance(state, ElmoState):
            raise TypeError(f"WordEncoder: state must be an ElmoState or None, got {type(state).__name__}")
        return None if state is None else state.begin(sentences, self.model.config)

    def _vectors(self, words: list[str]) -> Any:
        """The token vectors of distinct words, `[words, projection_dim]`."""
        cache = self._cache
        if cache is None or not cache.counts(self._weights()):
            return self._encode(words)
        rows = np.array([cache.places.get(word, -1) for word in words])
        new = np.flatnonzero(rows < 0)
        vectors = cache.vectors[rows]
        if len(new):
            encoded = self._encode([words[i] for i in new])
            run_pass()
            vectors[new] = encoded
        return vectors

    def _encode(self, words: list[str]) -> Any:
        network, length = self.model.network, self.model.config.max_characters_per_token
        step = len(words) if network.records() else WORDS
        parts: list[Any] = []
        for i in range(0, max(1, len(words)), max(1, step)):
            if parts:
                run_pass()
            parts.append(network.tokens(character_ids(words[i : i + step], length)))
        return F.cat(parts) if len(parts) > 1 else parts[0]


@dataclass(frozen=True, slots=True)
class _Cache:
    """Token vectors of words, for one instruction set and these weights."""

    isa: str
    weights: list[Any]
    places: dict[str, int]
    vectors: NDArray[np.float32]

    def counts(self, weights: list[Any]) -> bool:
        return self.isa == runtime.isa() and all(map(is_, self.weights, weights))
