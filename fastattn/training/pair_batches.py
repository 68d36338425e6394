"""Batches of pairs of sequences, for a model that reads one and writes the other."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn._types import IntArray
from fastattn.checks import integer
from fastattn.text.batching import gather
from fastattn.training.batches import TokenBatches

Ragged = tuple[IntArray, NDArray[np.integer[Any]]]
Batch = tuple[IntArray, float]


def pair_arguments(source: Ragged, target: Ragged, start_id: int, indices: ArrayLike) -> dict[str, Any]:
    """The arguments of `Transformer.loss_ragged` for the pairs `indices`.

    The decoder reads `start_id` and all tokens of a target except the last, and predicts all of them. `source` and
    `target` are ids and `cu_seqlens`. Each target has a token.

    >>> found = pair_arguments((np.array([5, 1]), np.array([0, 2])), (np.array([7, 8, 1]), np.array([0, 3])), 0, [0])
    >>> found["target_in"].tolist(), found["target_out"].tolist()
    ([0, 7, 8], [7, 8, 1])
    """
    source_ids, cu_source = gather(*source, indices)
    target_out, cu_target = gather(*target, indices)
    target_in = np.roll(target_out, 1)
    target_in[cu_target[:-1]] = start_id
    return {
        "source_ids": source_ids,
        "cu_source": cu_source,
        "target_in": target_in,
        "cu_target": cu_target,
        "target_out": target_out,
    }


class PairBatches:
    """Batches of pairs, in the order of `TokenBatches`. The tokens of a pair are those of both sequences.

    A step of more than `max_tokens` is computed in `accumulation` batches. A batch is its indices and its `share`,
    which `load` returns with the arguments. The loss of a batch is a mean over its target tokens. Multiplied by the
    share, it makes the loss of the step the mean over all target tokens of the step.

    Args:
        source: ids int64 `[tokens]` and `cu_seqlens`, integers `[pairs + 1]`.
        target: the same of the other side; every sequence has a token.
        start_id: what the decoder reads first.
        step_tokens: about how many tokens of both sides make a step of the optimizer.
        max_tokens: the most tokens in a batch; a longer pair is a batch of its own.
        seed: the seed of the order.

    Attributes:
        accumulation: batches of a step.

    Raises as `TokenBatches` does.

    >>> ids, cu_seqlens = np.arange(12), np.arange(0, 13, 3)
    >>> batches = PairBatches((ids, cu_seqlens), (ids, cu_seqlens), 0, step_tokens=24, max_tokens=12)
    >>> batches.accumulation, [(indices.tolist(), share) for indices, share in batches.epoch(0)]
    (2, [([2, 0], 1.0), ([1, 3], 1.0)])
    """

    def __init__(
        self, source: Ragged, target: Ragged, start_id: int, *, step_tokens: int, max_tokens: int, seed: int = 0
    ) -> None:
        step_tokens = integer("PairBatches: step_tokens", step_tokens, 1)
        self.accumulation = -(-step_tokens // integer("PairBatches: max_tokens", max_tokens, 1))
        self._target_lengths = np.diff(target[1])
        crc32 = 0
        for array in (*source, *target):
            crc32 = zlib.crc32(array.tobytes(), crc32)
        self._batches = TokenBatches(
            np.diff(source[1]) + self._target_lengths,
            partial(pair_arguments, source, target, start_id),
            batch_tokens=-(-step_tokens // self.accumulation),
            seed=seed,
            settings={"ids_crc32": crc32},
        )
        self.settings: dict[str, Any] = self._batches.settings

    @property
    def count(self) -> int | None:
        """As `TokenBatches.count`."""
        return self._batches.count

    def epoch(self, number: int) -> list[Batch]:
        """The batches of epoch `number`, as indices of pairs and shares."""
        batches = self._batches.epoch(number)
        counts = np.array([self._target_lengths[indices].sum() for indices in batches])
        shares: list[float] = []
        for start in range(0, len(batches), self.accumulation):
            group = counts[start : start + self.accumulation]
            shares += (group * len(group) / group.sum()).tolist()
        return list(zip(batches, shares, strict=True))

    def tokens(self, batch: Batch) -> int:
        """How many tokens both sides of `batch` have."""
        return self._batches.tokens(batch[0])

    def load(self, batch: Batch) -> Mapping[str, Any]:
        """The `pair_arguments` of `batch`, and its `share`."""
        indices, share = batch
        return {**self._batches.load(indices), "share": share}
