"""What a search asks of a model that decodes. A model has it without knowing of any search."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Decoder", "DecoderModel", "Ids"]

Ids = NDArray[np.int64]


class Decoder(Protocol):
    """Sequences that grow, one row each. A search chooses tokens and rows; the decoder knows nothing of it."""

    sources: Ids
    """Which source each row belongs to, in ascending order. It begins with one row for each."""

    def step(self, tokens: Ids) -> NDArray[Any]:
        """Read one more token of each row, `[rows]`. The scores of what may follow, `[rows, vocabulary]`, which are the
        caller's own; a row's do not depend on the others."""

    def keep(self, rows: Ids) -> None:
        """Go on with these rows, in this order: some are dropped, and one that is named twice goes on as two."""


class DecoderModel(Protocol):
    """A model that decodes."""

    config: Any
    """Has `decoder_vocab_size`, `max_position_embeddings`, and the defaults of `generate`'s options."""
    settings: Any
    """A `fastattn.models.generation_config.GenerationSettings`."""
    training: bool
    frozen: bool

    def begin(
        self, input_ids: ArrayLike, attention_mask: ArrayLike | None = None, *, max_length: int, use_cache: bool = True
    ) -> Decoder:
        """Read sources `[batch, seq]`, of which no sequence gets longer than `max_length`."""
