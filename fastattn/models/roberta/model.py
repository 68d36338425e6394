"""RoBERTa: BERT with other positions and heads. XLM-RoBERTa and CamemBERT are the same network.

The first token has the position `pad_token_id + 1`, so a text has at most `max_position_embeddings - pad_token_id - 1`
tokens.

Source: Liu et al. 2019 (arXiv 1907.11692); Conneau et al. 2020 (arXiv 1911.02116). Names, files and results match
Hugging Face's `RobertaModel`.
"""

from __future__ import annotations

from fastattn.models import heads
from fastattn.models.encoder import Encoder
from fastattn.models.masked_lm import MaskedLM
from fastattn.models.roberta.config import RobertaConfig


class RobertaModel(Encoder):
    """A RoBERTa encoder."""

    config_class = RobertaConfig
    prefix = "roberta."
    config: RobertaConfig


class RobertaHead(heads.HeadModel):
    """A model with a RoBERTa encoder under a head."""

    encoder_class = RobertaModel
    config: RobertaConfig
    roberta: RobertaModel


class RobertaForTokenClassification(heads.TokenClassification, RobertaHead):
    """See `models.heads.TokenClassification`."""


class RobertaForQuestionAnswering(heads.QuestionAnswering, RobertaHead):
    """See `models.heads.QuestionAnswering`."""


class RobertaForSequenceClassification(heads.SequenceClassification, RobertaHead):
    """See `models.heads.SequenceClassification`."""

    dense_activation = "tanh"
    common_head = "classifier.out_proj."
    checkpoint_names = {"dense": "classifier.dense", "classifier": "classifier.out_proj"}  # noqa: RUF012


class RobertaForMultipleChoice(heads.MultipleChoice, RobertaHead):
    """See `models.heads.MultipleChoice`."""

    dropouts = ("hidden_dropout_prob",)


class RobertaForMaskedLM(MaskedLM, RobertaHead):
    """See `models.masked_lm.MaskedLM`. The mask is `<mask>`."""

    activation = "gelu"
    checkpoint_names = {"predictions": "lm_head", "predictions.LayerNorm": "lm_head.layer_norm"}  # noqa: RUF012
