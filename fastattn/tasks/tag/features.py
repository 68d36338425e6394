"""States of a frozen model as features of words: all layers of a biLM, its last one, or those of a BERT.

A word's features do not depend on what other sentences are read with it, so those of a run are computed once.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import runtime
from fastattn.formats import hugging_face
from fastattn.hub import find_model
from fastattn.models.base import HUGGING_FACE
from fastattn.models.elmo.model import Elmo
from fastattn.models.registry import encoder_family, family_of, load_encoder
from fastattn.progress import progress_bar
from fastattn.tasks.embed.folder import find_start, read_sentence_folder
from fastattn.tasks.limits import token_limit
from fastattn.tasks.words import WordEncoder
from fastattn.text import Tokenizer, encode_words, gather, token_budget_batches, tokens_per_batch

Words = Sequence[str]
Array = NDArray[np.float32]

CHUNK = 128
"""Sentences read at once."""
MEMORY = 2**30
"""The bytes of features that are kept in memory, unless an option says where they go."""


class Features(ABC):
    """What a frozen model gives for words.

    Attributes:
        kind: "bilm", "elmo" or "bert".
        model: the model, a `fastattn.nn.Module`.
        layers, dim: the layers of a word, and the numbers of each.
    """

    kind: str
    model: Any
    layers: int
    dim: int

    @abstractmethod
    def read(self, sentences: Sequence[Words]) -> Iterator[Array]:
        """The features of each sentence, `[layers, words, dim]`."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what `load_features` reads, each file whole or not at all."""

    @property
    def crc32(self) -> int:
        """A checksum of what decides the features."""
        found = 0
        for name, array in self.model.state_dict().items():
            found = zlib.crc32(array.tobytes(), zlib.crc32(name.encode(), found))
        return found


class BiLMFeatures(Features):
    """The layers of a bidirectional language model, which reads each sentence between `<S>` and `</S>`: all of them
    ("elmo"), or the last one ("bilm")."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.model = Elmo.from_pretrained(
            folder, trainable=False, num_output_representations=0, keep_sentence_boundaries=False
        )
        self._encoder = WordEncoder(self.model)
        config = self.model.config
        self.layers, self.dim = config.n_layers + 1 if kind == "elmo" else 1, 2 * config.projection_dim

    def read(self, sentences: Sequence[Words]) -> Iterator[Array]:
        for found in self._encoder(sentences):
            yield np.ascontiguousarray(found[-self.layers :])

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)


class EncoderFeatures(Features):
    """The last states of an encoder such as BERT, at the first wordpiece of each word. A sentence of more wordpieces
    than the model reads is split into windows, as a `Tagger` does."""

    kind, layers = "bert", 1

    def __init__(self, folder: Path) -> None:
        encoder_family(folder, of_tokens=True)
        self.model = load_encoder(folder, trainable=False)
        self.tokenizer = Tokenizer.from_pretrained(folder)
        self.tokenizer.warn_of_tokens_beyond(self.model.config.vocab_size)
        self.max_length = token_limit(self.tokenizer, self.model.config)
        self.dim = self.model.config.hidden_size

    def read(self, sentences: Sequence[Words]) -> Iterator[Array]:
        rows = self.model.config.vocab_size
        words = encode_words(self.tokenizer, sentences, self.max_length, name="tag: sentences", rows=rows)
        states = np.empty((len(words.first), self.dim), np.float32)
        place = np.full(len(words.ids), -1)
        place[words.first] = np.arange(len(words.first))
        for batch in token_budget_batches(words.lengths, tokens_per_batch(runtime.num_threads())):
            ids, offsets = gather(words.ids, words.cu_seqlens, batch)
            wanted = gather(place, words.cu_seqlens, batch)[0]
            found = np.asarray(self.model.forward_ragged(ids, offsets).last_hidden_state)
            states[wanted[wanted >= 0]] = found[wanted >= 0]
        for start, end in zip(words.cu_words[:-1], words.cu_words[1:], strict=True):
            yield states[None, start:end]

    @property
    def crc32(self) -> int:
        return zlib.crc32(str(self.tokenizer.crc32).encode(), super().crc32)

    def save(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)
        self.model.save_pretrained(folder)


def load_features(kind: str, name_or_folder: str | os.PathLike[str]) -> Features:
    """The frozen model with this name, or in this folder.

    Raises ModelNotFoundError, and FileNotFoundError or ValueError, by name, for a model of another kind and one with a
    missing or damaged file.
    """
    if kind == "bert":
        return EncoderFeatures(read_sentence_folder(find_start(name_or_folder)).transformer)
    folder = find_model(name_or_folder, HUGGING_FACE)
    if "elmo" not in family_of(folder).config.model_types:
        found = hugging_face.read_config(folder).get("model_type", "bert")
        raise ValueError(f"{folder}: not a bidirectional language model, its model_type is {found!r}")
    return BiLMFeatures(kind, folder)


class KeptFeatures:
    """Features of sentences, each computed once.

    Args:
        features: gives them.
        where: "memory", "disk", or "none" to compute them whenever they are asked for; None takes memory for up to
            1 GB of new ones, otherwise the disk. A file on disk has no name: it is gone when the process is, however
            that ends. It is made in the folder of temporary files (TMPDIR).
        show: whether to show progress, see `progress_bar`.
    """

    def __init__(self, features: Features, where: str | None = "none", show: bool | None = False) -> None:
        self.features = features
        self._where, self._show = where, show
        self._kept: dict[tuple[str, ...], Array] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_kept": {}}

    def keep(self, sentences: Sequence[Words]) -> None:
        """Compute what is not kept yet, and keep it."""
        new = list({words: None for words in map(tuple, sentences) if words and words not in self._kept})
        if not new or self._where == "none":
            return
        features = self.features
        size = 4 * features.layers * features.dim * sum(map(len, new))
        if self._where == "disk" or (self._where is None and size > MEMORY):
            self._keep_on_disk(new)
            return
        for words, found in zip(new, self._compute(new), strict=True):
            self._kept[words] = found

    def _keep_on_disk(self, new: list[tuple[str, ...]]) -> None:
        layers, dim = self.features.layers, self.features.dim
        with tempfile.TemporaryFile(prefix="fastattn-features-") as file:
            try:
                for found in self._compute(new):
                    file.write(found.tobytes())
                file.flush()
            except OSError as error:
                error.filename = tempfile.gettempdir()
                raise
            data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.float32)
        start = 0
        for words in new:
            end = start + layers * len(words) * dim
            self._kept[words] = data[start:end].reshape(layers, len(words), dim)
            start = end

    def _compute(self, new: list[tuple[str, ...]]) -> Iterator[Array]:
        """The features of sentences, with a bar."""
        with progress_bar(len(new), show=self._show, unit="features of sentence") as advance:
            for start in range(0, len(new), CHUNK):
                some = new[start : start + CHUNK]
                yield from self.features.read(some)
                advance(len(some))

    def of(self, sentences: Sequence[Words]) -> Array:
        """The features of sentences, one after the other, `[layers, words, dim]`."""
        asked = [tuple(words) for words in sentences if words]
        new = [words for words in asked if words not in self._kept]
        computed = iter(self.features.read(new)) if new else iter(())
        parts = [self._kept[words] if words in self._kept else next(computed) for words in asked]
        nothing = np.empty((self.features.layers, 0, self.features.dim), np.float32)
        return np.concatenate([nothing, *parts], axis=1)
