"""What is kept of texts that are too long: the strategies and windows of the `tokenizers` library.

The library keeps its limit in the tokenizer itself, where the limits of two threads would mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastattn import checks
from fastattn._types import IntArray
from fastattn.text.tokenized import Spans

STRATEGIES = ("longest_first", "only_first", "only_second")


class Limit(NamedTuple):
    """The most tokens of a text or of a pair, and what happens to longer ones. See `Tokenizer.encode`.

    >>> limit = Limit(10, 3, "only_second", 1)
    >>> spans = limit.spans([np.array([2]), np.array([9])], ("questions", "contexts"))
    >>> spans.starts[1].tolist(), spans.lengths[1].tolist()
    ([0, 4], [5, 5])
    """

    max_length: int | None
    special: int
    truncation: str = "longest_first"
    stride: int | None = None
    left: bool = False
    step: int | None = None

    @classmethod
    def checked(
        cls,
        sides: int,
        max_length: int | None,
        special: int,
        truncation: str,
        stride: int | None,
        left: bool,
        step: int | None = None,
    ) -> Limit:
        """The options of `encode`, for texts or for pairs. Raises TypeError or ValueError."""
        if max_length is not None:
            wanted = f"more than the {special} special tokens"
            max_length = checks.integer("encode: max_length", max_length, special + 1, wanted=wanted)
        checks.choice("encode: truncation", truncation, STRATEGIES[: sides + 1])
        if stride is not None and step is not None:
            raise ValueError("encode: stride and step both say how far a window moves; give one of them")
        if step is not None:
            step = checks.integer("encode: step", step)
        name = "stride" if step is None else "step"
        if stride is not None or step is not None:
            if max_length is None:
                raise ValueError(f"encode: {name} needs a max_length")
            if sides == 2 and truncation == "longest_first":
                raise ValueError(f"encode: {name} needs truncation only_first or only_second, got longest_first")
        if stride is not None and max_length is not None:
            room = max_length - special
            wanted = f"from 0 to {room - 1}, below the {room} tokens that max_length {max_length} leaves to a text"
            stride = checks.integer("encode: stride", stride, 0, room, wanted)
        return cls(max_length, special, truncation, stride, left, step)

    def spans(self, lengths: Sequence[IntArray], names: Sequence[str], first: int = 0) -> Spans | None:
        """What is kept of each side, int64 `[texts]` tokens each; None if that is everything.

        Errors call the first text `name[first]`.
        """
        if self.max_length is None:
            return None
        room = self.max_length - self.special
        total = lengths[0] if len(lengths) == 1 else lengths[0] + lengths[1]
        if total.max(initial=0) <= room:
            return None
        over = np.maximum(total - room, 0)
        if len(lengths) == 2 and self.truncation == "longest_first":
            return self._cut(lengths, _longest_first(lengths[0], lengths[1], room, over > 0))
        side = int(self.truncation == "only_second")
        widths = lengths[side] - over
        short = (over > 0) & (widths <= (self.stride or 0))
        if short.any():
            raise self._no_room(lengths, side, int(short.argmax()), widths, names, first)
        if self.stride is not None or self.step is not None:
            return self._windows(lengths, side, widths)
        return self._cut(lengths, [widths if i == side else full for i, full in enumerate(lengths)])

    def _cut(self, lengths: Sequence[IntArray], sizes: list[IntArray]) -> Spans:
        starts = [full - size if self.left else np.zeros_like(full) for full, size in zip(lengths, sizes, strict=True)]
        return Spans(np.arange(len(sizes[0])), starts, sizes, np.sum(lengths, axis=0))

    def _windows(self, lengths: Sequence[IntArray], side: int, widths: IntArray) -> Spans:
        """Windows of at most `widths` tokens over one side. The other one stands whole in each."""
        found: list[tuple[int, int, int]] = []
        for sample, (length, width) in enumerate(zip(lengths[side].tolist(), widths.tolist(), strict=True)):
            step = width - (self.stride or 0) if self.step is None else min(self.step, width)
            for start in range(0, max(length - width, 0) + step, step) if length > width else (0,):
                end = min(start + width, length)
                found.append((sample, length - end if self.left else start, end - start))
        samples, *own = np.array(found, np.int64).T
        starts, sizes = [np.zeros_like(samples) for _ in lengths], [full[samples] for full in lengths]
        starts[side], sizes[side] = own
        return Spans(samples, starts, sizes, np.sum(sizes, axis=0))

    def _no_room(
        self, lengths: Sequence[IntArray], side: int, i: int, widths: IntArray, names: Sequence[str], first: int
    ) -> ValueError:
        own, other = (f"{name}[{first + i}]" for name in (names[side], names[1 - side]))
        left, taken = max(int(widths[i]), 0), int(lengths[1 - side][i])
        need = "" if self.stride is None else f", but stride {self.stride} needs more"
        return ValueError(
            f"{other} has {taken} tokens, which leaves {left} for {own} in max_length {self.max_length}{need}"
        )


def _longest_first(first: IntArray, second: IntArray, room: int, cut: NDArray[np.bool_]) -> list[IntArray]:
    """The lengths of both texts: the shorter one stays if it takes no more than half the room."""
    short, long, swapped = np.minimum(first, second), np.maximum(first, second), first > second
    short = np.where(cut, np.minimum(short, room // 2), short)
    long = np.where(cut, room - short, long)
    return [np.where(swapped, long, short), np.where(swapped, short, long)]
