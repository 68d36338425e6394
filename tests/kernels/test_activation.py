"""activation against the reference, and what must not change its bits."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from helpers import EPS, LAYOUTS, assert_same_bits, double, nan_out, normal
from helpers_rows import (
    ROLES,
    check_backward_rows,
    check_bad_backward,
    check_bad_x_and_out,
    check_empty,
    check_many_rows,
    check_out,
    check_rows_are_independent,
    check_values,
    of_one,
)

from fastattn import kernels, reference

NAMES = ("relu", "sigmoid", "silu", "tanh")
FUNCTIONS = pytest.mark.parametrize("function", NAMES)
AXIS = np.concatenate([np.linspace(-20, 20, 100_003), np.geomspace(1e-37, 3e38, 500)]).astype(np.float32)
AXIS = np.concatenate([AXIS, -AXIS])


def forward(function: str) -> list[partial[Any]]:
    return [partial(module.activation, function=function) for module in (kernels, reference)]


def backward(function: str) -> list[partial[Any]]:
    return [partial(module.activation_backward, function=function) for module in (kernels, reference)]


@FUNCTIONS
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(isa: str, threads: int, layout: str, function: str) -> None:
    call, exact = forward(function)
    check_values(call, exact, layout, length=lambda dim: 1)


@FUNCTIONS
def test_rows(isa: str, threads: int, function: str) -> None:
    call, exact = forward(function)
    check_many_rows(call, exact)
    check_rows_are_independent(call)
    check_out(call)
    check_empty(call)


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
@ROLES
@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward_values(isa: str, threads: int, role: str, layout: str, function: str) -> None:
    call, exact = (of_one(f, role) for f in backward(function))
    check_values(call, exact, layout, length=lambda dim: 1)


@FUNCTIONS
@ROLES
def test_backward_rows(isa: str, threads: int, role: str, function: str) -> None:
    check_backward_rows(*backward(function), role)


@FUNCTIONS
def test_backward_on_the_whole_axis(isa: str, function: str) -> None:
    dx = kernels.activation_backward(np.ones_like(AXIS), AXIS, function, out=nan_out(AXIS.size))
    assert np.abs(dx - reference.activation_backward(np.ones(AXIS.size), double(AXIS), function)).max() < 2.5e-7


@FUNCTIONS
def test_more_than_the_caches_hold(isa: str, threads: int, function: str) -> None:
    """Streamed results are the others."""
    dy, x = normal(np.random.default_rng(9), 2, 4, 3000)
    many = [np.broadcast_to(array[:, None], (4, 700, 3000)).reshape(2800, 3000) for array in (dy, x)]
    out = np.empty(2800 * 3000 + 1, np.float32)[1:].reshape(2800, 3000)  # not aligned to a vector
    for y, expected in (
        (kernels.activation(many[1], function, out=out), kernels.activation(x, function)),
        (kernels.activation_backward(*many, function), kernels.activation_backward(dy, x, function)),
    ):
        for i in (0, 1, 349, 699):
            assert_same_bits(y.reshape(4, 700, 3000)[:, i], expected)


def test_bad_input() -> None:
    check_bad_x_and_out("activation", partial(kernels.activation, function="tanh"))
    check_bad_backward("activation_backward", partial(kernels.activation_backward, function="tanh"), "x")
    x = np.zeros(3, np.float32)
    for module in (kernels, reference):
        words = r"function must be one of 'relu', 'sigmoid', 'silu', 'tanh', got 'gelu'$"
        with pytest.raises(ValueError, match=rf"^activation: {words}"):
            module.activation(x, "gelu")
        with pytest.raises(ValueError, match=rf"^activation_backward: {words}"):
            module.activation_backward(x, x, "gelu")
