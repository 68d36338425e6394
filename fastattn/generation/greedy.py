"""Greedy decoding: always the most probable token. Sampling differs by how it chooses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastattn.autograd import mode
from fastattn.generation.decoder import Decoder, Ids
from fastattn.generation.hypotheses import Hypothesis, score
from fastattn.generation.rules import Rules
from fastattn.nn.parameter import Array

Choose = Callable[[Array, Ids], Ids]
"""From scores `[rows, vocabulary]`, which may be overwritten, and the numbers of the rows to a token for each."""


def most_probable(scores: Array, rows: Ids) -> Ids:
    """The words with the highest scores."""
    best: Ids = scores.argmax(1)
    return best


def greedy(decoder: Decoder, rules: Rules, choose: Choose = most_probable) -> list[Hypothesis]:
    """The sequences that `decoder` generates, one for each of its rows."""
    options, of_row = rules.options, decoder.sources
    rows = np.arange(len(of_row))  # those that have not ended
    ids: Ids = np.full((len(rows), 1), options.start)
    log_probs = np.zeros(ids.shape, np.float32)
    lengths = np.ones(len(rows), np.int64)
    while len(rows):
        length, own = ids.shape[1], np.zeros(len(rows), np.float32)
        tokens = rules.given(of_row[rows], length)
        free = np.flatnonzero(tokens < 0)
        if rules.needs_step(tokens, of_row[rows], length):
            scores = decoder.step(ids[rows, -1])
            if len(free) < len(rows):
                scores = scores[free]
            raw = mode.ops.log_softmax(scores) if options.output_scores and len(free) else None
            rules.limit(scores, ids[rows[free]])
            tokens[free] = chosen = choose(scores, rows[free])
            if raw is not None:
                own[free] = raw[np.arange(len(free)), chosen]
        ids = np.concatenate([ids, np.full((len(ids), 1), options.pad)], axis=1)
        log_probs = np.concatenate([log_probs, np.zeros((len(ids), 1), np.float32)], axis=1)
        ids[rows, -1], log_probs[rows, -1], lengths[rows] = tokens, own, length + 1
        left = np.flatnonzero(~rules.is_end(tokens, of_row[rows], length + 1))
        if len(left) < len(rows):
            rows = rows[left]
            decoder.keep(left)
    prompts = 1 + rules.prefix_lengths[of_row]
    return [
        Hypothesis(row[:n], own[:n], score(own[:n].sum(), n - prompt, options.length_penalty))
        for row, own, n, prompt in zip(ids, log_probs, lengths.tolist(), prompts.tolist(), strict=True)
    ]
