"""The position-wise feed-forward network."""

from __future__ import annotations

from fastattn.nn.linear import Linear
from fastattn.nn.module import Array, Module
from fastattn.nn.workspace import Workspace


class FeedForward(Module):
    """Two linear layers with an activation between: `[tokens, dim]` to the same over `hidden_dim`.

    Source: Vaswani et al. 2017, section 3.3.
    """

    def __init__(self, dim: int, hidden_dim: int, activation: str | None) -> None:
        self.input = Linear(dim, hidden_dim, activation=activation)
        self.output = Linear(hidden_dim, dim)

    def __call__(self, x: Array, *, workspace: Workspace | None = None) -> Array:
        """The result lives in `workspace` when there is one."""
        if workspace is None:
            return self.output(self.input(x))
        return self.output(self.input(x, out=workspace.hidden), out=workspace.output)
