"""The configuration of ALBERT, in Hugging Face's format."""

from __future__ import annotations

from dataclasses import dataclass

from fastattn.checks import PROBABILITY, config_integer, config_number
from fastattn.models.config import EncoderConfig

MAX_LAYERS = 1024
"""Layers share their weights, so no file confirms their number."""


@dataclass(frozen=True, kw_only=True)
class AlbertConfig(EncoderConfig):
    """The shape of an ALBERT model, field by field as in Hugging Face's config.json; the defaults are transformers'.

    The `num_hidden_layers` are divided evenly among `num_hidden_groups`, and the layers of a group share their weights.
    Each consists of `inner_group_num` blocks. `embedding_size` is the width of the embeddings. Labels are as in
    `BertConfig`.

    Raises ValueError, naming the field and the value, for a value that no such model can have.
    """

    model_types = ("albert",)

    vocab_size: int = 30000
    embedding_size: int = 128
    hidden_size: int = 4096
    num_hidden_groups: int = 1
    num_attention_heads: int = 64
    intermediate_size: int = 16384
    inner_group_num: int = 1
    hidden_act: str = "gelu_new"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    classifier_dropout_prob: float = 0.1

    def _check_fields(self) -> None:
        super()._check_fields()
        self._check(config_integer, "embedding_size", "num_hidden_groups", "inner_group_num")
        self._check(config_integer, "num_hidden_layers", high=MAX_LAYERS + 1, wanted=f"from 1 to {MAX_LAYERS}")
        self._check(config_number, "classifier_dropout_prob", **PROBABILITY)
