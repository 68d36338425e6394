"""The configuration of GTE, in Hugging Face's format."""

from __future__ import annotations

from dataclasses import dataclass

from fastattn.models.rotary import RotaryConfig


@dataclass(frozen=True, kw_only=True)
class GteConfig(RotaryConfig):
    """The shape of a GTE encoder, field by field as in Hugging Face's config.json; the defaults are multilingual-base.

    With a `type_vocab_size` of 0 there are no token types. Raises ValueError, naming the field and the value, for a
    value that no such model can have, and for a scaling of the positions.
    """

    model_types = ("gte",)
    fewest_types = 0

    vocab_size: int = 250048
    attention_probs_dropout_prob: float = 0.0
    max_position_embeddings: int = 8192
    type_vocab_size: int = 1
    pad_token_id: int | None = 1
    rope_theta: float = 160000.0
