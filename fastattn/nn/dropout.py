"""Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastattn import functional as F
from fastattn import ragged
from fastattn._core import run_pass
from fastattn._types import CuSeqlens
from fastattn.checks import PROBABILITY, number
from fastattn.nn.module import Module, Values


class Dropout(Module):
    """Set a fraction `p` of the elements to 0 and divide the others by 1 - p, while training.

    Raises ValueError for a `p` outside [0, 1). Source: Srivastava et al. 2014, section 10.
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = number("Dropout: p", p, **PROBABILITY)

    def forward(self, x: Values) -> Any:
        """From `x` of any shape to the same shape. Returns `x` itself unless the module is training."""
        return F.dropout(x, self.dropout_rate(self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


def locked_dropout(x: Values, cu_seqlens: CuSeqlens, p: float) -> Any:
    """`x` with a fraction `p` of its features dropped: in each sequence the same ones at all of its steps.

    Source: Gal and Ghahramani 2016, section 4, for inputs and outputs of a layer.
    """
    if not p:
        return x
    kept = F.dropout(np.ones((len(cu_seqlens) - 1, x.shape[1]), x.dtype), p)
    run_pass()
    return x * np.repeat(kept, ragged.lengths(cu_seqlens), axis=0)
