"""The best tags under a linear-chain conditional random field."""

from __future__ import annotations

from fastattn import _core
from fastattn._types import CuSeqlens, FloatArray, IntArray


def crf_viterbi(
    emissions: FloatArray,
    cu_seqlens: CuSeqlens,
    transitions: FloatArray,
    start_transitions: FloatArray,
    end_transitions: FloatArray,
    n: int = 1,
) -> tuple[IntArray, FloatArray]:
    """The n tag sequences of the highest score of every sequence, the best first; for the score, see `crf`.

    emissions `[tokens, num_tags]`, float32, with evenly spaced rows; cu_seqlens int32 `[batch + 1]`; transitions
    `[num_tags, num_tags]`, from the tag of the row to the tag of the column; start_transitions and end_transitions
    `[num_tags]`. -inf forbids. 1 <= n <= 2^24 / num_tags.

    Returns `(tags, scores)`: int64 `[n, tokens]` and float32 `[batch, n]`. Of equal scores, the sequence whose last tag
    is lower is first, then that whose last but one is lower, and so on. If fewer than n sequences are allowed, the
    other tags are -1 and their scores -inf. An empty sequence has one, of the score 0. A sequence that a NaN or +inf
    takes part in has tags of -1 and scores of NaN.

    Raises TypeError for another dtype, ValueError for another n, bad cu_seqlens, shapes that do not match, no tags at
    all, or a strided last axis.

    Source: Viterbi 1967 (IEEE Transactions on Information Theory 13); the n best: Seshadri and Sundberg 1994 (IEEE
    Transactions on Communications 42), section III.

    >>> import numpy as np
    >>> emissions, zeros = np.array([[0, 3], [0, 1]], np.float32), np.zeros(2, np.float32)
    >>> transitions = np.array([[0, 0], [0, -np.inf]], np.float32)  # 1 must not follow 1
    >>> tags, scores = crf_viterbi(emissions, np.array([0, 2], np.int32), transitions, zeros, zeros, n=2)
    >>> tags.tolist(), scores.tolist()
    ([[1, 0], [0, 1]], [[3.0, 1.0]])
    """
    return _core.crf_viterbi(emissions, cu_seqlens, transitions, start_transitions, end_transitions, n)
