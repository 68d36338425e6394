"""The order of training: each epoch shuffles the items and splits them into batches of similar numbers of tokens."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from fastattn._types import IntArray
from fastattn.checks import integer, shown

MOST_BUILT = 1000  # epochs that are built to count their steps


class Batches(Protocol):
    """What a `Trainer` takes its batches from. `epoch` depends on the epoch's number alone.

    If they also have `count`, the batches of every epoch or None, `count_steps` need not build the epochs.
    """

    @property
    def accumulation(self) -> int:
        """Batches of a step."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Values for JSON that identify these batches. A saved run continues only with equal settings."""

    def epoch(self, number: int) -> Sequence[Any]:
        """The batches of an epoch, in order. Epochs count from 0."""

    def tokens(self, batch: Any) -> int:
        """How many tokens a batch has."""

    def load(self, batch: Any) -> Mapping[str, Any]:
        """The arguments of the model for a batch."""


class TokenBatches:
    """Batches of items whose number of tokens is known.

    An epoch is a permutation of all items by a generator seeded with (`seed`, epoch). A batch takes as many of the next
    items as its limits allow. Seed and batch number determine its items, so a run can continue anywhere.

    Args:
        lengths: integers `[items]`, the tokens of each item.
        load: returns the arguments of the model for indices (int64) of items.
        batch_tokens: the maximum number of tokens in a batch; a longer item gets its own batch.
        batch_size: the maximum number of items in a batch.
        accumulation: batches per step, for the `Trainer`.
        seed: the seed of the permutations, 0 or above.
        settings: more values for JSON that tell these batches from others.

    Raises ValueError for no items, no limit, limits below 1 and a negative seed, TypeError for limits and a seed
    that are not integers.

    >>> batches = TokenBatches([3, 9, 4, 2], load=lambda indices: {}, batch_tokens=8, seed=0)
    >>> [batch.tolist() for batch in batches.epoch(0)]
    [[2, 0], [1], [3]]
    """

    def __init__(
        self,
        lengths: ArrayLike,
        load: Callable[[IntArray], Mapping[str, Any]],
        *,
        batch_tokens: int | None = None,
        batch_size: int | None = None,
        accumulation: int = 1,
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.lengths: IntArray = np.ascontiguousarray(lengths, np.int64)
        if self.lengths.ndim != 1 or not self.lengths.size or self.lengths.min() < 0:
            raise ValueError(f"TokenBatches: lengths must be counts of tokens, one or more, got {shown(lengths)}")
        if batch_tokens is None and batch_size is None:
            raise ValueError("TokenBatches: batch_tokens or batch_size must be given")
        limits = {"batch_tokens": batch_tokens, "batch_size": batch_size}
        self.load, self.accumulation = load, integer("TokenBatches: accumulation", accumulation)
        self._batch_tokens, self._batch_size = (
            None if limit is None else integer(f"TokenBatches: {name}", limit, 1) for name, limit in limits.items()
        )
        self._seed = integer("TokenBatches: seed", seed, 0)
        self._settings = dict(settings or {})

    @property
    def settings(self) -> dict[str, Any]:
        """Limits, seed, the number and lengths of the items, and the `settings` given."""
        return {
            "items": len(self.lengths),
            "lengths_crc32": zlib.crc32(self.lengths.tobytes()),
            "batch_tokens": self._batch_tokens,
            "batch_size": self._batch_size,
            "seed": self._seed,
            **self._settings,
        }

    @property
    def count(self) -> int | None:
        """The batches of every epoch, or None if epochs differ: if `batch_tokens` makes some batches smaller."""
        size = self._batch_size or len(self.lengths)
        if self._batch_tokens is None or size * int(self.lengths.max()) <= self._batch_tokens or size == 1:
            return -(-len(self.lengths) // size)
        return None

    def epoch(self, number: int) -> list[IntArray]:
        """The batches of epoch `number`, as indices of items."""
        order = np.random.default_rng((self._seed, number)).permutation(len(self.lengths)).astype(np.int64)
        ends = np.cumsum(self.lengths[order])
        batches, start, before = [], 0, 0
        while start < len(order):
            stop = start + (self._batch_size or len(order))
            if self._batch_tokens is not None:
                fitting = int(np.searchsorted(ends, before + self._batch_tokens, side="right"))
                stop = min(stop, max(start + 1, fitting))
            batches.append(order[start:stop])
            start, before = stop, int(ends[min(stop, len(order)) - 1])
        return batches

    def tokens(self, batch: IntArray) -> int:
        """How many tokens the items of `batch` have."""
        return int(self.lengths[batch].sum())


def count_steps(batches: Batches, epochs: int, accumulation: int = 1) -> int:
    """The optimizer's steps in `epochs` epochs. A step takes `accumulation` batches, or those that an epoch has left.

    Epochs that differ in their number of batches are built to count them. Of more than 1,000 such epochs, the first
    1,000 are, and their mean stands for the others.

    >>> count_steps(TokenBatches([5, 5, 5], load=lambda indices: {}, batch_size=1), epochs=2, accumulation=2)
    4
    """
    count = getattr(batches, "count", None)
    if count is not None:
        return epochs * int(-(-count // accumulation))
    built = min(epochs, MOST_BUILT)
    steps = sum(-(-len(batches.epoch(number)) // accumulation) for number in range(built))
    return steps if built == epochs else steps * epochs // built
