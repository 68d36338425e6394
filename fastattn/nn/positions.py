"""Sinusoidal positions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.nn.module import Module

_BLOCK = 64  # rows computed together: NumPy's last bit of a sine may depend on where in an array it stands
_ORDERS = ("interleaved", "concatenated")


class SinusoidalPositions(Module):
    """The paper's signal for a position p: the sine and the cosine of p / max_timescale^(2 i / dim), i < dim / 2.

    `order` "interleaved" gives sine and cosine of a frequency by turns, as in the paper, and "concatenated" all sines,
    then all cosines, as tensor2tensor and Marian. A sequence begins with `first_position`. Of an odd `dim` the last
    frequency has no cosine. It has no parameters, and no state dict has it. (tensor2tensor lets its wavelengths end at
    `max_timescale` itself: that is a `max_timescale` of 10000 ** (h / (h - 1)) here, h being dim / 2.)

    Raises ValueError for another `order`, a `dim` less than 1, a negative `first_position` and a `max_timescale` that
    is not above 0.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5.

    >>> SinusoidalPositions(4)(np.array([0, 1])).astype(float).round(4).tolist()
    [[0.0, 1.0, 0.0, 1.0], [0.8415, 0.5403, 0.01, 0.9999]]
    """

    def __init__(
        self, dim: int, *, order: str = "interleaved", first_position: int = 0, max_timescale: float = 10000.0
    ) -> None:
        if order not in _ORDERS:
            raise ValueError(f"SinusoidalPositions: order must be one of {', '.join(_ORDERS)}, got {order!r}")
        if dim < 1 or first_position < 0 or not max_timescale > 0:
            raise ValueError(
                "SinusoidalPositions: dim must be 1 or more, first_position 0 or more and max_timescale above 0, "
                f"got {dim}, {first_position} and {max_timescale}"
            )
        self.dim = dim
        self.order = order
        self.first_position = first_position
        self.max_timescale = float(max_timescale)

    def __call__(self, position_ids: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """`position_ids` `[...]`, integers from 0 on, give `[..., dim]`, float32.

        Raises ValueError for a negative one.
        """
        if position_ids.min(initial=0) < 0:
            raise ValueError(f"SinusoidalPositions: position_ids must not be negative, got {position_ids.min()}")
        rows: NDArray[np.float32] = self.table(int(position_ids.max(initial=0)) + 1)[position_ids]
        return rows

    def table(self, rows: int) -> NDArray[np.float32]:
        """The rows of positions 0, 1, ...: read-only `[rows, dim]`, float32. A row has the same bits in all tables."""
        size = max(_BLOCK, 1 << (rows - 1).bit_length())  # so that there are few of them
        return _table(size, self.dim, self.order, self.first_position, self.max_timescale)[:rows]


@lru_cache(maxsize=16)
def _table(rows: int, dim: int, order: str, first: int, max_timescale: float) -> NDArray[np.float32]:
    table = np.empty((rows, dim), np.float32)
    half = (dim + 1) // 2
    scale = np.power(max_timescale, 2 * np.arange(half) / dim)
    sines, cosines = (table[:, 0::2], table[:, 1::2]) if order == "interleaved" else (table[:, :half], table[:, half:])
    for start in range(0, rows, _BLOCK):
        block = slice(start, start + _BLOCK)
        angles = np.arange(first + start, first + start + _BLOCK)[:, None] / scale
        sines[block] = np.sin(angles)
        cosines[block] = np.cos(angles)[:, : dim // 2]
    table.flags.writeable = False
    return table
