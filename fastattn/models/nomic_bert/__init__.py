"""NomicBERT: configuration, encoder, and heads for tasks."""

from fastattn.models.nomic_bert.config import NomicBertConfig
from fastattn.models.nomic_bert.model import (
    NomicBertForMaskedLM,
    NomicBertForSequenceClassification,
    NomicBertForTokenClassification,
    NomicBertModel,
)
from fastattn.models.registry import Family, by_kind

FAMILY = Family(
    NomicBertConfig,
    NomicBertModel,
    by_kind(
        NomicBertForMaskedLM,
        NomicBertForSequenceClassification,
        NomicBertForTokenClassification,
    ),
)
