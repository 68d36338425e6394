"""Batches by token budget, and taking sequences out of a ragged array."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastattn.text import gather, token_budget_batches


@given(
    st.lists(st.integers(0, 50), max_size=60),
    st.integers(1, 100),
    st.one_of(st.none(), st.integers(1, 10)),
)
def test_every_sequence_once_within_both_limits(lengths, max_tokens, max_sequences):
    batches = token_budget_batches(lengths, max_tokens, max_sequences)
    assert sorted(i for batch in batches for i in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= (max_sequences or len(lengths))
        assert len(batch) == 1 or sum(lengths[i] for i in batch) <= max_tokens
    in_order = [lengths[i] for batch in batches for i in batch.tolist()]
    assert in_order == sorted(lengths, reverse=True)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=60), st.integers(1, 100))
def test_no_batch_could_take_the_next_sequence(lengths, max_tokens):
    batches = token_budget_batches(lengths, max_tokens)
    for batch, following in pairwise(batches):
        assert sum(lengths[i] for i in batch) + lengths[following[0]] > max_tokens


def test_equal_lengths_keep_their_order():
    assert [batch.tolist() for batch in token_budget_batches([4, 4, 4], 8)] == [[0, 1], [2]]


def test_a_sequence_over_the_budget_is_alone():
    assert [batch.tolist() for batch in token_budget_batches([2, 100, 2], 10)] == [[1], [0, 2]]


def test_nothing_gives_no_batch():
    assert token_budget_batches([], 8) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, -2], 8), "lengths must not be negative, got -2"),
        (([1], 0), "max_tokens must be a positive integer, got 0"),
        (([1], 8, 0), "max_sequences must be a positive integer, got 0"),
        (([[1]], 8), r"lengths must have one axis, got shape \(1, 1\)"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        token_budget_batches(*arguments)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.data())
def test_gather_takes_what_slices_take(lengths, data):
    cu_seqlens = np.cumsum([0, *lengths])
    values = np.arange(cu_seqlens[-1] * 2).reshape(-1, 2)
    indices = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=20))
    taken, cu = gather(values, cu_seqlens, indices)
    expected = [values[cu_seqlens[i] : cu_seqlens[i + 1]] for i in indices]
    assert cu.dtype == np.int32
    assert cu.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    np.testing.assert_array_equal(taken, np.concatenate([values[:0], *expected]))
