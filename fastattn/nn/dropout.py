"""Dropout."""

from __future__ import annotations

from typing import Any

from fastattn import functional as F
from fastattn.nn.module import Module, Values


class Dropout(Module):
    """Sets a fraction `p` of the elements to 0 and divides the others by 1 - p, while training.

    Raises ValueError for a `p` outside [0, 1). Source: Srivastava et al. 2014, section 10.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0.0 <= p < 1.0:
            raise ValueError(f"Dropout: p must be in [0, 1), got {p}")
        self.p = p

    def forward(self, x: Values) -> Any:
        """`x` of any shape gives the same shape: `x` itself, unless the module is training."""
        return F.dropout(x, self.dropout_rate(self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"
