"""Models, BERT, ELMo and the Transformer: their configuration, network and checkpoints. Imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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

# How the names begin that a folder exports.
_FOLDERS = {"Bert": "bert", "Bidirectional": "elmo", "Elmo": "elmo", "Stream": "elmo", "Transformer": "transformer"}


def __getattr__(name: str) -> Any:
    if name in __all__:
        folder = next(folder for begin, folder in _FOLDERS.items() if name.startswith(begin))
        return getattr(importlib.import_module(f"fastattn.models.{folder}"), name)
    raise AttributeError(f"module 'fastattn.models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
