"""Dropout's random numbers: a function of the seed and the position in the array, so nothing is stored.

A hash of row and column decides whether an element of an array seen as `[rows, columns]` is kept. A row has 64 bits:
number row + 1 of SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom number generators") after `seed`. They
are the two keys of a 32-bit mixer of xor-shifts and multiplications over the columns.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fastattn._types import Floats

from ._blocks import row_blocks


def check(function: str, name: str, p: float, seed: int) -> None:
    """Raise ValueError for a probability or a seed out of range."""
    if not 0 <= p < 1:
        raise ValueError(f"{function}: {name} must be in [0, 1), got {p}")
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"{function}: seed must be in [0, 2^64), got {seed}")


def kept(rows: npt.NDArray[np.integer[Any]], columns: int, p: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which elements of these rows are kept: bool `[..., columns]` for row numbers `[...]`.

    >>> kept(np.arange(2), 6, 0.5, seed=7).astype(int).tolist()
    [[1, 1, 1, 0, 1, 1], [0, 1, 0, 1, 1, 1]]
    """
    z = rows.astype(np.uint64)
    z += np.uint64(1)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(seed)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z ^= z >> np.uint64(shift)
        z *= np.uint64(factor)
    z ^= z >> np.uint64(31)
    keys0, keys1 = ((z >> np.uint64(shift)).astype(np.uint32).reshape(-1, 1) for shift in (0, 32))
    places = np.arange(columns, dtype=np.uint32) * np.uint32(0x9E3779B9)
    dropped = np.uint32(math.floor(p * (1 << 24) + 0.5))  # of 2^24
    keep = np.empty((z.size, columns), np.bool_)
    for block in row_blocks(z.size, columns):
        x = places + keys0[block]
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x21F0AAAD)
        x ^= keys1[block]
        x ^= x >> np.uint32(15)
        x *= np.uint32(0xD35A2D97)
        x ^= x >> np.uint32(15)
        x >>= np.uint32(8)
        np.greater_equal(x, dropped, out=keep[block])
    return keep.reshape(*rows.shape, columns)


def select(x: Floats, keep: npt.NDArray[np.bool_], p: float, out: Floats | None = None) -> Floats:
    """x / (1 - p) where kept, 0 elsewhere, even for NaN; in `out` if given."""
    y: Floats = np.multiply(x, x.dtype.type(1 / (1 - p)), out=out)
    bits = y.view(f"i{y.itemsize}")
    bits &= -keep.view(np.int8)  # no bit or all of them: several times as fast as copyto(y, 0, where=~keep)
    return y


def drop(x: Floats, p: float, seed: int, out: Floats) -> None:
    """Dropout of `x` `[..., D]` into `out`, contiguous, which may be `x` itself."""
    rows, columns = math.prod(x.shape[:-1]), x.shape[-1]
    source, target = x.reshape(rows, columns), out.reshape(rows, columns)
    for block in row_blocks(rows, columns):
        keep = kept(np.arange(block.start, block.stop), columns, p, seed)
        select(source[block], keep, p, target[block])
