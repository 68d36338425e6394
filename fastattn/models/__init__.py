"""Models, BERT, ELMo and the Transformer: their configuration, network and checkpoints. Imported when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastattn._lazy import lazy

if TYPE_CHECKING:
    from fastattn.models.bert import (
        BertConfig,
        BertForMaskedLM,
        BertForMultipleChoice,
        BertForNextSentencePrediction,
        BertForPreTraining,
        BertForQuestionAnswering,
        BertForSequenceClassification,
        BertForTokenClassification,
        BertModel,
        BertOutput,
    )
    from fastattn.models.elmo import BidirectionalLanguageModel, Elmo, ElmoConfig, ElmoOutput, StreamLoss
    from fastattn.models.transformer import Transformer, TransformerConfig, TransformerOutput

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
        "bert": " ".join(name for name in __all__ if name.startswith("Bert")),
        "elmo": "BidirectionalLanguageModel Elmo ElmoConfig ElmoOutput StreamLoss",
        "transformer": "Transformer TransformerConfig TransformerOutput",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
