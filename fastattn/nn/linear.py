"""Linear layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastattn import functional as F
from fastattn.checks import boolean, choice, integer
from fastattn.functional.layers import ACTIVATIONS
from fastattn.nn import init
from fastattn.nn.module import Module, NamedParts, Values
from fastattn.nn.parameter import Array, Matrix, Parameter, ParameterRows, Table


class Linear(Module):
    """`y = activation(x weight^T + bias)`: `[..., in_features]` to `[..., out_features]`, as `torch.nn.Linear`.

    `weight` is `[out_features, in_features]`, packed when frozen, which may be in fewer bits (see `Module.freeze`), and
    `bias` is `[out_features]`, or None with `bias=False`. `activation`, a name known to `fastattn.functional.linear`,
    is computed in the same pass. A new weight is normally distributed with standard deviation `std`, or by default
    uniformly within +-1 / sqrt(in_features); a new bias is 0. Assign a parameter to several layers to share it. Raises
    ValueError for sizes less than 1 and an unknown `activation`, TypeError for a `bias` that is not a bool.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        activation: str | None = None,
        std: float | None = None,
    ) -> None:
        in_features = integer("Linear: in_features", in_features)
        out_features = integer("Linear: out_features", out_features)
        bias = boolean("Linear: bias", bias, error=TypeError)
        if activation is not None:
            choice("Linear: activation", activation, ACTIVATIONS)
        self.in_features = in_features
        self.out_features = out_features
        self.activation = activation
        first = init.uniform(in_features**-0.5) if std is None else init.normal(std)
        self.weight: Any = Matrix((out_features, in_features), first)
        self.bias: Any = Parameter((out_features,)) if bias else None

    def forward(self, x: Values, *, out: Array | None = None) -> Any:
        """From `x` `[..., in_features]`, an array or a Tensor, to `[..., out_features]`.

        `out` `[..., out_features]`, an array, is written and returned if nothing is recorded.

        >>> layer = Linear(3, 2)
        >>> layer(np.ones((5, 3), np.float32)).shape
        (5, 2)
        """
        return F.linear(x, self.matrix, self.bias, activation=self.activation, out=out)

    @property
    def matrix(self) -> Any:
        """What `fastattn.functional.linear` takes as the weight: the weight, or that of fewer bits of a table."""
        weight = self.weight
        return weight.matrix if isinstance(weight, Table) and weight.weights != "float32" else weight

    def extra_repr(self) -> str:
        text = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return text if self.activation is None else f"{text}, activation={self.activation!r}"


class StackedLinear(Linear):
    """Several linear layers over one input, computed as one. The weight stacks their weights, one below the other.

    `out_features` has the name and size of each layer, in order. The checkpoint has `{name}.weight` and, with `bias`,
    `{name}.bias` for each. `std` is as in `Linear`.
    """

    def __init__(
        self, in_features: int, out_features: Mapping[str, int], bias: bool = True, *, std: float | None = None
    ) -> None:
        super().__init__(in_features, sum(out_features.values()), bias, std=std)
        self.rows: dict[str, ParameterRows] = {}
        wholes = {name: whole for name, whole in (("weight", self.weight), ("bias", self.bias)) if whole is not None}
        trained: dict[str, set[int]] = {name: set() for name in wholes}
        start = 0
        for name, size in out_features.items():
            for part, whole in wholes.items():
                self.rows[f"{name}.{part}"] = ParameterRows(whole, start, start + size, trained[part])
            start += size

    def _named_parts(self) -> NamedParts:
        return list(self.rows.items()), []
