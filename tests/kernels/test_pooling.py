"""pooling against the reference, and what must not change its bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import (
    LAYOUTS,
    SIZES,
    assert_close,
    assert_same_bits,
    cumulative,
    double,
    nan_out,
    normal,
    place,
)
from helpers_rows import check_bad_out, check_bad_x_and_out
from hypothesis import given
from hypothesis import strategies as st

import fastattn
from fastattn import kernels, reference

MODES = pytest.mark.parametrize("mode", ["mean", "cls", "max", "last", "mean_sqrt_len", "weighted_mean"])
LENGTHS = (1, 0, 2, 7, 17, 0, 33, 130, 0)


@MODES
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(isa: str, threads: int, layout: str, mode: str) -> None:
    rng = np.random.default_rng(1)
    for dim in SIZES:
        x = place(normal(rng, sum(LENGTHS), dim, mean=0.5), layout)
        cu_seqlens = place(cumulative(LENGTHS), layout)
        y = kernels.pooling(x, cu_seqlens, mode, out=nan_out(len(LENGTHS), dim))
        expected = reference.pooling(double(x), cu_seqlens, mode)
        for row, exact, length in zip(y, expected, LENGTHS, strict=True):  # each with its own magnitude
            assert_close(row, exact, max(1, length))
        assert (y[np.array(LENGTHS) == 0] == 0).all()


@MODES
def test_sequences_are_independent(isa: str, threads: int, mode: str) -> None:
    """Alone, in any order, among NaN, with one thread or two: the same bits."""
    rng = np.random.default_rng(2)
    lengths = [int(n) for n in rng.integers(0, 40, 60)]
    cu = cumulative(lengths)
    x = normal(rng, sum(lengths), 257)
    y = kernels.pooling(x, cu, mode)
    for i in range(0, 60, 7):
        own = slice(cu[i], cu[i + 1])
        assert_same_bits(kernels.pooling(x[own], cumulative(lengths[i : i + 1]), mode), y[i : i + 1])
        spoilt = np.full_like(x, np.nan)
        spoilt[own] = x[own]
        assert_same_bits(kernels.pooling(spoilt, cu, mode)[i], y[i])
    order = rng.permutation(60)
    shuffled = np.concatenate([x[cu[i] : cu[i + 1]] for i in order])
    assert_same_bits(kernels.pooling(shuffled, cumulative([lengths[i] for i in order]), mode), y[order])
    fastattn.set_num_threads(1)
    assert_same_bits(kernels.pooling(x, cu, mode), y)


@pytest.mark.parametrize("mode", ["cls", "last", "max"])
def test_picking_is_exact(isa: str, mode: str) -> None:
    x = normal(np.random.default_rng(3), sum(LENGTHS), 65)
    cu = cumulative(LENGTHS)
    np.testing.assert_array_equal(kernels.pooling(x, cu, mode), reference.pooling(x, cu, mode))


@MODES
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 2, 4])
def test_special_values(isa: str, at: int, value: float, mode: str) -> None:
    """NaN and infinities in one place of one sequence: in its column, nowhere else."""
    x = normal(np.random.default_rng(4), 11, 19)
    x[3 + at, 17] = value
    cu = cumulative((3, 5, 3))
    y = kernels.pooling(x, cu, mode)
    for row, exact in zip(y, reference.pooling(double(x), cu, mode), strict=True):
        assert_close(row, exact, 5)


def test_all_minus_infinity_has_maximum_minus_infinity(isa: str) -> None:
    x = np.full((3, 9), -np.inf, np.float32)
    assert (kernels.pooling(x, cumulative((3,)), "max") == -np.inf).all()


@given(lengths=st.lists(st.integers(0, 9), max_size=6), dim=st.integers(1, 40))
@MODES
def test_any_lengths(isa: str, mode: str, lengths: list[int], dim: int) -> None:
    x = np.abs(normal(np.random.default_rng(5), sum(lengths), dim))  # no sum is small by chance
    cu = cumulative(lengths)
    y = kernels.pooling(x, cu, mode, out=nan_out(len(lengths), dim))
    assert_close(y, reference.pooling(double(x), cu, mode), 9)


@MODES
def test_empty(isa: str, threads: int, mode: str) -> None:
    nothing = np.zeros((0, 8), np.float32)
    assert kernels.pooling(nothing, cumulative(()), mode).shape == (0, 8)
    assert_same_bits(kernels.pooling(nothing, cumulative((0, 0)), mode), np.zeros((2, 8), np.float32))
    assert kernels.pooling(np.zeros((3, 0), np.float32), cumulative((3,)), mode).shape == (1, 0)


def test_out(isa: str) -> None:
    x = normal(np.random.default_rng(6), 5, 6)
    cu = cumulative((2, 3))
    out = np.full((2, 6), np.nan, np.float32)
    assert kernels.pooling(x, cu, out=out) is out
    assert_same_bits(out, kernels.pooling(x, cu))


def pool(x: Any, out: Any = None) -> Any:
    return kernels.pooling(x, cumulative((1, 3)), out=out)


def test_bad_input() -> None:
    x = np.zeros((4, 6), np.float32)
    check_bad_out("pooling", pool, x, (2, 6))
    check_bad_x_and_out("pooling", lambda x, out=None: kernels.pooling(x, cumulative((1, 1, 1, 1)), out=out))
    with pytest.raises(ValueError, match=r"^pooling: x must have 2 axes, got shape \(4,\)$"):
        pool(x[:, 0].copy())
    with pytest.raises(ValueError, match=r"^pooling: mode must be one of 'mean', .*, got 'sum'$"):
        kernels.pooling(x, cumulative((4,)), "sum")


BAD_CU_SEQLENS = [
    ([0, 3, 2, 4], ValueError, r"must not decrease, got 3 then 2"),
    ([0, 3], ValueError, r"must end at the number of tokens, 4, got 3$"),
    ([0, 5], ValueError, r"must end at the number of tokens, 4, got 5$"),
    ([1, 4], ValueError, r"must start at 0, got 1$"),
    ([-1, 4], ValueError, r"must start at 0, got -1$"),
    ([], ValueError, r"must have at least one element"),
    ([[0, 4]], ValueError, r"must have 1 axis, got shape \(1, 2\)$"),
    ([0, 2**31 - 1, 4], ValueError, r"must not decrease, got 2147483647 then 4 at index 2"),
]


@pytest.mark.parametrize(("values", "error", "message"), BAD_CU_SEQLENS, ids=lambda value: str(value)[:20])
def test_bad_cu_seqlens(values: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=f"^pooling: cu_seqlens {message}"):
        kernels.pooling(np.zeros((4, 6), np.float32), np.array(values, np.int32))


def test_more_tokens_than_cu_seqlens_can_count() -> None:
    x = np.broadcast_to(np.zeros((1, 1), np.float32), (2**31, 1))
    with pytest.raises(ValueError, match=r"^pooling: cu_seqlens must .* at most 2147483647, got 2147483648 of them$"):
        kernels.pooling(x, np.array([0, 2**31 - 1], np.int32))


def test_cu_seqlens_of_another_type() -> None:
    x = np.zeros((4, 6), np.float32)
    with pytest.raises(TypeError, match=r"^pooling: cu_seqlens must be int32, got int64$"):
        kernels.pooling(x, np.array([0, 4]))
    with pytest.raises(TypeError, match=r"^pooling: cu_seqlens must be .*, got list$"):
        kernels.pooling(x, [0, 4])
    with pytest.raises(ValueError, match=r"^pooling: cu_seqlens .*contiguous"):
        kernels.pooling(x, np.array([0, 9, 4, 9], np.int32)[::2])


def mixed(rng: np.random.Generator, tokens: int, dim: int) -> Any:
    """Small whole numbers, so that a maximum stands in many rows."""
    return rng.integers(-3, 4, (tokens, dim)).astype(np.float32)


@MODES
@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward_values(isa: str, threads: int, layout: str, mode: str) -> None:
    rng = np.random.default_rng(7)
    for dim in SIZES:
        x = place(mixed(rng, sum(LENGTHS), dim), layout)
        dy = place(normal(rng, len(LENGTHS), dim), layout)
        cu_seqlens = place(cumulative(LENGTHS), layout)
        dx = kernels.pooling_backward(dy, x, cu_seqlens, mode, out=nan_out(*x.shape))
        expected = reference.pooling_backward(double(dy), double(x), cu_seqlens, mode)
        for row, exact in zip(dx, expected, strict=True):  # each with its own magnitude
            assert_close(row, exact)


@MODES
def test_backward_of_many_sequences(isa: str, threads: int, mode: str) -> None:
    """Each alone, among NaN, with one thread or two: the same bits."""
    rng = np.random.default_rng(8)
    lengths = [int(n) for n in rng.integers(0, 40, 60)]
    cu = cumulative(lengths)
    x, dy = mixed(rng, sum(lengths), 257), normal(rng, 60, 257)
    dx = kernels.pooling_backward(dy, x, cu, mode)
    for i in range(0, 60, 7):
        own = slice(cu[i], cu[i + 1])
        alone = kernels.pooling_backward(dy[i : i + 1], x[own], cumulative(lengths[i : i + 1]), mode)
        assert_same_bits(alone, dx[own])
        spoilt = np.full_like(x, np.nan)
        spoilt[own] = x[own]
        assert_same_bits(kernels.pooling_backward(dy, spoilt, cu, mode)[own], dx[own])
    fastattn.set_num_threads(1)
    assert_same_bits(kernels.pooling_backward(dy, x, cu, mode), dx)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 2, 4])
def test_backward_of_a_special_maximum(isa: str, at: int, value: float) -> None:
    """dy goes to one row, whatever it is itself."""
    x, dy = normal(np.random.default_rng(9), 5, 19), np.full((1, 19), np.inf, np.float32)
    x[at:, 17] = value
    dx = kernels.pooling_backward(dy, x, cumulative((5,)), "max")
    expected = reference.pooling_backward(double(dy), double(x), cumulative((5,)), "max")
    assert_same_bits(dx, expected.astype(np.float32))
    assert ((dx == np.inf).sum(axis=0) == 1).all()


@MODES
def test_backward_empty(isa: str, threads: int, mode: str) -> None:
    nothing = np.zeros((0, 8), np.float32)
    assert kernels.pooling_backward(nothing, nothing, cumulative(()), mode).shape == (0, 8)
    assert kernels.pooling_backward(np.ones((2, 8), np.float32), nothing, cumulative((0, 0)), mode).shape == (0, 8)
    none = np.zeros((3, 0), np.float32)
    assert kernels.pooling_backward(none[:1], none, cumulative((3,)), mode).shape == (3, 0)


def test_backward_bad_input() -> None:
    x, dy, cu = np.zeros((4, 6), np.float32), np.zeros((2, 6), np.float32), cumulative((1, 3))
    name = "pooling_backward"
    check_bad_x_and_out(name, lambda x, **out: kernels.pooling_backward(dy, x, cu, **out))
    with pytest.raises(TypeError, match=f"^{name}: dy must be float32, got float64$"):
        kernels.pooling_backward(double(dy), x, cu)
    with pytest.raises(ValueError, match=rf"^{name}: dy must have shape \(2, 6\), got \(3, 6\)$"):
        kernels.pooling_backward(x[:3], x, cu)
    with pytest.raises(ValueError, match=f"^{name}: dy .*contiguous"):
        kernels.pooling_backward(np.zeros((2, 12), np.float32)[:, ::2], x, cu)
    with pytest.raises(ValueError, match=rf"^{name}: mode must be one of 'mean', .*, got 'sum'$"):
        kernels.pooling_backward(dy, x, cu, "sum")
    with pytest.raises(ValueError, match=rf"^{name}: cu_seqlens must end at the number of tokens, 4, got 3$"):
        kernels.pooling_backward(dy, x, cumulative((1, 2)))
    room = np.zeros(28, np.float32)
    with pytest.raises(ValueError, match=f"^{name}: out .*overlap dy$"):
        kernels.pooling_backward(room[:12].reshape(2, 6), x, cu, out=room[4:].reshape(4, 6))
