"""crf_viterbi against all tag sequences, ranked; test_properties.py compares it with the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_crf import case, ranked, sequences, without_tags
from hypothesis import given as drawn
from hypothesis import strategies as st

from fastattn import kernels, reference

INF = np.inf


def check(given: dict[str, Any], n: int) -> None:
    """Whole numbers: sums are exact, so that equal scores are equal."""
    given = without_tags(given)
    for module in (kernels, reference):
        tags, scores = module.crf_viterbi(**given, n=n)
        for b, own in enumerate(sequences(given)):
            begin, end = given["cu_seqlens"][b : b + 2]
            wanted = ranked(own, n)
            assert [(tuple(row[begin:end].tolist()), score) for row, score in zip(tags, scores[b], strict=True)][
                : len(wanted)
            ] == wanted
            assert (tags[len(wanted) :, begin:end] == -1).all()
            assert (scores[b, len(wanted) :] == -INF).all()


def rounded(given: dict[str, Any]) -> dict[str, Any]:
    return {name: np.round(value) if value.dtype == np.float32 else value for name, value in given.items()}


@pytest.mark.parametrize("forbidden", [0.0, 0.4])
@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_all_tag_sequences(isa: str, threads: int, n: int, forbidden: float) -> None:
    rng = np.random.default_rng(n)
    for num_tags, lengths in ((1, (3, 1)), (3, (5, 0, 4)), (4, (4, 1)), (9, (2, 3))):
        check(rounded(case(rng, lengths, num_tags, forbidden)), n)


@drawn(st.integers(1, 4), st.lists(st.integers(0, 4), max_size=3), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_any_ties(isa: str, num_tags: int, lengths: list[int], n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    given = case(rng, tuple(lengths), num_tags, 0.2)
    for value in given.values():
        if value.dtype == np.float32:
            value[...] = np.where(np.isinf(value), value, rng.integers(-1, 2, value.shape))
    check(given, n)


@pytest.mark.parametrize("num_tags", [2, 8, 17, 128])
def test_larger(isa: str, num_tags: int) -> None:
    given = without_tags(rounded(case(np.random.default_rng(1), (60, 1, 13), num_tags)))
    for n in (1, 4):
        tags, scores = kernels.crf_viterbi(**given, n=n)
        expected, exact = reference.crf_viterbi(**given, n=n)
        np.testing.assert_array_equal(tags, expected)
        np.testing.assert_array_equal(scores, exact)


def test_ties_take_the_lower_tags(isa: str) -> None:
    nothing = np.zeros(20, np.float32)
    tags, scores = kernels.crf_viterbi(
        np.zeros((3, 20), np.float32), np.array([0, 3], np.int32), np.zeros((20, 20), np.float32), nothing, nothing, 3
    )
    assert tags.tolist() == [[0, 0, 0], [1, 0, 0], [2, 0, 0]]
    assert not scores.any()


def test_a_sequence_alone(isa: str, threads: int) -> None:
    rng = np.random.default_rng(2)
    given = without_tags(case(rng, tuple(rng.integers(0, 30, 90).tolist()), 17))
    tags, scores = kernels.crf_viterbi(**given, n=3)
    ends = given["cu_seqlens"]
    for i, own in enumerate(sequences(given)):
        alone = kernels.crf_viterbi(**own, n=3)
        np.testing.assert_array_equal(alone[0], tags[:, ends[i] : ends[i + 1]])
        assert_same_bits(alone[1], scores[i : i + 1])


@pytest.mark.parametrize("value", [np.nan, INF])
def test_not_a_number(isa: str, value: float) -> None:
    given = without_tags(case(np.random.default_rng(3), (3, 1, 4), 9))
    clean = kernels.crf_viterbi(**given, n=2)
    given["emissions"][1, 8] = value
    tags, scores = kernels.crf_viterbi(**given, n=2)
    assert np.isnan(scores[0]).all()
    assert (tags[:, :3] == -1).all()
    assert_same_bits(scores[1:], clean[1][1:])
    np.testing.assert_array_equal(tags[:, 3:], clean[0][:, 3:])
    given["transitions"][0, 1] = value
    assert np.isnan(kernels.crf_viterbi(**given)[1][:, 0]).tolist() == [True, False, True]


def test_refused(isa: str) -> None:
    given = without_tags(case(np.random.default_rng(4), (2, 1), 4))
    for module in (kernels, reference):
        for n in (0, 2**22 + 1):
            with pytest.raises(ValueError, match=f"^crf_viterbi: n must be from 1 to 4194304, .*, got {n}"):
                module.crf_viterbi(**given, n=n)
    with pytest.raises(TypeError, match=r"^crf_viterbi: n must be an integer, got float"):
        kernels.crf_viterbi(**given, n=2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^crf_viterbi: emissions must have at least one column"):
        kernels.crf_viterbi(**given | {"emissions": np.zeros((3, 0), np.float32)})
