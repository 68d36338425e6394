"""A weighted sum of layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastattn import functional as F
from fastattn._core import run_pass
from fastattn.checks import integer, operand, shown
from fastattn.nn import init
from fastattn.nn.module import Module, NamedParts, Values
from fastattn.nn.parameter import Parameter, ParameterRows


class ScalarMix(Module):
    """`gamma * sum_j s_j layer_j`, where s is the softmax of `mixture_size` trained scalars.

    With `do_layer_norm` each layer is first normalised row by row, without weight and bias. A token's result depends
    on the token alone. (AllenNLP normalises over all tokens of a batch, so its results depend on the batch.)
    The scalars start at `initial_scalar_parameters`, 0 by default, and gamma at 1. With `trainable=False` they stay
    there. Parameters have AllenNLP's names, `gamma` and `scalar_parameters.0` to `scalar_parameters.{mixture_size -
    1}`, each `[1]`. Raises ValueError for a `mixture_size` less than 1 or another number of initial values, and
    TypeError for initial values that are not numbers.

    Source: Peters et al. 2018 (arXiv 1802.05365), equation 1.
    """

    def __init__(
        self,
        mixture_size: int,
        do_layer_norm: bool = False,
        initial_scalar_parameters: Iterable[float] | None = None,
        trainable: bool = True,
    ) -> None:
        mixture_size = integer("ScalarMix: mixture_size", mixture_size)
        first = np.zeros(mixture_size, np.float32)
        if initial_scalar_parameters is not None:
            try:
                values = np.array(list(initial_scalar_parameters), np.float32)
            except (TypeError, ValueError):
                message = (
                    f"ScalarMix: initial_scalar_parameters must be numbers, got {shown(initial_scalar_parameters)}"
                )
                raise TypeError(message) from None
            if values.shape != first.shape:
                wanted, got = mixture_size, len(values)
                raise ValueError(f"ScalarMix: initial_scalar_parameters must be {wanted} numbers, got {got}")
            first = values
        self.mixture_size = mixture_size
        self.do_layer_norm = do_layer_norm
        self.gamma = Parameter((1,), init.ones)
        self.scalars = Parameter(first)
        trained: set[int] = set()
        self.rows = {
            f"scalar_parameters.{j}": ParameterRows(self.scalars, j, j + 1, trained) for j in range(mixture_size)
        }
        for _, parameter in self._named_parts()[0]:
            parameter.requires_grad = trainable

    def _named_parts(self) -> NamedParts:
        return [("gamma", self.gamma), *self.rows.items()], []

    def forward(self, layers: Iterable[Values]) -> Any:
        """Mix `layers`, `mixture_size` arrays or Tensors `[tokens, dim]` (any shape without `do_layer_norm`).

        Raises ValueError for another number of layers, or a layer whose shape differs from the first.

        >>> mix = ScalarMix(2, initial_scalar_parameters=[0.0, np.log(3.0)]).freeze()
        >>> mix([np.full((1, 2), 4.0, np.float32), np.full((1, 2), 8.0, np.float32)]).round(4).tolist()
        [[7.0, 7.0]]
        """
        layers = list(layers)
        if len(layers) != self.mixture_size:
            raise ValueError(f"ScalarMix: layers must be {self.mixture_size}, got {len(layers)}")
        for j, layer in enumerate(layers):
            if operand(f"ScalarMix: layer {j}", layer).shape != layers[0].shape:
                raise ValueError(f"ScalarMix: layers must have shape {layers[0].shape}, got {layer.shape} at {j}")
        shares = F.softmax(self.scalars, dim=0)
        run_pass()
        weights = shares * self.gamma
        total: Any = None
        for j, layer in enumerate(layers):
            if self.do_layer_norm:
                layer = F.layer_norm(layer, layer.shape[-1:], eps=1e-12)
                run_pass()
            term = layer * weights[j : j + 1]
            total = term if total is None else total + term
        return total
