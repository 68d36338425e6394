"""Reference of `crf` and `crf_backward`: the log-likelihood of tags under a linear-chain conditional random field."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from fastattn._types import CuSeqlens, Floats, IntArray

from ._seqlens import bounds


def crf(
    emissions: Floats,
    tags: IntArray,
    cu_seqlens: CuSeqlens,
    transitions: Floats,
    start_transitions: Floats,
    end_transitions: Floats,
) -> tuple[Floats, Floats]:
    """The score of the tags less the log of the sum of e^score over all tags, and what the backward pass needs.

    See `fastattn.kernels.crf`.

    >>> emissions, zeros = np.log([[1.0, 3.0], [1.0, 1.0]]), np.zeros(2)
    >>> transitions = np.array([[0, -np.inf], [0, 0]])
    >>> np.exp(crf(emissions, np.array([1, 1]), np.array([0, 2]), transitions, zeros, zeros)[0]).round(4).tolist()
    [0.4286]
    """
    ends = _checked("crf", emissions, tags, cu_seqlens)
    alpha = np.empty(emissions.shape, emissions.dtype)
    log_likelihood = np.zeros(len(ends) - 1, emissions.dtype)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # log(0), inf - inf: a sequence without a sum
        for b, (begin, end) in enumerate(pairwise(ends)):
            if begin == end:
                continue
            own, path = emissions[begin:end], tags[begin:end]
            before, total = start_transitions, 0.0
            for t in range(begin, end):
                row = before + emissions[t]
                shift = _finite(np.fmax.reduce(row))
                alpha[t] = row - shift
                total += float(shift)
                before = _log_sum(alpha[t][:, None] + transitions)
            total += float(_log_sum(alpha[end - 1] + end_transitions))
            score = float(start_transitions[path[0]]) + float(end_transitions[path[-1]])
            score += own[np.arange(len(own)), path].sum(dtype=np.float64)
            score += transitions[path[:-1], path[1:]].sum(dtype=np.float64)
            none = total == -np.inf or (score == -np.inf and not np.isnan(total))
            log_likelihood[b] = -np.inf if none else score - total
    return log_likelihood, alpha


def crf_backward(
    dlog_likelihood: Floats,
    emissions: Floats,
    tags: IntArray,
    cu_seqlens: CuSeqlens,
    transitions: Floats,
    start_transitions: Floats,
    end_transitions: Floats,
    log_likelihood: Floats,
    alpha: Floats,
) -> tuple[Floats, Floats, Floats, Floats]:
    """What the tags have, less its probability, times dlog_likelihood. See `fastattn.kernels.crf_backward`.

    >>> given = (np.log([[1.0, 3.0]]), np.array([1]), np.array([0, 1]), np.zeros((2, 2)), np.zeros(2), np.zeros(2))
    >>> crf_backward(np.ones(1), *given, *crf(*given))[0].round(4).tolist()
    [[-0.25, 0.25]]
    """
    ends = _checked("crf_backward", emissions, tags, cu_seqlens)
    demissions = np.zeros(emissions.shape, emissions.dtype)
    steps, start, last = (np.zeros(a.shape, a.dtype) for a in (transitions, start_transitions, end_transitions))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for b, (begin, end) in enumerate(pairwise(ends)):
            if begin == end or log_likelihood[b] == -np.inf:
                continue
            if np.isnan(log_likelihood[b]):
                for spoilt in (demissions[begin:end], start, last, *([steps] if end - begin > 1 else [])):
                    spoilt[...] = np.nan
                continue
            g = dlog_likelihood[b]
            p = alpha[end - 1] + end_transitions
            p = np.exp(p - _log_sum(p))
            last -= g * p
            last[tags[end - 1]] += g
            for t in range(end - 1, begin - 1, -1):
                demissions[t] -= g * p
                demissions[t, tags[t]] += g
                if t > begin:
                    pairs = alpha[t - 1][:, None] + transitions
                    pairs = np.where(p > 0, np.exp(pairs - _finite(_log_sum(pairs))) * p, 0)
                    steps -= g * pairs
                    steps[tags[t - 1], tags[t]] += g
                    p = pairs.sum(axis=1)
            start -= g * p
            start[tags[begin]] += g
    return demissions, steps, start, last


def _log_sum(x: Any) -> Any:
    """log(sum(e^x)) over the first axis; -inf where all are."""
    shift = _finite(np.fmax.reduce(x, axis=0))
    return np.log(np.exp(x - shift).sum(axis=0)) + shift


def _finite(x: Any) -> Any:
    """x, but 0 for -inf."""
    return np.where(x > -np.inf, x, x.dtype.type(0))


def _checked(function: str, emissions: Floats, tags: IntArray, cu_seqlens: CuSeqlens) -> list[int]:
    """The offsets. Raises ValueError for the first tag out of range."""
    num_tags = emissions.shape[1]
    wrong = (tags < 0) | (tags >= num_tags)
    if wrong.any():
        i = int(wrong.argmax())
        message = f"tags must be in [0, {num_tags}), the columns of emissions, got {tags[i]} at index {i}"
        raise ValueError(f"{function}: {message}")
    return bounds(function, "cu_seqlens", cu_seqlens, len(emissions))
