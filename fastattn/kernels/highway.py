"""A layer that mixes its result with its input."""

from __future__ import annotations

from typing import Any

from fastattn import _core
from fastattn._core import PackedMatrix
from fastattn._types import FloatArray


def highway(
    x: FloatArray,
    weight: FloatArray | PackedMatrix,
    bias: FloatArray,
    *,
    return_projection: bool = False,
    out: FloatArray | None = None,
) -> Any:
    """sigmoid(t) relu(h) + (1 - sigmoid(t)) x, where h and t are the halves of x W^T + b.

    x is `[..., D]` with evenly spaced rows. weight `[2 D, D]` is an array or a `PackedMatrix`, with the rows of h
    before the rows of the gate t. bias is `[2 D]`. All are float32. `out` may be x.

    Returns y `[..., D]`. With `return_projection` it returns `(y, x W^T + b)` for the backward pass, the projection
    `[..., 2 D]`.

    Raises TypeError for another dtype, ValueError for shapes that do not match, a strided last axis or an `out` that
    overlaps an input otherwise.

    Source: Srivastava, Greff and Schmidhuber 2015 (arXiv 1505.00387), equation 3.

    >>> import numpy as np
    >>> weight, bias = np.array([[2.0], [0.0]], np.float32), np.zeros(2, np.float32)  # h = 2 x, a gate of 1/2
    >>> highway(np.array([[4.0], [-4.0]], np.float32), weight, bias).tolist()
    [[6.0], [-2.0]]
    """
    return _core.highway(x, weight, bias, return_projection, out)


def highway_backward(
    dy: FloatArray,
    x: FloatArray,
    weight: FloatArray | PackedMatrix,
    projection: FloatArray,
    *,
    need_dx: bool = True,
    need_dweight: bool = True,
    need_dbias: bool = True,
    dweight: FloatArray | None = None,
    dbias: FloatArray | None = None,
) -> tuple[Any, Any, Any]:
    """The gradients of `highway`, given dy, the gradient of its result.

    dy and x `[..., D]` with evenly spaced rows; weight `[2 D, D]`, an array or a `PackedMatrix`; `projection`
    `[..., 2 D]` as `highway` returned it; float32.

    Returns `(dx, dweight, dbias)` in the shapes of x, weight and bias. A gradient that is not needed (`need_dx`,
    `need_dweight`, `need_dbias`) is None and costs nothing. The arguments `dweight` and `dbias`, if given, are added to
    and returned; they must be writable and C-contiguous.

    Raises TypeError for another dtype, ValueError for shapes that do not match, a strided last axis, or a gradient that
    overlaps an input.

    Source: Srivastava, Greff and Schmidhuber 2015 (arXiv 1505.00387), equation 3, differentiated.

    >>> import numpy as np
    >>> x, weight = np.array([[4.0]], np.float32), np.array([[2.0], [0.0]], np.float32)
    >>> projection, dy = np.array([[8.0, 0.0]], np.float32), np.ones((1, 1), np.float32)
    >>> dx, dweight, dbias = highway_backward(dy, x, weight, projection)
    >>> dx.tolist(), dweight.tolist(), dbias.tolist()
    ([[1.5]], [[2.0], [4.0]], [0.5, 1.0])
    """
    return _core.highway_backward(dy, x, weight, projection, need_dx, need_dweight, need_dbias, dweight, dbias)
