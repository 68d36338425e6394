"""RoBERTa, XLM-RoBERTa and CamemBERT: configuration, encoder, and heads for tasks."""

from fastattn.models.registry import Family, by_kind
from fastattn.models.roberta.config import RobertaConfig
from fastattn.models.roberta.model import (
    RobertaForMaskedLM,
    RobertaForMultipleChoice,
    RobertaForQuestionAnswering,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
    RobertaModel,
)

FAMILY = Family(
    RobertaConfig,
    RobertaModel,
    by_kind(
        RobertaForMaskedLM,
        RobertaForMultipleChoice,
        RobertaForQuestionAnswering,
        RobertaForSequenceClassification,
        RobertaForTokenClassification,
    ),
    states_only={"add_pooling_layer": False},
)
