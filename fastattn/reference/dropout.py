"""Reference of `dropout` and `dropout_backward`."""

from __future__ import annotations

import numpy as np

from fastattn._types import Floats

from ._random import check, drop


def dropout(
    x: Floats,
    p: float = 0.5,
    seed: int = 0,
    *,
    residual: Floats | None = None,
    out: Floats | None = None,
) -> Floats:
    """Each element is 0 with probability p and x / (1 - p) otherwise; plus that of `residual`, if it is given.

    x and `residual` `[..., D]` of any float dtype; p in [0, 1), where 0 drops nothing. Which elements stay depends on
    `seed` in [0, 2^64) and on their place in the array seen as `[rows, D]`, and on nothing else. Returns an array of
    `x`'s shape and dtype, in `out` if given (contiguous; may be `x`, not `residual`). Raises ValueError for a p or seed
    out of range.

    Source: Srivastava et al. 2014, section 10 (scaled in training); the numbers as in `_random.py`.

    >>> dropout(np.ones(8), 0.5, seed=3).tolist()
    [0.0, 2.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0]
    """
    check("dropout", "p", p, seed)
    y = _dropout(x, p, seed, out)
    if residual is not None:
        y += residual
    return y


def dropout_backward(dy: Floats, p: float = 0.5, seed: int = 0, *, out: Floats | None = None) -> Floats:
    """The gradient of `dropout`'s x: dy / (1 - p) where the element was kept, 0 elsewhere.

    dy `[..., D]` of any float dtype, p and seed those of the forward call. Returns an array of `dy`'s shape and
    dtype, in `out` if given (contiguous; may be `dy`). Raises ValueError for a p or seed out of range.

    Source: Srivastava et al. 2014, section 10.

    >>> dropout_backward(np.ones(8), 0.5, seed=3).tolist()
    [0.0, 2.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0]
    """
    check("dropout_backward", "p", p, seed)
    return _dropout(dy, p, seed, out)


def _dropout(x: Floats, p: float, seed: int, out: Floats | None) -> Floats:
    y = np.empty(x.shape, x.dtype) if out is None else out
    if p == 0:
        np.copyto(y, x)
    else:
        drop(x, p, seed, y)
    return y
