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
    """x / (1 - p) where an element is kept, 0 elsewhere, plus `residual`. See `fastattn.kernels.dropout`.

    >>> dropout(np.ones(8), 0.5, seed=3).tolist()
    [0.0, 2.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0]
    """
    check("dropout", "p", p, seed)
    y = _dropout(x, p, seed, out)
    if residual is not None:
        y += residual
    return y


def dropout_backward(dy: Floats, p: float = 0.5, seed: int = 0, *, out: Floats | None = None) -> Floats:
    """dy / (1 - p) where the element was kept, 0 elsewhere. See `fastattn.kernels.dropout_backward`.

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
