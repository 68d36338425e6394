"""The configuration of ELECTRA, in Hugging Face's format."""

from __future__ import annotations

from dataclasses import dataclass

from fastattn.checks import PROBABILITY, boolean, choice, config_integer, config_number
from fastattn.models.config import EncoderConfig


@dataclass(frozen=True, kw_only=True)
class ElectraConfig(EncoderConfig):
    """The shape of an ELECTRA model, field by field as in Hugging Face's config.json; the defaults are ELECTRA-small.

    `embedding_size` is the width of the embeddings, which are projected to `hidden_size` if it differs. The fields
    `summary_..` describe the layer of a multiple choice. Labels are as in `BertConfig`.

    Raises ValueError, naming the field and the value, for a value that no such model can have.
    """

    model_types = ("electra",)

    embedding_size: int = 128
    hidden_size: int = 256
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    summary_type: str = "first"
    summary_use_proj: bool = True
    summary_activation: str = "gelu"
    summary_last_dropout: float = 0.1

    def _check_fields(self) -> None:
        super()._check_fields()
        self._check(config_integer, "embedding_size")
        self._check(choice, "summary_type", known=("first",))
        self._check(boolean, "summary_use_proj")
        if not self.summary_use_proj:
            raise ValueError("summary_use_proj must be true, got false")
        self._check(choice, "summary_activation", known=("gelu",))
        self._check(config_number, "summary_last_dropout", **PROBABILITY)
