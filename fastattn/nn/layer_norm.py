"""Layer normalisation."""

from __future__ import annotations

from typing import Any

from fastattn import functional as F
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

    def forward(
        self, x: Values, *, residual: Values | None = None, dropout_p: float = 0.0, out: Array | None = None
    ) -> Any:
        """`x` and `residual` `[..., dim]`, arrays or Tensors, give `[..., dim]`.

        `dropout_p` is the part of `x` that is dropped. `out`, an array of this shape, is written and returned; it is
        for arrays, and nothing is recorded or dropped then.

        >>> LayerNorm(2)(np.array([[1.0, 3.0]], np.float32)).numpy().round(3).tolist()
        [[-1.0, 1.0]]
        """
        return F.layer_norm(
            x,
            self.normalized_shape,
            self.weight,
            self.bias,
            self.eps,
            residual=residual,
            dropout_p=dropout_p,
            out=out,
        )
