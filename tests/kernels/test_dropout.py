"""dropout and dropout_backward against the reference, and what must not change their bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, SIZES, assert_same_bits, nan_out, normal, place
from helpers_rows import check_bad_x_and_out, check_empty, check_out

import fastattn
from fastattn import kernels, reference

BOTH = pytest.mark.parametrize("name", ["dropout", "dropout_backward"])
SEEDS = (0, 7, 2**32 - 1, 2**64 - 1)


def call(name: str, x: Any, p: float = 0.3, seed: int = 7, **out: Any) -> Any:
    return getattr(kernels, name)(x, p, seed, **out)


@BOTH
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(isa: str, threads: int, layout: str, name: str) -> None:
    """The same elements as the reference, on every instruction set, to the last bit."""
    rng = np.random.default_rng(1)
    for dim in SIZES:
        x = place(normal(rng, 7, dim), layout)
        for p, seed in ((0.1, SEEDS[0]), (0.5, SEEDS[1]), (1e-9, SEEDS[2]), (0.999, SEEDS[3])):
            expected = getattr(reference, name)(x, p, seed)
            assert_same_bits(call(name, x, p, seed, out=nan_out(7, dim)), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_residual(isa: str, threads: int, layout: str) -> None:
    """It is added to what is left, and none of it is dropped."""
    rng = np.random.default_rng(6)
    for rows, dim in ((7, 1), (7, 37), (2, 256), (700, 768)):
        x, residual = place(normal(rng, rows, dim), layout), place(normal(rng, rows, dim), layout)
        for p in (0.0, 0.4):
            expected = kernels.dropout(x, p, 9) + residual
            assert_same_bits(kernels.dropout(x, p, 9, residual=residual, out=nan_out(rows, dim)), expected)
            assert_same_bits(reference.dropout(x, p, 9, residual=residual), expected)
    y = np.array(x)
    assert kernels.dropout(y, 0.4, 9, residual=residual, out=y) is y
    assert_same_bits(y, expected)


def test_more_than_the_caches_hold_with_a_residual(isa: str, threads: int) -> None:
    x = np.ones((2800, 3000), np.float32)
    y = kernels.dropout(x, 0.25, 3, residual=x)
    assert_same_bits(y[-5:], reference.dropout(x, 0.25, 3)[-5:] + 1)


def test_bad_residual() -> None:
    x = np.zeros((2, 3), np.float32)
    for residual, error, message in (
        (np.zeros(3, np.float32), ValueError, r"residual must have shape \(2, 3\), got \(3,\)"),
        (np.zeros((2, 3)), TypeError, "residual must be float32, got float64"),
        (np.zeros((2, 6), np.float32)[:, ::2], ValueError, "residual"),
    ):
        with pytest.raises(error, match=f"^dropout: {message}"):
            kernels.dropout(x, 0.5, residual=residual)
    with pytest.raises(ValueError, match=r"^dropout: out must not overlap residual"):
        kernels.dropout(np.ones((2, 3), np.float32), 0.5, residual=x, out=x)


@BOTH
def test_many_rows(isa: str, threads: int, name: str) -> None:
    x = normal(np.random.default_rng(2), 1031, 257)
    y = call(name, x, out=nan_out(*x.shape))
    assert_same_bits(y, getattr(reference, name)(x, 0.3, 7))
    fastattn.set_num_threads(1)
    assert_same_bits(call(name, x), y)


def test_more_than_the_caches_hold(isa: str, threads: int) -> None:
    """Streamed results are the others."""
    x = np.ones((2800, 3000), np.float32)
    y = kernels.dropout(x, 0.25, 3)
    assert_same_bits(y[-5:], reference.dropout(x, 0.25, 3)[-5:])
    assert abs((y == 0).mean() - 0.25) < 1e-3


def test_axes_before_the_last_are_rows(isa: str) -> None:
    x = normal(np.random.default_rng(3), 24, 33)
    y = kernels.dropout(x, 0.4, 5)
    assert_same_bits(kernels.dropout(x.reshape(2, 3, 4, 33), 0.4, 5), y.reshape(2, 3, 4, 33))
    assert_same_bits(kernels.dropout(x[0], 0.4, 5), y[0])


def test_what_is_dropped_is_zero_whatever_it_was(isa: str) -> None:
    kept = kernels.dropout(np.ones((4, 99), np.float32), 0.5, 1) != 0
    for value in (np.nan, np.inf, -np.inf):
        y = kernels.dropout(np.full((4, 99), value, np.float32), 0.5, 1)
        np.testing.assert_array_equal(y, np.where(kept, np.float32(value), np.float32(0)))
        assert not np.signbit(y[~kept]).any()


@BOTH
def test_p_zero_copies(isa: str, name: str) -> None:
    x = normal(np.random.default_rng(4), 5, 37)
    x[2, 3] = np.nan
    y = call(name, x, p=0)
    assert y is not x
    assert_same_bits(y, x)


def test_rows_columns_and_seeds_are_unrelated(isa: str) -> None:
    """Neighbours are dropped together as often as chance has it."""
    dropped = np.stack([kernels.dropout(np.ones((512, 768), np.float32), 0.5, seed) == 0 for seed in (1, 2)])
    for a, b in (
        (dropped[0], dropped[1]),
        (dropped[:, 1:], dropped[:, :-1]),
        (dropped[:, :, 1:], dropped[:, :, :-1]),
        (dropped[:, :, 16:], dropped[:, :, :-16]),
    ):
        assert abs((a & b).mean() - 0.25) < 0.002
    assert abs(dropped.mean(axis=2) - 0.5).max() < 0.1  # in every row
    assert abs(dropped.mean(axis=1) - 0.5).max() < 0.12  # in every column


@BOTH
def test_out(isa: str, name: str) -> None:
    check_out(lambda x, **out: call(name, x, **out))


@BOTH
def test_empty(isa: str, threads: int, name: str) -> None:
    check_empty(lambda x: call(name, x))


@BOTH
def test_bad_input(name: str) -> None:
    check_bad_x_and_out(name, lambda x, **out: call(name, x, **out), "x" if name == "dropout" else "dy")
    x = np.zeros((2, 3), np.float32)
    for p in (-0.1, 1.0, 1, np.nan, np.inf):
        with pytest.raises(ValueError, match=rf"^{name}: p must be in \[0, 1\), got {p}$"):
            call(name, x, p)
    with pytest.raises(TypeError, match=rf"^{name}: p must be a number, got str$"):
        call(name, x, "half")  # type: ignore[arg-type]
    for seed in (-1, 2**64, 2**80):
        with pytest.raises(ValueError, match=rf"^{name}: seed must be in \[0, 2\^64\), got {seed}$"):
            call(name, x, seed=seed)
    with pytest.raises(TypeError, match=rf"^{name}: seed must be an integer, got float$"):
        call(name, x, seed=1.0)  # type: ignore[arg-type]
