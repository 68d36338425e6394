"""What a search finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastattn.generation.decoder import Ids


class Hypothesis(NamedTuple):
    """A sequence with its start and, as a rule, its end, and the log-probability of each token: 0 for the start and
    for tokens that were given."""

    ids: Ids
    log_probs: NDArray[np.float32]
    score: float


@dataclass(frozen=True)
class GenerateOutput:
    """The result of `generate` with `output_scores`.

    - `sequences` int64 `[batch * num_return_sequences, longest]`
    - `sequences_scores` float32 `[batch * num_return_sequences]`: the sum of a sequence's log-probabilities, divided by
      the `length_penalty`-th power of the number of its tokens after the start and the prefix
    - `token_log_probs` float32 `[batch * num_return_sequences, longest]`: the log-probability of each token, after the
      penalty for repetition in a search with beams; 0 for the start, for the padding and for tokens that were given
    """

    sequences: Ids
    sequences_scores: NDArray[np.float32]
    token_log_probs: NDArray[np.float32]


def score(total: Any, tokens: Any, length_penalty: float) -> Any:
    """The score of hypotheses from the sums of their log-probabilities and the numbers of their tokens."""
    return np.float32(total) / np.float32(np.float64(tokens) ** length_penalty)


def padded(hypotheses: Sequence[Hypothesis], pad: int) -> GenerateOutput:
    """Hypotheses as arrays."""
    longest = max((len(each.ids) for each in hypotheses), default=1)
    ids: Ids = np.full((len(hypotheses), longest), pad)
    log_probs = np.zeros(ids.shape, np.float32)
    for row, own, each in zip(ids, log_probs, hypotheses, strict=True):
        row[: len(each.ids)], own[: len(each.ids)] = each.ids, each.log_probs
    return GenerateOutput(ids, np.array([each.score for each in hypotheses], np.float32), log_probs)
