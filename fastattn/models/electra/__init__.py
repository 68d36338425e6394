"""ELECTRA: configuration, encoder, and heads for tasks."""

from fastattn.models.electra.config import ElectraConfig
from fastattn.models.electra.model import (
    ElectraForMaskedLM,
    ElectraForMultipleChoice,
    ElectraForPreTraining,
    ElectraForQuestionAnswering,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
    ElectraModel,
)
from fastattn.models.registry import Family, by_kind

FAMILY = Family(
    ElectraConfig,
    ElectraModel,
    by_kind(
        ElectraForMaskedLM,
        ElectraForMultipleChoice,
        ElectraForPreTraining,
        ElectraForQuestionAnswering,
        ElectraForSequenceClassification,
        ElectraForTokenClassification,
    ),
)
