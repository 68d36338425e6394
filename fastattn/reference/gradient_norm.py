"""Reference of `gradient_norm`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastattn._types import Floats

from ._blocks import flat_blocks


def gradient_norm(gradients: Sequence[Floats]) -> float:
    """The square root of the sum of all squares, summed in float64. See `fastattn.kernels.gradient_norm`.

    >>> gradient_norm([np.array([2.0, -1.0]), np.array([[2.0]])])
    3.0
    """
    total = 0.0
    for gradient in gradients:
        for (block,) in flat_blocks(gradient):
            total += float(np.square(block, dtype=np.float64).sum())
    return math.sqrt(total)
