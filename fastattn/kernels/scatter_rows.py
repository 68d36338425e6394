"""Writing rows to places of a larger array, such as a cache."""

from __future__ import annotations

from fastattn import _core
from fastattn._types import FloatArray, IntArray


def scatter_rows(x: FloatArray, rows: IntArray, into: FloatArray) -> FloatArray:
    """into[rows] = x: row i of x becomes row rows[i] of `into`. The other rows stay.

    x `[n, D]`, float32, with evenly spaced rows; rows int64 `[n]`, distinct; `into` `[R, D]`, float32, writable and
    C-contiguous, which is returned.

    Raises TypeError for another dtype, ValueError for shapes that do not match, a row outside `into` or given twice, or
    an `into` that cannot be written or overlaps an input.

    Source: the inverse of a selection, as in the incremental decoding of Vaswani et al. 2017 (arXiv 1706.03762), 3.1.

    >>> import numpy as np
    >>> scatter_rows(np.array([[1.0], [2.0]], np.float32), np.array([2, 0]), np.zeros((4, 1), np.float32)).tolist()
    [[2.0], [0.0], [1.0], [0.0]]
    """
    return _core.scatter_rows(x, rows, into)
