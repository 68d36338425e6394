"""scatter_rows against the reference: rows are copied bit by bit, and the others stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, SIZES, assert_same_bits, normal, place

from fastattn import kernels, reference


def arguments(count: int, dim: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(1)
    return normal(rng, count, dim), rng.permutation(3 * count)[:count], normal(rng, 3 * count, dim)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(isa: str, threads: int, layout: str) -> None:
    for dim in SIZES:
        for count in (1, 7, 2000 if dim < 70 else 70):
            x, rows, into = arguments(count, dim)
            into[0] = np.nan
            expected = reference.scatter_rows(x, rows, into.copy())
            into = place(into, "end")
            assert kernels.scatter_rows(place(x, layout), place(rows, layout), into) is into
            assert_same_bits(into, expected)


def test_strided_rows(isa: str) -> None:
    x, rows, into = arguments(5, 12)
    expected = reference.scatter_rows(x[:, 4:10], rows, into[:, :6].copy())
    assert_same_bits(kernels.scatter_rows(x[:, 4:10], rows, into[:, :6].copy()), expected)


def test_every_value_keeps_its_bits(isa: str) -> None:
    x = np.array([[1e-45, -0.0, np.inf, -np.inf, np.nan]], np.float32)
    assert_same_bits(kernels.scatter_rows(x, np.array([1]), np.zeros((2, 5), np.float32))[1], x[0])


def test_empty(isa: str) -> None:
    into = np.ones((3, 4), np.float32)
    assert_same_bits(kernels.scatter_rows(into[:0].copy(), np.array([], np.int64), into), np.ones((3, 4), np.float32))
    nothing = np.empty((3, 0), np.float32)
    assert kernels.scatter_rows(nothing.copy(), np.arange(3), nothing) is nothing


def test_refused(isa: str) -> None:
    x, rows, into = np.ones((2, 4), np.float32), np.array([2, 0]), np.zeros((3, 4), np.float32)
    readonly = into.copy()
    readonly.flags.writeable = False
    for error, message, given in (
        (ValueError, r"rows must be in \[0, 3\), the rows of into, got 3 at index 1", (x, np.array([0, 3]), into)),
        (ValueError, r"rows must be in \[0, 3\), the rows of into, got -1 at index 0", (x, np.array([-1, 3]), into)),
        (ValueError, "rows must be distinct, got 2 twice", (x, np.array([2, 2]), into)),
        (ValueError, r"rows must have shape \(2,\), got \(1,\)", (x, rows[:1], into)),
        (TypeError, "rows must be int64, got int32", (x, rows.astype(np.int32), into)),
        (TypeError, "x must be float32, got float64", (x.astype(float), rows, into)),
        (ValueError, "x must have 2 axes", (x[0], rows, into)),
        (ValueError, "x must be contiguous along its last axis", (np.ones((2, 8), np.float32)[:, ::2], rows, into)),
        (ValueError, r"into must have shape \(3, 4\), got \(3, 5\)", (x, rows, np.zeros((3, 5), np.float32))),
        (ValueError, "into must be C-contiguous", (x, rows, np.zeros((4, 3), np.float32).T)),
        (ValueError, "into must be writable", (x, rows, readonly)),
        (ValueError, "into must not overlap x", (into[1:], rows, into)),
        (TypeError, "into must be a NumPy array of float32, got NoneType", (x, rows, None)),
    ):
        with pytest.raises(error, match=f"^scatter_rows: {message}"):
            kernels.scatter_rows(*given)  # type: ignore[arg-type]
    assert not into.any()
    for wrong in ([0, 3], [2, 2]):
        with pytest.raises(ValueError, match=r"^scatter_rows: rows must be"):
            reference.scatter_rows(x, np.array(wrong), into)
