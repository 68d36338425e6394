"""Layer normalisation."""

from __future__ import annotations

from fastattn import functional as F
from fastattn.nn.module import Array, Module, Parameter


class LayerNorm(Module):
    """`(h - mean) / sqrt(var + eps) * weight + bias` over the last axis `[dim]`, `h` being `x + residual`."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        self.eps = eps
        self.normalized_shape = (dim,)
        self.weight = Parameter((dim,))
        self.bias = Parameter((dim,))

    def __call__(self, x: Array, *, residual: Array | None = None, out: Array | None = None) -> Array:
        weight, bias = self.weight.value, self.bias.value
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps, residual=residual, out=out)
