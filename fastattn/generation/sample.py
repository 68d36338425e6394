"""Sampling: a token is drawn from the model's distribution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastattn.autograd import mode
from fastattn.generation.decoder import Decoder, Ids
from fastattn.generation.greedy import greedy
from fastattn.generation.hypotheses import Hypothesis
from fastattn.generation.rules import Rules
from fastattn.nn.parameter import Array


def sample(decoder: Decoder, rules: Rules, seed: int, sources: Sequence[Ids]) -> list[Hypothesis]:
    """`num_return_sequences` samples for each source, one after the other.

    A sample is seeded with `seed`, its number and the ids of its source, so it does not depend on the other sources.
    """
    options, count = rules.options, rules.options.num_return_sequences
    if count > 1:
        decoder.keep(np.repeat(np.arange(len(sources)), count))
    draws = [
        np.random.Generator(np.random.PCG64([seed, number, len(ids), *ids.tolist()]))
        for ids in sources
        for number in range(count)
    ]

    def choose(scores: Array, rows: Ids) -> Ids:
        if options.temperature != 1.0:
            scores /= np.float32(options.temperature)
        width = scores.shape[1]
        kept = min(options.top_k or width, width)
        if kept < width:
            scores, words = mode.ops.log_softmax_topk(scores, kept)
        elif options.top_p < 1.0:
            words = np.argsort(-scores, axis=1, kind="stable")
            scores = np.take_along_axis(scores, words, 1)
        else:
            words = np.broadcast_to(np.arange(width), scores.shape)
        sums = mode.ops.softmax(scores).cumsum(1, dtype=np.float64)
        if options.top_p < 1.0:  # words until the sum reaches top_p, the first in any case
            reached = (sums < options.top_p * sums[:, -1:]).sum(1)
            totals = np.take_along_axis(sums, np.minimum(reached, kept - 1)[:, None], 1)
        else:
            totals = sums[:, -1:]
        points = np.array([draws[row].random() for row in rows])[:, None] * totals
        places = np.minimum((sums <= points).sum(1), kept - 1)
        chosen: Ids = np.take_along_axis(words, places[:, None], 1)[:, 0]
        return chosen

    return greedy(decoder, rules, choose)
