"""Rows of length one."""

from __future__ import annotations

from fastattn import _core

from ._types import FloatArray


def l2_normalize(x: FloatArray, eps: float = 1e-12, *, out: FloatArray | None = None) -> FloatArray:
    """x / max(||x||, eps) over the last axis.

    x `[..., D]`, float32, with evenly spaced rows; `out` may be x. Returns an array of x's shape.

    Raises TypeError for another dtype, ValueError for a negative eps, a strided last axis or an `out` that overlaps x
    otherwise.

    Source: torch.nn.functional.normalize with p = 2, which defines the part of eps.

    >>> import numpy as np
    >>> l2_normalize(np.array([3.0, 4.0], np.float32)).round(3).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    return _core.l2_normalize(x, eps, out)
