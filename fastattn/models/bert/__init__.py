"""BERT: configuration, encoder, and heads for tasks."""

from fastattn.models.bert.config import BertConfig
from fastattn.models.bert.model import (
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)
from fastattn.models.bert.pretraining import BertForMaskedLM, BertForNextSentencePrediction, BertForPreTraining
from fastattn.models.bert.tensorflow import TENSORFLOW
from fastattn.models.registry import Family, by_kind

FAMILY = Family(
    BertConfig,
    BertModel,
    by_kind(
        BertForMaskedLM,
        BertForMultipleChoice,
        BertForNextSentencePrediction,
        BertForPreTraining,
        BertForQuestionAnswering,
        BertForSequenceClassification,
        BertForTokenClassification,
    ),
    states_only={"add_pooling_layer": False},
    tensorflow=TENSORFLOW,
)
