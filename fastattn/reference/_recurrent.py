"""Shared by `lstm` and `gru`: the order of the steps through a ragged batch, the reserve, and small pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastattn._types import Floats

from ._seqlens import bounds
from .linear import _plain

Indices = npt.NDArray[np.int64]


class Schedule:
    """A ragged batch, time-major: the first tokens of all sequences, longest first, then the second tokens and so on.

    Step t has rows for the sequences that are still running. These are the first ones, so a step's rows and the states
    before them are slices. A state array is `[batch + tokens, ...]`: the initial states, then one row per token.
    """

    def __init__(self, ends: list[int], reverse: bool) -> None:
        cu = np.array(ends, np.int64)
        lengths = np.diff(cu)
        self.batch, self.tokens = len(lengths), ends[-1]
        self.order: Indices = np.argsort(-lengths, kind="stable")
        ordered = lengths[self.order]
        running = self.batch - np.searchsorted(ordered[::-1], np.arange(lengths.max(initial=0)), side="right")
        starts = np.concatenate(([0], np.cumsum(running, dtype=np.int64)))
        before = np.concatenate(([0], self.batch + starts[:-1]))  # the first row of the states before step t

        rank = np.empty_like(self.order)
        rank[self.order] = np.arange(self.batch)
        step = np.arange(self.tokens) - np.repeat(cu[:-1], lengths)
        if reverse:
            step = np.repeat(lengths, lengths) - 1 - step
        self.rows: Indices = np.empty(self.tokens, np.int64)  # the token of each time-major row
        self.rows[starts[step] + np.repeat(rank, lengths)] = np.arange(self.tokens)

        column = np.arange(self.tokens) - np.repeat(starts[:-1], running)
        self.previous: Indices = np.repeat(before[:-1], running) + column  # the state before each row
        self.last: Indices = before[ordered] + np.arange(self.batch)  # the last state of each sequence, in `order`
        self.steps = [
            (slice(start, start + n), slice(b, b + n))
            for start, b, n in zip(starts.tolist(), before.tolist(), running.tolist(), strict=False)
        ]
        """For each step, its rows and the rows of the states before it."""

    def now(self, rows: slice) -> slice:
        """The rows of the states after a step, given its own rows."""
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
        """`state`, which is in `order`, in the order of the batch."""
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


@dataclass(frozen=True)
class Reserve:
    """What a forward pass keeps for its backward pass, per direction, and a description of the call."""

    kept: Sequence[Any]
    kind: str
    cu_seqlens: list[int]
    call: list[str]
    """What the two passes must have in common, in words."""

    def of(self, function: str, reserve: Any) -> Sequence[Any]:
        """What `reserve` keeps. Raises TypeError if it is not a reserve, ValueError if it comes from another call."""
        if not isinstance(reserve, Reserve):
            returned = f"what {self.kind} returned with return_reserve"
            raise TypeError(f"{function}: reserve must be {returned}, got {type(reserve).__name__}")
        for wanted, got in zip(self.call, reserve.call, strict=False):
            if wanted != got:
                raise ValueError(f"{function}: reserve must be of a call {wanted}, got one {got}")
        if self.cu_seqlens != reserve.cu_seqlens:
            raise ValueError(f"{function}: reserve must be of a call with this cu_seqlens, got one with another")
        return reserve.kept


def reserve_of(
    kind: str,
    parts: list[tuple[Floats, Any, Schedule]],
    cu_seqlens: Any,
    reverse: Sequence[bool],
    h0: Any,
    **clips: Any,
) -> Reserve:
    """The empty reserve of a call; `parts` are its `directions`."""
    x, (weight_ih, weight_hh, *_), _ = parts[0]
    sizes = (x.shape[1], len(weight_ih) // (4 if kind == "lstm" else 3), weight_hh.shape[1])
    options = [f"without {name}" if clip is None else f"with {name} {float(clip)}" for name, clip in clips.items()]
    call = [
        f"of {kind}",
        f"with inputs, hidden units and outputs {sizes}",
        f"with reverse {tuple(map(bool, reverse[: len(parts)]))}",
        "without h0" if h0 is None else "with h0",
        *options,
    ]
    return Reserve((), kind, cu_seqlens.tolist(), call)


def collect_dx(x: Floats | Sequence[Floats], pieces: list[Floats]) -> Any:
    """One gradient in the form of x: the sum where all directions read the same array."""
    if not isinstance(x, np.ndarray):
        return tuple(pieces)
    for piece in pieces[1:]:
        pieces[0] += piece
    return pieces[0]


def sigmoid(x: Floats) -> None:
    """In place. If e^-x overflows, its reciprocal is 0, as it should be."""
    with np.errstate(over="ignore", under="ignore"):
        x *= -1  # np.negative in place reads other numbers where rows are four float32 apart (NumPy 2.4.6, AVX2)
        np.exp(x, out=x)
        x += 1
        np.reciprocal(x, out=x)
