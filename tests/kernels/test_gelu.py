"""gelu against the reference, and what must not change its bits."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import EPS, assert_close, assert_same_bits, double, nan_out

from fastattn import kernels, reference

FORMS = pytest.mark.parametrize("approximate", ["none", "tanh"])


@FORMS
def test_the_whole_axis(isa: str, approximate: str) -> None:
    """Absolute error near eps where gelu is small, relative where it is large."""
    x = np.concatenate([np.linspace(-14, 14, 100_003), np.geomspace(1e-37, 1e38, 500)]).astype(np.float32)
    x = np.concatenate([x, -x])
    y = kernels.gelu(x, approximate, out=nan_out(x.size))
    expected = reference.gelu(double(x), approximate)
    error = np.abs(y - expected)
    assert (error <= 4 * EPS * np.maximum(np.abs(expected), 0.25)).all()
    small = np.abs(x) < 0.1  # where it is linear the error is relative
    assert (error[small] <= 4 * EPS * np.abs(expected[small]) + np.finfo(np.float32).tiny).all()


@FORMS
def test_special_values(isa: str, approximate: str) -> None:
    largest = np.finfo(np.float32).max
    x = np.array([np.inf, -np.inf, np.nan, 0.0, largest, -largest, 1e-40, -1e-40], np.float32)
    y = kernels.gelu(x, approximate)
    assert_close(y[np.abs(x) != largest], reference.gelu(double(x), approximate)[np.abs(x) != largest])
    assert y[4] == largest
    assert y[5] == 0
    # alone, too: a NaN or an infinity beside it must not matter
    for i, value in enumerate(x):
        assert_same_bits(kernels.gelu(np.array([value]), approximate), y[i : i + 1])


def test_a_scalar_array() -> None:
    with pytest.raises(ValueError, match=r"^gelu: x must have at least one axis, got a scalar$"):
        kernels.gelu(np.array(1.0, np.float32))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"^gelu: approximate must be one of 'none', 'tanh', got 'erf'$"):
        kernels.gelu(np.zeros(3, np.float32), "erf")


@FORMS
def test_backward_on_the_whole_axis(isa: str, approximate: str) -> None:
    x = np.concatenate([np.linspace(-20, 20, 100_003), np.geomspace(1e-37, 3e38, 500)]).astype(np.float32)
    x = np.concatenate([x, -x])
    dx = kernels.gelu_backward(np.ones_like(x), x, approximate, out=nan_out(x.size))
    assert np.abs(dx - reference.gelu_backward(np.ones(x.size), double(x), approximate)).max() < 1.5e-7


@FORMS
def test_backward_special_values(isa: str, approximate: str) -> None:
    """The limits are 1 and 0; NaN stays, in x and in dy."""
    x = np.array([np.inf, -np.inf, np.nan, 0.0], np.float32)
    for values in (x, np.tile(x, 7)):
        dx = kernels.gelu_backward(np.ones_like(values), values, approximate)
        np.testing.assert_array_equal(dx[:4], [1, 0, np.nan, 0.5])
        assert np.isnan(kernels.gelu_backward(np.full_like(values, np.nan), values, approximate)).all()


def test_backward_bad_input() -> None:
    with pytest.raises(ValueError, match=r"^gelu_backward: approximate must be one of 'none', 'tanh', got 'erf'$"):
        kernels.gelu_backward(np.zeros(3, np.float32), np.zeros(3, np.float32), "erf")
