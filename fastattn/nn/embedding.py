"""Embedding tables."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from fastattn import functional as F
from fastattn.checks import integer
from fastattn.nn import init
from fastattn.nn.module import Module
from fastattn.nn.parameter import Table


class Embedding(Module):
    """The rows of `weight` `[num_embeddings, embedding_dim]` at integer ids `[...]`.

    `weight` is initialised normally with standard deviation `std`. The row `padding_idx`, which may be
    counted from the end, is 0 and gets no gradient. Raises ValueError for sizes below 1 and a row that does not exist.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, *, std: float = 1.0
    ) -> None:
        num_embeddings = integer("Embedding: num_embeddings", num_embeddings)
        embedding_dim = integer("Embedding: embedding_dim", embedding_dim)
        if padding_idx is not None:
            wanted = f"a row of the table, from {-num_embeddings} to {num_embeddings - 1}"
            padding_idx = integer("Embedding: padding_idx", padding_idx, -num_embeddings, num_embeddings, wanted)
            padding_idx %= num_embeddings
        self.padding_idx = padding_idx
        self.weight = Table((num_embeddings, embedding_dim), init.normal(std, padding_idx))

    def forward(self, ids: ArrayLike) -> Any:
        """From `ids` `[...]` to `[..., embedding_dim]`. Raises ValueError for an id outside [0, num_embeddings).

        >>> Embedding(10, 4)(np.array([[1, 2, 3]])).shape
        (1, 3, 4)
        """
        return F.embedding(ids, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return ", ".join(map(str, self.weight.shape)) + padding
