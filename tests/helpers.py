"""What the tests share: a tolerance, equality of bits, and arrays in awkward places.

>>> from helpers import assert_close, place
>>> x = place(np.ones((3, 7), np.float32), "end")  # the byte after x[2, 6] cannot be read
>>> assert_close(kernels.softmax(x), reference.softmax(x.astype(np.float64)), length=7)
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import mmap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastattn import Tensor

SIZES = (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 768)
"""Lengths around every vector width, and a real model's."""

LAYOUTS = ("plain", "strided", "end", "start", "read-only")
"""The places that `place` knows."""

EPS = float(np.finfo(np.float32).eps)
TINY = float(np.finfo(np.float32).tiny)
_LIBC = ctypes.CDLL(None, use_errno=True)


def tolerance(expected: Any, length: int = 1, c: float = 8.0, magnitude: float = 0.0) -> float:
    """c * eps * sqrt(length) * max|expected| + the smallest normal: how far off float32 may be.

    `length` is how many terms the longest sum has; `magnitude` is given where max|expected| may be less than
    usual by chance, because it is a single sum whose terms cancel: then it stands for what is usual.
    """
    finite = np.abs(expected[np.isfinite(expected)])
    largest = max(float(finite.max(initial=0.0)), magnitude)
    return c * EPS * length**0.5 * largest + TINY


def assert_close(actual: Any, expected: Any, length: int = 1, c: float = 8.0, magnitude: float = 0.0) -> None:
    """Same shape, NaN and infinite in the same places, elsewhere within the tolerance; and float32."""
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    with np.errstate(over="ignore"):
        rounded = expected.astype(np.float32)  # what overflows float32 must be infinite
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(rounded), "NaN in other places")
    infinite = np.isinf(rounded)
    np.testing.assert_array_equal(actual[infinite], rounded[infinite], "infinite in other places")
    finite = np.isfinite(rounded)
    if not finite.any():
        return
    assert np.isfinite(actual[finite]).all(), f"{np.isinf(actual[finite]).sum()} infinite that should not be"
    error = np.abs(actual[finite].astype(np.float64) - expected[finite])
    limit = tolerance(expected[finite], length, c, magnitude)
    worst = int(error.argmax())
    assert error[worst] <= limit, (
        f"off by {error[worst]:.3e} where {limit:.3e} is allowed: "
        f"{actual[finite][worst]!r} for {expected[finite][worst]!r}, {int((error > limit).sum())} elements"
    )


def array(x: Any) -> Any:
    """A result, Tensor or array, as an array."""
    return x.data if isinstance(x, Tensor) else x


def assert_same_bits(actual: Any, expected: Any) -> None:
    """The two float32 arrays or Tensors have the same shape and the same bits, NaN for NaN."""
    actual, expected = array(actual), array(expected)
    assert actual.dtype == expected.dtype == np.float32
    assert actual.shape == expected.shape
    a, b = (np.ascontiguousarray(x).view(np.uint32) for x in (actual, expected))
    different = int((a != b).sum())
    assert different == 0, f"{different} of {a.size} elements differ in their bits"


def double(*arrays: Any) -> Any:
    """The arrays in float64 (None stays None), for the reference."""
    converted = [None if a is None else np.asarray(a, np.float64) for a in arrays]
    return converted[0] if len(converted) == 1 else converted


def normal(rng: np.random.Generator, *shape: int, mean: float = 0.0) -> Any:
    """Normally distributed float32."""
    return rng.standard_normal(shape, dtype=np.float32) + np.float32(mean)


def cumulative(lengths: Sequence[int]) -> Any:
    """`cu_seqlens` for these lengths."""
    return np.cumsum((0, *lengths)).astype(np.int32)


def between_guards(shape: tuple[int, ...], dtype: Any, at: str) -> Any:
    """A new array that ends where an unreadable page begins (`at` "end"), or begins where one ends ("start").

    What else there is of its pages is filled with ones, which make NaN in float32 and nonsense in integers.
    """
    dtype = np.dtype(dtype)
    page = mmap.PAGESIZE
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    room = max(1, -(-size // page)) * page
    memory = mmap.mmap(-1, room + 2 * page)
    memory[page : page + room] = b"\xff" * room
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (address, address + page + room):
        if _LIBC.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    start = page if at == "start" else page + room - size
    return np.frombuffer(memory, dtype, size // dtype.itemsize, start).reshape(shape)


def place(array: Any, layout: str) -> Any:
    """A copy of `array` in an awkward place.

    "strided": rows (the last axis) lie apart, with NaN between them. "end", "start": see `between_guards`.
    "read-only": not writable. "plain": nothing special.
    """
    if layout == "strided" and array.ndim > 1:
        wide = np.full((*array.shape[:-1], array.shape[-1] + 5), -1, array.dtype)
        if array.dtype.kind == "f":
            wide[...] = np.nan
        view = wide[..., 3 : 3 + array.shape[-1]]
        view[...] = array
        return view
    if layout in ("end", "start"):
        view = between_guards(array.shape, array.dtype, layout)
        view[...] = array
        return view
    copy = array.copy()
    if layout == "read-only":
        copy.flags.writeable = False
    return copy


def nan_out(*shape: int) -> Any:
    """An output full of NaN that ends at an unreadable page: to write too little or too much shows."""
    out = between_guards(shape, np.float32, "end")
    out[...] = np.nan
    return out


@contextlib.contextmanager
def no_hang(seconds: float = 120) -> Iterator[None]:
    """Ends the tests with a traceback when something waits for ever, such as for the writer of a named pipe.

    A library in another language cannot be interrupted.
    """
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
