"""Sampling: the distribution, what it is drawn from, and that a sample depends on nothing but its seed and source."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers_marian import random_transformer
from test_greedy import ending, rows, sources

import fastattn
from fastattn import reference
from fastattn.generation import generate

SAMPLES = 4000
NORMAL = 3.719
"""The quantile of the normal distribution at 0.9999, from which Wilson and Hilferty (1931) have that of chi-squared.
The seeds are fixed."""


def first_tokens(options: dict[str, Any], **changes: Any) -> tuple[Any, Any]:
    """How often each word was drawn as the first, and the scores it was drawn from, in float64."""
    model = random_transformer(**changes)
    ids = [[4, 5, 6]]
    samples = generate(model, ids, do_sample=True, seed=1, num_return_sequences=SAMPLES, max_length=3, **options)
    scores = model(ids, decoder_input_ids=[[49]]).logits[0, 0].astype(np.float64)
    return np.bincount(samples[:, 1], minlength=50), scores


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 0},
        {"top_k": 0, "temperature": 2.0},
        {"top_k": 7},
        {"top_k": 0, "top_p": 0.8},
        {"top_k": 12, "top_p": 0.7, "temperature": 1.5},
        {"top_k": 0, "bad_words_ids": [[i] for i in range(1, 20)]},
    ],
)
def test_the_distribution_is_the_models(options: dict[str, Any]) -> None:
    """Pearson's chi-squared test against the probabilities that transformers' warpers leave."""
    counts, scores = first_tokens(options)
    scores[[word[0] for word in options.get("bad_words_ids", [])]] = -np.inf
    scores /= options.get("temperature", 1.0)
    if options["top_k"]:
        scores[scores < np.sort(scores)[-options["top_k"]]] = -np.inf
    order = np.argsort(scores)
    remove = np.cumsum(reference.softmax(scores[None])[0][order]) <= 1 - options.get("top_p", 1.0)
    remove[-1] = False
    scores[order[remove]] = -np.inf
    expected = SAMPLES * reference.softmax(scores[None])[0]
    assert not counts[expected == 0].any()
    rare = expected < 5  # too few for the test: counted together
    counts, expected = (np.append(each[~rare], each[rare].sum()) for each in (counts, expected))
    kept = expected > 0
    statistic = ((counts[kept] - expected[kept]) ** 2 / expected[kept]).sum()
    freedom = kept.sum() - 1
    assert statistic < freedom * (1 - 2 / (9 * freedom) + NORMAL * (2 / (9 * freedom)) ** 0.5) ** 3


def test_a_sample_does_not_depend_on_the_others(threads: int) -> None:
    model = ending()
    ids, mask = sources(7)
    options = {"do_sample": True, "seed": 11, "num_return_sequences": 3, "max_length": 20}
    prefixes = [[4] * (i % 3) for i in range(7)]
    together = generate(model, ids, mask, prefix_ids=prefixes, **options)
    assert len({tuple(row) for row in rows(together)}) > 15
    for i in range(7):
        alone = generate(model, ids[i : i + 1, : mask[i].sum()], prefix_ids=prefixes[i : i + 1], **options)
        assert rows(alone) == rows(together[3 * i : 3 * i + 3])
    uncached = generate(model, ids, mask, prefix_ids=prefixes, use_cache=False, **options)
    np.testing.assert_array_equal(together, uncached)


def test_seeds() -> None:
    model = ending(more=0.0)
    ids, mask = sources(4)
    draws = [generate(model, ids, mask, do_sample=True, seed=seed, max_length=20) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert rows(draws[0]) != rows(draws[2])
    for _ in range(2):
        fastattn.manual_seed(5)
        draws.append(generate(model, ids, mask, do_sample=True, max_length=20))
    np.testing.assert_array_equal(draws[3], draws[4])
    assert rows(draws[3]) != rows(generate(model, ids, mask, do_sample=True, max_length=20))


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_k": 0, "top_p": 0.0}, {"temperature": 1e-5}])
def test_what_leaves_only_the_most_probable_is_greedy(options: dict[str, Any]) -> None:
    model = ending()
    ids, mask = sources(5)
    expected = generate(model, ids, mask, max_length=20)
    np.testing.assert_array_equal(generate(model, ids, mask, do_sample=True, max_length=20, **options), expected)
