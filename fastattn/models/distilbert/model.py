"""DistilBERT: BERT with other names, without token types and without a pooler.

Source: Sanh et al. 2019 (arXiv 1910.01108). Names, files and results match Hugging Face's `DistilBertModel`.
"""

from __future__ import annotations

from typing import ClassVar

from fastattn.models import heads
from fastattn.models.distilbert.config import DistilBertConfig
from fastattn.models.encoder import Encoder
from fastattn.models.masked_lm import MaskedLM


class DistilBertModel(Encoder):
    """A DistilBERT encoder."""

    config_class = DistilBertConfig
    prefix = "distilbert."
    pools = False
    layer_names: ClassVar = {"n_layers": "transformer.layer.{}."}
    whole = ("embeddings.", "transformer.")
    checkpoint_names = {  # noqa: RUF012
        "layers.{}.self_attn.q_proj": "transformer.layer.{}.attention.q_lin",
        "layers.{}.self_attn.k_proj": "transformer.layer.{}.attention.k_lin",
        "layers.{}.self_attn.v_proj": "transformer.layer.{}.attention.v_lin",
        "layers.{}.self_attn.out_proj": "transformer.layer.{}.attention.out_lin",
        "layers.{}.self_attn_layer_norm": "transformer.layer.{}.sa_layer_norm",
        "layers.{}.fc1": "transformer.layer.{}.ffn.lin1",
        "layers.{}.fc2": "transformer.layer.{}.ffn.lin2",
        "layers.{}.final_layer_norm": "transformer.layer.{}.output_layer_norm",
    }
    config: DistilBertConfig


class DistilBertHead(heads.HeadModel):
    """A model with a DistilBERT encoder under a head."""

    encoder_class = DistilBertModel
    config: DistilBertConfig
    distilbert: DistilBertModel


class DistilBertForTokenClassification(heads.TokenClassification, DistilBertHead):
    """See `models.heads.TokenClassification`."""

    dropouts = ("dropout",)


class DistilBertForQuestionAnswering(heads.QuestionAnswering, DistilBertHead):
    """See `models.heads.QuestionAnswering`."""

    dropouts = ("qa_dropout",)


class _FirstToken(heads.SummaryModel):
    dropouts = ("seq_classif_dropout",)
    dense_activation = "relu"
    drops_first = False
    checkpoint_names = {"dense": "pre_classifier"}  # noqa: RUF012


class DistilBertForSequenceClassification(_FirstToken, heads.SequenceClassification, DistilBertHead):
    """See `models.heads.SequenceClassification`."""


class DistilBertForMultipleChoice(_FirstToken, heads.MultipleChoice, DistilBertHead):
    """See `models.heads.MultipleChoice`."""


class DistilBertForMaskedLM(MaskedLM, DistilBertHead):
    """See `models.masked_lm.MaskedLM`."""

    two_biases = False
    checkpoint_names = {  # noqa: RUF012
        "predictions.dense": "vocab_transform",
        "predictions.LayerNorm": "vocab_layer_norm",
        "predictions.decoder": "vocab_projector",
    }
