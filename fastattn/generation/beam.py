"""Beam search: the most probable sequences among those that begin with one of the most probable beginnings.

A search with `num_beams` beams keeps as many unfinished hypotheses of each source, and as many finished ones.
`early_stopping` says when a source is done, as in transformers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastattn.autograd import mode
from fastattn.generation.decoder import Decoder, Ids
from fastattn.generation.hypotheses import Hypothesis, score
from fastattn.generation.rules import Rules

Scores = NDArray[np.float32]
NEVER = np.float32(-np.inf)


def beam_search(decoder: Decoder, rules: Rules) -> list[Hypothesis]:
    """The best `num_return_sequences` hypotheses of each source, the best first."""
    search = _Search(decoder, rules)
    while len(search.sources):
        search.step()
    return search.best()


class _Search:
    """Sources that are searched at the same time. No source depends on another.

    `sources` are those that go on. Row j of `ids` and `log_probs` `[sources, beams, length]` and of `scores` `[sources,
    beams]` has the unfinished hypotheses of `sources[j]`, in the order of the decoder's rows. At first a source has one
    beam. A beam without a hypothesis has a score of -inf.
    """

    def __init__(self, decoder: Decoder, rules: Rules) -> None:
        self.decoder, self.rules, self.options = decoder, rules, rules.options
        self.sources = decoder.sources
        self.length = 1
        shape = (len(self.sources), 1)
        self.ids: Ids = np.full((*shape, 1), self.options.start)
        self.log_probs = np.zeros((*shape, 1), np.float32)
        self.scores = np.zeros(shape, np.float32)
        self.finished: list[list[Hypothesis]] = [[] for _ in self.sources]
        self.prompts = 1 + rules.prefix_lengths
        # Of each source, so that as many go on if all beams end
        self.wanted = max(2, 1 + len(self.options.ends)) * self.options.num_beams

    def step(self) -> None:
        """Add a token to every beam. End what is done."""
        given = self.rules.given(self.sources, self.length)
        own, words = self._continuations(given)
        offered = own.shape[2]
        totals = (self.scores[:, :, None] + own).reshape(len(own), -1)
        order = np.argsort(-totals, axis=1, kind="stable")[:, : self.wanted]
        totals = np.take_along_axis(totals, order, 1)
        parents = order // offered
        tokens = np.take_along_axis(words.reshape(len(own), -1), order, 1)
        steps = np.take_along_axis(own.reshape(len(own), -1), order, 1)
        self.length += 1
        ends = self.rules.is_end(tokens, self.sources[:, None], self.length)
        self._finish(ends & (totals > NEVER), totals, parents, tokens, steps)
        beams = 1 if self.ids.shape[1] == 1 and (given >= 0).all() else self.options.num_beams
        self._go_on(beams, ~ends & (totals > NEVER), totals, parents, tokens, steps)

    def _continuations(self, given: Ids) -> tuple[Scores, Ids]:
        """The best words to continue each beam with, and their log-probabilities: both `[sources, beams, words]`."""
        free = given < 0
        sources, beams, length = self.ids.shape
        own = np.full((sources, beams, 1), NEVER)
        words = np.zeros((sources, beams, 1), np.int64)
        if self.rules.needs_step(given, self.sources, length):
            before = self.ids.reshape(-1, length)
            scores = self.decoder.step(before[:, -1])
            if free.any():
                wanted = min(self.wanted, scores.shape[1])
                found = mode.ops.log_softmax_topk(scores, wanted, **self.rules.factors(before))
                own, words = (each.reshape(sources, beams, wanted) for each in found)
        if not free.all():
            forced = np.flatnonzero(~free)
            own[forced], own[forced, :, 0], words[forced, :, 0] = NEVER, 0.0, given[forced, None]
        return own, words

    def _finish(self, which: NDArray[np.bool_], totals: Scores, parents: Ids, tokens: Ids, steps: Scores) -> None:
        """Keep the hypotheses that end here, if they are among the best of their source."""
        beams = self.options.num_beams
        which[:, beams:] = False  # the others are there to go on
        rows, places = np.nonzero(which)
        if not len(rows):
            return
        sources, parents = self.sources[rows], parents[rows, places]
        ids = np.concatenate([self.ids[rows, parents], tokens[rows, places, None]], 1)
        log_probs = np.concatenate([self.log_probs[rows, parents], steps[rows, places, None]], 1)
        scores = score(totals[rows, places], self.length - self.prompts[sources], self.options.length_penalty)
        for source, *hypothesis in zip(sources.tolist(), ids, log_probs, scores.tolist(), strict=True):
            found = self.finished[source]
            if len(found) < beams or hypothesis[-1] > found[-1].score:
                found.append(Hypothesis(*hypothesis))
                found.sort(key=lambda each: -each.score)
                del found[beams:]

    def _go_on(
        self, beams: int, runs: NDArray[np.bool_], totals: Scores, parents: Ids, tokens: Ids, steps: Scores
    ) -> None:
        """Continue with the best of these hypotheses that run, `beams` for each source that is not done."""
        first = np.argsort(~runs, axis=1, kind="stable")[:, :beams]
        scores = np.where(np.take_along_axis(runs, first, 1), np.take_along_axis(totals, first, 1), NEVER)
        if (missing := beams - first.shape[1]) > 0:  # fewer words than beams
            first = np.pad(first, ((0, 0), (0, missing)), "edge")
            scores = np.pad(scores, ((0, 0), (0, missing)), constant_values=NEVER)
        left = np.flatnonzero(~self._done(scores))
        old, rows = self.ids.shape[1], np.arange(len(left))[:, None]
        if len(left) < len(self.sources):
            self.decoder.keep((left[:, None] * old + np.arange(old)).reshape(-1))
        first, self.sources = first[left], self.sources[left]
        order = np.argsort(_places(np.take_along_axis(parents[left], first, 1)), axis=1)  # the hypothesis of each row
        first = np.take_along_axis(first, order, 1)
        self.scores = np.take_along_axis(scores[left], order, 1)
        parents, tokens = (np.take_along_axis(each[left], first, 1) for each in (parents, tokens))
        steps = np.take_along_axis(steps[left], first, 1)
        kept = (rows * old + parents).reshape(-1)
        if old != beams or (kept != np.arange(len(kept))).any():
            self.decoder.keep(kept)
        self.ids = np.concatenate([self.ids[left][rows, parents], tokens[:, :, None]], 2)
        self.log_probs = np.concatenate([self.log_probs[left][rows, parents], steps[:, :, None]], 2)

    def _done(self, scores: Scores) -> NDArray[np.bool_]:
        """The sources for which no better hypothesis is expected, from the scores of those that would go on."""
        options, found = self.options, [self.finished[source] for source in self.sources]
        worst = np.array([each[-1].score if len(each) == options.num_beams else NEVER for each in found], np.float32)
        longest = options.early_stopping == "never" and options.length_penalty > 0
        lengths = self.rules.max_lengths[self.sources] if longest else self.length
        tokens = np.maximum(lengths - self.prompts[self.sources], 1)
        done: NDArray[np.bool_] = score(scores.max(1), tokens, options.length_penalty) <= worst
        return done | (worst > NEVER) if options.early_stopping is True else done

    def best(self) -> list[Hypothesis]:
        """The finished hypotheses, `num_return_sequences` for each source."""
        nothing = np.array([self.options.start]), np.zeros(1, np.float32)
        result: list[Hypothesis] = []
        for found in self.finished:
            found += [Hypothesis(*nothing, float(NEVER))] * (self.options.num_return_sequences - len(found))
            result += found[: self.options.num_return_sequences]
        return result


def _places(parents: Ids) -> Ids:
    """The rows of hypotheses with these parents, `[sources, beams]`: the first of each parent takes the parent's row,
    so that the fewest rows move. The others take those that are left."""
    beams = parents.shape[1]
    same = parents[:, :, None] == parents[:, None, :]
    first = ~np.tril(same, -1).any(2)
    unused = ~(parents[:, None, :] == np.arange(beams)[:, None]).any(2)
    places: Ids = parents.copy()
    places[~first] = np.nonzero(unused)[1]
    return places
