"""The k largest log-probabilities of each row."""

from __future__ import annotations

from fastattn import _core
from fastattn._types import CuSeqlens, FloatArray, IntArray


def log_softmax_topk(
    x: FloatArray,
    k: int,
    *,
    ids: IntArray | None = None,
    cu_ids: CuSeqlens | None = None,
    factors: FloatArray | None = None,
) -> tuple[FloatArray, IntArray]:
    """The k largest values of log_softmax(x) in each row, and their columns.

    x `[rows, n]`, float32, with evenly spaced rows; 1 <= k <= n. The values have the bits that `log_softmax` gives
    them. The largest is first, and of equal values the one of the lower column. A row with NaN is NaN, as in
    `log_softmax`; NaN counts as the largest value.

    Some columns may be adjusted before they are compared: in row r, ids[cu_ids[r]:cu_ids[r + 1]], int64, which ascend
    within a row; cu_ids int32 `[rows + 1]`. Each is multiplied by its factor, a positive normal float32, one for each
    id. An infinite factor forbids a column: its value is -inf. The others are not normalised again.

    Returns `(values, indices)`, float32 and int64 `[rows, k]`.

    Raises TypeError for another dtype, ValueError for k outside [1, n], an id outside [0, n) or not above the one
    before it, bad cu_ids, a factor that is not positive and normal, one of the three without the others, shapes that do
    not match or a strided last axis.

    Source: a step of beam search, Sutskever et al. 2014 (arXiv 1409.3215), section 3.2; factors: Keskar et al. 2019
    (arXiv 1909.05858), section 4.1.

    >>> import numpy as np
    >>> x = np.log(np.array([[1, 2, 4, 1]], np.float32))
    >>> values, indices = log_softmax_topk(x, 3)
    >>> np.exp(values).round(3).tolist(), indices.tolist()
    ([[0.5, 0.25, 0.125]], [[2, 1, 0]])
    >>> adjusted = {"ids": np.array([1, 2]), "factors": np.array([0.5, np.inf], np.float32)}
    >>> values, indices = log_softmax_topk(x, 3, cu_ids=np.array([0, 2], np.int32), **adjusted)
    >>> np.exp(values).round(3).tolist(), indices.tolist()
    ([[0.5, 0.125, 0.125]], [[1, 0, 3]])
    """
    return _core.log_softmax_topk(x, k, ids, cu_ids, factors)
