"""Activations as modules, for `Sequential`."""

from __future__ import annotations

from typing import Any

from fastattn import functional as F
from fastattn.nn.module import Module, Values


class ReLU(Module):
    """`max(x, 0)`."""

    def forward(self, x: Values) -> Any:
        """`x` `[...]` gives its shape."""
        return F.relu(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Values) -> Any:
        """`x` `[...]` gives its shape."""
        return F.tanh(x)


class Sigmoid(Module):
    """`1 / (1 + exp(-x))`."""

    def forward(self, x: Values) -> Any:
        """`x` `[...]` gives its shape."""
        return F.sigmoid(x)


class SiLU(Module):
    """`x * sigmoid(x)`."""

    def forward(self, x: Values) -> Any:
        """`x` `[...]` gives its shape."""
        return F.silu(x)


class GELU(Module):
    """`fastattn.functional.gelu`, with `approximate` "none" or "tanh". Raises ValueError for another."""

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: approximate must be 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    def forward(self, x: Values) -> Any:
        """`x` `[..., D]` gives its shape."""
        return F.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Softmax(Module):
    """`fastattn.functional.softmax` along the axis `dim`."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, x: Values) -> Any:
        """`x` `[...]` gives its shape."""
        return F.softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
