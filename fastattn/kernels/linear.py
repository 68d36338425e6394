"""A linear layer with its activation and residual, and the packed form of its weight."""

from __future__ import annotations

from typing import Any

from fastattn import _core
from fastattn._core import PackedMatrix
from fastattn._types import FloatArray

__all__ = ["PackedMatrix", "linear", "linear_backward"]


def linear(
    x: FloatArray,
    weight: FloatArray | PackedMatrix,
    bias: FloatArray | None = None,
    residual: FloatArray | None = None,
    *,
    activation: str | None = None,
    return_pre_activation: bool = False,
    out: FloatArray | None = None,
) -> Any:
    """act(x W^T + bias) + residual.

    x is `[..., K]` with evenly spaced rows, weight `[N, K]`, bias `[N]` and residual `[..., N]`, float32. A weight that
    is used more than once may be a `PackedMatrix`, which gives the same bits and is not packed on every call.
    activation is None, "relu", "gelu" (with erf), "gelu_tanh", "silu" or "tanh".

    Returns y `[..., N]`. With `return_pre_activation` it returns `(y, x W^T + bias)`, for the backward pass of an
    activation. Each element is one chain of fused multiply-adds over K, starting from 0, so the bits of a row do not
    depend on other rows.

    Raises TypeError for another dtype, ValueError for shapes that do not match, a strided last axis, an unknown
    activation or an `out` that overlaps an input.

    Source: the position-wise map of Vaswani et al. 2017 (arXiv 1706.03762), section 3.3; GELU: Hendrycks and Gimpel
    2016 (arXiv 1606.08415); SiLU: Elfwing et al. 2017 (arXiv 1702.03118).

    >>> import numpy as np
    >>> x = np.array([[1.0, 2.0]], np.float32)
    >>> weight = np.array([[3.0, 4.0], [-5.0, 0.0]], np.float32)
    >>> linear(x, weight, activation="relu").tolist()
    [[11.0, 0.0]]
    >>> linear(x, PackedMatrix(weight)).tolist()
    [[11.0, -5.0]]
    """
    return _core.linear(x, weight, bias, residual, activation, return_pre_activation, out)


def linear_backward(
    dy: FloatArray,
    x: FloatArray,
    weight: FloatArray | PackedMatrix,
    *,
    activation: str | None = None,
    pre_activation: FloatArray | None = None,
    need_dx: bool = True,
    need_dweight: bool = True,
    need_dbias: bool = True,
    dweight: FloatArray | None = None,
    dbias: FloatArray | None = None,
) -> tuple[Any, Any, Any]:
    """The gradients of `linear`. The gradient of its residual is dy itself.

    dy `[..., N]` and x `[..., K]` with evenly spaced rows; weight `[N, K]`, an array or a `PackedMatrix`; with an
    `activation`, `pre_activation` `[..., N]` as `linear` returned it; float32.

    Returns `(dx, dweight, dbias)`: with d = dy * act'(pre_activation), dx = d W `[..., K]`, dweight = d^T x `[N, K]`
    and dbias `[N]`, the sum of d over its rows. A gradient that is not needed (`need_dx`, `need_dweight`, `need_dbias`)
    is None and costs nothing. The arguments `dweight` and `dbias`, if given, are added to and returned; they must be
    writable and C-contiguous. Each element of dweight is one chain of fused multiply-adds over the rows, starting from
    the given value, so two halves of a batch one after the other give the bits of the whole.

    Raises TypeError for another dtype, ValueError for shapes that do not match, a strided last axis, an unknown
    activation, one without its `pre_activation`, or a gradient that overlaps an input.

    Source: Rumelhart, Hinton and Williams 1986, equations 6 to 8, for whole matrices.

    >>> import numpy as np
    >>> x, weight = np.array([[1.0, 2.0]], np.float32), np.array([[3.0, 4.0]], np.float32)
    >>> dx, dweight, dbias = linear_backward(np.array([[10.0]], np.float32), x, weight)
    >>> dx.tolist(), dweight.tolist(), dbias.tolist()
    ([[30.0, 40.0]], [[10.0, 20.0]], [10.0])
    """
    return _core.linear_backward(
        dy, x, weight, activation, pre_activation, need_dx, need_dweight, need_dbias, dweight, dbias
    )
