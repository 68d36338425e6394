"""Dropout."""

from __future__ import annotations

from typing import Any

from fastattn import functional as F
from fastattn.nn.module import Module, Values


class Dropout(Module):
    """Sets a part `p` of the elements to 0 and divides the others by 1 - p, while training.

    Source: Srivastava et al. 2014, section 10.
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def forward(self, x: Values) -> Any:
        """`x` of any shape gives one of that shape: `x` itself, unless the module is training."""
        return F.dropout(x, self.dropout_rate(self.p))
