"""Gradients in float64 against central differences.

>>> check_gradients(lambda: reference.gelu(x), dy, [x], [reference.gelu_backward(dy, x)])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastattn import Tensor, no_grad, use_reference

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


def leaf(*shape: int, seed: int = 0, dtype: Any = np.float64) -> Tensor:
    return Tensor(np.random.default_rng(seed).normal(size=shape).astype(dtype), requires_grad=True)


def check_tensor_gradients(f: Callable[..., Tensor], *leaves: Tensor) -> None:
    """The gradients of the sum of f(*leaves), weighted, against central differences; in float64."""
    with use_reference():
        y = f(*leaves)
        weights = np.random.default_rng(9).normal(size=y.shape)
        y.backward(weights)
        for x in leaves:
            assert x.grad is not None
            assert x.grad.shape == x.shape
            assert x.grad.dtype == x.dtype
            with no_grad():
                wanted = differences(lambda: f(*leaves).data, x.data, weights)
            np.testing.assert_allclose(x.grad, wanted, atol=1e-7)
