"""Tokenised texts, and the special tokens around them.

A tokenizer's post-processor says where its special tokens go: BERT's makes [CLS] A [SEP] B [SEP] of a pair, RoBERTa's
<s> A </s></s> B </s>, GPT's nothing. `Template` learns that by asking it, so no name of a token is written here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import ragged
from fastattn._types import IntArray

SPECIAL = -1  # the sequence of a special token, and its word


class Places(NamedTuple):
    """Where tokens are in their texts: characters, int64 `[tokens, 2]`, and words, int64 `[tokens]`."""

    offsets: IntArray
    words: IntArray


@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of many texts or pairs of texts, one sequence after the other. Iterating gives the ids of each.

    Attributes:
        ids: int64 `[tokens]`, special tokens included.
        cu_seqlens: int32 `[sequences + 1]`: sequence i is `ids[cu_seqlens[i]:cu_seqlens[i + 1]]`.
        full_lengths: int64 `[sequences]`, how many tokens each sequence had before it was truncated.
        overflow_to_sample_mapping: int64 `[sequences]`, the index of each sequence's text. It is 0, 1, 2, ... unless
            long texts were split into windows.
    """

    ids: NDArray[np.int64]
    cu_seqlens: NDArray[np.int32]
    full_lengths: NDArray[np.int64]
    overflow_to_sample_mapping: NDArray[np.int64]
    _layout: Layout | None = None
    _places: Places | None = None

    @classmethod
    def of(cls, ids: ArrayLike, lengths: ArrayLike, full_lengths: ArrayLike | None = None) -> TokenizedTexts:
        """Texts of `lengths` tokens each, which were not truncated unless `full_lengths` says so.

        Raises ValueError for 2^31 tokens and more.

        >>> tokens = TokenizedTexts.of([5, 1, 1], [2, 1])
        >>> tokens.cu_seqlens.tolist(), [ids.tolist() for ids in tokens]
        ([0, 2, 3], [[5, 1], [1]])
        """
        lengths = np.asarray(lengths, np.int64)
        full = lengths if full_lengths is None else np.asarray(full_lengths, np.int64)
        return cls(np.asarray(ids, np.int64), ragged.cu_seqlens(lengths), full, np.arange(len(lengths)))

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return (self.ids[start:end] for start, end in zip(self.cu_seqlens, self.cu_seqlens[1:], strict=False))

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each sequence, int32 `[sequences]`."""
        return ragged.lengths(self.cu_seqlens)

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """Which sequences were cut, bool `[sequences]`."""
        return self.full_lengths > self.lengths

    @property
    def token_type_ids(self) -> NDArray[np.int64]:
        """The token type of each token, as the tokenizer's post-processor says, int64 `[tokens]`."""
        return np.zeros_like(self.ids) if self._layout is None else self._layout.kinds(self.cu_seqlens)[0]

    @property
    def sequence_ids(self) -> NDArray[np.int64]:
        """0 for a token of the text, 1 for one of its pair, -1 for a special token, int64 `[tokens]`."""
        return np.zeros_like(self.ids) if self._layout is None else self._layout.kinds(self.cu_seqlens)[1]

    @property
    def special_tokens_mask(self) -> NDArray[np.bool_]:
        """Which tokens the post-processor has added, bool `[tokens]`."""
        mask: NDArray[np.bool_] = self.sequence_ids == SPECIAL
        return mask

    @property
    def offset_mapping(self) -> NDArray[np.int64]:
        """The characters of each token in its text, or in its word, int64 `[tokens, 2]`; 0, 0 for a special token.

        Raises ValueError unless `encode` got `return_offsets_mapping=True`.
        """
        return self._kept.offsets

    @property
    def word_ids(self) -> NDArray[np.int64]:
        """The word of each token, counted from 0 in its text, int64 `[tokens]`; -1 for a special token.

        Raises ValueError unless `encode` got `return_offsets_mapping=True` or words.
        """
        return self._kept.words

    @property
    def _kept(self) -> Places:
        if self._places is None:
            raise ValueError("offset_mapping and word_ids need encode(..., return_offsets_mapping=True)")
        return self._places


class Flat(NamedTuple):
    """Texts one after the other: int64 `[tokens]` and `[texts]`.

    Each text has its special tokens if `whole`, but they count neither in `lengths` nor in `places`.
    """

    ids: IntArray
    lengths: IntArray
    places: Places | None
    whole: bool


class Spans(NamedTuple):
    """What is kept of texts, or of each side of pairs, all int64 `[sequences]`.

    `full` are the lengths before anything was cut, without special tokens.
    """

    samples: IntArray
    starts: list[IntArray]
    lengths: list[IntArray]
    full: IntArray


class Layout(NamedTuple):
    """What the tokens of sequences are: a template, and how many tokens each text in it has."""

    template: Template
    lengths: list[IntArray]

    def kinds(self, cu_seqlens: NDArray[np.int32]) -> tuple[IntArray, IntArray]:
        """The token types and the sequences, int64 `[tokens]`."""
        found = np.empty((2, int(cu_seqlens[-1])), np.int64)
        for run, rows in self.template.places(cu_seqlens, self.lengths):
            found[0, rows] = run.types if run.sequence == SPECIAL else run.types[0]
            found[1, rows] = run.sequence
        return found[0], found[1]


class Run(NamedTuple):
    """Neighbouring special tokens, or the place of a text, which has a number."""

    sequence: int
    ids: list[int]
    types: list[int]


class Template:
    """What a post-processor makes of a text, or of a pair.

    Attributes:
        special: how many special tokens it adds.
        leading: the ids of those before the text, or before the first one of a pair.
        trailing: the ids of those behind the last text.
    """

    def __init__(self, backend: Any, pair: bool, typed: bool = True) -> None:
        """Ask a tokenizer of the library. Raises its errors. All token types are 0 unless `typed`."""
        encoding = backend.encode("a", "a") if pair else backend.encode("a")
        self._runs: list[Run] = []
        fields = zip(encoding.sequence_ids, encoding.ids, encoding.type_ids, strict=True)
        for sequence, number, kind in fields:
            sequence = SPECIAL if sequence is None else sequence
            if not self._runs or self._runs[-1].sequence != sequence:
                self._runs.append(Run(sequence, [], []))
            self._runs[-1].ids.append(number)
            self._runs[-1].types.append(kind if typed else 0)
        for text in range(1 + pair):
            if all(run.sequence != text for run in self._runs):  # no token for an "a"
                self._runs.append(Run(text, [], [0]))
        self.special: int = sum(len(run.ids) for run in self._runs if run.sequence == SPECIAL)
        first, last = self._runs[0], self._runs[-1]
        self.leading: list[int] = first.ids if first.sequence == SPECIAL else []
        self.trailing: list[int] = last.ids if last.sequence == SPECIAL else []

    def places(self, cu_seqlens: NDArray[np.int32], lengths: Sequence[IntArray]) -> Iterator[tuple[Run, IntArray]]:
        """Where each run stands: `[sequences, tokens]` for special tokens, `[tokens]` for texts of `lengths` tokens."""
        starts = cu_seqlens[:-1].astype(np.int64)
        for run in self._runs:
            if run.sequence == SPECIAL:
                yield run, starts[:, None] + np.arange(len(run.ids))
                starts = starts + len(run.ids)
            else:
                yield run, ragged.ranges(starts, lengths[run.sequence])
                starts = starts + lengths[run.sequence]

    def apply(self, sides: Sequence[Flat], spans: Spans | None, first: int = 0) -> TokenizedTexts:
        """The sequences of `spans`, or of whole texts, with special tokens. The first text has the index `first`."""
        if spans is None:
            lengths = [side.lengths for side in sides]
            samples, full = np.arange(len(lengths[0])), lengths[0] if len(sides) == 1 else lengths[0] + lengths[1]
            if sides[0].whole:
                layout, full = Layout(self, lengths), full + self.special
                return TokenizedTexts(sides[0].ids, ragged.cu_seqlens(full), full, samples + first, layout)
            spans = Spans(samples, [np.zeros_like(samples)] * len(sides), lengths, full)
        cu_seqlens = ragged.cu_seqlens(np.sum(spans.lengths, axis=0) + self.special)
        ids, kept = np.empty(int(cu_seqlens[-1]), np.int64), None
        if sides[0].places is not None:
            kept = Places(np.zeros((len(ids), 2), np.int64), np.full(len(ids), SPECIAL, np.int64))
        for run, rows in self.places(cu_seqlens, spans.lengths):
            if run.sequence == SPECIAL:
                ids[rows] = run.ids
                continue
            side = sides[run.sequence]
            sizes = side.lengths + side.whole * self.special
            begins = np.cumsum(sizes) - sizes + side.whole * len(self.leading)
            source = ragged.ranges(begins[spans.samples] + spans.starts[run.sequence], spans.lengths[run.sequence])
            ids[rows] = side.ids[source]
            if kept is not None and side.places is not None:
                kept.offsets[rows], kept.words[rows] = side.places.offsets[source], side.places.words[source]
        layout = Layout(self, spans.lengths)
        return TokenizedTexts(ids, cu_seqlens, spans.full + self.special, spans.samples + first, layout, kept)

    def fill(
        self, ids: NDArray[Any], starts: IntArray, lengths: IntArray
    ) -> tuple[IntArray, NDArray[np.int32], IntArray, NDArray[np.bool_]]:
        """Sequences with texts from `ids`: `starts` and `lengths` are int64 `[sequences, texts]`.

        Returns their ids, cu_seqlens, token types, and which tokens are special.
        """
        sizes = np.empty((len(starts), len(self._runs)), np.int64)
        begins = np.zeros_like(sizes)
        for i, run in enumerate(self._runs):
            if run.sequence == SPECIAL:
                sizes[:, i] = len(run.ids)
            else:
                sizes[:, i], begins[:, i] = lengths[:, run.sequence], starts[:, run.sequence]
        flat, ends = sizes.ravel(), np.cumsum(sizes).reshape(sizes.shape)
        found = ids.take(ragged.ranges(begins.ravel(), flat), mode="clip").astype(np.int64)
        types = np.repeat(np.tile([run.types[0] for run in self._runs], len(sizes)), flat)
        special = np.repeat(np.tile([run.sequence == SPECIAL for run in self._runs], len(sizes)), flat)
        for i, run in enumerate(self._runs):
            if run.sequence == SPECIAL:
                rows = ends[:, i : i + 1] - len(run.ids) + np.arange(len(run.ids))
                found[rows], types[rows] = run.ids, run.types
        return found, ragged.cu_seqlens(sizes.sum(axis=1)), types, special


def joined(parts: Sequence[TokenizedTexts]) -> TokenizedTexts:
    """Several of them, of one tokenizer, as one. Raises ValueError for 2^31 tokens and more."""
    if len(parts) == 1:
        return parts[0]
    layouts = [part._layout for part in parts if part._layout is not None]
    places = [part._places for part in parts if part._places is not None]
    return TokenizedTexts(
        np.concatenate([part.ids for part in parts]),
        ragged.cu_seqlens(np.concatenate([part.lengths for part in parts])),
        np.concatenate([part.full_lengths for part in parts]),
        np.concatenate([part.overflow_to_sample_mapping for part in parts]),
        Layout(layouts[0].template, [*map(np.concatenate, zip(*(some.lengths for some in layouts), strict=True))]),
        Places(*map(np.concatenate, zip(*places, strict=True))) if places else None,
    )
