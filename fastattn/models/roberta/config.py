"""The configuration of RoBERTa, XLM-RoBERTa and CamemBERT, in Hugging Face's format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastattn.checks import choice
from fastattn.models.config import EncoderConfig

_CLASSES = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}


@dataclass(frozen=True, kw_only=True)
class RobertaConfig(EncoderConfig):
    """The shape of a RoBERTa model, field by field as in Hugging Face's config.json; the defaults are transformers'.

    `model_type` is "roberta", "xlm-roberta" or "camembert": three vocabularies of one network, which stay apart in the
    files that are written. Labels are as in `BertConfig`.

    Raises ValueError, naming the field and the value, for a value that no such model can have.
    """

    model_types = tuple(_CLASSES)

    model_type: str = "roberta"
    vocab_size: int = 50265
    pad_token_id: int = 1

    def _check_fields(self) -> None:
        self._check(choice, "model_type", known=self.model_types)
        super()._check_fields()

    @property
    def uncounted(self) -> int:
        """The id that positions do not count."""
        return self.pad_token_id

    def to_dict(self, architecture: str = "") -> dict[str, Any]:
        """The object to write to config.json for a model of class `architecture`."""
        name = (architecture or self._model()).removeprefix("Roberta")
        return super().to_dict(f"{_CLASSES[self.model_type]}{name}")
