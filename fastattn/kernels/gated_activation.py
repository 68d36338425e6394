"""Gated activations: an activation of one half of a projection, times the other half."""

from __future__ import annotations

from fastattn import _core
from fastattn._types import FloatArray


def gated_activation(x: FloatArray, activation: str, *, out: FloatArray | None = None) -> FloatArray:
    """activation(a) * b, where a and b are the first and the second half of a row of x.

    x `[..., 2 * D]`, float32, with evenly spaced rows; activation "relu", "gelu", "gelu_tanh", "silu" or "tanh". With
    "gelu" the function is known as GeGLU, with "silu" as SwiGLU. `out` may be the first half of x, `x[..., :D]`.
    Returns `[..., D]`.

    Raises TypeError for another dtype, ValueError for an odd number of columns, an unknown `activation`, a strided last
    axis or an `out` that overlaps x otherwise.

    Source: Shazeer 2020 (arXiv 2002.05202), section 2.

    >>> import numpy as np
    >>> gated_activation(np.array([[-1.0, 3.0, 5.0, 0.5]], np.float32), "relu").tolist()
    [[0.0, 1.5]]
    """
    return _core.gated_activation(x, activation, out)


def gated_activation_backward(
    dy: FloatArray, x: FloatArray, activation: str, *, out: FloatArray | None = None
) -> FloatArray:
    """The gradient of `gated_activation` with respect to x: dy * b * activation'(a), and dy * activation(a).

    dy `[..., D]` and x `[..., 2 * D]`, float32, with evenly spaced rows; `activation` as in the forward call. Returns
    an array of x's shape.

    Raises TypeError for another dtype, ValueError for shapes that do not fit, an unknown `activation`, a strided last
    axis or an `out` that overlaps an input.

    Source: Shazeer 2020 (arXiv 2002.05202), section 2, differentiated.

    >>> import numpy as np
    >>> gated_activation_backward(np.array([[2.0]], np.float32), np.array([[3.0, 5.0]], np.float32), "relu").tolist()
    [[10.0, 6.0]]
    """
    return _core.gated_activation_backward(dy, x, activation, out)
