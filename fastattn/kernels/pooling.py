"""One vector a sequence out of its tokens' vectors."""

from __future__ import annotations

from fastattn import _core

from ._types import CuSeqlens, FloatArray


def pooling(x: FloatArray, cu_seqlens: CuSeqlens, mode: str = "mean", *, out: FloatArray | None = None) -> FloatArray:
    """Combine the rows of each sequence into one.

    x `[tokens, D]`, float32; cu_seqlens int32 `[batch + 1]`, from 0 to tokens. mode: "mean", "cls" (the first row),
    "max", "last", "mean_sqrt_len" (the sum over the root of the length) or "weighted_mean" (row i weighs i, from 1).

    Returns `[batch, D]`; a sequence without tokens gives 0, and NaN stays NaN in every mode.

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
