"""Matrices of fewer bits, and how the LayerNorm before a matrix makes room for its input.

Source: Xiao et al. 2022 (arXiv 2211.10438), equation 3, with the sizes that a LayerNorm's parameters say in the place
of those of a sample.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastattn.kernels import PackedMatrix

SMALLEST = np.float32(1e-5)
"""Of a column of a matrix, and of an input."""


class Normed(NamedTuple):
    """What is known of the input of a linear layer: it is the result of a LayerNorm.

    Attributes:
        norm: the `LayerNorm`.
        layer: the `Linear`.
        rows: those of its matrix that decide how the input is scaled. Errors of queries and keys are lost in a softmax,
            so values decide.
    """

    norm: Any
    layer: Any
    rows: slice = slice(None)

    def sizes(self) -> NDArray[np.float32]:
        """The `usual_sizes` of the input."""
        return usual_sizes(self.norm.weight.data, None if self.norm.bias is None else self.norm.bias.data)


def usual_sizes(weight: NDArray[np.float32], bias: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """How large the results of a LayerNorm get, from its parameters: 3 standard deviations.

    >>> usual_sizes(np.array([1.0, -2.0], np.float32), np.array([0.5, 0.0], np.float32)).tolist()
    [3.5, 6.0]
    """
    sizes: NDArray[np.float32] = np.abs(weight.reshape(-1)) * np.float32(3.0)
    return sizes if bias is None else sizes + np.abs(bias.reshape(-1))


def input_scales(weight: NDArray[np.float32], sizes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The `input_scales` `[K]` of a `PackedMatrix` of weight `[N, K]`, whose input has columns of these sizes.

    They halve, in powers, the distance between the columns of the input and those of the weight.

    >>> weight = np.array([[1.0, 1.0, 1.0], [0.5, 0.5, 0.5]], np.float32)
    >>> input_scales(weight, np.array([4.0, 16.0, 1.0], np.float32)).tolist()
    [1.0, 0.5, 2.0]
    """
    widest = np.maximum(weight.max(axis=0), -weight.min(axis=0))  # without a copy of the weight
    ratios = np.sqrt(np.maximum(sizes, SMALLEST) / np.maximum(widest, SMALLEST))
    scales: NDArray[np.float32] = np.sort(ratios)[len(ratios) // 2] / ratios
    return scales


def packed(
    weight: NDArray[np.float32],
    weights: str,
    sizes: NDArray[np.float32] | None = None,
    rows: slice = slice(None),
) -> PackedMatrix:
    """A weight `[N, K]`, held as one of `fastattn.checks.WEIGHTS`. `sizes` are the `usual_sizes` of its input, if they
    are known, and `rows` are as in `Normed`."""
    scales = None
    if weights == "int8" and sizes is not None and np.isfinite(weight).all():
        scales = input_scales(weight[rows], sizes)
    return PackedMatrix(np.ascontiguousarray(weight), dtype=weights, input_scales=scales)


LARGE = 1 << 20
"""Numbers of a table from which its rows are held in fewer bits. Smaller ones, such as positions, are not worth it."""


def bfloat16_bits(rows: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16, of two equally near ones the even one. Raises ValueError for numbers that are
    not finite.

    >>> [hex(bits) for bits in bfloat16_bits(np.array([[1.0, -3.1]], np.float32))[0]]
    ['0x3f80', '0xc046']
    """
    return PackedMatrix(np.ascontiguousarray(rows), dtype="bfloat16").numbers()["weight"]


def round_rows(rows: NDArray[np.float32]) -> None:
    """Give rows of a table the nearest bfloat16, in place. Raises ValueError for numbers that are not finite.

    >>> rows = np.array([[1.0, -3.1]], np.float32)
    >>> round_rows(rows)
    >>> rows.tolist()
    [[1.0, -3.09375]]
    """
    for block in (rows[start : start + 1024] for start in range(0, len(rows), 1024)):  # not all at once: memory
        block[...] = PackedMatrix(block, dtype="bfloat16").unpack()


def rows_of(matrix: PackedMatrix, rows: Any) -> PackedMatrix:
    """Some rows of a matrix, with the same bits.

    >>> matrix = PackedMatrix(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), dtype="int8")
    >>> rows_of(matrix, [1]).unpack().tobytes() == matrix.unpack()[1:].tobytes()
    True
    """
    numbers = matrix.numbers()
    for name in ("weight", "scales"):
        if name in numbers:
            numbers[name] = np.ascontiguousarray(numbers[name][rows])
    return PackedMatrix.of_numbers(**numbers)
