"""Reference of `rotary_embedding` and `rotary_embedding_backward`."""

from __future__ import annotations

import numpy as np

from fastattn._types import Floats, IntArray

from .embedding import check_ids


def rotary_embedding(x: Floats, position_ids: IntArray, table: Floats, *, out: Floats | None = None) -> Floats:
    """Queries and keys, turned by their positions. See `fastattn.kernels.rotary_embedding`.

    >>> quarter = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> x = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]).reshape(1, 3, 1, 2)
    >>> rotary_embedding(x, np.array([1]), quarter)[0, :, 0].tolist()
    [[0.0, 1.0], [-2.0, 0.0], [3.0, 4.0]]
    """
    return _turn("rotary_embedding", x, position_ids, table, out, 1)


def rotary_embedding_backward(
    dy: Floats, position_ids: IntArray, table: Floats, *, out: Floats | None = None
) -> Floats:
    """dy, turned back. See `fastattn.kernels.rotary_embedding_backward`.

    >>> quarter = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> dy = np.array([[0.0, 1.0], [-2.0, 0.0], [3.0, 4.0]]).reshape(1, 3, 1, 2)
    >>> rotary_embedding_backward(dy, np.array([1]), quarter)[0, :, 0].tolist()
    [[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]
    """
    return _turn("rotary_embedding_backward", dy, position_ids, table, out, -1)


def _turn(
    function: str, x: Floats, position_ids: IntArray, table: Floats, out: Floats | None, direction: int
) -> Floats:
    check_ids(function, "position_ids", position_ids, "table", len(table))
    half = x.shape[-1] // 2
    rows = table[position_ids][:, None, None]
    sine, cosine = direction * rows[..., :half], rows[..., half:]
    y = np.empty(x.shape, x.dtype) if out is None else out
    if y is not x:
        y[:, 2:] = x[:, 2:]
    a, b = x[:, :2, :, :half], x[:, :2, :, half:]
    turned = a * cosine - b * sine, b * cosine + a * sine
    y[:, :2, :, :half], y[:, :2, :, half:] = turned
    return y
