"""softmax against the reference, and what must not change its bits."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_close, double, nan_out, normal
from helpers_rows import check_random_rows
from hypothesis import given
from hypothesis import strategies as st

from fastattn import kernels, reference

INF = np.inf


def test_vocabulary_rows(isa: str) -> None:
    x = 4 * normal(np.random.default_rng(5), 3, 30522)
    assert_close(kernels.softmax(x, out=nan_out(*x.shape)), reference.softmax(double(x)), 30522)


@given(st.lists(st.lists(st.floats(-200, 200, width=32), min_size=11, max_size=11), min_size=1, max_size=3))
def test_any_values(isa: str, rows: list[list[float]]) -> None:
    check_random_rows(kernels.softmax, reference.softmax, rows)


@pytest.mark.parametrize("at", [0, 7, 8, 16, 18])
def test_special_values(isa: str, at: int) -> None:
    """-inf throughout gives 0, NaN and +inf give NaN, huge values neither, wherever in the row they stand."""
    x = normal(np.random.default_rng(6), 7, 19)
    x[0] = -INF
    x[1, at] = np.nan
    x[2, at] = INF
    x[3, at] = np.finfo(np.float32).max
    x[4] = np.finfo(np.float32).min
    x[5] = -INF
    x[5, at] = -3e38
    x[6, at] = -INF
    y = kernels.softmax(x, out=nan_out(*x.shape))
    assert_close(y, reference.softmax(double(x)), 19)
    assert (y[0] == 0).all()
    assert np.isnan(y[1:3]).all()
    assert y[3, at] == 1
    assert y[5, at] == 1
    assert y[6, at] == 0


def test_one_column_is_one(isa: str) -> None:
    x = np.array([[3.0], [-1e30], [0.0]], np.float32)
    assert (kernels.softmax(x) == 1).all()


def test_backward_of_a_masked_row_is_zero(isa: str) -> None:
    """A row of -inf is 0, and so is its gradient."""
    y = kernels.softmax(np.full((2, 9), -INF, np.float32))
    assert (kernels.softmax_backward(normal(np.random.default_rng(7), 2, 9), y) == 0).all()
