"""BERT: configuration, encoder, and heads for tasks."""

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
from fastattn.models.registry import Family

__all__ = [
    "FAMILY",
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

FAMILY = Family(
    BertConfig,
    BertModel,
    {
        "MaskedLM": BertForMaskedLM,
        "MultipleChoice": BertForMultipleChoice,
        "NextSentencePrediction": BertForNextSentencePrediction,
        "PreTraining": BertForPreTraining,
        "QuestionAnswering": BertForQuestionAnswering,
        "SequenceClassification": BertForSequenceClassification,
        "TokenClassification": BertForTokenClassification,
    },
)
