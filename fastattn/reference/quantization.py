"""Reference of products with weights of fewer bits: what `PackedMatrix` holds, and what `linear` makes of it.

All of it is float32 and integers, one operation after the other, so that kernels can have the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastattn._types import FloatArray

LANES = np.array([0, 0, 1, 1, 0, 0, 1, 1])
"""Of eight columns of a weight, those whose products meet in the same 16 bits."""
MOST_OF_LANE, MOST_OF_BYTE = 128, 127
SMALLEST = np.finfo(np.float32).tiny


def quantize_rows(
    x: FloatArray, input_scales: FloatArray | None = None
) -> tuple[npt.NDArray[np.uint8], FloatArray, npt.NDArray[np.int32]]:
    """Rows of x `[M, K]`, multiplied by `input_scales` `[K]`, as bytes `[M, K]`, scales and zero points `[M]`.

    x is about scales (bytes - zeros). A row's lowest and highest value, or 0 if that lies beyond them, are 0 and 255.
    A row with NaN or infinity has the scale NaN, and one that spans less than about 3e-36 the scale 0.

    >>> values, scales, zeros = quantize_rows(np.array([[-1.0, 0.0, 4.1]], np.float32))
    >>> values.tolist(), scales.tolist(), zeros.tolist()
    ([[0, 50, 255]], [0.019999999552965164], [50])
    """
    one = np.float32(1.0)
    with np.errstate(all="ignore"):
        v = x if input_scales is None else x * input_scales
        low, high = (f(v, axis=-1, initial=0.0) for f in (np.min, np.max))
        part = one / np.float32(255.0)
        steps = high * part - low * part
        spans = steps >= SMALLEST
        inverse = np.where(spans, one / np.where(spans, steps, one), np.float32(0.0))
        zeros = np.rint(-low * inverse)
        finite = np.all(np.isfinite(v), axis=-1, keepdims=True)
        exact = (v * inverse[..., None]).astype(np.float64) + zeros[..., None]
        bytes_ = np.minimum(np.rint(np.where(finite, exact, 0.0)), 255.0)
    finite = finite[..., 0]
    scales = np.where(finite, np.where(spans, steps, np.float32(0.0)), np.float32(np.nan))
    return bytes_.astype(np.uint8), scales, np.where(finite, zeros, 0.0).astype(np.int32)


def fits(numbers: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether the integers of each row `[N, K]` fit: none above 127, and no lane above 128 in sum."""
    width = -numbers.shape[1] % 8
    lanes = np.pad(np.abs(numbers), ((0, 0), (0, width))).reshape(len(numbers), -1, 8)
    sums = np.stack([lanes[..., lane == LANES].sum(axis=-1) for lane in (0, 1)], axis=-1)
    small: npt.NDArray[np.bool_] = np.abs(numbers).max(axis=1, initial=0) <= MOST_OF_BYTE
    small &= sums.reshape(len(numbers), -1).max(axis=1, initial=0) <= MOST_OF_LANE
    return small


def quantize_weight(
    weight: FloatArray, input_scales: FloatArray | None = None
) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """Integers `[N, K]` and scales `[N]` of a weight, divided by `input_scales` `[K]`: the smallest scales that fit.

    >>> numbers, scales = quantize_weight(np.array([[0.5, -1.0, 1.27]], np.float32))
    >>> numbers.tolist(), round(float(scales[0]), 6)
    ([[43, -85, 109]], 0.011696)
    """
    w = weight if input_scales is None else weight / input_scales
    widest = np.abs(w).max(axis=1, initial=0.0)
    some = widest >= 256 * SMALLEST
    # Positive floats are ordered as their bits are.
    least, most = (np.where(some, widest / np.float32(d), SMALLEST).view(np.uint32) for d in (512.0, 32.0))
    least, most = least - 1, most + 1
    one = np.float32(1.0)

    def numbers(scales: FloatArray) -> FloatArray:
        rounded: FloatArray = np.rint(w * (one / scales)[:, None])
        return rounded

    while (most - least > 1).any():
        middle = least + (most - least) // 2
        good = fits(numbers(middle.view(np.float32)))
        least, most = np.where(good, least, middle), np.where(good, middle, most)
    scales = np.where(some, most.view(np.float32), np.float32(0.0))
    return np.where(some[:, None], numbers(most.view(np.float32)), 0.0).astype(np.int8), scales


def integer_linear(
    x: FloatArray,
    numbers: npt.NDArray[np.int8],
    scales: FloatArray,
    input_scales: FloatArray | None = None,
) -> FloatArray:
    """x `[M, K]` times integers `[N, K]` with scales `[N]`: exact sums, then two float32 operations.

    >>> x = np.array([[1.0, 2.0]], np.float32)
    >>> numbers, scales = quantize_weight(np.array([[3.0, 4.0]], np.float32))
    >>> round(float(integer_linear(x, numbers, scales)[0, 0]), 2)
    10.93
    """
    quantized, steps, zeros = quantize_rows(x, input_scales)
    sums = (quantized.astype(np.int64) - zeros[:, None]) @ numbers.T.astype(np.int64)
    with np.errstate(all="ignore"):
        y: FloatArray = sums.astype(np.float32) * (scales * steps[:, None])
    return y
