"""crf and its gradient against all tag sequences, and what must not change its bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_crf import SCORES, case, scores, sequences
from helpers_gradients import differences

from fastattn import kernels, reference

INF = np.inf


def doubled(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value.astype(float) if value.dtype == np.float32 else value for name, value in given.items()}


def gradients(given: dict[str, Any], dy: Any = None, module: Any = kernels) -> tuple[Any, ...]:
    """The log-likelihood and its gradients."""
    result = module.crf(**given)
    if dy is None:
        dy = np.ones(len(given["cu_seqlens"]) - 1, given["emissions"].dtype)
    return (result[0], *module.crf_backward(dy, **given, log_likelihood=result[0], alpha=result[1]))


def close(actual: Any, expected: Any, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("forbidden", [0.0, 0.3])
@pytest.mark.parametrize(("length", "num_tags"), [(1, 1), (1, 5), (2, 3), (4, 4), (6, 3), (3, 9)])
def test_all_tag_sequences(isa: str, length: int, num_tags: int, forbidden: float) -> None:
    """The likelihood and the gradient of each score are sums over all sequences."""
    given = case(np.random.default_rng(length), (length,), num_tags, forbidden)
    found = scores(given)
    total = math.fsum(math.exp(score) for score in found.values())
    expected = {name: np.zeros(given[name].shape) for name in SCORES}
    for path, score in found.items():
        own = (path == tuple(given["tags"])) - math.exp(score) / total if total else 0.0
        for t, tag in enumerate(path):
            expected["emissions"][t, tag] += own
            if t:
                expected["transitions"][path[t - 1], tag] += own
        expected["start_transitions"][path[0]] += own
        expected["end_transitions"][path[-1]] += own
    log_likelihood, *actual = gradients(given)
    gold = found[tuple(given["tags"].tolist())]
    if gold == -INF:
        assert log_likelihood.tolist() == [-INF]
        assert not any(gradient.any() for gradient in actual)
        return
    close(log_likelihood, [gold - math.log(total)])
    for name, gradient in zip(SCORES, actual, strict=True):
        close(gradient, expected[name])
    assert (actual[1][given["transitions"] == -INF] == 0).all()


@pytest.mark.parametrize("num_tags", [1, 3, 9])
def test_gradients_are_differences(isa: str, num_tags: int) -> None:
    """Of the likelihood in float64."""
    given = case(np.random.default_rng(num_tags), (4, 0, 1, 7), num_tags)
    dy = np.array([1, 2, -0.5, 0.25], np.float32)
    exact = doubled(given)
    for name, gradient in zip(SCORES, gradients(given, dy)[1:], strict=True):
        close(gradient, differences(lambda: reference.crf(**exact)[0], exact[name], dy))


@pytest.mark.parametrize("num_tags", [1, 2, 7, 8, 9, 16, 17, 33, 128])
def test_values(isa: str, threads: int, num_tags: int) -> None:
    rng = np.random.default_rng(num_tags)
    given = case(rng, (3, 0, 1, 11, 2), num_tags, 0.1)
    dy = rng.standard_normal(5, np.float32)
    for a, b in zip(gradients(given, dy), gradients(doubled(given), dy.astype(float), reference), strict=True):
        close(a, b, 5e-5)


def test_long_sequences(isa: str) -> None:
    """Nothing grows with the length but the likelihood itself."""
    for num_tags, scale in ((17, 1.0), (5, 20.0)):
        given = case(np.random.default_rng(1), (4000,), num_tags)
        given["emissions"] *= np.float32(scale)
        actual, expected = gradients(given), gradients(doubled(given), module=reference)
        close(actual[0], expected[0], 1e-6)
        close(actual[1], expected[1], 1e-4)
        for a, b in zip(actual[2:], expected[2:], strict=True):
            close(a, b, 1e-3)


def test_no_probability_is_above_1(isa: str) -> None:
    rng = np.random.default_rng(4)
    for num_tags in (1, 5):
        given = case(rng, (3, *rng.integers(1, 200, 200).tolist()), num_tags)
        given["emissions"][np.arange(len(given["tags"])), given["tags"]] += np.float32(60)
        log_likelihood, _ = kernels.crf(**given)
        assert log_likelihood.max() <= 0
        close(log_likelihood, reference.crf(**doubled(given))[0], 1e-3)


def test_extreme_scores(isa: str) -> None:
    """The only allowed step may have a score whose exponential is 0, or any other."""
    given = case(np.random.default_rng(2), (6, 4), 4)
    for value in (-1e4, -200.0, 200.0, 1e4):
        given["transitions"] = np.full((4, 4), value, np.float32)
        given["transitions"][:, 1] = -INF
        given["tags"][given["tags"] == 1] = 0
        for a, b in zip(gradients(given), gradients(doubled(given), module=reference), strict=True):
            close(a, b, 1e-4 if abs(value) < 1e3 else 5e-3)


def test_a_sequence_alone(isa: str, threads: int) -> None:
    """Neither its neighbours nor their order change its bits."""
    rng = np.random.default_rng(3)
    lengths = tuple(rng.integers(0, 30, 90).tolist())
    given = case(rng, lengths, 17)
    dy = rng.standard_normal(90, np.float32)
    log_likelihood, demissions, *_ = gradients(given, dy)
    ends = given["cu_seqlens"]
    for i, own in enumerate(sequences(given)):
        alone = gradients(own, dy[i : i + 1])
        assert_same_bits(alone[0], log_likelihood[i : i + 1])
        assert_same_bits(alone[1], demissions[ends[i] : ends[i + 1]])


def test_threads(restore_runtime: None) -> None:
    """Gradients of transitions, too, have the same bits."""
    import fastattn

    given = case(np.random.default_rng(4), (25, 3, 0, 40, 7) * 30, 17, 0.05)
    found = []
    for count in (1, 2, 3):
        fastattn.set_num_threads(count)
        found.append(gradients(given))
    for a, b, c in zip(*found, strict=True):
        assert_same_bits(a, b)
        assert_same_bits(a, c)


@pytest.mark.parametrize("value", [np.nan, INF])
def test_not_a_number(isa: str, value: float) -> None:
    """It spoils its sequence alone, and the sums that the sequence takes part in."""
    given = case(np.random.default_rng(5), (3, 1, 4), 9)
    clean = gradients(given)
    given["emissions"][3, 2] = value  # in the second, which has no step
    log_likelihood, demissions, dtransitions, *ends = gradients(given)
    assert np.isnan(log_likelihood).tolist() == [False, True, False]
    assert np.isnan(demissions).all(axis=1).tolist() == [False] * 3 + [True] + [False] * 4
    others = [0, 1, 2, 4, 5, 6, 7]
    assert_same_bits(demissions[others], clean[1][others])
    assert_same_bits(log_likelihood[::2], clean[0][::2])
    assert_same_bits(dtransitions, clean[2])
    assert np.isnan(ends).all()
    given["emissions"][5] = value
    assert np.isnan(gradients(given)[2]).all()


def test_forbidden_tags(isa: str) -> None:
    """A sequence that needs a forbidden step has the log-likelihood -inf and adds nothing."""
    given = case(np.random.default_rng(6), (3, 4), 6)
    given["tags"][:3] = [1, 2, 3]
    given["tags"][3:] = [1, 3, 2, 0]
    given["transitions"][2, 3] = -INF
    alone = gradients(list(sequences(given))[1])
    log_likelihood, demissions, *rest = gradients(given)
    assert log_likelihood[0] == -INF
    assert not demissions[:3].any()
    assert_same_bits(demissions[3:], alone[1])
    for a, b in zip(rest, alone[2:], strict=True):
        np.testing.assert_array_equal(a, b)
    given["transitions"][...] = -INF  # now there are no sequences at all
    found = gradients(given)
    assert found[0].tolist() == [-INF, -INF]
    assert not any(gradient.any() for gradient in found[1:])


def test_forbidden_steps_have_gradient_0(isa: str) -> None:
    given = case(np.random.default_rng(7), (20, 9), 5)
    given["transitions"][3] = given["transitions"][:, 3] = -INF
    given["start_transitions"][2] = given["end_transitions"][4] = -INF
    given["tags"][:] = 0
    log_likelihood, _, steps, first, last = gradients(given)
    assert np.isfinite(log_likelihood).all()
    assert not steps[3].any()
    assert not steps[:, 3].any()
    assert steps[0, 0] > 0
    assert (first[2], last[4]) == (0, 0)


def test_empty(isa: str) -> None:
    for lengths in ((), (0, 0)):
        given = case(np.random.default_rng(8), lengths, 4)
        log_likelihood, demissions, *rest = gradients(given)
        assert log_likelihood.tolist() == [0.0] * len(lengths)
        assert demissions.shape == (0, 4)
        assert not any(gradient.any() for gradient in rest)


def test_refused(isa: str) -> None:
    given = case(np.random.default_rng(9), (2, 1), 4)
    for wrong, error, message in (
        ({"tags": np.array([0, 4, 0])}, ValueError, r"tags must be in \[0, 4\), .*, got 4 at index 1"),
        ({"tags": np.array([0, 0, -1])}, ValueError, r"tags must be in \[0, 4\), .*, got -1 at index 2"),
        ({"cu_seqlens": np.array([0, 2], np.int32)}, ValueError, "cu_seqlens must end at the number of tokens, 3"),
    ):
        for module in (kernels, reference):
            with pytest.raises(error, match=f"^crf: {message}"):
                module.crf(**given | wrong)
    for wrong, error, message in (
        ({"tags": np.zeros(2, np.int64)}, ValueError, r"tags must have shape \(3,\), got \(2,\)"),
        ({"tags": np.zeros(3, np.int32)}, TypeError, "tags must be int64, got int32"),
        ({"emissions": np.zeros((3, 0), np.float32)}, ValueError, "emissions must have at least one column"),
        ({"emissions": np.zeros((3, 4))}, TypeError, "emissions must be float32, got float64"),
        ({"transitions": np.zeros((4, 3), np.float32)}, ValueError, r"transitions must have shape \(4, 4\)"),
        ({"start_transitions": np.zeros(3, np.float32)}, ValueError, r"start_transitions must have shape \(4,\)"),
        ({"end_transitions": np.zeros(8, np.float32)[::2]}, ValueError, "end_transitions must be C-contiguous"),
    ):
        with pytest.raises(error, match=f"^crf: {message}"):
            kernels.crf(**given | wrong)
        more = dict(zip(("log_likelihood", "alpha"), kernels.crf(**given), strict=True))
        with pytest.raises(error, match=f"^crf_backward: {message}"):
            kernels.crf_backward(np.ones(2, np.float32), **given | wrong, **more)
