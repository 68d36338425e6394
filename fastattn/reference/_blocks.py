"""Splitting arrays into blocks that stay in the cache."""

from __future__ import annotations

from collections.abc import Iterator

from fastattn._types import Floats

BLOCK = 1 << 14
"""Elements computed at a time, few enough that their temporaries stay in the cache."""


def flat_blocks(*arrays: Floats) -> Iterator[list[Floats]]:
    """Matching views of arrays of one shape, block after block; the whole arrays at once if they are strided."""
    if not all(a.flags.c_contiguous for a in arrays):
        yield list(arrays)
        return
    flat = [a.reshape(-1) for a in arrays]
    for i in range(0, flat[0].size, BLOCK):
        yield [a[i : i + BLOCK] for a in flat]


def row_blocks(rows: int, columns: int) -> list[slice]:
    """Slices that split `[rows, columns]` into blocks of one or more whole rows."""
    step = max(1, 2 * BLOCK // max(1, columns))
    return [slice(start, min(rows, start + step)) for start in range(0, rows, step)]
