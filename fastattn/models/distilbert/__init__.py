"""DistilBERT: configuration, encoder, and heads for tasks."""

from fastattn.models.distilbert.config import DistilBertConfig
from fastattn.models.distilbert.model import (
    DistilBertForMaskedLM,
    DistilBertForMultipleChoice,
    DistilBertForQuestionAnswering,
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
    DistilBertModel,
)
from fastattn.models.registry import Family, by_kind

FAMILY = Family(
    DistilBertConfig,
    DistilBertModel,
    by_kind(
        DistilBertForMaskedLM,
        DistilBertForMultipleChoice,
        DistilBertForQuestionAnswering,
        DistilBertForSequenceClassification,
        DistilBertForTokenClassification,
    ),
)
