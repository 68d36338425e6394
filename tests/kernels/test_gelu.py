"""gelu against the reference, and what must not change its bits."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from helpers import EPS, LAYOUTS, assert_close, assert_same_bits, double, nan_out, normal
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

FORMS = pytest.mark.parametrize("approximate", ["none", "tanh"])


@FORMS
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(isa: str, threads: int, layout: str, approximate: str) -> None:
    call, exact = (
        partial(kernels.gelu, approximate=approximate),
        partial(reference.gelu, approximate=approximate),
    )
    check_values(call, exact, layout, length=lambda dim: 1)


@FORMS
def test_many_rows(isa: str, threads: int, approximate: str) -> None:
    check_many_rows(partial(kernels.gelu, approximate=approximate), partial(reference.gelu, approximate=approximate))


@FORMS
def test_rows_are_independent(isa: str, threads: int, approximate: str) -> None:
    check_rows_are_independent(partial(kernels.gelu, approximate=approximate))


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


@FORMS
def test_out(isa: str, approximate: str) -> None:
    check_out(partial(kernels.gelu, approximate=approximate))


@FORMS
def test_empty(isa: str, threads: int, approximate: str) -> None:
    check_empty(partial(kernels.gelu, approximate=approximate))


def test_a_scalar_array() -> None:
    with pytest.raises(ValueError, match=r"^gelu: x must have at least one axis, got a scalar$"):
        kernels.gelu(np.array(1.0, np.float32))


def test_bad_input() -> None:
    check_bad_x_and_out("gelu", kernels.gelu)
    with pytest.raises(ValueError, match=r"^gelu: approximate must be one of 'none', 'tanh', got 'erf'$"):
        kernels.gelu(np.zeros(3, np.float32), "erf")


def both(approximate: str) -> list[partial[Any]]:
    return [partial(module.gelu_backward, approximate=approximate) for module in (kernels, reference)]


@FORMS
@ROLES
@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward_values(isa: str, threads: int, role: str, layout: str, approximate: str) -> None:
    call, exact = (of_one(backward, role) for backward in both(approximate))
    check_values(call, exact, layout, length=lambda dim: 1)


@FORMS
@ROLES
def test_backward_rows(isa: str, threads: int, role: str, approximate: str) -> None:
    check_backward_rows(*both(approximate), role)


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


@FORMS
def test_backward_of_more_than_the_caches_hold(isa: str, threads: int, approximate: str) -> None:
    """Streamed results are the others."""
    dy, x = normal(np.random.default_rng(9), 2, 4, 3000)
    expected = kernels.gelu_backward(dy, x, approximate)
    many = [np.broadcast_to(array[:, None], (4, 700, 3000)).reshape(2800, 3000) for array in (dy, x)]
    out = np.empty(2800 * 3000 + 1, np.float32)[1:].reshape(2800, 3000)  # not aligned to a vector
    dx = kernels.gelu_backward(*many, approximate, out=out).reshape(4, 700, 3000)
    for i in (0, 1, 349, 699):
        assert_same_bits(dx[:, i], expected)


def test_backward_bad_input() -> None:
    check_bad_backward("gelu_backward", kernels.gelu_backward, "x")
    with pytest.raises(ValueError, match=r"^gelu_backward: approximate must be one of 'none', 'tanh', got 'erf'$"):
        kernels.gelu_backward(np.zeros(3, np.float32), np.zeros(3, np.float32), "erf")
