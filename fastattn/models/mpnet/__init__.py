"""MPNet: configuration, encoder, and heads for tasks."""

from fastattn.models.mpnet.config import MPNetConfig
from fastattn.models.mpnet.model import (
    MPNetForMaskedLM,
    MPNetForMultipleChoice,
    MPNetForQuestionAnswering,
    MPNetForSequenceClassification,
    MPNetForTokenClassification,
    MPNetModel,
)
from fastattn.models.registry import Family, by_kind

FAMILY = Family(
    MPNetConfig,
    MPNetModel,
    by_kind(
        MPNetForMaskedLM,
        MPNetForMultipleChoice,
        MPNetForQuestionAnswering,
        MPNetForSequenceClassification,
        MPNetForTokenClassification,
    ),
    states_only={"add_pooling_layer": False},
)
