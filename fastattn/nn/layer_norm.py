"""Layer normalisation."""

from __future__ import annotations

from typing import Any

from fastattn import functional as F
from fastattn.autograd import mode
from fastattn.nn import init
from fastattn.nn.module import Module, Values
from fastattn.nn.parameter import Array, Parameter


class LayerNorm(Module):
    """`(h - mean) / sqrt(var + eps) * weight + bias` over the last axis `[dim]`, `h` being `dropout(x) + residual`."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        self.eps = eps
        self.normalized_shape = (dim,)
        self.weight = Parameter((dim,), init.ones)
        self.bias = Parameter((dim,))

    def __call__(
        self, x: Values, *, residual: Values | None = None, dropout_p: float = 0.0, out: Array | None = None
    ) -> Any:
        """`out` is for arrays that nothing is recorded from; there is no dropout then."""
        if out is not None:
            return mode.ops.layer_norm(x, self.weight.value, self.bias.value, self.eps, residual=residual, out=out)
        weight, bias = self.weight.operand, self.bias.operand
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps, residual=residual, dropout_p=dropout_p)
