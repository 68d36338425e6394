"""log_softmax_topk: the bits of log_softmax, in the right order; test_properties.py compares it with the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, SIZES, assert_same_bits, cumulative, normal, place
from hypothesis import given
from hypothesis import strategies as st

from fastattn import kernels, reference

INF = np.inf


def adjusted(mask: Any, factors: Any) -> dict[str, Any]:
    """The arguments that multiply what `mask` marks by its element of `factors`; both `[rows, n]`."""
    return {"ids": mask.nonzero()[1].copy(), "cu_ids": cumulative(mask.sum(axis=1)), "factors": factors[mask]}


def check(x: Any, k: int, options: dict[str, Any], layout: str = "plain") -> tuple[Any, Any]:
    """The result has the bits of log_softmax, multiplied and sorted by NumPy."""
    y = kernels.log_softmax(x)
    if options:
        rows, ids, factors = (
            np.repeat(np.arange(len(x)), np.diff(options["cu_ids"])),
            options["ids"],
            options["factors"],
        )
        with np.errstate(invalid="ignore"):
            y[rows, ids] = np.where(np.isinf(factors), np.float32(-INF), y[rows, ids] * factors)
    order = np.array([np.lexsort((-row, ~np.isnan(row))) for row in y]).reshape(y.shape)[:, :k]  # it is stable
    given = {name: place(value, layout) for name, value in options.items()}
    values, indices = kernels.log_softmax_topk(place(x, layout), k, **given)
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(indices, order)
    expected = np.take_along_axis(y, order, axis=1)
    nan = np.isnan(expected)
    assert np.isnan(values[nan]).all()
    assert_same_bits(values[~nan], expected[~nan] + np.float32(0))  # -0 is 0
    return values, indices


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(isa: str, threads: int, layout: str) -> None:
    rng = np.random.default_rng(1)
    for n in SIZES:
        for rows in (1, 70):
            x = normal(rng, rows, n)
            x[rows // 2 :] = np.round(x[rows // 2 :])  # ties
            mask, factors = rng.random((rows, n)) < 0.1, rng.choice(np.array([0.3, 1.7, INF], np.float32), (rows, n))
            for k in {1, min(5, n), n}:
                check(x, k, {}, layout)
                check(x, k, adjusted(mask, factors), layout)


@pytest.mark.parametrize("k", [1, 2, 8, 50, 256, 30522])
def test_vocabulary_rows(isa: str, threads: int, k: int) -> None:
    x = 4 * normal(np.random.default_rng(5), 3, 30522)
    check(x, k, {})
    mask = x > np.partition(x, -300)[:, -300:-299]
    check(x, k, adjusted(mask, np.where(x > 2 * x.std(), np.float32(INF), np.float32(1.3))))


@given(
    st.lists(
        st.lists(st.sampled_from((0.0, -0.0, 1.0, -1.0, 40.0, -INF)), min_size=37, max_size=37), min_size=1, max_size=3
    ),
    st.integers(1, 37),
    st.lists(
        st.tuples(st.integers(0, 36), st.sampled_from((0.25, 1.0, 3.0, INF))), max_size=9, unique_by=lambda a: a[0]
    ),
)
def test_any_ties(isa: str, rows: list[list[float]], k: int, factors: list[tuple[int, float]]) -> None:
    x = np.array(rows, np.float32)
    ids, values = zip(*sorted(factors), strict=True) if factors else ((), ())
    options = {"ids": np.tile(np.array(ids, np.int64), len(x)), "cu_ids": cumulative([len(ids)] * len(x))}
    check(x, k, options | {"factors": np.tile(np.array(values, np.float32), len(x))})


@pytest.mark.parametrize("at", [0, 7, 31, 32, 63, 69])
def test_special_values(isa: str, at: int) -> None:
    """NaN and +inf spoil their row alone; a row of -inf stays; nothing underflows."""
    x = normal(np.random.default_rng(6), 7, 70)
    x[0] = -INF
    x[1, at] = np.nan
    x[2, at] = INF
    x[3, at] = 1e30
    x[4] = -1e30
    x[5, at] = -INF
    mask = np.zeros(x.shape, bool)
    mask[:, [3, at]] = True
    for options in ({}, adjusted(mask, np.full(x.shape, 2, np.float32))):
        values, indices = check(x, 70, options)
        assert (values[0] == -INF).all()
        assert np.isnan(values[1:3]).all()
        assert indices[:3].tolist() == [list(range(70))] * 3
        assert (values[3, 0], indices[3, 0]) == (0, at)
        assert (values[5, -1], indices[5, -1]) == (-INF, at)
    values, indices = check(x, 70, adjusted(mask, np.full(x.shape, INF, np.float32)))
    banned = sorted({3, at})
    assert indices[1, -len(banned) :].tolist() == banned
    assert (values[1, -len(banned) :] == -INF).all()


@pytest.mark.parametrize("k", [1, 4, 200])
def test_orders_of_a_row(isa: str, k: int) -> None:
    """Every value, or none, is among the k largest when it is read."""
    rising = np.linspace(-9, 9, 777, dtype=np.float32)
    check(np.stack([rising, rising[::-1], np.zeros_like(rising), np.sin(9 * rising)]), k, {})


def test_forbidden_columns(isa: str) -> None:
    """Fewer than k that are allowed: then the others, the lowest first."""
    x = np.arange(40, dtype=np.float32)[None]
    x[0, 20] = -INF
    mask = np.ones(x.shape, bool)
    mask[0, [7, 20, 33]] = False
    values, indices = check(x, 5, adjusted(mask, np.full(x.shape, INF, np.float32)))
    assert indices.tolist() == [[33, 7, 0, 1, 2]]
    assert (values[0, 2:] == -INF).all()
    assert values[0, 0] == kernels.log_softmax(x)[0, 33]
    check(x, 40, adjusted(mask | True, np.full(x.shape, INF, np.float32)))


def test_a_factor_may_lift_a_column(isa: str) -> None:
    x = np.zeros((2, 100), np.float32)
    options = {"ids": np.array([64]), "cu_ids": np.array([0, 0, 1], np.int32), "factors": np.array([0.5], np.float32)}
    values, indices = check(x, 2, options)
    assert indices.tolist() == [[0, 1], [64, 0]]
    assert values[1, 0] == values[1, 1] / 2


def test_a_factor_of_nearly_zero(isa: str) -> None:
    """A product that underflows is 0, and equal to another 0."""
    x = np.array([[0, -5, 0]], np.float32)
    options = {"ids": np.array([0, 2]), "cu_ids": np.array([0, 2], np.int32)}
    values, indices = kernels.log_softmax_topk(x, 3, **options, factors=np.full(2, 1.2e-38, np.float32))
    assert indices.tolist() == [[0, 2, 1]]
    assert_same_bits(values[:, :2], np.zeros((1, 2), np.float32))


def test_a_row_alone(isa: str, threads: int) -> None:
    rng = np.random.default_rng(3)
    x = normal(rng, 60, 3000)
    mask = rng.random(x.shape) < 0.01
    factors = np.full(x.shape, 1.5, np.float32)
    values, indices = check(x, 9, adjusted(mask, factors))
    for i in range(0, 60, 7):
        one = slice(i, i + 1)
        found = kernels.log_softmax_topk(x[one], 9, **adjusted(mask[one], factors[one]))
        assert_same_bits(found[0], values[one])
        np.testing.assert_array_equal(found[1], indices[one])


def test_no_rows(isa: str) -> None:
    nothing = np.empty((0, 5), np.float32)
    options = {"ids": np.empty(0, np.int64), "cu_ids": np.zeros(1, np.int32), "factors": np.empty(0, np.float32)}
    for more in ({}, options):
        values, indices = kernels.log_softmax_topk(nothing, 2, **more)
        assert (values.shape, indices.shape) == ((0, 2), (0, 2))


def test_refused(isa: str) -> None:
    x, ids, cu_ids = np.ones((2, 4), np.float32), np.array([1, 3, 0]), np.array([0, 2, 3], np.int32)
    factors = np.ones(3, np.float32)
    good = {"x": x, "k": 2, "ids": ids, "cu_ids": cu_ids, "factors": factors}
    kernels.log_softmax_topk(**good)
    both: list[tuple[str, dict[str, Any]]] = [
        ("k must be from 1 to 4, the columns of x, got 0", {"k": 0}),
        ("k must be from 1 to 4, the columns of x, got 5", {"k": 5}),
        ("k must be from 1 to 0, the columns of x, got 1", {"x": np.ones((2, 0), np.float32), "k": 1}),
        (r"ids must be in \[0, 4\), the columns of x, got 4 at index 1", {"ids": np.array([1, 4, 0])}),
        (r"ids must be in \[0, 4\), the columns of x, got -1 at index 2", {"ids": np.array([1, 3, -1])}),
        ("ids must ascend within a row, got 3 then 3 at index 1", {"ids": np.array([3, 3, 0])}),
        ("ids must ascend within a row, got 3 then 0 at index 2", {"cu_ids": np.array([0, 0, 3], np.int32)}),
        ("cu_ids must end at the number of ids, 3, got 2", {"cu_ids": np.array([0, 2, 2], np.int32)}),
        ("cu_ids must start at 0, got 1", {"cu_ids": np.array([1, 2, 3], np.int32)}),
        ("cu_ids must not decrease, got 4 then 3", {"cu_ids": np.array([0, 4, 3], np.int32)}),
        ("factors must be positive normal numbers, got 0.0 at index 1", {"factors": np.array([1, 0, 1], np.float32)}),
        ("factors must be .* numbers, got nan at index 2", {"factors": np.array([1, 1, np.nan], np.float32)}),
        ("factors must be .* numbers, got -2.0 at index 0", {"factors": np.array([-2, 1, 1], np.float32)}),
        ("factors must be .* numbers, got 9.99.*e-42 at index 0", {"factors": np.array([1e-41, 1, 1], np.float32)}),
        ("ids, cu_ids and factors go together, got no ids", {"ids": None}),
        ("ids, cu_ids and factors go together, got no cu_ids", {"cu_ids": None}),
        ("ids, cu_ids and factors go together, got no factors", {"factors": None}),
    ]
    for message, wrong in both:
        for module in (kernels, reference):
            with pytest.raises(ValueError, match=f"^log_softmax_topk: {message}"):
                module.log_softmax_topk(**good | wrong)
    for error, message, wrong in (
        (TypeError, "x must be float32, got float64", {"x": x.astype(float)}),
        (TypeError, "k must be an integer, got float", {"k": 2.0}),
        (TypeError, "ids must be int64, got int32", {"ids": ids.astype(np.int32)}),
        (TypeError, "cu_ids must be int32, got int64", {"cu_ids": cu_ids.astype(np.int64)}),
        (TypeError, "factors must be float32, got float64", {"factors": factors.astype(float)}),
        (ValueError, "x must have 2 axes", {"x": x[0]}),
        (ValueError, "x must be contiguous along its last axis", {"x": np.ones((2, 8), np.float32)[:, ::2]}),
        (ValueError, "ids must have 1 axis", {"ids": ids[None]}),
        (ValueError, r"cu_ids must have shape \(3,\), got \(2,\)", {"cu_ids": cu_ids[1:]}),
        (ValueError, r"factors must have shape \(3,\), got \(2,\)", {"factors": factors[1:]}),
    ):
        with pytest.raises(error, match=f"^log_softmax_topk: {message}"):
            kernels.log_softmax_topk(**good | wrong)
