"""Reference of `scatter_rows`."""

from __future__ import annotations

import numpy as np

from fastattn._types import Floats, IntArray

from .embedding import check_ids


def scatter_rows(x: Floats, rows: IntArray, into: Floats) -> Floats:
    """into[rows] = x. See `fastattn.kernels.scatter_rows`.

    >>> scatter_rows(np.array([[1.0], [2.0]]), np.array([2, 0]), np.zeros((4, 1))).tolist()
    [[2.0], [0.0], [1.0], [0.0]]
    """
    check_ids("scatter_rows", "rows", rows, "into", len(into))
    distinct, counts = np.unique(rows, return_counts=True)
    if len(distinct) < len(rows):
        raise ValueError(f"scatter_rows: rows must be distinct, got {distinct[counts > 1][0]} twice")
    into[rows] = x
    return into
