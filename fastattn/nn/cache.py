"""The cache of a decoder: the keys and values of self-attention for all tokens so far."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastattn import ragged
from fastattn.nn.parameter import Array

FIRST_CAPACITY = 32
"""The initial number of tokens per sequence. The capacity doubles whenever the cache is full."""


class Cache:
    """The keys and values of all tokens so far, for sequences of equal length and each block of a decoder.

    `keys_values[i]` `[slots * capacity, 2, heads, head_dim]` belongs to block i. Row j of a step is the sequence in
    slot `slots[j]`. A sequence that has ended keeps its slot, without queries, until the others move.

    Args:
        shapes: (heads, head_dim) of each block.
        rows: the number of sequences.
        max_length: the maximum number of tokens in a sequence.
        dtype: the dtype of the keys and values.
    """

    def __init__(
        self, shapes: list[tuple[int, int]], rows: int, max_length: int, dtype: DTypeLike = np.float32
    ) -> None:
        self.length = 0
        self.capacity = max(1, min(FIRST_CAPACITY, max_length))
        self.slots = np.arange(rows)
        self.keys_values = [np.empty((rows * self.capacity, 2, *shape), dtype) for shape in shapes]

    def advance(self) -> dict[str, Any]:
        """Make room for one more token in every row. Returns the places and offsets for `MultiHeadAttention.step`."""
        if self.length == self.capacity:
            self._move(self.slots, 2 * self.capacity)
        place, room = self.length, self.capacity
        sequences = len(self.keys_values[0]) // room
        counts = np.zeros(2 * sequences, np.int64)
        counts[2 * self.slots] = 1  # between the sequences: the unused room
        self.length += 1
        return {
            "places": self.slots * room + place,
            "cu_seqlens_q": ragged.cu_seqlens(counts),
            "cu_seqlens_k": ragged.cu_seqlens(np.tile([place + 1, room - place - 1], sequences)),
        }

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Continue with these rows, in this order. A row listed twice is copied. Rows in ascending order stay put."""
        slots = self.slots[rows]
        if (np.diff(slots) > 0).all():
            self.slots = slots
        else:
            self._move(slots, self.capacity)

    def _move(self, slots: NDArray[np.int64], capacity: int) -> None:
        def moved(old: Array) -> Array:
            new = np.empty((len(slots) * capacity, *old.shape[1:]), old.dtype)
            rows = old.reshape(-1, self.capacity, math.prod(old.shape[1:]))
            new.reshape(len(slots), capacity, -1)[:, : self.length] = rows[slots, : self.length]
            return new

        self.keys_values = [moved(old) for old in self.keys_values]
        self.slots, self.capacity = np.arange(len(slots)), capacity
