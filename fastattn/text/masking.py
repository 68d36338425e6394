"""Hiding words for a model to predict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastattn import ragged
from fastattn._types import IntArray
from fastattn.functional.losses import IGNORE_INDEX

__all__ = ["Masking"]

_HIDDEN, _RANDOM = 0.8, 0.1


@dataclass(frozen=True)
class Masking:
    """Chooses wordpieces, and replaces 80 % of them by a mask and 10 % by a random piece.

    A sequence of n tokens, special ones included, gets round(n * `masked_lm_prob`) predictions, at least one and at
    most `max_predictions_per_seq`. Every wordpiece is equally likely; special tokens are never chosen.

    Args:
        mask_id: the id of the mask.
        vocab_size: a random piece is one of these ids, each equally likely.
        masked_lm_prob: the share of the tokens to choose.
        max_predictions_per_seq: the most in a sequence.
        continuing: bool `[vocab_size]`, the pieces that go on with a word: whole words are chosen, as long as their
            pieces are not too many. None chooses single pieces.

    Source: Devlin et al. 2019, section 3.1; google-research/bert's flags.

    >>> masking = Masking(mask_id=4, vocab_size=30)
    >>> ids, special = np.array([2, 10, 11, 12, 13, 14, 15, 3]), np.array([1, 0, 0, 0, 0, 0, 0, 1], bool)
    >>> masked, labels = masking(ids, np.array([0, 8]), special, np.random.default_rng(0))
    >>> masked.tolist(), labels.tolist()
    ([2, 10, 11, 12, 4, 14, 15, 3], [-100, -100, -100, -100, 13, -100, -100, -100])
    """

    mask_id: int
    vocab_size: int
    masked_lm_prob: float = 0.15
    max_predictions_per_seq: int = 20
    continuing: NDArray[np.bool_] | None = None

    def __call__(
        self, ids: IntArray, cu_seqlens: NDArray[np.integer], special: NDArray[np.bool_], rng: np.random.Generator
    ) -> tuple[IntArray, IntArray]:
        """The ids with masks, and the labels, both int64 `[tokens]`; a label is -100 where nothing is to be predicted.

        `ids` are int64 `[tokens]`, the sequences lie between `cu_seqlens`, and `special` says which are special tokens.
        """
        lengths = np.diff(cu_seqlens)
        wanted = np.rint(lengths * self.masked_lm_prob).astype(np.int64).clip(1, self.max_predictions_per_seq)
        candidates = np.flatnonzero(~special)
        sequence = np.repeat(np.arange(len(lengths)), lengths)[candidates]
        if self.continuing is None:
            chosen = _first(candidates, sequence, wanted, rng)
        else:
            starts = ~self.continuing[ids[candidates]]
            starts |= np.diff(candidates, prepend=-2) > 1
            starts |= np.diff(sequence, prepend=-1) > 0
            chosen = _first_words(candidates, sequence, np.flatnonzero(starts), wanted, rng)
        masked, labels = ids.copy(), np.full(len(ids), IGNORE_INDEX, np.int64)
        labels[chosen] = ids[chosen]
        draws, pieces = rng.random(len(chosen)), rng.integers(0, self.vocab_size, len(chosen))
        masked[chosen[draws < _HIDDEN]] = self.mask_id
        other = (draws >= _HIDDEN) & (draws < _HIDDEN + _RANDOM)
        masked[chosen[other]] = pieces[other]
        return masked, labels


def _first(candidates: IntArray, sequence: IntArray, wanted: IntArray, rng: np.random.Generator) -> IntArray:
    """As many candidates of each sequence as it wants, sorted: the first ones of a random order."""
    counts = np.bincount(sequence, minlength=len(wanted))
    keys = np.full((len(counts), counts.max(initial=0)), np.inf)
    keys[np.arange(keys.shape[1]) < counts[:, None]] = rng.random(len(candidates))
    wanted = np.minimum(wanted, counts)
    most = int(wanted.max(initial=0))
    if not most:
        return candidates[:0]
    columns = np.argpartition(keys, most - 1, axis=1)[:, :most]
    order = np.argsort(np.take_along_axis(keys, columns, axis=1), axis=1)
    found = np.take_along_axis(columns, order, axis=1) + (np.cumsum(counts) - counts)[:, None]
    chosen: IntArray = candidates[np.sort(found[np.arange(most) < wanted[:, None]])]
    return chosen


def _first_words(
    candidates: IntArray, sequence: IntArray, starts: IntArray, wanted: IntArray, rng: np.random.Generator
) -> IntArray:
    """The same for words, which begin at `starts`. A word with more pieces than are still wanted is passed over."""
    sizes = np.diff(starts, append=len(candidates))
    order = np.argsort(sequence[starts] + rng.random(len(starts)))
    left, taken = wanted.tolist(), []
    for word, size, owner in zip(order.tolist(), sizes[order].tolist(), sequence[starts[order]].tolist(), strict=True):
        if size <= left[owner]:
            left[owner] -= size
            taken.append(word)
    words = np.sort(np.array(taken, np.int64))
    return candidates[ragged.ranges(starts[words], sizes[words])]
