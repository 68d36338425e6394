"""Helpers for the functions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.autograd import Tensor, recording, values
from fastattn.kernels import PackedMatrix

Array = NDArray[Any]
Values = Array | Tensor
Weights = Array | Tensor | PackedMatrix


def plain(name: str, out: Array | None, *operands: Any) -> list[Any] | None:
    """The operands as kernels take them, or None if the result is a Tensor.

    The result is an array if no operand makes it a Tensor, or if `out` is given. Raises TypeError if `out` is given and
    the result would be recorded.
    """
    found = []
    for x in operands:
        if isinstance(x, Tensor):
            if not x.frozen:
                break
            x = x.value
        found.append(x)
    else:
        return found
    if out is None:
        return None
    if recording(*operands):
        raise TypeError(f"{name}: out must be None for operands that require a gradient")
    return values(*operands)


def gradient(operand: Any) -> Array | None:
    """The array to which a kernel adds this operand's gradient; None for a new array."""
    return operand.grad if isinstance(operand, Tensor) and operand.origin() is operand else None


def reshape_out(name: str, out: Array | None, shape: tuple[int, ...], new_shape: tuple[int, ...]) -> Array | None:
    """`out`, checked to have `shape`, reshaped to `new_shape`."""
    if out is None:
        return None
    if out.dtype != np.float32:
        raise TypeError(f"{name}: out must be float32, got {out.dtype}")
    if out.shape != shape or not out.flags.c_contiguous:
        raise ValueError(f"{name}: out must be C-contiguous and have shape {shape}, got {out.shape}")
    return out.reshape(new_shape)
