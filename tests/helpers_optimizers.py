"""What `adamw` and `sgd` must both do. `call(*arrays, **options)` is the kernel, with its required options bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, place

import fastattn

Call = Callable[..., None]
Arrays = Callable[..., list[Any]]


def check_many_elements(call: Call, arrays: Arrays) -> None:
    """Any number of threads and any piece of the arrays give the same bits."""
    given, again, piece = arrays(7, 30011), arrays(7, 30011), [array[1:5] for array in arrays(7, 30011)]
    call(*given)
    fastattn.set_num_threads(1)
    call(*again)
    call(*piece)
    for actual, expected, part in zip(given, again, piece, strict=True):
        assert_same_bits(actual, expected)
        assert_same_bits(part, expected[1:5])
    assert_same_bits(given[1], arrays(7, 30011)[1])


def check_bad_input(name: str, call: Call, arrays: Arrays, names: Sequence[str]) -> Callable[..., None]:
    """What is refused of each array. Returns a check of other arguments: refused(error, message, **options)."""

    def refused(error: type[Exception], message: str, at: int = 0, bad: Any = None, **changed: Any) -> None:
        given = arrays(4, 6)
        given[at] = given[at] if bad is None else bad
        with pytest.raises(error, match=f"^{name}: {message}"):
            call(*given, **changed)

    for i, array in enumerate(names):
        refused(TypeError, f"{array} must be float32, got float64$", i, np.zeros((4, 6)))
        refused(TypeError, f"{array} must be .*, got list$", i, [1.0])
        refused(ValueError, f"{array} .*contiguous", i, np.zeros((4, 12), np.float32)[:, ::2])
        if array != "param":
            refused(ValueError, rf"{array} must have shape \(4, 6\), got \(6, 4\)$", i, np.zeros((6, 4), np.float32))
        if array != "grad":
            refused(ValueError, f"{array} .*read-only", i, place(np.zeros((4, 6), np.float32), "read-only"))
    for j, i in combinations([1, 0, *range(2, len(names))], 2):  # grad, which is not written, is checked first
        given = arrays(6)
        given[i] = given[j]
        with pytest.raises(ValueError, match=f"^{name}: {names[i]} must not overlap {names[j]}$"):
            call(*given)
    return refused
