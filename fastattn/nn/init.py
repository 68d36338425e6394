"""Initial values of parameters, drawn from `fastattn.random`: the same `manual_seed` gives the same values."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from fastattn._types import Array
from fastattn.random import next_seed

__all__ = ["Init", "normal", "ones", "skipped", "uniform", "uninitialized", "zeros"]

Init = Callable[[tuple[int, ...]], Array]
"""Makes a new float32 array of a shape."""


_thread = threading.local()


@contextmanager
def uninitialized() -> Iterator[None]:
    """Make this thread create parameters without values within the block, since they will be loaded.

    `Module.initialize` then draws values for the parameters that were not loaded.
    """
    before, _thread.skip = skipped(), True
    try:
        yield
    finally:
        _thread.skip = before


def skipped() -> bool:
    """Whether this thread is within `uninitialized`."""
    return getattr(_thread, "skip", False)


def zeros(shape: tuple[int, ...]) -> Array:
    """Zeros."""
    return np.zeros(shape, np.float32)


def ones(shape: tuple[int, ...]) -> Array:
    """Ones."""
    return np.ones(shape, np.float32)


def normal(std: float, zero_row: int | None = None) -> Init:
    """Normally distributed numbers with mean 0. The row `zero_row` is 0."""
    return partial(_normal, std, zero_row)


def uniform(bound: float) -> Init:
    """Uniformly distributed numbers from -bound to bound."""
    return partial(_uniform, bound)


def _normal(std: float, zero_row: int | None, shape: tuple[int, ...]) -> Array:
    array = _generator().standard_normal(shape, np.float32)
    array *= np.float32(std)
    if zero_row is not None:
        array[zero_row] = 0
    return array


def _uniform(bound: float, shape: tuple[int, ...]) -> Array:
    array = _generator().random(shape, np.float32)
    array -= np.float32(0.5)
    array *= np.float32(2 * bound)
    return array


def _generator() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(next_seed()))
