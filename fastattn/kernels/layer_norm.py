"""LayerNorm over the last axis, with the dropout and the residual that precede it."""

from __future__ import annotations

from typing import Any

from fastattn import _core
from fastattn._types import FloatArray


def layer_norm(
    x: FloatArray,
    weight: FloatArray | None = None,
    bias: FloatArray | None = None,
    eps: float = 1e-5,
    *,
    residual: FloatArray | None = None,
    dropout_p: float = 0.0,
    seed: int = 0,
    return_stats: bool = False,
    out: FloatArray | None = None,
) -> Any:
    """Normalise the last axis of dropout(x) + residual to mean 0 and variance 1, then scale and shift it.

    x, residual `[..., D]` with evenly spaced rows; weight, bias `[D]`; float32. `dropout_p` and `seed` are passed to
    `dropout`. `out` may be x or residual.

    Returns y `[..., D]`, or `(y, mean, rstd)` with `return_stats`: mean and rstd = 1 / sqrt(variance + eps) are
    `[...]`. The variance is the biased one.

    Raises TypeError for another dtype, ValueError for shapes that do not match, a strided last axis, a negative eps, a
    `dropout_p` outside [0, 1), a `seed` outside [0, 2^64) or an `out` that cannot be written or overlaps an input
    otherwise.

    Source: Ba, Kiros and Hinton 2016 (arXiv 1607.06450), equations 3 and 4; dropout before the residual: Vaswani et al.
    2017 (arXiv 1706.03762), section 5.4.

    >>> import numpy as np
    >>> layer_norm(np.array([[1.0, 3.0]], np.float32), eps=0.0).tolist()
    [[-1.0, 1.0]]
    """
    return _core.layer_norm(x, weight, bias, eps, residual, dropout_p, seed, return_stats, out)


def layer_norm_backward(
    dy: FloatArray,
    x: FloatArray,
    weight: FloatArray | None,
    mean: FloatArray,
    rstd: FloatArray,
    *,
    residual: FloatArray | None = None,
    dropout_p: float = 0.0,
    seed: int = 0,
    need_dx: bool = True,
    need_dresidual: bool = True,
    need_dweight: bool = True,
    need_dbias: bool = True,
    dweight: FloatArray | None = None,
    dbias: FloatArray | None = None,
) -> tuple[FloatArray | None, FloatArray | None, FloatArray | None, FloatArray | None]:
    """The gradients of `layer_norm` with respect to x, residual, weight and bias, given dy, the gradient of its result.

    dy, x, residual `[..., D]` with evenly spaced rows; weight `[D]`, mean and rstd `[...]`, contiguous; float32. x,
    weight, residual, `dropout_p` and `seed` are as in the forward call, which returned mean and rstd.

    Returns `(dx, dresidual, dweight, dbias)`: new arrays `[..., D]` and `[D]`; None where `need_dx`, `need_dresidual`,
    `need_dweight` or `need_dbias` is False, where there is no residual, and for dweight and dbias where weight is None.
    The arrays `dweight` and `dbias`, if given, are added to and returned. The bits of their sums over rows do not
    depend on the number of threads.

    Raises TypeError for another dtype, ValueError for shapes that do not match, strides as above, a `dropout_p` outside
    [0, 1), a `seed` outside [0, 2^64), or a `dweight` or `dbias` that cannot be written or overlaps another array.

    Source: Ba, Kiros and Hinton 2016 (arXiv 1607.06450), equations 3 and 4, differentiated.

    >>> import numpy as np
    >>> x, weight = np.array([[1.0, 3.0, 8.0]], np.float32), np.ones(3, np.float32)
    >>> _, mean, rstd = layer_norm(x, weight, return_stats=True)
    >>> dx, _, dweight, dbias = layer_norm_backward(np.array([[1, 0, 0]], np.float32), x, weight, mean, rstd)
    >>> [round(float(value), 3) for value in dx[0]], dbias.tolist()
    ([0.109, -0.152, 0.044], [1.0, 0.0, 0.0])
    """
    return _core.layer_norm_backward(
        dy,
        x,
        weight,
        mean,
        rstd,
        residual,
        dropout_p,
        seed,
        need_dx,
        need_dresidual,
        need_dweight,
        need_dbias,
        dweight,
        dbias,
    )
