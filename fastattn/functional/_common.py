"""What the functions share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.autograd import Tensor
from fastattn.kernels import PackedMatrix

Array = NDArray[Any]
Values = Array | Tensor
Weights = Array | Tensor | PackedMatrix


def tensors(*operands: Any) -> bool:
    """Whether one of them is a Tensor."""
    for operand in operands:  # noqa: SIM110 - any() of a generator takes three times as long
        if isinstance(operand, Tensor):
            return True
    return False


def gradient(operand: Any) -> Array | None:
    """Where a kernel adds the gradient of this operand; None for a new array."""
    return operand.grad if isinstance(operand, Tensor) and operand.origin() is operand else None


def reshape_out(name: str, out: Array | None, shape: tuple[int, ...], new_shape: tuple[int, ...]) -> Array | None:
    """`out`, which must be what a result of this shape can be written into, as `new_shape`."""
    if out is None:
        return None
    if out.dtype != np.float32:
        raise TypeError(f"{name}: out must be float32, got {out.dtype}")
    if out.shape != shape or not out.flags.c_contiguous:
        raise ValueError(f"{name}: out must be C-contiguous and have shape {shape}, got {out.shape}")
    return out.reshape(new_shape)
