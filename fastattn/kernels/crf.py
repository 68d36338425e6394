"""The log-likelihood of tags under a linear-chain conditional random field."""

from __future__ import annotations

from fastattn import _core
from fastattn._types import CuSeqlens, FloatArray, IntArray


def crf(
    emissions: FloatArray,
    tags: IntArray,
    cu_seqlens: CuSeqlens,
    transitions: FloatArray,
    start_transitions: FloatArray,
    end_transitions: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """log p(tags) of every sequence: the score of its tags less the log of the sum of e^score over all tag sequences.

    The score is start_transitions[first tag], the emission of each tag, transitions[tag, next tag] for each pair of
    neighbours, and end_transitions[last tag].

    emissions `[tokens, num_tags]`, float32, with evenly spaced rows; tags int64 `[tokens]`; cu_seqlens int32 `[batch +
    1]`. transitions `[num_tags, num_tags]`: from the tag of the row to the tag of the column. start_transitions and
    end_transitions `[num_tags]`. A score of -inf forbids: what needs it has the probability 0.

    Returns `(log_likelihood, alpha)`. log_likelihood `[batch]` is 0 for an empty sequence and -inf for forbidden tags.
    A sequence that a NaN or +inf takes part in is NaN, the others are not. alpha `[tokens, num_tags]`, for
    `crf_backward`, are the logarithms of the forward sums, less the largest of each token.

    Raises TypeError for another dtype, ValueError for a tag outside [0, num_tags), bad cu_seqlens, shapes that do not
    match, no tags at all, or a strided last axis.

    Source: Lafferty, McCallum and Pereira 2001 (ICML), section 3; tags of sentences: Lample et al. 2016
    (arXiv 1603.01360), section 2.2.

    >>> import numpy as np
    >>> emissions, zeros = np.log(np.array([[1, 3], [1, 1]], np.float32)), np.zeros(2, np.float32)
    >>> transitions = np.array([[0, -np.inf], [0, 0]], np.float32)  # 1 must not follow 0
    >>> log_likelihood, _ = crf(emissions, np.array([1, 1]), np.array([0, 2], np.int32), transitions, zeros, zeros)
    >>> round(float(np.exp(log_likelihood[0])), 4)  # 3 of 1 + 3 + 3
    0.4286
    """
    return _core.crf(emissions, tags, cu_seqlens, transitions, start_transitions, end_transitions)


def crf_backward(
    dlog_likelihood: FloatArray,
    emissions: FloatArray,
    tags: IntArray,
    cu_seqlens: CuSeqlens,
    transitions: FloatArray,
    start_transitions: FloatArray,
    end_transitions: FloatArray,
    log_likelihood: FloatArray,
    alpha: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """The gradients of `crf`: dlog_likelihood times (1 for what tags have, less its probability).

    dlog_likelihood `[batch]`, float32, is the gradient of the log-likelihood. emissions, tags, cu_seqlens, transitions,
    start_transitions and end_transitions are as in the forward call, which returned log_likelihood and alpha.

    Returns `(demissions, dtransitions, dstart_transitions, dend_transitions)`, of the shapes of the arguments. What is
    forbidden gets 0. A sequence whose log-likelihood is -inf adds nothing; one where it is NaN adds NaN. Gradients of
    transitions are summed in an order that depends on the shapes alone.

    Raises TypeError for another dtype, ValueError for a tag outside [0, num_tags), bad cu_seqlens, shapes that do not
    match, no tags at all, or a strided last axis.

    Source: Sutton and McCallum 2012 (arXiv 1011.4088), sections 4.1 and 5.1.

    >>> import numpy as np
    >>> emissions, zeros = np.log(np.array([[1, 3]], np.float32)), np.zeros(2, np.float32)
    >>> given = (emissions, np.array([1]), np.array([0, 1], np.int32), np.zeros((2, 2), np.float32), zeros, zeros)
    >>> crf_backward(np.ones(1, np.float32), *given, *crf(*given))[0].round(4).tolist()
    [[-0.25, 0.25]]
    """
    return _core.crf_backward(
        dlog_likelihood,
        emissions,
        tags,
        cu_seqlens,
        transitions,
        start_transitions,
        end_transitions,
        log_likelihood,
        alpha,
    )
