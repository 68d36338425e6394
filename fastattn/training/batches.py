"""The order of training: items shuffled anew in each epoch, and cut into batches of about equally many tokens."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from fastattn._types import IntArray
from fastattn.checks import integer


class Batches(Protocol):
    """What a `Trainer` takes its batches from. The epoch's number alone decides what `epoch` gives."""

    @property
    def accumulation(self) -> int:
        """Batches of a step, for `train`."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What tells these batches from others, for JSON; a saved run is continued with equal settings only."""

    def epoch(self, number: int) -> Sequence[Any]:
        """The batches of an epoch, which counts from 0, in their order."""

    def tokens(self, batch: Any) -> int:
        """How many tokens a batch has."""

    def load(self, batch: Any) -> Mapping[str, Any]:
        """The arguments of the model for a batch."""


class TokenBatches:
    """Batches of items whose number of tokens is known.

    An epoch is a permutation of all items by a generator seeded with (`seed`, epoch), and a batch is as many
    of the next items as its limits allow: whoever knows the seed and the number of a batch knows its items, so
    that a run can be continued anywhere.

    Args:
        lengths: integers `[items]`, the tokens of each item.
        load: gives the arguments of the model for indices (int64) of items.
        batch_tokens: at most so many tokens in a batch; a longer item is a batch of its own.
        batch_size: at most so many items in a batch.
        accumulation: batches of a step, which a `Trainer` is to be given.
        seed: of the permutations, from 0 on.
        settings: what else tells these batches from others, for JSON.

    Raises ValueError for no items, no limit, limits below 1 and a negative seed, TypeError for limits and a seed
    that are no integers.

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
            raise ValueError(f"TokenBatches: lengths must be counts of tokens, one or more, got {lengths!r}")
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
        """Limits, seed, the items' number and lengths, and what else was given."""
        return {
            "items": len(self.lengths),
            "lengths_crc32": zlib.crc32(self.lengths.tobytes()),
            "batch_tokens": self._batch_tokens,
            "batch_size": self._batch_size,
            "seed": self._seed,
            **self._settings,
        }

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
    """Steps of the optimizer in `epochs` epochs, one for `accumulation` batches or what an epoch has left.

    >>> count_steps(TokenBatches([5, 5, 5], load=lambda indices: {}, batch_size=1), epochs=2, accumulation=2)
    4
    """
    return sum(-(-len(batches.epoch(number)) // accumulation) for number in range(epochs))
