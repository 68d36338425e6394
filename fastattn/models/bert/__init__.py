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
from fastattn.models.registry import Family

_HEADS = (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
FAMILY = Family(
    BertConfig,
    BertModel,
    {head.__name__.removeprefix("BertFor"): head for head in _HEADS},
    states_only={"add_pooling_layer": False},
    tensorflow=TENSORFLOW,
)
