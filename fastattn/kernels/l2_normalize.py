"""Normalisation of rows to length 1."""

from __future__ import annotations

from fastattn import _core
from fastattn._types import FloatArray


def l2_normalize(x: FloatArray, eps: float = 1e-12, *, out: FloatArray | None = None) -> FloatArray:
    """x / max(||x||, eps) over the last axis.

    x `[..., D]`, float32, with evenly spaced rows; `out` may be x. Returns an array of x's shape.

    Raises TypeError for another dtype, ValueError for a negative eps, a strided last axis or an `out` that overlaps x
    otherwise.

    Source: torch.nn.functional.normalize with p = 2, which defines the role of eps.

    >>> import numpy as np
    >>> l2_normalize(np.array([3.0, 4.0], np.float32)).round(3).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    return _core.l2_normalize(x, eps, out)


def l2_normalize_backward(
    dy: FloatArray, x: FloatArray, eps: float = 1e-12, *, out: FloatArray | None = None
) -> FloatArray:
    """The gradient of `l2_normalize` with respect to x: (dy - u sum(u dy)) / ||x||, where u = x / ||x||.

    dy (the gradient of the result) and x are `[..., D]`, float32, with evenly spaced rows. `eps` is as in the forward
    call; the gradient of a row shorter than `eps` is dy / eps. `out` may be dy or x. Returns an array of their shape.

    Raises TypeError for another dtype, ValueError for shapes that differ, a strided last axis, a negative eps or an
    `out` that cannot be written or overlaps an input otherwise.

    Source: the quotient rule; eps as in `torch.nn.functional.normalize`.

    >>> import numpy as np
    >>> l2_normalize_backward(np.array([[25.0, 0.0]], np.float32), np.array([[0.0, 5.0]], np.float32)).tolist()
    [[5.0, 0.0]]
    """
    return _core.l2_normalize_backward(dy, x, eps, out)
