"""Reference of `layer_norm` and `layer_norm_backward`: y = (h - mean) * rstd * weight + bias, h = x + residual."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastattn._types import Floats

from ._blocks import row_blocks
from ._random import check, drop, kept, select


def layer_norm(
    x: Floats,
    weight: Floats | None = None,
    bias: Floats | None = None,
    eps: float = 1e-5,
    *,
    residual: Floats | None = None,
    dropout_p: float = 0.0,
    seed: int = 0,
    return_stats: bool = False,
    out: Floats | None = None,
) -> Any:
    """Layer normalisation of dropout(x) + residual over the last axis. See `fastattn.kernels.layer_norm`.

    >>> layer_norm(np.array([[1.0, 3.0]]), eps=0.0).tolist()
    [[-1.0, 1.0]]
    """
    check("layer_norm", "dropout_p", dropout_p, seed)
    h = _sum(x, residual, dropout_p, seed)
    mean = h.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # inf - inf in a row with inf
        y = np.subtract(h, mean, out=out)
    variance = np.einsum("...i,...i->...", y, y)[..., None]
    variance /= y.shape[-1]
    rstd = 1 / np.sqrt(variance + y.dtype.type(eps))
    y *= rstd
    if weight is not None:
        y *= weight
    if bias is not None:
        y += bias
    return (y, mean[..., 0], rstd[..., 0]) if return_stats else y


def layer_norm_backward(
    dy: Floats,
    x: Floats,
    weight: Floats | None,
    mean: Floats,
    rstd: Floats,
    *,
    residual: Floats | None = None,
    dropout_p: float = 0.0,
    seed: int = 0,
    need_dx: bool = True,
    need_dresidual: bool = True,
    need_dweight: bool = True,
    need_dbias: bool = True,
    dweight: Floats | None = None,
    dbias: Floats | None = None,
) -> tuple[Floats | None, Floats | None, Floats | None, Floats | None]:
    """With n = (h - mean) * rstd and g = dy * weight, dh = rstd * (g - mean(g) - n * mean(g * n)).

    See `fastattn.kernels.layer_norm_backward`.

    >>> x = np.array([[1.0, 3.0, 8.0]])
    >>> y, mean, rstd = layer_norm(x, np.ones(3), return_stats=True)
    >>> dx, _, dweight, dbias = layer_norm_backward(np.array([[1.0, 0.0, 0.0]]), x, np.ones(3), mean, rstd)
    >>> dx.round(3).tolist(), dweight.round(3).tolist(), dbias.tolist()
    ([[0.109, -0.152, 0.044]], [-1.019, 0.0, 0.0], [1.0, 0.0, 0.0])
    """
    check("layer_norm_backward", "dropout_p", dropout_p, seed)
    dim = x.shape[-1]
    shape = (math.prod(x.shape[:-1]), dim)
    dx = np.empty(x.shape, x.dtype) if need_dx else None
    dresidual = np.empty(x.shape, x.dtype) if need_dresidual and residual is not None else None
    dweight = _total(weight, need_dweight, dweight)
    dbias = _total(weight, need_dbias, dbias)
    dy, x, mean, rstd = dy.reshape(shape), x.reshape(shape), mean.reshape(-1, 1), rstd.reshape(-1, 1)
    residual, dx_rows, dresidual_rows = (None if a is None else a.reshape(shape) for a in (residual, dx, dresidual))
    for rows in row_blocks(*shape):
        keep = kept(np.arange(rows.start, rows.stop), dim, dropout_p, seed) if dropout_p else None
        h = x[rows] if keep is None else select(x[rows], keep, dropout_p)
        n = h - mean[rows] if residual is None else h + residual[rows] - mean[rows]
        n *= rstd[rows]
        g = dy[rows]
        if dweight is not None:
            dweight += np.einsum("ri,ri->i", g, n)
        if dbias is not None:
            dbias += g.sum(axis=0)
        if weight is not None:
            g = g * weight
        n *= np.einsum("ri,ri->r", g, n)[:, None] / dim
        dh = np.subtract(g, n, out=n)
        dh -= g.mean(axis=-1, keepdims=True)
        dh *= rstd[rows]
        if dresidual_rows is not None:
            dresidual_rows[rows] = dh
        if dx_rows is not None:
            dx_rows[rows] = dh if keep is None else select(dh, keep, dropout_p)
    return dx, dresidual, dweight, dbias


def _total(weight: Floats | None, needed: bool, given: Floats | None) -> Floats | None:
    """The array to which a gradient of `weight`'s shape is added, or None if it is not needed."""
    if weight is None or not needed:
        return None
    return np.zeros(weight.shape, weight.dtype) if given is None else given


def _sum(x: Floats, residual: Floats | None, p: float, seed: int) -> Floats:
    """dropout(x) + residual, or x itself with neither."""
    if p == 0:
        return x if residual is None else x + residual
    h = np.empty(x.shape, x.dtype)
    drop(x, p, seed, h)
    if residual is not None:
        h += residual
    return h
