"""gelu against the reference, and what must not change its bits."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from helpers import EPS, LAYOUTS, assert_close, assert_same_bits, double, nan_out
from helpers_rows import (
    check_bad_x_and_out,
    check_empty,
    check_many_rows,
    check_out,
    check_rows_are_independent,
    check_values,
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
