"""Linear layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from fastattn import functional as F
from fastattn.nn.module import Array, Module, Parameter, ParameterRows


class Linear(Module):
    """`y = activation(x weight^T + bias)`: `[..., in_features]` to `[..., out_features]`.

    `weight` is `[out_features, in_features]`, packed; `bias` is `[out_features]`. `activation` is one of
    `fastattn.functional.linear`'s and is computed in the same pass.
    """

    def __init__(self, in_features: int, out_features: int, *, activation: str | None = None) -> None:
        self.activation = activation
        self.weight = Parameter((out_features, in_features), packed=True)
        self.bias = Parameter((out_features,))

    def __call__(self, x: Array, *, out: Array | None = None) -> Array:
        return F.linear(x, self.weight.value, self.bias.value, activation=self.activation, out=out)


class StackedLinear(Linear):
    """Several linear layers of one input, computed as one: its weight is theirs, one below the other.

    `out_features` gives each layer's name and size in that order, and the checkpoint has `{name}.weight` and
    `{name}.bias` of each.
    """

    def __init__(self, in_features: int, out_features: Mapping[str, int]) -> None:
        super().__init__(in_features, sum(out_features.values()))
        self.out_features = dict(out_features)

    def own_parameters(self) -> Iterator[tuple[str, Parameter | ParameterRows]]:
        start = 0
        for name, size in self.out_features.items():
            yield f"{name}.weight", ParameterRows(self.weight, start, start + size)
            yield f"{name}.bias", ParameterRows(self.bias, start, start + size)
            start += size

    def load_state_dict(self, tensors: Mapping[str, Array], prefix: str = "") -> None:
        for kind, whole in (("weight", self.weight), ("bias", self.bias)):
            whole.load(np.concatenate([tensors[f"{prefix}{name}.{kind}"] for name in self.out_features]))
