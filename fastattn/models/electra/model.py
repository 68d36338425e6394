"""ELECTRA: the discriminator, BERT with narrower embeddings and without a pooler, and the generator.

Source: Clark et al. 2020 (arXiv 2003.10555). Names, files and results match Hugging Face's `ElectraModel`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import functional as F
from fastattn import nn
from fastattn.checks import integers
from fastattn.functional.losses import IGNORE_INDEX
from fastattn.models import heads
from fastattn.models.config import ACTIVATIONS, LABELS
from fastattn.models.electra.config import ElectraConfig
from fastattn.models.encoder import Batch, Embeddings, Encoder, encoder_block
from fastattn.models.inputs import check_labels
from fastattn.models.masked_lm import MaskedLM
from fastattn.models.outputs import EncoderOutput, HeadOutput, loss_of

_SUMMARY = ("summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout")


class ElectraModel(Encoder):
    """An ELECTRA encoder, of a discriminator or of a generator."""

    config_class = ElectraConfig
    prefix = "electra."
    whole = ("embeddings.", "embeddings_project.", "encoder.")
    pools = False
    unused_fields = (*LABELS, *_SUMMARY)
    config: ElectraConfig

    def build(self, config: ElectraConfig) -> None:
        width, dim, std = config.embedding_size, config.hidden_size, config.initializer_range
        self.embeddings = Embeddings(config, width)
        self.embeddings_project = None if width == dim else nn.Linear(width, dim, std=std)
        self.layers = [encoder_block(config) for _ in range(config.num_hidden_layers)]
        self.pooler = None

    def input_layer(self) -> nn.Linear | None:
        return self.embeddings_project

    def embed(self, batch: Batch, token_type_ids: NDArray[np.int64] | None) -> Any:
        x = super().embed(batch, token_type_ids)
        return x if self.embeddings_project is None else self.embeddings_project(x)


class ElectraHead(heads.HeadModel):
    """A model with an ELECTRA encoder under a head."""

    encoder_class = ElectraModel
    config: ElectraConfig
    electra: ElectraModel


class ElectraForTokenClassification(heads.TokenClassification, ElectraHead):
    """See `models.heads.TokenClassification`."""

    unused_fields = _SUMMARY


class ElectraForQuestionAnswering(heads.QuestionAnswering, ElectraHead):
    """See `models.heads.QuestionAnswering`."""

    unused_fields = ElectraModel.unused_fields


class ElectraForSequenceClassification(heads.SequenceClassification, ElectraHead):
    """See `models.heads.SequenceClassification`."""

    unused_fields = _SUMMARY
    dense_activation = "gelu"
    common_head = "classifier.out_proj."
    checkpoint_names = {"dense": "classifier.dense", "classifier": "classifier.out_proj"}  # noqa: RUF012


class ElectraForMultipleChoice(heads.MultipleChoice, ElectraHead):
    """See `models.heads.MultipleChoice`."""

    dropouts = ("summary_last_dropout",)
    dense_activation = "gelu"
    drops_first = False
    checkpoint_names = {"dense": "sequence_summary.summary"}  # noqa: RUF012


class ElectraForMaskedLM(MaskedLM, ElectraHead):
    """See `models.masked_lm.MaskedLM`. The generator has learnt this."""

    unused_fields = ElectraModel.unused_fields
    activation = "gelu"
    two_biases = False
    checkpoint_names = {  # noqa: RUF012
        "predictions.dense": "generator_predictions.dense",
        "predictions.LayerNorm": "generator_predictions.LayerNorm",
        "predictions.decoder": "generator_lm_head",
    }


class ElectraForPreTraining(heads.RaggedModel, ElectraHead):
    """Whether each token is the original one or replaced, which the discriminator has learnt.

    `labels` `[batch, seq]` are 0 for an original token and 1 for a replaced one; -100 does not count, nor does the
    padding. `logits` are `[batch, seq]`, above 0 for a token that seems replaced. The result is a `HeadOutput`.
    """

    unused_fields = ElectraModel.unused_fields
    checkpoint_names = {  # noqa: RUF012
        "dense": "discriminator_predictions.dense",
        "dense_prediction": "discriminator_predictions.dense_prediction",
    }

    def build(self, config: ElectraConfig) -> None:
        dim, std = config.hidden_size, config.initializer_range
        self._build_encoder(config)
        self.dense = nn.Linear(dim, dim, activation=ACTIVATIONS[config.hidden_act], std=std)
        self.dense_prediction = nn.Linear(dim, 1, std=std)

    def _target(self, batch: Batch, labels: ArrayLike) -> Any:
        owner = type(self).__name__
        array = integers(f"{owner}: labels", labels, batch.shape)
        if batch.mask is not None:
            array = np.where(batch.mask, array, IGNORE_INDEX)
        checked = check_labels(owner, "labels", array, batch.shape, 2)
        return checked.reshape(-1) if batch.mask is None else checked[batch.mask]

    def _finish(self, batch: Batch, output: EncoderOutput, target: Any, extras: dict[str, Any]) -> HeadOutput:
        scores = self.dense_prediction(self.dense(output.last_hidden_state))
        loss = None
        if target is not None:
            places = np.flatnonzero(target != IGNORE_INDEX)
            counted = F.gather_rows(scores, places)
            loss = loss_of(counted, target[places][:, None], F.binary_cross_entropy_with_logits)
        return HeadOutput(loss, batch.pad(scores).reshape(batch.shape), **extras)
