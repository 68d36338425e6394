"""The protocol between a search and a model that decodes. The model does not depend on the search."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ids = NDArray[np.int64]


class Decoder(Protocol):
    """Growing sequences, one per row. A search chooses the tokens and the rows."""

    sources: Ids
    """The source of each row, in ascending order. At first each source has one row."""

    def step(self, tokens: Ids) -> NDArray[Any]:
        """Read one more token per row, `[rows]`. Returns the scores of the next token, `[rows, vocabulary]`.

        The caller owns the scores. The scores of a row do not depend on the other rows.
        """

    def keep(self, rows: Ids) -> None:
        """Continue with these rows, in this order. Others are dropped; a row listed twice continues as two rows."""


class DecoderModel(Protocol):
    """A model that decodes."""

    config: Any
    """Has `decoder_vocab_size`, `max_position_embeddings` and the defaults of `generate`'s options."""
    settings: Any
    """A `fastattn.models.generation_config.GenerationSettings`."""
    training: bool
    frozen: bool

    def begin(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        *,
        max_length: int,
        use_cache: bool = True,
        vocabulary: Ids | None = None,
    ) -> Decoder:
        """Read sources `[batch, seq]`. No sequence grows beyond `max_length`. Words out of `vocabulary` score -inf."""
