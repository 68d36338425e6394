"""What `lstm` and `gru` share: the order in which a ragged batch is stepped through, and small pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastattn._types import Floats

from ._seqlens import bounds
from .linear import _plain

Indices = npt.NDArray[np.int64]


class Schedule:
    """A ragged batch, time-major: the first tokens of all sequences, longest first, then the second ones and so on.

    Step t has rows for the sequences that are still running, which are the first ones, so that every step and
    what it continues are slices. A state array is `[batch + tokens, ...]`: the initial states, then one row a token.
    """

    def __init__(self, ends: list[int], reverse: bool) -> None:
        cu = np.array(ends, np.int64)
        lengths = np.diff(cu)
        self.batch, self.tokens = len(lengths), ends[-1]
        self.order: Indices = np.argsort(-lengths, kind="stable")
        ordered = lengths[self.order]
        running = self.batch - np.searchsorted(ordered[::-1], np.arange(lengths.max(initial=0)), side="right")
        starts = np.concatenate(([0], np.cumsum(running, dtype=np.int64)))
        before = np.concatenate(([0], self.batch + starts[:-1]))  # where the states begin that step t continues

        rank = np.empty_like(self.order)
        rank[self.order] = np.arange(self.batch)
        step = np.arange(self.tokens) - np.repeat(cu[:-1], lengths)
        if reverse:
            step = np.repeat(lengths, lengths) - 1 - step
        self.rows: Indices = np.empty(self.tokens, np.int64)  # the token of each time-major row
        self.rows[starts[step] + np.repeat(rank, lengths)] = np.arange(self.tokens)

        column = np.arange(self.tokens) - np.repeat(starts[:-1], running)
        self.previous: Indices = np.repeat(before[:-1], running) + column  # the state that each row continues
        self.last: Indices = before[ordered] + np.arange(self.batch)  # the last state of each sequence, in `order`
        self.steps = [
            (slice(start, start + n), slice(b, b + n))
            for start, b, n in zip(starts.tolist(), before.tolist(), running.tolist(), strict=False)
        ]
        """For each step its rows, and those of the states that it continues."""

    def now(self, rows: slice) -> slice:
        """Where the states after a step stand, given its rows."""
        return slice(self.batch + rows.start, self.batch + rows.stop)

    def initial(self, state: Floats | None, width: int, dtype: Any) -> Floats:
        """A new state array that begins with `state` `[batch, width]`, or 0."""
        states = np.empty((self.batch + self.tokens, width), dtype)
        states[: self.batch] = 0 if state is None else state[self.order]
        return states

    def ordered(self, gradient: Floats | None, width: int, dtype: Any) -> Floats:
        """A copy of `gradient` `[batch, width]`, or 0, in `order`."""
        return np.zeros((self.batch, width), dtype) if gradient is None else gradient[self.order]

    def restored(self, state: Floats) -> Floats:
        """What is in `order`, in the order of the batch."""
        result = np.empty_like(state)
        result[self.order] = state
        return result


def directions(
    function: str,
    x: Floats | Sequence[Floats],
    cu_seqlens: Any,
    weights: Sequence[Any],
    reverse: Sequence[bool],
) -> list[tuple[Floats, Any, Schedule]]:
    """The input, the weights as arrays and the schedule of each direction."""
    count = len(weights)
    if count not in (1, 2):
        raise ValueError(f"{function}: weights must be those of 1 or 2 directions, got {count}")
    if len(reverse) < count:
        raise ValueError(f"{function}: reverse must have a flag for each of {count} directions, got {len(reverse)}")
    inputs = [x] * count if isinstance(x, np.ndarray) else list(x)
    if len(inputs) != count:
        raise ValueError(f"{function}: x must be one array or one for each of {count} directions, got {len(inputs)}")
    return [
        (
            a,
            [None if w is None else _plain(w) for w in own],
            Schedule(bounds(function, "cu_seqlens", cu_seqlens, len(a)), r),
        )
        for a, own, r in zip(inputs, weights, reverse, strict=False)
    ]


def collect_dx(x: Floats | Sequence[Floats], pieces: list[Floats]) -> Any:
    """One gradient in the form of x: the sum where all directions read the same array."""
    if not isinstance(x, np.ndarray):
        return tuple(pieces)
    for piece in pieces[1:]:
        pieces[0] += piece
    return pieces[0]


def sigmoid(x: Floats) -> None:
    """In place. e^-x may become infinite, whose reciprocal is the 0 that it should be."""
    with np.errstate(over="ignore", under="ignore"):
        x *= -1  # np.negative in place reads other numbers where rows are four float32 apart (NumPy 2.4.6, AVX2)
        np.exp(x, out=x)
        x += 1
        np.reciprocal(x, out=x)
