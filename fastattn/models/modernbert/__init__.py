"""ModernBERT: configuration, encoder, and heads for tasks."""

from fastattn.models.modernbert.config import ModernBertConfig
from fastattn.models.modernbert.heads import (
    ModernBertForMaskedLM,
    ModernBertForMultipleChoice,
    ModernBertForQuestionAnswering,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
)
from fastattn.models.modernbert.model import ModernBertModel
from fastattn.models.registry import Family, by_kind

FAMILY = Family(
    ModernBertConfig,
    ModernBertModel,
    by_kind(
        ModernBertForMaskedLM,
        ModernBertForMultipleChoice,
        ModernBertForQuestionAnswering,
        ModernBertForSequenceClassification,
        ModernBertForTokenClassification,
    ),
)
