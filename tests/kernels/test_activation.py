"""activation against the reference, and what must not change its bits."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import EPS, assert_same_bits, double, nan_out, normal

from fastattn import kernels, reference

NAMES = ("relu", "sigmoid", "silu", "tanh")
FUNCTIONS = pytest.mark.parametrize("function", NAMES)
AXIS = np.concatenate([np.linspace(-20, 20, 100_003), np.geomspace(1e-37, 3e38, 500)]).astype(np.float32)
AXIS = np.concatenate([AXIS, -AXIS])


@FUNCTIONS
def test_the_whole_axis(isa: str, function: str) -> None:
    y = kernels.activation(AXIS, function, out=nan_out(AXIS.size))
    expected = reference.activation(double(AXIS), function)
    assert (np.abs(y - expected) <= 6 * EPS * np.abs(expected) + np.finfo(np.float32).tiny).all()


@FUNCTIONS
def test_special_values(isa: str, function: str) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0.0], np.float32)
    wanted = {
        "relu": [np.inf, 0, np.nan, 0],
        "sigmoid": [1, 0, np.nan, 0.5],
        "silu": [np.inf, 0, np.nan, 0],
        "tanh": [1, -1, np.nan, 0],
    }
    slopes = {"relu": [1, 0, 1, 0], "sigmoid": [0, 0, np.nan, 0.25], "silu": [1, 0, np.nan, 0.5]}
    for values in (x, np.tile(x, 7)):  # alone and among others
        np.testing.assert_array_equal(kernels.activation(values, function)[:4], wanted[function])
        dx = kernels.activation_backward(np.ones_like(values), values, function)
        np.testing.assert_array_equal(dx[:4], slopes.get(function, [0, 0, np.nan, 1]))


@pytest.mark.parametrize("function", ["relu", "silu", "tanh"])
def test_the_bits_of_linear(isa: str, function: str) -> None:
    x = normal(np.random.default_rng(0), 9, 16)
    product = kernels.linear(x, np.eye(16, dtype=np.float32), activation=function)
    assert_same_bits(kernels.activation(x, function), product)


@FUNCTIONS
def test_backward_on_the_whole_axis(isa: str, function: str) -> None:
    dx = kernels.activation_backward(np.ones_like(AXIS), AXIS, function, out=nan_out(AXIS.size))
    assert np.abs(dx - reference.activation_backward(np.ones(AXIS.size), double(AXIS), function)).max() < 2.5e-7


def test_bad_input() -> None:
    x = np.zeros(3, np.float32)
    for module in (kernels, reference):
        words = r"function must be one of 'relu', 'sigmoid', 'silu', 'tanh', got 'gelu'$"
        with pytest.raises(ValueError, match=rf"^activation: {words}"):
            module.activation(x, "gelu")
        with pytest.raises(ValueError, match=rf"^activation_backward: {words}"):
            module.activation_backward(x, x, "gelu")
