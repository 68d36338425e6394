"""l2_normalize against the reference, and what must not change its bits."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from helpers import assert_close, assert_same_bits, double, nan_out, normal
from helpers_rows import check_random_rows
from hypothesis import given
from hypothesis import strategies as st

from fastattn import kernels, reference


@given(
    st.lists(
        st.lists(st.floats(-1e6, 1e6, width=32, allow_subnormal=False), min_size=11, max_size=11),
        min_size=1,
        max_size=3,
    )
)
def test_any_values(isa: str, rows: list[list[float]]) -> None:
    call, exact = (partial(module.l2_normalize, eps=1e-3) for module in (kernels, reference))
    check_random_rows(call, exact, rows)


def test_eps_is_the_smallest_divisor(isa: str) -> None:
    x = np.array([[3e-5, 4e-5], [3.0, 4.0], [0.0, 0.0]], np.float32)
    y = kernels.l2_normalize(x, eps=1e-2, out=nan_out(3, 2))
    assert_close(y, reference.l2_normalize(double(x), eps=1e-2), 2)
    assert_close(y[0], double(x[0]) / 1e-2)
    assert (y[2] == 0).all()


@pytest.mark.parametrize("at", [0, 7, 8, 16, 18])
def test_special_values(isa: str, at: int) -> None:
    x = normal(np.random.default_rng(6), 4, 19)
    clean = kernels.l2_normalize(x)
    x[0, at] = np.nan
    x[2, at] = np.inf
    y = kernels.l2_normalize(x, out=nan_out(*x.shape))
    assert np.isnan(y[0]).all()
    assert np.isnan(y[2, at])
    assert (np.delete(y[2], at) == 0).all()
    assert_same_bits(y[[1, 3]], clean[[1, 3]])


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_magnitude_does_not_matter(isa: str, scale: float) -> None:
    x = normal(np.random.default_rng(7), 5, 33) * np.float32(scale)
    assert_close(kernels.l2_normalize(x, eps=1e-30), reference.l2_normalize(double(x), eps=1e-30), 33)


def test_bad_input() -> None:
    with pytest.raises(TypeError, match=r"^l2_normalize: eps must be a number, got str$"):
        kernels.l2_normalize(np.zeros((2, 3), np.float32), eps="small")


def test_backward_of_a_short_row(isa: str) -> None:
    dy = np.array([[1, 2], [3, 4]], np.float32)
    assert kernels.l2_normalize_backward(dy, np.zeros((2, 2), np.float32), 0.5).tolist() == [[2, 4], [6, 8]]


def test_backward_special_values(isa: str) -> None:
    dy, x = normal(np.random.default_rng(8), 2, 3, 19)
    clean = kernels.l2_normalize_backward(dy, x)
    x[1, 17] = np.nan
    dx = kernels.l2_normalize_backward(dy, x)
    assert np.isnan(dx[1]).all()
    assert_same_bits(dx[[0, 2]], clean[[0, 2]])


def test_backward_bad_input() -> None:
    with pytest.raises(ValueError, match=r"^l2_normalize_backward: eps must be .* not negative, got -1$"):
        kernels.l2_normalize_backward(np.zeros(3, np.float32), np.zeros(3, np.float32), -1)
