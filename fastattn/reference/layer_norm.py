"""Reference of `layer_norm`: y = (h - mean) * rstd * weight + bias with h = x + residual."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]


def layer_norm(
    x: FloatArray,
    weight: FloatArray | None = None,
    bias: FloatArray | None = None,
    eps: float = 1e-5,
    *,
    residual: FloatArray | None = None,
    return_stats: bool = False,
    out: FloatArray | None = None,
) -> FloatArray | tuple[FloatArray, FloatArray, FloatArray]:
    """Layer normalisation of x + residual over the last axis.

    x and residual `[..., D]`, weight and bias `[D]`, of any float dtype. Returns y `[..., D]`, in `out` if
    given; with `return_stats` (y, mean, rstd), mean and rstd = 1 / sqrt(variance + eps) being `[...]`. The
    variance is the biased one. Raises ValueError when the shapes do not match.

    Source: Ba, Kiros and Hinton 2016, equation 3; the residual as in Vaswani et al. 2017, section 3.1.

    >>> layer_norm(np.array([[1.0, 3.0]]), eps=0.0).tolist()
    [[-1.0, 1.0]]
    """
    h = x if residual is None else x + residual
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
