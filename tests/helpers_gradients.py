"""Gradients in float64 against central differences.

>>> check_gradients(lambda: reference.gelu(x), dy, [x], [reference.gelu_backward(dy, x)])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

STEP = 1e-5
"""Its square is what a difference neglects; 1e-16 over it is how exactly one is computed."""


def differences(f: Callable[[], Any], x: Any, dy: Any) -> Any:
    """The gradient of sum(f() * dy) with respect to `x`, which f reads, by central differences."""
    gradient = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        value = x[i]
        x[i] = value + STEP
        above = f()
        x[i] = value - STEP
        gradient[i] = np.sum((above - f()) * dy) / (2 * STEP)
        x[i] = value
    return gradient


def check_gradients(f: Callable[[], Any], dy: Any, arguments: Sequence[Any], gradients: Sequence[Any]) -> None:
    """Each gradient is that of its argument of `f`, given `dy`, that of the result; and has memory of its own."""
    assert len(arguments) == len(gradients)
    for i, (x, gradient) in enumerate(zip(arguments, gradients, strict=True)):
        assert gradient.dtype == np.float64
        assert not any(np.shares_memory(gradient, other) for other in (dy, *arguments, *gradients[:i]))
        np.testing.assert_allclose(gradient, differences(f, x, dy), atol=1e-8)
