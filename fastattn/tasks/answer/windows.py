"""Windows of a text: where an answer stands in each, and the best answers by the scores of its tokens.

Source: Devlin et al. 2019, sections 4.2 and 4.3; google-research/bert's run_squad.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastattn import kernels
from fastattn._types import IntArray
from fastattn.tasks.answer.recipe import AnswerOptions
from fastattn.text import TokenizedTexts, Tokenizer


def encode_windows(
    tokenizer: Tokenizer,
    questions: list[str],
    contexts: list[str],
    options: AnswerOptions,
    max_length: int,
    rows: int,
) -> TokenizedTexts:
    """Questions, each with a window of its context, and the places of tokens. The model has `rows` embeddings."""
    names = "question", "context"
    special = tokenizer.special_tokens
    room = min(options.max_question_length, max((max_length - special) // 2 - 1, 1))
    alone = tokenizer.encode(questions, room + special, return_offsets_mapping=True, name=names[0])
    cut = list(questions)
    for i in np.flatnonzero(alone.truncated):
        rows_of = slice(*alone.cu_seqlens[i : i + 2])
        kept = alone.offset_mapping[rows_of][alone.sequence_ids[rows_of] == 0]
        cut[i] = questions[i][int(kept.min()) : int(kept.max())]
    return tokenizer.encode(
        cut,
        max_length,
        text_pairs=contexts,
        truncation="only_second",
        step=options.doc_stride,
        return_offsets_mapping=True,
        name=names[0],
        pairs_name=names[1],
        rows=rows,
    )


def answer_tokens(windows: TokenizedTexts, starts: IntArray, ends: IntArray) -> tuple[IntArray, IntArray]:
    """The first and the last token of an answer in each window, counted from its start, int64 `[windows]`.

    They are 0, the first token, in a window that does not have the whole answer.

    Args:
        windows: what `encode_windows` returns.
        starts: the first character of each text's answer, int64 `[texts]`; -1 for none.
        ends: the character behind it.
    """
    count, owners = len(windows), windows.overflow_to_sample_mapping
    owner = np.repeat(owners, windows.lengths)
    offsets = windows.offset_mapping
    touched = (windows.sequence_ids == 1) & (offsets[:, 1] > starts[owner]) & (offsets[:, 0] < ends[owner])
    places = np.flatnonzero(touched)
    window = np.repeat(np.arange(count), windows.lengths)[places]
    first, last = (np.zeros(count, np.int64) for _ in range(2))
    last[window] = places  # of equal indices, the last one stays
    first[window[::-1]] = places[::-1]
    found = np.unique(window)
    # A window has the answer if it has its first and its last token.
    begins, finishes = np.full(len(starts), np.iinfo(np.int64).max), np.full(len(starts), -1)
    np.minimum.at(begins, owner[places], offsets[places, 0])
    np.maximum.at(finishes, owner[places], offsets[places, 1])
    whole = offsets[first[found], 0] == begins[owners[found]]
    whole &= offsets[last[found], 1] == finishes[owners[found]]
    found = found[whole]
    result = np.zeros((2, count), np.int64)
    result[:, found] = np.stack([first, last])[:, found] - windows.cu_seqlens[found]
    return result[0], result[1]


class Span(NamedTuple):
    """A part of a text that may be the answer.

    Attributes:
        score: the probability of its first token times that of its last one, in its window.
        start: its first character.
        end: the character behind it.
        logits: the sum of its two scores.
    """

    score: float
    start: int
    end: int
    logits: float


class Found(NamedTuple):
    """The best answers of a text, the best one first.

    `none` says how probable it is that there is none, and `none_logits` has the sum of the scores, both from the window
    where they are lowest. `best_logits` is the highest sum of the scores of a span in any window.
    """

    spans: list[Span]
    none: float
    none_logits: float
    best_logits: float


def best_answers(
    windows: TokenizedTexts,
    start_logits: NDArray[np.float32],
    end_logits: NDArray[np.float32],
    max_answer_length: int,
    count: int,
) -> Iterator[Found]:
    """The best answers of each text, by the scores `[tokens]` of its windows.

    A probability is a softmax over the tokens of the context in a window and its first token, which says that the
    answer is not there.
    """
    inside, logits = windows.sequence_ids == 1, np.stack([start_logits, end_logits])
    offsets, bounds = windows.offset_mapping, windows.cu_seqlens.tolist()
    owners = windows.overflow_to_sample_mapping
    texts = np.flatnonzero(np.diff(owners, prepend=-1)).tolist()
    for begin, stop in zip(texts, [*texts[1:], len(owners)], strict=True):
        spans: dict[tuple[int, int], Span] = {}
        none = none_logits = np.inf
        best_logits = -np.inf
        for window in range(begin, stop):
            first, last = bounds[window], bounds[window + 1]
            tokens = first + np.flatnonzero(inside[first:last])
            own = logits.take(np.append(first, tokens), axis=1)
            starts, ends = own.astype(np.float64)
            none_logits = min(none_logits, float(starts[0] + ends[0]))
            first_shares, last_shares = kernels.softmax(own).astype(np.float64)
            none = min(none, float(first_shares[0] * last_shares[0]))
            for i, j, total in _best(starts[1:], ends[1:], max_answer_length, count):
                best_logits = max(best_logits, float(total))
                place = int(offsets[tokens[i], 0]), int(offsets[tokens[j], 1])
                span = Span(float(first_shares[i + 1] * last_shares[j + 1]), *place, float(total))
                if place not in spans or spans[place].score < span.score:
                    spans[place] = span
        best = sorted(spans.values(), key=lambda span: (-span.score, -span.logits, span.start, span.end))
        yield Found(best[:count], none, none_logits, best_logits)


def _best(
    first: NDArray[np.float64], last: NDArray[np.float64], longest: int, count: int
) -> Iterable[tuple[int, int, float]]:
    """The `count` best pairs of a first and a last token, at most `longest` tokens in all, and their sums."""
    if not len(first):
        return []
    longest = min(longest, len(first))
    padded = np.append(last, np.full(longest - 1, -np.inf))
    sums: Any = first[:, None] + np.lib.stride_tricks.sliding_window_view(padded, longest)
    flat = sums.reshape(-1)
    if count == 1:
        chosen = np.array([flat.argmax()])
    else:
        chosen = np.argpartition(-flat, count - 1)[:count] if count < len(flat) else np.arange(len(flat))
    rows, lengths = np.divmod(chosen, longest)
    return [(i, i + k, x) for i, k, x in zip(rows.tolist(), lengths.tolist(), flat[chosen], strict=True) if x > -np.inf]
