"""Entities in raw text: windows over long texts, and labels of wordpieces as spans of characters.

Spans are those of transformers' token-classification pipeline, except that the words are the tokenizer's own, and that
the labels of a long text are put together before they are grouped.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastattn import ragged
from fastattn._types import IntArray
from fastattn.text import TokenizedTexts, tags_to_entities
from fastattn.text.entities import OUTSIDE

STRATEGIES = ("none", "simple", "first", "average", "max")


class Windows(NamedTuple):
    """Sequences for a model, ragged, and whose results count.

    Attributes:
        ids: int64 `[rows]`.
        cu_seqlens: int32 `[windows + 1]`.
        rows: the rows that count, int64 `[labelled]`.
        tokens: which tokens of the texts these are, int64 `[labelled]`.
    """

    ids: IntArray
    cu_seqlens: NDArray[np.int32]
    rows: IntArray
    tokens: IntArray


class Text(NamedTuple):
    """A text's tokens without the special ones: ids `[n]`, characters `[n, 2]`, the first token of each word `[words]`.

    `begin` is the place of its first token among those of all texts.
    """

    begin: int
    ids: IntArray
    offsets: IntArray
    words: IntArray


def texts_of(tokens: TokenizedTexts) -> Iterator[Text]:
    """The texts of tokens that were encoded whole."""
    inner = ~tokens.special_tokens_mask
    ids, offsets, words = tokens.ids, tokens.offset_mapping, tokens.word_ids
    for start, end in itertools.pairwise(tokens.cu_seqlens.tolist()):
        places = np.flatnonzero(inner[start:end])
        begin = start + int(places[0]) if len(places) else start
        own = slice(begin, begin + len(places))
        yield Text(begin, ids[own], offsets[own], np.flatnonzero(np.diff(words[own], prepend=-1)))


def windows_of(texts: Sequence[Text], around: tuple[list[int], list[int]], room: int, stride: int) -> Windows:
    """Windows of whole words, of at most `room` tokens, of which neighbours share at most `stride`.

    A word counts in the window where it has the most tokens on its shorter side. One that is longer than a window
    loses its end.
    """
    before, after = (np.array(ids, np.int64) for ids in around)
    ids: list[IntArray] = []
    lengths: list[int] = []
    rows: list[IntArray] = []
    tokens: list[IntArray] = []
    at = 0
    for text in texts:
        for start, end, counted in _spans(text, room, stride):
            ids += [before, text.ids[start:end], after]
            lengths.append(len(before) + end - start + len(after))
            rows.append(at + len(before) + counted - start)
            tokens.append(text.begin + counted)
            at += lengths[-1]
    whole = [np.concatenate(parts) if parts else np.empty(0, np.int64) for parts in (ids, rows, tokens)]
    return Windows(whole[0], ragged.cu_seqlens(lengths), whole[1], whole[2])


def _spans(text: Text, room: int, stride: int) -> Iterator[tuple[int, int, IntArray]]:
    """Each window's first token and its end, and the tokens that count in it."""
    size = len(text.ids)
    if size <= room:
        if size:
            yield 0, size, np.arange(size)
        return
    ends = np.append(text.words[1:], size)
    found: list[tuple[int, int, int, int]] = []
    best, owner = np.full(len(ends), -1), np.zeros(len(ends), np.int64)
    first = 0
    while True:
        start = int(text.words[first])
        last = max(int(np.searchsorted(ends, start + room, side="right")), first + 1)  # the word behind the window
        end = min(int(ends[last - 1]), start + room)
        own = slice(first, last)
        sides = np.minimum(text.words[own] - start, end - np.minimum(ends[own], end))
        better = sides > best[own]
        best[own][better] = sides[better]
        owner[own][better] = len(found)
        found.append((start, end, first, last))
        if last == len(ends):
            break
        begin = max(ends[last - 1] - stride, ends[last] - room)  # the next word fits in
        first = min(int(np.searchsorted(text.words, begin)), last)
    for number, (start, end, first, last) in enumerate(found):
        mine = np.repeat(owner[first:last] == number, np.diff(np.append(text.words[first:last], ends[last - 1])))
        yield start, end, start + np.flatnonzero(mine[: end - start])


class Unit(NamedTuple):
    """A wordpiece, or a word: label, score, how it is written, and its characters."""

    label: str
    score: np.float32
    word: str
    start: int
    end: int
    place: int


class Grouping(NamedTuple):
    """How labels of wordpieces become spans of a text.

    Attributes:
        labels: the model's labels.
        scheme: their scheme, if they are tags of entities.
        strategy: one of `STRATEGIES`.
        joined: makes one text of tokens.
        leading: the place of a text's first token in its sequence.
    """

    labels: Sequence[str]
    scheme: str | None
    strategy: str
    joined: Callable[[list[str]], str]
    leading: int

    def spans(self, text: Text, written: Sequence[str], scores: NDArray[np.float32]) -> list[dict[str, Any]]:
        """The spans of a text, from its tokens and the scores `[tokens, labels]`. Rows of NaN have no scores."""
        starts, ends = text.offsets[:, 0].tolist(), text.offsets[:, 1].tolist()
        counted = ~np.isnan(scores[:, 0])
        units = []
        each = self.strategy in ("none", "simple")
        first = [*(range(len(text.ids)) if each else text.words.tolist()), len(text.ids)]
        for a, b in itertools.pairwise(first):
            if not counted[a]:
                continue
            row = self._row(scores[a:b][counted[a:b]])
            label = int(row.argmax())
            word = written[a] if each else self.joined([*written[a:b]])
            units.append(Unit(self.labels[label], row[label], word, starts[a], ends[b - 1], a + self.leading))
        return self.joined_units(units)

    def joined_units(self, units: list[Unit]) -> list[dict[str, Any]]:
        """The spans of a text, from its wordpieces or words."""
        if self.strategy == "none":
            return [
                {"entity": unit.label, "score": _number(unit.score), "index": unit.place, "word": unit.word,
                 "start": unit.start, "end": unit.end}
                for unit in units if unit.label != OUTSIDE
            ]  # fmt: skip
        return [self._group(name, units[a:b]) for name, a, b in self._groups([unit.label for unit in units])]

    def _row(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """The scores of a word, from those of its wordpieces."""
        if self.strategy == "average":
            mean: NDArray[np.float32] = scores.mean(axis=0)
            return mean
        chosen: NDArray[np.float32] = scores[scores.max(axis=1).argmax() if self.strategy == "max" else 0]
        return chosen

    def _groups(self, labels: list[str]) -> Iterator[tuple[str, int, int]]:
        """Neighbours that belong together, and their name."""
        if self.scheme is not None:
            yield from tags_to_entities(labels)
            return
        start = 0
        for i in range(1, len(labels) + 1):
            name = _type(labels[start])
            if i == len(labels) or labels[i].startswith("B-") or _type(labels[i]) != name:
                if name != OUTSIDE:
                    yield name, start, i
                start = i

    def _group(self, name: str, units: list[Unit]) -> dict[str, Any]:
        return {
            "entity_group": name,
            "score": _number(np.mean(np.array([unit.score for unit in units], np.float32))),
            "word": self.joined([unit.word for unit in units]),
            "start": units[0].start,
            "end": units[-1].end,
        }


def _number(score: np.float32) -> float:
    """A float32 as the number with the fewest digits that means it."""
    return float(str(score))


def _type(label: str) -> str:
    return label[2:] if label.startswith(("B-", "I-")) else label
