"""Embedding tables."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import functional as F
from fastattn.nn.module import Array, Module, Parameter


class Embedding(Module):
    """The rows of `weight` `[num_embeddings, embedding_dim]` that integer ids `[...]` name."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        self.weight = Parameter((num_embeddings, embedding_dim))

    def __call__(self, ids: NDArray[np.integer[Any]]) -> Array:
        return F.embedding(ids, self.weight.value)
