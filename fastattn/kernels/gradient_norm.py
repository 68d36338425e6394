"""The norm of a gradient that is spread over many arrays."""

from __future__ import annotations

from collections.abc import Sequence

from fastattn import _core
from fastattn._types import FloatArray


def gradient_norm(gradients: Sequence[FloatArray]) -> float:
    """The square root of the sum of the squares of all elements.

    `gradients` is a list or tuple of contiguous float32 arrays of any shape. The sums are float64, and their bits do
    not depend on the number of threads. The result is 0 for no arrays and for empty ones.

    Raises TypeError for anything else or another dtype, ValueError for arrays that are not contiguous.

    Source: Pascanu, Mikolov and Bengio 2013 (arXiv 1211.5063), algorithm 1.

    >>> import numpy as np
    >>> gradient_norm([np.array([2.0, -1.0], np.float32), np.array([[2.0]], np.float32)])
    3.0
    """
    return _core.gradient_norm(gradients)
