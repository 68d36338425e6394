"""Inputs of tasks whose text is already tokens, to be computed alone or with others: what a service batches.

works = encoder.prepare(["A cat sleeps.", "A kitten naps."])    # takes no part of the processor's time for models
compute(works)                                                  # the answers, of one pass
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import ragged
from fastattn.text import TokenizedTexts


@dataclass(frozen=True)
class Together:
    """How inputs are computed together: `method(data of each, *options)` gives the answer of each.

    Equal ones can share a call. `alone` makes one that is equal to no other.
    """

    method: Callable[..., Iterable[Any]]
    options: tuple[Any, ...] = ()
    alone: object = None

    def __call__(self, data: list[Any]) -> list[Any]:
        return list(self.method(data, *self.options))


@dataclass(frozen=True)
class Work:
    """An input of a task, tokenised. A call computes it.

    Attributes:
        together: computes the data of many works. Works with an equal one can be computed at once, for the same bits.
        data: what `together` takes.
        tokens: how many tokens the model reads.
        full_tokens: how many there were before the input was cut.
    """

    together: Together
    data: Any
    tokens: int
    full_tokens: int

    def __call__(self) -> Any:
        return self.together([self.data])[0]


def compute(works: Sequence[Work]) -> list[Any]:
    """The answers of works with an equal `together`, computed at once.

    Raises ValueError for works that cannot be.
    """
    if not works:
        return []
    together = works[0].together
    if any(work.together is not together and work.together != together for work in works):
        raise ValueError("compute: works that are computed together need an equal `together`")
    return together([work.data for work in works])


def works_of(together: Together, tokens: TokenizedTexts, *more: NDArray[Any]) -> list[Work]:
    """A work for each sequence. Its data are the sequence's ids, and what belongs to it of `more` arrays `[tokens]`."""
    ends, full = tokens.cu_seqlens.tolist(), tokens.full_lengths.tolist()
    return [
        Work(together, (tokens.ids[a:b], *(each[a:b] for each in more)), b - a, full[i])
        for i, (a, b) in enumerate(itertools.pairwise(ends))
    ]


def joined(data: Sequence[Sequence[NDArray[Any]]]) -> tuple[TokenizedTexts, list[NDArray[Any]]]:
    """The sequences of works again, and the other arrays, each one after the other."""
    first, *more = (np.concatenate(arrays) for arrays in zip(*data, strict=True))
    return TokenizedTexts.of(first, [len(each[0]) for each in data]), more


def joined_windows(
    some: Sequence[tuple[NDArray[np.int64], NDArray[np.int32]]],
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Ragged ids of many inputs as one ragged array: ids and `cu_seqlens`."""
    ids = np.concatenate([each[0] for each in some])
    return ids, ragged.cu_seqlens(np.concatenate([ragged.lengths(each[1]) for each in some]))
