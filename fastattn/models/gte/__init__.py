"""GTE: configuration, encoder, and heads for tasks."""

from fastattn.models.gte.config import GteConfig
from fastattn.models.gte.model import (
    GteForMaskedLM,
    GteForSequenceClassification,
    GteForTokenClassification,
    GteModel,
)
from fastattn.models.registry import Family, by_kind

FAMILY = Family(
    GteConfig,
    GteModel,
    by_kind(
        GteForMaskedLM,
        GteForSequenceClassification,
        GteForTokenClassification,
    ),
)
