"""The batches of a language model: streams of sentences to train on, and sentences to measure one by one.

Source: Peters et al. 2018, section 3.1; bilm-tf's order of sentences; Merity et al. 2018 (arXiv 1708.02182), section 5,
for steps of varied lengths.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import ragged
from fastattn._types import IntArray
from fastattn.checks import integer
from fastattn.text.batching import token_budget_batches
from fastattn.text.language_model import Sentences, Vocabulary

Characters = Callable[[Sequence[str]], IntArray] | None
"""Gives the characters of words, int64 `[words, characters]`; None for a model that reads ids of words."""
BOTH = (0, 1)
"""The directions of the streams: forward is 0, backward 1."""
SHORT, SPREAD = 0.05, 1 / 14
"""Of varied steps: the share that is half as long as the others, and the standard deviation as a part of the usual
length, which is 5 of 70."""


class StreamBatches:
    """Batches for truncated back-propagation through time: `batch_size` streams of sentences, joined end to end.

    An epoch has all sentences, in an order that depends on (`seed`, epoch, direction). Its tokens are cut into
    `batch_size` streams of equal length, and the streams into steps of nearly equal length, at most `unroll_steps`
    tokens. An epoch leaves out only the last tokens, fewer than `batch_size`. Step i + 1 continues where step i ended,
    and an epoch where the previous one ended, so a model's state after a step belongs to the next one. Without
    `shuffle`, each stream goes back to its beginning between two epochs.

    Varied steps see other pairs of tokens side by side in each epoch. Their lengths depend on (`seed`, epoch): 5 % of
    them are about half as long as the others, which are about `unroll_steps` long. All epochs have as many of them.

    Args:
        text: the sentences.
        vocabulary: numbers the targets.
        characters: returns the characters of words, int64 `[words, characters]`; None for ids of words.
        batch_size: streams of each direction.
        unroll_steps: the most tokens of a stream in a step, or of varied steps the usual number.
        seed: the seed of the orders and lengths, at least 0.
        shuffle: False keeps the order of `text`.
        varied: whether steps have varied lengths.
        directions: 0 for forward, 1 for backward.

    Raises ValueError for a text with fewer tokens (words and one end per sentence) than `batch_size`, and for numbers
    below 1.
    """

    accumulation = 1

    def __init__(
        self,
        text: Sentences,
        vocabulary: Vocabulary,
        characters: Characters,
        *,
        batch_size: int,
        unroll_steps: int,
        seed: int = 0,
        shuffle: bool = True,
        varied: bool = False,
        directions: Sequence[int] = BOTH,
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("unroll_steps", unroll_steps, 1), ("seed", seed, 0)):
            integer(f"StreamBatches: {name}", value, least)
        if text.tokens < batch_size:
            raise ValueError(f"StreamBatches: {batch_size} streams need as many tokens, the text has {text.tokens}")
        self.text, self.batch_size = text, batch_size
        self._targets = vocabulary.ids(text.forms)
        self._characters = characters
        self._unroll_steps, self._seed, self._shuffle = unroll_steps, seed, shuffle
        self._varied, self._directions = varied, tuple(directions)
        self._length = text.tokens // batch_size
        self._ends: tuple[int, IntArray] | None = None
        self._epoch: tuple[int, NDArray[np.int32], NDArray[np.int32]] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The identity of these batches: checksums of text and vocabulary, sizes and seed."""
        return {
            "text_crc32": self.text.crc32,
            "targets_crc32": zlib.crc32(self._targets.tobytes()),
            "batch_size": self.batch_size,
            "unroll_steps": self._unroll_steps,
            "seed": self._seed,
            "shuffle": self._shuffle,
            "varied": self._varied,
            "directions": self._directions,
        }

    @property
    def count(self) -> int:
        """The steps of every epoch."""
        usual = self._unroll_steps * (1 - SHORT / 2 if self._varied else 1)
        return min(self._length, math.ceil(self._length / usual))

    def epoch(self, number: int) -> list[tuple[int, int]]:
        """The steps of epoch `number`: its number and theirs."""
        return [(number, step) for step in range(self.count)]

    def tokens(self, batch: tuple[int, int]) -> int:
        """How many tokens a step predicts in each direction."""
        return self.batch_size * self.length(batch)

    def length(self, batch: tuple[int, int]) -> int:
        """How many tokens of each stream a step has."""
        start, stop = self._bounds(batch[0])[batch[1] :][:2]
        return int(stop - start)

    def share(self, step: int) -> float:
        """The length of a run's step, counted from 0 over all epochs, as a part of `unroll_steps`."""
        return self.length(divmod(step, self.count)) / self._unroll_steps

    def load(self, batch: tuple[int, int]) -> dict[str, Any]:
        """The arguments of a model for a step, with the streams as sequences: for `BidirectionalLanguageModel` with
        `characters`, for `AwdLstmForLanguageModel` without."""
        inputs, targets = self._streams(batch[0])
        start, stop = self._bounds(batch[0])[batch[1] :][:2]
        cu_seqlens = ragged.uniform(self.batch_size, int(stop - start))
        inputs, targets = (x[..., start:stop].reshape(len(x), -1) for x in (inputs, targets))
        return _arguments(self.text.forms, self._targets, self._characters, inputs, targets, cu_seqlens)

    def _bounds(self, epoch: int) -> IntArray:
        """Where the steps of an epoch begin in a stream, and the last one ends, int64 `[steps + 1]`."""
        if not self._varied:
            return np.arange(self.count + 1) * self._length // self.count
        if self._ends is None or self._ends[0] != epoch:
            rng = np.random.default_rng((self._seed, epoch, 2))
            usual = np.where(rng.random(self.count) < SHORT, 0.5, 1.0)
            parts = np.cumsum(np.maximum(rng.normal(usual, SPREAD), SPREAD))
            more = (self._length - self.count) * parts / parts[-1]  # than one token each
            ends = np.arange(self.count + 1) + np.concatenate([[0], more.round().astype(np.int64)])
            self._ends = epoch, ends
        return self._ends[1]

    def _streams(self, epoch: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Inputs and targets of an epoch, `[direction, batch_size, length]`; those used last are kept."""
        if self._epoch is None or self._epoch[0] != epoch:
            pairs = [self.text.sequences(self._order(epoch, each), bool(each)) for each in self._directions]
            shape = (len(pairs), self.batch_size, self._length)
            used = self.batch_size * self._length
            inputs, targets = (np.stack([pair[i][:used] for pair in pairs]).reshape(shape) for i in (0, 1))
            self._epoch = epoch, inputs, targets
        return self._epoch[1:]

    def _order(self, epoch: int, direction: int) -> IntArray:
        if not self._shuffle:
            return np.arange(len(self.text))[:: -1 if direction else 1]
        rng = np.random.default_rng((self._seed, epoch, direction))
        return rng.permutation(len(self.text)).astype(np.int64)


def sentence_batches(
    text: Sentences,
    vocabulary: Vocabulary,
    characters: Characters,
    batch_tokens: int = 2048,
    directions: Sequence[int] = BOTH,
) -> Iterator[dict[str, Any]]:
    """The arguments of a model for all sentences, each as its own sequence, in these directions; see `StreamBatches`.

    A batch has sentences of similar length with at most `batch_tokens` tokens. A longer sentence gets its own batch.
    """
    numbers = vocabulary.ids(text.forms)
    lengths = np.diff(text.cu_words) + 1
    for some in token_budget_batches(lengths, batch_tokens):
        pairs = [text.sequences(some, bool(each)) for each in directions]
        inputs, targets = (np.stack([pair[i] for pair in pairs]) for i in (0, 1))
        cu_seqlens = ragged.cu_seqlens(lengths[some])
        yield _arguments(text.forms, numbers, characters, inputs, targets, cu_seqlens)


def _arguments(
    forms: Sequence[str],
    numbers: IntArray,
    characters: Characters,
    inputs: NDArray[np.int32],
    targets: NDArray[np.int32],
    cu_seqlens: NDArray[np.int32],
) -> dict[str, Any]:
    """Places in `forms`, `[directions, tokens]`, as characters of the distinct words, places among these, and targets;
    without `characters`, as ids."""
    if characters is None:
        return {"input_ids": numbers[inputs], "targets": numbers[targets], "cu_seqlens": cu_seqlens}
    distinct, places = np.unique(inputs, return_inverse=True)
    return {
        "char_ids": characters([forms[place] for place in distinct]),
        "inputs": places.reshape(inputs.shape).astype(np.int64),
        "targets": numbers[targets],
        "cu_seqlens": cu_seqlens,
    }
