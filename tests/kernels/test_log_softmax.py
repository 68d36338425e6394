"""log_softmax against the reference, and what must not change its bits."""

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
    assert_close(kernels.log_softmax(x, out=nan_out(*x.shape)), reference.log_softmax(double(x)), 30522)


@given(st.lists(st.lists(st.floats(-200, 200, width=32), min_size=11, max_size=11), min_size=1, max_size=3))
def test_any_values(isa: str, rows: list[list[float]]) -> None:
    check_random_rows(kernels.log_softmax, reference.log_softmax, rows)


@pytest.mark.parametrize("at", [0, 7, 8, 16, 18])
def test_special_values(isa: str, at: int) -> None:
    """-inf throughout stays, NaN and +inf give NaN, wherever in the row they stand; nothing underflows."""
    x = normal(np.random.default_rng(6), 6, 19)
    x[0] = -INF
    x[1, at] = np.nan
    x[2, at] = INF
    x[3, at] = 1e30
    x[4] = -1e30
    x[5, at] = -INF
    y = kernels.log_softmax(x, out=nan_out(*x.shape))
    expected = reference.log_softmax(double(x))
    for row, exact in zip(y, expected, strict=True):  # each with its own magnitude
        assert_close(row, exact, 19)
    assert (y[0] == -INF).all()
    assert np.isnan(y[1:3]).all()
    assert y[3, at] == 0
    assert y[5, at] == -INF


def test_a_certain_class_has_log_probability_zero(isa: str) -> None:
    x = np.array([[0.0, -200.0, -300.0], [5.0, -INF, -INF]], np.float32)
    np.testing.assert_array_equal(kernels.log_softmax(x), [[0.0, -200.0, -300.0], [0.0, -INF, -INF]])


def test_backward_of_an_impossible_class(isa: str) -> None:
    """Where y is -inf the gradient is dy."""
    y, dy = np.array([[0, -INF, -INF]], np.float32), np.array([[1, 2, 3]], np.float32)
    assert kernels.log_softmax_backward(dy, y).tolist() == [[-5, 2, 3]]
