"""Linear layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastattn import functional as F
from fastattn.nn import init
from fastattn.nn.module import AnyParameter, Module, Values
from fastattn.nn.parameter import Array, Parameter, ParameterRows


class Linear(Module):
    """`y = activation(x weight^T + bias)`: `[..., in_features]` to `[..., out_features]`.

    `weight` is `[out_features, in_features]`, packed when frozen, and `bias` `[out_features]`; either can be the
    parameter of another layer, which is then shared. `activation` is one of `fastattn.functional.linear`'s and is
    computed in the same pass. A new weight is normally distributed with `std`, or by default uniformly up to
    1 / sqrt(in_features); a new bias is 0.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: str | None = None,
        std: float | None = None,
        weight: Parameter | None = None,
        bias: Parameter | None = None,
    ) -> None:
        self.activation = activation
        first = init.uniform(in_features**-0.5) if std is None else init.normal(std)
        self.weight = Parameter((out_features, in_features), first, packed=True) if weight is None else weight
        self.bias = Parameter((out_features,)) if bias is None else bias

    def forward(self, x: Values, *, out: Array | None = None) -> Any:
        """`x` `[..., in_features]`, an array or a Tensor, gives `[..., out_features]`.

        Where the layer or `x` is recorded the result is a Tensor, else an array. `out` `[..., out_features]`, an array,
        is written and returned; it is for an array `x`, and nothing is recorded then.

        >>> layer = Linear(3, 2)
        >>> layer(np.ones((5, 3), np.float32)).shape
        (5, 2)
        """
        return F.linear(x, self.weight, self.bias, activation=self.activation, out=out)


class StackedLinear(Linear):
    """Several linear layers of one input, computed as one: its weight is theirs, one below the other.

    `out_features` gives each layer's name and size in that order, and the checkpoint has `{name}.weight` and
    `{name}.bias` of each.
    """

    def __init__(self, in_features: int, out_features: Mapping[str, int], *, std: float | None = None) -> None:
        super().__init__(in_features, sum(out_features.values()), std=std)
        self.rows: dict[str, ParameterRows] = {}
        trained: tuple[set[int], set[int]] = (set(), set())
        start = 0
        for name, size in out_features.items():
            self.rows[f"{name}.weight"] = ParameterRows(self.weight, start, start + size, trained[0])
            self.rows[f"{name}.bias"] = ParameterRows(self.bias, start, start + size, trained[1])
            start += size

    def own_parameters(self) -> Iterator[tuple[str, AnyParameter]]:
        yield from self.rows.items()
