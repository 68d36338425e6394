"""Layer normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastattn import functional as F
from fastattn.checks import boolean, number
from fastattn.nn import init
from fastattn.nn.module import Module, Values
from fastattn.nn.parameter import Array, Parameter


class LayerNorm(Module):
    """`(h - mean) / sqrt(var + eps) * weight + bias` over the last axes of `h = dropout(x) + residual`.

    `normalized_shape` is the shape of these axes, or the size of a single axis. `weight` and `bias` have this shape,
    and are None with `elementwise_affine=False`; `bias=False` omits only the bias. As `torch.nn.LayerNorm`. Raises
    ValueError for a `normalized_shape` without axes or with sizes less than 1.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        sizes = (normalized_shape,) if isinstance(normalized_shape, int | np.integer) else normalized_shape
        shape = tuple(map(int, sizes))
        if min(shape, default=0) < 1:
            raise ValueError(f"LayerNorm: normalized_shape must have sizes of at least 1, got {normalized_shape}")
        self.normalized_shape = shape
        self.eps = number("LayerNorm: eps", eps)
        self.elementwise_affine = boolean("LayerNorm: elementwise_affine", elementwise_affine, error=TypeError)
        bias = boolean("LayerNorm: bias", bias, error=TypeError)
        self.weight = Parameter(shape, init.ones) if elementwise_affine else None
        self.bias = Parameter(shape) if elementwise_affine and bias else None

    def forward(
        self, x: Values, *, residual: Values | None = None, dropout_p: float = 0.0, out: Array | None = None
    ) -> Any:
        """From `x` and `residual` `[..., *normalized_shape]`, arrays or Tensors, to the same shape.

        `dropout_p` is the fraction of `x` that is dropped. `out`, an array of this shape, is written and returned if
        nothing is recorded.

        >>> LayerNorm(2)(np.array([[1.0, 3.0]], np.float32)).numpy().round(3).tolist()
        [[-1.0, 1.0]]
        """
        return F.layer_norm(
            x, self.normalized_shape, self.weight, self.bias, self.eps, residual=residual, dropout_p=dropout_p, out=out
        )

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
