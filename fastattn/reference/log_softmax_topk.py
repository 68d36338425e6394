"""Reference of `log_softmax_topk`."""

from __future__ import annotations

import numpy as np

from fastattn._types import CuSeqlens, Floats, IntArray

from ._seqlens import bounds
from .log_softmax import log_softmax


def log_softmax_topk(
    x: Floats,
    k: int,
    *,
    ids: IntArray | None = None,
    cu_ids: CuSeqlens | None = None,
    factors: Floats | None = None,
) -> tuple[Floats, IntArray]:
    """The k largest values of log_softmax(x) in each row, and their columns. See `fastattn.kernels.log_softmax_topk`.

    >>> values, indices = log_softmax_topk(np.log([[1.0, 2.0, 4.0, 1.0]]), 3)
    >>> np.exp(values).round(3).tolist(), indices.tolist()
    ([[0.5, 0.25, 0.125]], [[2, 1, 0]])
    """
    rows, columns = x.shape
    if not 1 <= k <= columns:
        raise ValueError(f"log_softmax_topk: k must be from 1 to {columns}, the columns of x, got {k}")
    y = log_softmax(x)
    given = {"ids": ids, "cu_ids": cu_ids, "factors": factors}
    if ids is not None and cu_ids is not None and factors is not None:
        places = np.repeat(np.arange(rows), np.diff(bounds("log_softmax_topk", "cu_ids", cu_ids, len(ids), "ids")))
        _check(ids, places, factors, columns)
        forbidden = np.isinf(factors)
        y[places, ids] *= np.where(forbidden, 1, factors)
        y[places[forbidden], ids[forbidden]] = -np.inf
    elif any(value is not None for value in given.values()):
        missing = next(name for name, value in given.items() if value is None)
        raise ValueError(f"log_softmax_topk: ids, cu_ids and factors go together, got no {missing}")
    np.negative(y, out=y)
    y[np.isnan(y)] = -np.inf  # before all others
    indices = np.empty((rows, k), np.int64)
    last = np.partition(y, k - 1, axis=1)[:, k - 1 : k]
    for row, chosen in enumerate(y <= last):
        found = np.flatnonzero(chosen)
        indices[row] = found[np.argsort(y[row, found], kind="stable")[:k]]
    values = np.take_along_axis(y, indices, axis=1)
    values[values == -np.inf] = np.nan
    return np.negative(values, out=values), indices


def _check(ids: IntArray, places: IntArray, factors: Floats, columns: int) -> None:
    """The ids of a row ascend, and every factor is a positive normal float32."""
    for i in np.flatnonzero((ids < 0) | (ids >= columns)):
        raise ValueError(
            f"log_softmax_topk: ids must be in [0, {columns}), the columns of x, got {ids[i]} at index {i}"
        )
    for i in np.flatnonzero((np.diff(ids) <= 0) & (np.diff(places) == 0)):
        raise ValueError(
            f"log_softmax_topk: ids must ascend within a row, got {ids[i]} then {ids[i + 1]} at index {i + 1}"
        )
    for i in np.flatnonzero(~(factors >= np.finfo(np.float32).tiny)):
        raise ValueError(f"log_softmax_topk: factors must be positive normal numbers, got {factors[i]} at index {i}")
