"""The position-wise feed-forward network."""

from __future__ import annotations

from typing import Any

from fastattn.nn.linear import Linear
from fastattn.nn.module import Module, Values
from fastattn.nn.workspace import Workspace


class FeedForward(Module):
    """Two linear layers with an activation between: `[tokens, dim]` to the same over `hidden_dim`.

    `std` is that of `Linear`. Source: Vaswani et al. 2017, section 3.3.
    """

    def __init__(self, dim: int, hidden_dim: int, activation: str | None, *, std: float | None = None) -> None:
        self.input = Linear(dim, hidden_dim, activation=activation, std=std)
        self.output = Linear(hidden_dim, dim, std=std)

    def forward(self, x: Values, *, workspace: Workspace | None = None) -> Any:
        """`x` `[tokens, dim]`, an array or a Tensor, gives `[tokens, dim]`.

        With a `workspace`, for arrays that nothing is recorded from, the result is its `output`: valid until the
        workspace is used again.
        """
        if workspace is None:
            return self.output(self.input(x))
        return self.output(self.input(x, out=workspace.hidden), out=workspace.output)
