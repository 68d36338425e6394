"""Sinusoidal positions: vectors to add, and the angles of rotary positions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastattn.checks import POSITIVE, choice, integer, integers, number
from fastattn.nn.module import Module

_BLOCK = 64  # positions computed together: the last bit of NumPy's sine may depend on the position in the array
_KEPT = 64 * _BLOCK  # positions below this one are kept in tables
_ORDERS = ("interleaved", "concatenated")


class SinusoidalPositions(Module):
    """The paper's encoding of position p: the sine and the cosine of p / max_timescale^(2 i / dim), i < dim / 2.

    `order` "interleaved" puts sine and cosine of a frequency side by side, as in the paper; "concatenated" puts all
    sines first, then all cosines, as in tensor2tensor and Marian. A sequence begins with `first_position`. With an odd
    `dim` the last frequency has no cosine. A state dict does not contain it. (In tensor2tensor the wavelengths end at
    `max_timescale` itself, which is a `max_timescale` of 10000 ** (h / (h - 1)) here, with h = dim / 2.)

    Raises ValueError for an unknown `order`, a `dim` less than 1, a negative `first_position` and a `max_timescale`
    that is not above 0.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5.

    >>> SinusoidalPositions(4)(np.array([0, 1])).astype(float).round(4).tolist()
    [[0.0, 1.0, 0.0, 1.0], [0.8415, 0.5403, 0.01, 0.9999]]
    """

    def __init__(
        self, dim: int, *, order: str = "interleaved", first_position: int = 0, max_timescale: float = 10000.0
    ) -> None:
        name = type(self).__name__
        self.dim = integer(f"{name}: dim", dim)
        self.order: str = choice(f"{name}: order", order, _ORDERS)
        self.first_position = integer(f"{name}: first_position", first_position, 0)
        self.max_timescale = number(f"{name}: max_timescale", max_timescale, **POSITIVE)

    def forward(self, position_ids: ArrayLike) -> NDArray[np.float32]:
        """From `position_ids` `[...]`, integers >= 0, to float32 `[..., dim]`. A position always has the same bits.

        Raises TypeError for an array that does not hold integers, ValueError for a negative one.
        """
        table, places = self.lookup(integers("SinusoidalPositions: position_ids", position_ids))
        rows: NDArray[np.float32] = table[places]
        return rows

    def lookup(
        self, position_ids: NDArray[np.int64], dtype: DTypeLike = np.float32
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """A table of floats, read-only `[rows, dim]`, and the row of each position, int64 `[...]`.

        With the order "concatenated" they are what `fastattn.functional.rotary_embedding` takes. Raises ValueError for
        a negative position.

        >>> table, rows = SinusoidalPositions(4).lookup(np.array([65, 66]))
        >>> table.shape, rows.tolist()
        ((64, 4), [1, 2])
        """
        first, last = (int(position_ids.min()), int(position_ids.max())) if position_ids.size else (0, 0)
        if first < 0:
            raise ValueError(f"SinusoidalPositions: position_ids must not be negative, got {first}")
        parameters = self.dim, self.order, self.first_position, self.max_timescale, np.dtype(dtype)
        block = first // _BLOCK
        if block == last // _BLOCK:  # as in decoding
            return _block(block, *parameters), position_ids - block * _BLOCK
        if last < _KEPT:
            return _table(1 << (last // _BLOCK).bit_length(), *parameters), position_ids
        blocks, places = np.unique(position_ids // _BLOCK, return_inverse=True)
        table = np.concatenate([_block(int(block), *parameters) for block in blocks])
        return table, places.reshape(position_ids.shape) * _BLOCK + position_ids % _BLOCK


@lru_cache(maxsize=256)
def _block(number: int, dim: int, order: str, first: int, max_timescale: float, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The rows of 64 consecutive positions, read-only `[64, dim]`."""
    table = np.empty((_BLOCK, dim), dtype)
    half = (dim + 1) // 2
    scale = np.power(max_timescale, 2 * np.arange(half) / dim)
    sines, cosines = (table[:, 0::2], table[:, 1::2]) if order == "interleaved" else (table[:, :half], table[:, half:])
    start = first + number * _BLOCK
    angles = np.arange(start, start + _BLOCK)[:, None] / scale
    sines[:] = np.sin(angles)
    cosines[:] = np.cos(angles)[:, : dim // 2]
    table.flags.writeable = False
    return table


@lru_cache(maxsize=32)
def _table(blocks: int, *parameters: Any) -> NDArray[Any]:
    """The rows of the first positions, read-only `[64 * blocks, dim]`."""
    table = np.concatenate([_block(block, *parameters) for block in range(blocks)])
    table.flags.writeable = False
    return table
