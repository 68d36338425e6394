"""Reference of `l2_normalize` and `l2_normalize_backward`."""

from __future__ import annotations

import numpy as np

from fastattn._types import Floats


def l2_normalize(x: Floats, eps: float = 1e-12, *, out: Floats | None = None) -> Floats:
    """x / max(||x||, eps) over the last axis. See `fastattn.kernels.l2_normalize`.

    >>> l2_normalize(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    norm = np.sqrt(np.einsum("...i,...i->...", x, x))[..., None]
    y: Floats = np.divide(x, np.maximum(norm, x.dtype.type(eps)), out=out)
    return y


def l2_normalize_backward(dy: Floats, x: Floats, eps: float = 1e-12, *, out: Floats | None = None) -> Floats:
    """(dy - u * sum(u * dy)) / ||x||, u = x / ||x||; dy / eps where ||x|| < eps.

    See `fastattn.kernels.l2_normalize_backward`.

    >>> l2_normalize_backward(np.array([[1.0, 0.0]]), np.array([[3.0, 4.0]])).round(3).tolist()
    [[0.128, -0.096]]
    """
    norm = np.sqrt(np.einsum("...i,...i->...", x, x))[..., None]
    length = np.maximum(norm, x.dtype.type(eps))
    unit = x / length
    along = np.einsum("...i,...i->...", unit, dy)[..., None]
    along[norm < eps] = 0
    unit *= along
    dx: Floats = np.subtract(dy, unit, out=out)
    dx /= length
    return dx
