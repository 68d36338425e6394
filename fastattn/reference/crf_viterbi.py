"""Reference of `crf_viterbi`: the best tags under a linear-chain conditional random field."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from fastattn._types import CuSeqlens, Floats, IntArray

from ._seqlens import bounds


def crf_viterbi(
    emissions: Floats,
    cu_seqlens: CuSeqlens,
    transitions: Floats,
    start_transitions: Floats,
    end_transitions: Floats,
    n: int = 1,
) -> tuple[IntArray, Floats]:
    """The n tag sequences of the highest scores. See `fastattn.kernels.crf_viterbi`.

    >>> transitions = np.array([[0, 0], [0, -np.inf]])
    >>> tags, scores = crf_viterbi(
    ...     np.array([[0.0, 3.0], [0.0, 1.0]]), np.array([0, 2]), transitions, np.zeros(2), np.zeros(2), n=2
    ... )
    >>> tags.tolist(), scores.tolist()
    ([[1, 0], [0, 1]], [[3.0, 1.0]])
    """
    tokens, num_tags = emissions.shape
    most = 2**24 // num_tags
    if not 1 <= n <= most:
        raise ValueError(f"crf_viterbi: n must be from 1 to {most}, 2^24 divided by the number of tags, got {n}")
    ends = bounds("crf_viterbi", "cu_seqlens", cu_seqlens, tokens)
    tags = np.full((n, tokens), -1, np.int64)
    scores = np.full((len(ends) - 1, n), -np.inf, emissions.dtype)
    steps = np.repeat(transitions, n, axis=0)  # from a way: a tag and its rank
    for b, (begin, end) in enumerate(pairwise(ends)):
        if begin == end:
            scores[b, 0] = 0
            continue
        read = [emissions[begin:end], start_transitions, end_transitions, *([transitions] if end - begin > 1 else [])]
        if not all((a < np.inf).all() for a in read):
            scores[b] = np.nan
            continue
        best = np.full((num_tags, n), -np.inf, emissions.dtype)
        best[:, 0] = start_transitions + emissions[begin]
        ways = np.full((end - begin, num_tags, n), -1)
        for t in range(begin + 1, end):
            into = best.reshape(-1, 1) + steps
            order = np.argsort(-into, axis=0, kind="stable")[:n]
            best = np.take_along_axis(into, order, axis=0).T
            ways[t - begin] = order.T
            best = best + emissions[t][:, None]
        last = (best + end_transitions[:, None]).reshape(-1)
        for rank, way in enumerate(np.argsort(-last, kind="stable")[:n].tolist()):
            if last[way] == -np.inf:
                break
            scores[b, rank] = last[way]
            for t in range(end - 1, begin - 1, -1):
                tags[rank, t] = way // n
                way = ways[t - begin, way // n, way % n]
    return tags, scores
