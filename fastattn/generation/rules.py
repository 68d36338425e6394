"""The tokens that may follow, as transformers' logits processors have it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import ragged
from fastattn.generation.decoder import Ids
from fastattn.generation.options import Options
from fastattn.nn.parameter import Array


class Rules:
    """What the options say of the next token of each sequence.

    Of each source, `prefix_lengths` has the length of the prefix, and `max_lengths` the maximum length of a result.
    """

    def __init__(self, options: Options, sources: int, prefix_ids: Any = None) -> None:
        self.options, self.max_lengths = options, options.limits(sources)
        self._prefix = options.prefixes(prefix_ids, self.max_lengths)
        self.prefix_lengths = (self._prefix >= 0).sum(1)

    def given(self, sources: Ids, length: int) -> Ids:
        """The token that must be next in sequences of `length` tokens, -1 where it is free: `[sources]`."""
        options = self.options
        tokens: Ids = np.full(len(sources), -1)
        if length == 1 and options.first is not None:
            tokens[:] = options.first
        if options.last is not None:
            tokens[self.max_lengths[sources] == length + 1] = options.last
        if length <= self._prefix.shape[1]:
            prefix = self._prefix[sources, length - 1]
            tokens = np.where(prefix >= 0, prefix, tokens)
        return tokens

    def needs_step(self, given: Ids, sources: Ids, length: int) -> bool:
        """Whether the decoder has to read the last of `length` tokens: a token is free, or another one follows."""
        return bool((given < 0).any() or (self.max_lengths[sources] > length + 1).any())

    def is_end(self, tokens: Ids, sources: Ids, length: int) -> NDArray[np.bool_]:
        """Whether tokens, the last of sequences that are `length` long now, end them. No token of a prefix does."""
        ends: NDArray[np.bool_] = tokens == self.options.ends[0]
        for end in self.options.ends[1:]:
            ends |= tokens == end
        ends &= length > 1 + self.prefix_lengths[sources]
        return ends | (length >= self.max_lengths[sources])

    def limit(self, scores: Array, before: Ids) -> None:
        """Apply the rules to scores `[rows, vocabulary]`, in place. `before` `[rows, length]` is what the rows have."""
        penalty = self.options.repetition_penalty
        if penalty != 1.0:
            found = np.take_along_axis(scores, before, 1)
            changed = np.where(found < 0, found * np.float32(penalty), found / np.float32(penalty))
            np.put_along_axis(scores, before, changed, 1)
        rows, words = self._forbidden(before)
        scores[rows, words] = -np.inf

    def factors(self, before: Ids) -> dict[str, Any]:
        """The rules for log-probabilities, as arguments of `log_softmax_topk`."""
        options, size = self.options, self.options.vocab_size
        rows, words = self._forbidden(before)
        keys = rows * size + words
        repeated = np.empty(0, np.int64)
        if options.repetition_penalty != 1.0:
            repeated = (np.arange(len(before))[:, None] * size + before).reshape(-1)
        if not len(keys) + len(repeated):
            return {}
        unique, places = np.unique(np.concatenate([keys, repeated]), return_inverse=True)
        factors = np.full(len(unique), options.repetition_penalty, np.float32)
        factors[places[: len(keys)]] = np.inf
        counts = np.bincount(unique // size, minlength=len(before))
        return {"ids": unique % size, "cu_ids": ragged.cu_seqlens(counts), "factors": factors}

    def _forbidden(self, before: Ids) -> tuple[Ids, Ids]:
        """The rows and words of what must not be next."""
        options, (rows, length) = self.options, before.shape
        always = [options.bad]
        if length < options.min_length:
            always.append(options.ends)
        each = np.concatenate(always)
        found = [(np.repeat(np.arange(rows), len(each)), np.tile(each, rows))]
        for phrase in options.phrases:
            head = phrase[:-1]
            if len(head) <= length:
                ready = np.flatnonzero((before[:, length - len(head) :] == head).all(1))
                found.append((ready, np.full(len(ready), phrase[-1])))
        size = options.no_repeat_ngram_size
        if size and length >= size:
            ngrams = np.lib.stride_tricks.sliding_window_view(before, size, axis=1)
            again = (ngrams[:, :, :-1] == before[:, None, length - size + 1 :]).all(2)
            ready, places = np.nonzero(again)
            found.append((ready, ngrams[ready, places, -1]))
        return np.concatenate([pair[0] for pair in found]), np.concatenate([pair[1] for pair in found])
