"""gradient_norm against the reference, and what must not change its bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import SIZES, double, normal, place

import fastattn
from fastattn import kernels, reference


def gradients(layout: str = "plain") -> list[Any]:
    """Arrays of every size, and larger than the pieces whose sums are added."""
    rng = np.random.default_rng(1)
    shapes = [(size,) for size in SIZES] + [(), (0, 3), (3, 4, 5), (16384,), (131, 997)]
    return [place(np.asarray(normal(rng, *shape)), layout) for shape in shapes]


@pytest.mark.parametrize("layout", ["plain", "end", "start", "read-only"])
def test_values(isa: str, threads: int, layout: str) -> None:
    arrays = gradients(layout)
    for given in ([array] for array in arrays):
        assert kernels.gradient_norm(given) == pytest.approx(reference.gradient_norm(double(*given, None)[:1]), 1e-14)
    norm = kernels.gradient_norm(arrays)
    assert isinstance(norm, float)
    assert norm == pytest.approx(reference.gradient_norm(double(*arrays)), rel=1e-14)


def test_any_number_of_threads(isa: str) -> None:
    before, arrays, norms = fastattn.num_threads(), gradients() * 5, set()
    try:
        for count in (1, 2, 3, 8):
            fastattn.set_num_threads(count)
            norms.add(kernels.gradient_norm(arrays))
    finally:
        fastattn.set_num_threads(before)
    assert len(norms) == 1
    assert kernels.gradient_norm(tuple(arrays)) in norms


def test_nothing_is_too_large_or_too_small(isa: str) -> None:
    """Squares that float32 has no room for."""
    for value in (1e-37, 1e-30, 1e30, 3e38):
        array = np.full(1000, value, np.float32)
        assert kernels.gradient_norm([array]) == pytest.approx(1000**0.5 * float(np.float32(value)), rel=1e-13)


@pytest.mark.parametrize("at", [0, 15, 16, 16383, 16384, 20000])
def test_special_values(isa: str, threads: int, at: int) -> None:
    array = np.zeros(20001, np.float32)
    array[at] = np.inf
    assert kernels.gradient_norm([array]) == np.inf
    array[at] = np.nan
    assert np.isnan(kernels.gradient_norm([array, array]))


def test_empty(isa: str) -> None:
    assert kernels.gradient_norm([]) == 0
    assert kernels.gradient_norm([np.zeros(0, np.float32)]) == 0


def test_bad_input() -> None:
    good = np.zeros((4, 6), np.float32)
    for bad in (good, None, iter([good])):
        name = type(bad).__name__
        with pytest.raises(TypeError, match=f"^gradient_norm: gradients must be a list or tuple, got {name}$"):
            kernels.gradient_norm(bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^gradient_norm: gradients\[1\] must be float32, got float64$"):
        kernels.gradient_norm([good, double(good)])
    with pytest.raises(TypeError, match=r"^gradient_norm: gradients\[0\] must be .*, got NoneType$"):
        kernels.gradient_norm([None])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"^gradient_norm: gradients\[0\] .*contiguous"):
        kernels.gradient_norm([good[:, ::2]])
