"""Models: their configuration, network and checkpoints."""

from fastattn.models.bert import BertConfig, BertModel, BertOutput
from fastattn.models.bert_heads import (
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from fastattn.models.bert_pretraining import BertForMaskedLM, BertForNextSentencePrediction, BertForPreTraining

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
]
