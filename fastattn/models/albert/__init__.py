"""ALBERT: configuration, encoder, and heads for tasks."""

from fastattn.models.albert.config import AlbertConfig
from fastattn.models.albert.model import (
    AlbertForMaskedLM,
    AlbertForMultipleChoice,
    AlbertForPreTraining,
    AlbertForQuestionAnswering,
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
    AlbertModel,
)
from fastattn.models.registry import Family, by_kind

FAMILY = Family(
    AlbertConfig,
    AlbertModel,
    by_kind(
        AlbertForMaskedLM,
        AlbertForMultipleChoice,
        AlbertForPreTraining,
        AlbertForQuestionAnswering,
        AlbertForSequenceClassification,
        AlbertForTokenClassification,
    ),
    states_only={"add_pooling_layer": False},
)
