"""Helpers for the functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn._core import run_pass
from fastattn.autograd import Tensor, recording, values
from fastattn.checks import operand
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


def along(name: str, kernel: Callable[..., Array], dim: int, out: Array | None, *arrays: Array) -> Array:
    """Apply a kernel that works on the last axis along the axis `dim` of arrays of one shape."""
    shape = getattr(arrays[0], "shape", ())
    ndim = len(shape)
    if not -ndim <= dim < ndim:
        operand(f"{name}: input", arrays[0])
        raise IndexError(f"{name}: dim must be an axis of input, which has {ndim}, got {dim}")
    if dim in (-1, ndim - 1):
        return kernel(*arrays, out=out)
    reshape_out(name, out, shape, shape)
    run_pass()
    y = np.moveaxis(kernel(*(np.ascontiguousarray(np.moveaxis(x, dim, -1)) for x in arrays)), -1, dim)
    run_pass()
    if out is None:
        return np.ascontiguousarray(y)
    out[...] = y
    return out


def like(name: str, value: ArrayLike, x: Array) -> Array:
    """`value` in the dtype of `x`. Raises TypeError for what is no number, and for complex ones."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be numbers, got {array.dtype}")
    return array.astype(x.dtype, copy=False)


def target_like(name: str, target: ArrayLike, x: Array) -> Array:
    """A target in the dtype of `x`. Raises as `like`, and ValueError for another shape than that of `x`."""
    array = like(f"{name}: target", target, x)
    if array.shape != x.shape:
        raise ValueError(f"{name}: target must have shape {x.shape}, got {array.shape}")
    return array
