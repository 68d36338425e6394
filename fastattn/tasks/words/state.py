"""The state of ELMo between calls."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from fastattn.models.elmo.config import ElmoConfig
from fastattn.nn.parameter import Array

Layer = tuple[Array, Array]


class ElmoState:
    """The states of the LSTMs, for every layer and both directions, in slots.

    Sentence i of a call starts from slot i, and leaves its final state there. Slots start as zeros. Slots beyond the
    sentences of a call do not change. bilm-tf does the same between the batches of a session. A state belongs to one
    stream of calls, so two threads need two states.
    """

    def __init__(self, config: ElmoConfig) -> None:
        self._shape = config.n_layers, config.projection_dim, config.dim
        h, c = (np.zeros((2, 0, size), np.float32) for size in (config.projection_dim, config.dim))
        self._layers: list[Layer] = [(h, c)] * config.n_layers

    def __len__(self) -> int:
        """The number of slots used."""
        return int(self._layers[0][0].shape[1])

    def copy(self) -> ElmoState:
        """An independent copy."""
        return copy.copy(self)

    def begin(self, sentences: int, config: ElmoConfig) -> list[Layer]:
        """h `[2, sentences, projection_dim]` and c `[2, sentences, dim]` of each layer.

        Raises ValueError unless the reader's `config` has the shape that the state was made for.
        """
        if (config.n_layers, config.projection_dim, config.dim) != self._shape:
            raise ValueError("WordEncoder: state was made by a model of another shape")
        return [(_first(h, sentences), _first(c, sentences)) for h, c in self._layers]

    def end(self, layers: Sequence[Layer]) -> None:
        """Keep the states at the end of the sentences, in the shapes of `begin`."""
        self._layers = [
            (_replaced(old_h, h), _replaced(old_c, c))
            for (old_h, old_c), (h, c) in zip(self._layers, layers, strict=True)
        ]


def _first(slots: Array, count: int) -> Array:
    """The first slots, filled up with zeros."""
    new = np.zeros((2, max(0, count - slots.shape[1]), slots.shape[2]), slots.dtype)
    return np.concatenate([slots[:, :count], new], axis=1)


def _replaced(slots: Array, new: Array) -> Array:
    """`new`, then the slots beyond it."""
    return np.concatenate([new, slots[:, new.shape[1] :]], axis=1)
