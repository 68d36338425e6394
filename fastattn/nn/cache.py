"""The cache of a decoder: the keys and values of self-attention for all tokens so far."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastattn import ragged
from fastattn._core import run_pass
from fastattn.nn.parameter import Array

FIRST_CAPACITY = 128
"""The initial number of tokens per sequence. Memory that no token needs yet is never touched. The capacity doubles
whenever the cache is full: moving 128 sequences of 32 tokens, 6 layers and 512 numbers takes as long as ten steps."""


class Cache:
    """The keys and values of all tokens so far, for sequences of equal length and each block of a decoder.

    `layers[i]` belongs to block i: its rows `[slots * capacity, 2 * heads * head_dim]`, and the keys and the values in
    them, `[slots * capacity, heads, head_dim]`. Row j of a step is the sequence in slot `slots[j]`, and its last token
    is in row `places[j]`. `offsets` are the `cu_seqlens_q` and `cu_seqlens_k` of a step; between the sequences is the
    unused room. A sequence that has ended keeps its slot, without queries, until the others move. `_origins` `[slots,
    capacity]` has the slot that each token was written to first: sequences have in common what came before they parted.

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
        self.layers = [_views(np.empty((rows * self.capacity, 2, *shape), dtype)) for shape in shapes]
        self.workspace: Any = None  # of `nn.decode_step`
        self._sequences = rows
        self._origins = np.empty((rows, self.capacity), np.int32)
        self._set_slots(np.arange(rows))

    def make_room(self) -> None:
        """Make room for one more token in every row. A cache that moves is read, and a pass computed."""
        if self.length == self.capacity:
            self._move(self.slots, 2 * self.capacity)

    def advance(self) -> None:
        """Add one more token to every row."""
        self.make_room()
        self._origins[self.slots, self.length] = self.slots
        self.length += 1
        self.places += 1
        self._ends += 1

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Continue with these rows, in this order. A row listed twice continues as two.

        Rows in ascending order stay put. If as many rows go on as before, only those that change are copied, each from
        the token on at which it parted from the row that it replaces.
        """
        slots = self.slots[rows]
        if (np.diff(slots) > 0).all():
            self._set_slots(slots)
        elif len(slots) == len(self.slots):
            self._copy(slots)
        else:
            self._move(slots, self.capacity)

    def _copy(self, slots: NDArray[np.int64]) -> None:
        """Copy these slots into those in use."""
        changed = slots != self.slots
        old, new = slots[changed], self.slots[changed]
        of_old = self._origins[old, : self.length]
        which, place = np.nonzero(of_old != self._origins[new, : self.length])
        source, target = old[which] * self.capacity + place, new[which] * self.capacity + place
        run_pass()
        for rows, _, _ in self.layers:
            rows[target] = rows[source]
        self._origins[new, : self.length] = of_old

    def _set_slots(self, slots: NDArray[np.int64]) -> None:
        """Set what depends on the slots. A step changes it in place: kernels copy their offsets."""
        counts = np.zeros(2 * self._sequences, np.int64)
        counts[2 * slots] = 1
        ends = np.repeat(ragged.uniform(self._sequences, self.capacity), 2)[:-1]
        self.slots = slots
        self.places = slots * self.capacity + (self.length - 1)
        self.offsets = {"cu_seqlens_q": ragged.cu_seqlens(counts), "cu_seqlens_k": ends}
        self._ends = ends[1::2]
        self._ends += self.length

    def _move(self, slots: NDArray[np.int64], capacity: int) -> None:
        run_pass()
        for i, (old, key, _) in enumerate(self.layers):
            new = np.empty((len(slots) * capacity, 2, *key.shape[1:]), old.dtype)
            rows = old.reshape(-1, self.capacity, old.shape[1])
            new.reshape(len(slots), capacity, old.shape[1])[:, : self.length] = rows[slots, : self.length]
            self.layers[i] = _views(new)
        origins = np.empty((len(slots), capacity), np.int32)
        origins[:, : self.length] = self._origins[slots, : self.length]
        self._origins = origins
        self.capacity, self._sequences = capacity, len(slots)
        self._set_slots(np.arange(len(slots)))


def _views(keys_values: Array) -> tuple[Array, Array, Array]:
    """The rows, the keys and the values."""
    rows = keys_values.reshape(len(keys_values), math.prod(keys_values.shape[1:]))
    return rows, keys_values[:, 0], keys_values[:, 1]
