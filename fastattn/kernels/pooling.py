"""One vector per sequence from the vectors of its tokens."""

from __future__ import annotations

from fastattn import _core
from fastattn._types import CuSeqlens, FloatArray


def pooling(x: FloatArray, cu_seqlens: CuSeqlens, mode: str = "mean", *, out: FloatArray | None = None) -> FloatArray:
    """Combine the rows of each sequence into one.

    x is `[tokens, D]`, float32; cu_seqlens int32 `[batch + 1]`, from 0 to tokens. mode is "mean", "cls" (the first
    row), "max", "last", "mean_sqrt_len" (the sum divided by the square root of the length) or "weighted_mean" (row i,
    counted from 1, has weight i).

    Returns `[batch, D]`, 0 for a sequence without tokens. NaN stays NaN in every mode.

    Raises TypeError for another dtype, ValueError for bad cu_seqlens, an unknown mode, shapes that do not match or an
    `out` that overlaps x.

    Source: Reimers and Gurevych 2019 (arXiv 1908.10084), section 3; "weighted_mean": Muennighoff 2022
    (arXiv 2202.08904), equation 2.

    >>> import numpy as np
    >>> x = np.array([[1.0], [3.0], [10.0]], np.float32)
    >>> pooling(x, np.array([0, 2, 3], np.int32)).tolist()
    [[2.0], [10.0]]
    """
    return _core.pooling(x, cu_seqlens, mode, out)


def pooling_backward(
    dy: FloatArray, x: FloatArray, cu_seqlens: CuSeqlens, mode: str = "mean", *, out: FloatArray | None = None
) -> FloatArray:
    """The gradient of `pooling` with respect to x, given dy, the gradient of its result.

    dy `[batch, D]`, x `[tokens, D]`, float32, with evenly spaced rows; x, cu_seqlens (int32 `[batch + 1]`) and mode are
    as in the forward call. Mode "max" passes each column of dy to the first row that holds the maximum, or to the first
    NaN.

    Returns `[tokens, D]`.

    Raises TypeError for another dtype, ValueError for bad cu_seqlens, an unknown mode, shapes that do not match or an
    `out` that overlaps an input.

    Source: Reimers and Gurevych 2019 (arXiv 1908.10084), section 3, differentiated.

    >>> import numpy as np
    >>> x, dy = np.array([[1.0], [3.0], [8.0]], np.float32), np.array([[2.0], [5.0]], np.float32)
    >>> pooling_backward(dy, x, np.array([0, 2, 3], np.int32)).tolist()
    [[1.0], [1.0], [5.0]]
    >>> pooling_backward(dy, x, np.array([0, 2, 3], np.int32), "max").tolist()
    [[0.0], [2.0], [5.0]]
    """
    return _core.pooling_backward(dy, x, cu_seqlens, mode, out)
