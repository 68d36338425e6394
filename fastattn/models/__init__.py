"""BERT, ELMo and the Transformer: configurations, networks and checkpoints. Each is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastattn._lazy import lazy

if TYPE_CHECKING:
    from fastattn.models.bert.config import BertConfig
    from fastattn.models.bert.heads import (
        BertForMultipleChoice,
        BertForQuestionAnswering,
        BertForSequenceClassification,
        BertForTokenClassification,
    )
    from fastattn.models.bert.model import BertModel
    from fastattn.models.bert.outputs import BertOutput
    from fastattn.models.bert.pretraining import BertForMaskedLM, BertForNextSentencePrediction, BertForPreTraining
    from fastattn.models.elmo.config import ElmoConfig
    from fastattn.models.elmo.language_model import BidirectionalLanguageModel, StreamLoss
    from fastattn.models.elmo.model import Elmo, ElmoOutput
    from fastattn.models.transformer.config import TransformerConfig
    from fastattn.models.transformer.model import Transformer, TransformerOutput

__all__ = [
    "BertConfig",
    "BertForMaskedLM",
    "BertForMultipleChoice",
    "BertForNextSentencePrediction",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertModel",
    "BertOutput",
    "BidirectionalLanguageModel",
    "Elmo",
    "ElmoConfig",
    "ElmoOutput",
    "StreamLoss",
    "Transformer",
    "TransformerConfig",
    "TransformerOutput",
]

__getattr__ = lazy(
    __name__,
    {
        "bert": " ".join(name for name in __all__ if name.startswith("Bert") and name != "BertOutput"),
        "bert.outputs": "BertOutput",
        "elmo": "BidirectionalLanguageModel Elmo ElmoConfig",
        "elmo.language_model": "StreamLoss",
        "elmo.model": "ElmoOutput",
        "transformer": "Transformer TransformerConfig",
        "transformer.model": "TransformerOutput",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
