"""Reference of `gradient_norm`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastattn._types import Floats

from ._blocks import flat_blocks


def gradient_norm(gradients: Sequence[Floats]) -> float:
    """The square root of the sum of the squares of all elements, as if the arrays were one long vector.

    `gradients` of any shapes and float dtypes; the sums are float64. No arrays, or empty ones, give 0.

    Source: Pascanu et al. 2013, algorithm 1.

    >>> gradient_norm([np.array([2.0, -1.0]), np.array([[2.0]])])
    3.0
    """
    total = 0.0
    for gradient in gradients:
        for (block,) in flat_blocks(gradient):
            total += float(np.square(block, dtype=np.float64).sum())
    return math.sqrt(total)
