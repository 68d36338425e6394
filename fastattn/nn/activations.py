"""Activations as modules, for `Sequential`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastattn import functional as F
from fastattn.checks import choice
from fastattn.nn.module import Module, Values


class _Elementwise(Module):
    _function: Callable[..., Any]

    def forward(self, x: Values) -> Any:
        """From `x` `[...]` to the same shape."""
        return type(self)._function(x)


class ReLU(_Elementwise):
    """`max(x, 0)`."""

    _function = staticmethod(F.relu)


class Tanh(_Elementwise):
    """The hyperbolic tangent."""

    _function = staticmethod(F.tanh)


class Sigmoid(_Elementwise):
    """`1 / (1 + exp(-x))`."""

    _function = staticmethod(F.sigmoid)


class SiLU(_Elementwise):
    """`x * sigmoid(x)`."""

    _function = staticmethod(F.silu)


class GELU(Module):
    """`fastattn.functional.gelu`, with `approximate` "none" or "tanh". Raises ValueError for anything else."""

    def __init__(self, approximate: str = "none") -> None:
        self.approximate: str = choice("GELU: approximate", approximate, ("none", "tanh"))

    def forward(self, x: Values) -> Any:
        """From `x` `[..., D]` to the same shape."""
        return F.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Softmax(Module):
    """`fastattn.functional.softmax` along the axis `dim`."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, x: Values) -> Any:
        """From `x` `[...]` to the same shape."""
        return F.softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
