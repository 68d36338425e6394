"""layer_norm against the reference, and what must not change its bits."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, SIZES, assert_close, assert_same_bits, double, nan_out, normal, place
from helpers_rows import (
    check_bad_x_and_out,
    check_empty,
    check_out,
    check_random_rows,
    check_rows_are_independent,
)
from hypothesis import given
from hypothesis import strategies as st

import fastattn
from fastattn import kernels, reference


def exact(x: Any, weight: Any, bias: Any, eps: float, residual: Any) -> Any:
    """y, mean, rstd in float64."""
    x, weight, bias, residual = double(x, weight, bias, residual)
    return reference.layer_norm(x, weight, bias, eps, residual=residual, return_stats=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(isa: str, threads: int, layout: str) -> None:
    """Every size with every choice of arguments."""
    rng = np.random.default_rng(1)
    for dim, (affine, with_residual) in product(SIZES, product((False, True), repeat=2)):
        x = place(normal(rng, 7, dim, mean=0.5), layout)
        weight, bias = (place(normal(rng, dim), layout) if affine else None for _ in range(2))
        residual = place(normal(rng, 7, dim), layout) if with_residual else None
        # one element has variance 0: eps decides alone
        out, eps = nan_out(7, dim), 1e-12 if dim > 2 else 0.1
        y, mean, rstd = kernels.layer_norm(x, weight, bias, eps, residual=residual, return_stats=True, out=out)
        assert y is out
        expected = exact(x, weight, bias, eps, residual)
        # the difference from the mean carries an error of the size of x, not of itself
        slack = 8.0 * max(1.0, float(np.abs(expected[2]).max()))
        assert_close(y, expected[0], dim, c=slack)
        assert_close(mean, expected[1], dim)
        assert_close(rstd, expected[2], dim, c=slack)
        assert_same_bits(kernels.layer_norm(x, weight, bias, eps, residual=residual), y)


def test_weight_and_bias_are_optional_one_by_one(isa: str) -> None:
    rng = np.random.default_rng(2)
    x, weight, bias = normal(rng, 3, 33), normal(rng, 33), normal(rng, 33)
    for w, b in ((weight, None), (None, bias)):
        assert_close(kernels.layer_norm(x, w, b), exact(x, w, b, 1e-5, None)[0], 33)


def test_many_rows(isa: str, threads: int) -> None:
    rng = np.random.default_rng(3)
    x, residual, weight, bias = (normal(rng, *shape) for shape in ((1031, 257), (1031, 257), (257,), (257,)))
    call = partial(kernels.layer_norm, x, weight, bias, residual=residual, return_stats=True)
    results = call(out=nan_out(*x.shape))
    for actual, expected in zip(results, exact(x, weight, bias, 1e-5, residual), strict=True):
        assert_close(actual, expected, 257)
    fastattn.set_num_threads(1)
    for actual, again in zip(results, call(), strict=True):
        assert_same_bits(actual, again)


@pytest.mark.parametrize("affine", [False, True])
def test_rows_are_independent(isa: str, threads: int, affine: bool) -> None:
    weight, bias = normal(np.random.default_rng(4), 2, 768)

    def call(x: Any) -> Any:
        dim = x.shape[-1]
        return kernels.layer_norm(x, weight[:dim], bias[:dim]) if affine else kernels.layer_norm(x)

    check_rows_are_independent(call)


def test_a_residual_is_a_plain_sum(isa: str, threads: int) -> None:
    """Fused or not, the bits are those of the sum rounded to float32 first."""
    rng = np.random.default_rng(5)
    for dim in SIZES:
        x, residual = normal(rng, 5, dim), normal(rng, 5, dim)
        assert_same_bits(kernels.layer_norm(x, residual=residual), kernels.layer_norm(x + residual))


def test_the_residual_may_be_the_output(isa: str) -> None:
    x, residual = normal(np.random.default_rng(6), 2, 5, 37)
    y = kernels.layer_norm(x, residual=residual)
    assert kernels.layer_norm(x, residual=residual, out=residual) is residual
    assert_same_bits(residual, y)


def test_a_large_mean_does_not_swallow_the_variance(isa: str) -> None:
    """The variance is that of the differences: E[x^2] - E[x]^2 would leave nothing of it here."""
    x = (1000 + np.random.default_rng(7).integers(-8, 9, (5, 768)) / 8).astype(np.float32)
    y, mean, rstd = kernels.layer_norm(x, return_stats=True)
    expected = exact(x, None, None, 1e-5, None)
    np.testing.assert_allclose(y, expected[0], atol=2e-3)
    np.testing.assert_allclose(mean, expected[1], rtol=1e-6)
    np.testing.assert_allclose(rstd, expected[2], rtol=1e-4)


@given(
    st.lists(st.lists(st.floats(-100, 100, width=32), min_size=11, max_size=11), min_size=1, max_size=3),
)
def test_any_values(isa: str, rows: list[list[float]]) -> None:
    call, ideal = (partial(module.layer_norm, eps=1e4) for module in (kernels, reference))
    check_random_rows(call, ideal, rows)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 7, 8, 16, 18])
def test_special_values(isa: str, at: int, value: float) -> None:
    x = normal(np.random.default_rng(8), 4, 19)
    clean = kernels.layer_norm(x)
    x[2, at] = value
    y, mean, rstd = kernels.layer_norm(x, return_stats=True, out=nan_out(*x.shape))
    assert np.isnan(y[2]).all()
    assert not np.isfinite(mean[2])
    assert np.isnan(rstd[2])
    assert_same_bits(y[[0, 1, 3]], clean[[0, 1, 3]])


def test_a_constant_row_gives_the_bias(isa: str) -> None:
    bias = normal(np.random.default_rng(9), 16)
    y = kernels.layer_norm(np.full((3, 16), 2.5, np.float32), np.ones(16, np.float32), bias)
    assert_same_bits(y, np.broadcast_to(bias, (3, 16)))


def test_out(isa: str) -> None:
    check_out(kernels.layer_norm)


def test_empty(isa: str, threads: int) -> None:
    check_empty(kernels.layer_norm)
    y, mean, rstd = kernels.layer_norm(np.zeros((0, 4, 8), np.float32), return_stats=True)
    assert (y.shape, mean.shape, rstd.shape) == ((0, 4, 8), (0, 4), (0, 4))


def test_bad_input() -> None:
    check_bad_x_and_out("layer_norm", kernels.layer_norm)
    x, row = np.zeros((4, 6), np.float32), np.zeros(6, np.float32)
    for name in ("weight", "bias"):
        with pytest.raises(ValueError, match=rf"^layer_norm: {name} must have shape \(6,\), got \(5,\)$"):
            kernels.layer_norm(x, **{name: row[:5]})
        with pytest.raises(ValueError, match=rf"^layer_norm: {name} must have shape \(6,\), got \(1, 6\)$"):
            kernels.layer_norm(x, **{name: row[None]})
        with pytest.raises(TypeError, match=f"^layer_norm: {name} must be float32, got float64$"):
            kernels.layer_norm(x, **{name: row.astype(np.float64)})
        with pytest.raises(ValueError, match=f"^layer_norm: {name} .*contiguous"):
            kernels.layer_norm(x, **{name: np.zeros(12, np.float32)[::2]})
    with pytest.raises(ValueError, match=r"^layer_norm: residual must have shape \(4, 6\), got \(6,\)$"):
        kernels.layer_norm(x, residual=row)
    with pytest.raises(TypeError, match=r"^layer_norm: residual must be float32, got int32$"):
        kernels.layer_norm(x, residual=x.astype(np.int32))
    for eps in (-1e-5, np.nan, np.inf):
        with pytest.raises(ValueError, match=rf"^layer_norm: eps must be .*, got {eps}$"):
            kernels.layer_norm(x, eps=eps)
    room = np.zeros(30, np.float32)
    with pytest.raises(ValueError, match=r"^layer_norm: out .*overlap"):
        kernels.layer_norm(x, room[20:26], row, out=room[:24].reshape(4, 6))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dropout(isa: str, threads: int, layout: str) -> None:
    """Of x alone, before the residual: the bits are those of the two calls."""
    rng = np.random.default_rng(10)
    for dim, with_residual in product(SIZES, (False, True)):
        x = place(normal(rng, 7, dim), layout)
        residual = place(normal(rng, 7, dim), layout) if with_residual else None
        y = kernels.layer_norm(x, residual=residual, dropout_p=0.3, seed=11, out=nan_out(7, dim))
        assert_same_bits(y, kernels.layer_norm(kernels.dropout(x, 0.3, 11), residual=residual))


def test_dropout_in_place(isa: str) -> None:
    x, residual = normal(np.random.default_rng(11), 2, 5, 37)
    y = kernels.layer_norm(x, residual=residual, dropout_p=0.3, seed=11)
    for out in (x.copy(), residual.copy()):
        given = (out, residual) if (out == x).all() else (x, out)
        assert_same_bits(kernels.layer_norm(given[0], residual=given[1], dropout_p=0.3, seed=11, out=out), y)


def test_bad_dropout() -> None:
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"^layer_norm: dropout_p must be in \[0, 1\), got 1.5$"):
        kernels.layer_norm(x, dropout_p=1.5)
    with pytest.raises(ValueError, match=r"^layer_norm: seed must be in \[0, 2\^64\), got -1$"):
        kernels.layer_norm(x, dropout_p=0.5, seed=-1)
