"""BERT with its pre-training heads: masked words, and whether one sentence follows another.

Calls, labels and errors are as in `bert.heads`.

Source: Devlin et al. 2019, section 3.1 and figure 1; losses as in transformers' `modeling_bert`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastattn import functional as F
from fastattn import nn
from fastattn.checks import integers
from fastattn.functional.losses import IGNORE_INDEX
from fastattn.models.bert.config import BertConfig
from fastattn.models.bert.heads import BertHeadModel, RaggedModel
from fastattn.models.bert.model import Batch, BertModel
from fastattn.models.bert.outputs import BertOutput, PreTrainingOutput
from fastattn.models.config import ACTIVATIONS
from fastattn.models.inputs import check_labels
from fastattn.models.outputs import HeadOutput, MaskedLMOutput, later, loss_of
from fastattn.nn.module import Values
from fastattn.nn.parameter import Array, Parameter

_SEQ_RELATIONSHIP = {"seq_relationship": "cls.seq_relationship"}
_PREDICTIONS = {"predictions": "cls.predictions"}
_TRANSFORM = {"dense": "transform.dense", "LayerNorm": "transform.LayerNorm"}


class BertForNextSentencePrediction(RaggedModel):
    """Whether the second sentence follows the first (0) or is a random one (1).

    `labels` are 0 or 1, integers `[batch]`. The result is a `HeadOutput`.
    """

    checkpoint_names = _SEQ_RELATIONSHIP

    def build(self, config: BertConfig) -> None:
        self.bert = BertModel(config)
        self.seq_relationship = nn.Linear(config.hidden_size, 2, std=config.initializer_range)

    def _target(self, batch: Batch, labels: ArrayLike) -> Any:
        return check_labels("BertForNextSentencePrediction", "labels", labels, (batch.sequences,), 2)

    def _finish(self, batch: Batch, output: BertOutput, target: Any, extras: dict[str, Any]) -> HeadOutput:
        scores = self.seq_relationship(output.pooler_output)
        return HeadOutput(loss_of(scores, target), scores, **extras)


class PredictionHead(nn.Module):
    """Scores of all words for a token: `[tokens, hidden_size]` to `[tokens, vocab_size]`.

    The matrix is the parameter `word_embeddings` unless it is None.
    """

    checkpoint_names = _TRANSFORM

    def __init__(self, config: BertConfig, word_embeddings: Parameter | None) -> None:
        dim, std = config.hidden_size, config.initializer_range
        self.dense = nn.Linear(dim, dim, activation=ACTIVATIONS[config.hidden_act], std=std)
        self.LayerNorm = nn.LayerNorm(dim, config.layer_norm_eps)
        self.bias = Parameter((config.vocab_size,))
        with nn.init.uninitialized():
            self.decoder = nn.Linear(dim, config.vocab_size, std=std)
        if word_embeddings is not None:
            self.decoder.weight, self.decoder.bias = word_embeddings, self.bias

    def forward(self, x: Values) -> Any:
        return self.decoder(self.LayerNorm(self.dense(x)))

    def loss(self, hidden: Values, target: Array) -> Any:
        """The mean cross-entropy of the tokens that have a `target`. The others get no scores."""
        places = np.flatnonzero(target != IGNORE_INDEX)
        return loss_of(self(F.gather_rows(hidden, places)), target[places])

    def scores(self, hidden: Values, batch: Batch) -> Any:
        """The scores of all tokens, or of `batch.places`."""
        return batch.pad(self(hidden)) if batch.places is None else self(F.gather_rows(hidden, batch.places))


class BertForMaskedLM(RaggedModel):
    """The words hidden by [MASK]. With `tie_word_embeddings` the matrix of the scores is the word embeddings.

    `labels` `[batch, seq]` are the words at the positions to predict and -100 elsewhere. The result is a
    `MaskedLMOutput`.
    """

    checkpoint_names = _PREDICTIONS

    def build(self, config: BertConfig) -> None:
        self.bert = BertModel(config, add_pooling_layer=False)
        self.predictions = PredictionHead(config, _tied(config, self.bert))

    def forward_ragged(
        self,
        input_ids: ArrayLike,
        cu_seqlens: ArrayLike,
        token_type_ids: ArrayLike | None = None,
        position_ids: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        places: ArrayLike | None = None,
    ) -> MaskedLMOutput:
        """As for every head. With `places`, integers `[n]`, `logits` are the scores of these tokens, `[n, ..]`."""
        batch = _with_places(self.bert.check_ragged(input_ids, cu_seqlens, token_type_ids, position_ids), places)
        output: MaskedLMOutput = self._run(batch, labels, output_hidden_states, output_attentions)
        return output

    def _target(self, batch: Batch, labels: ArrayLike) -> Any:
        return batch.pack_labels("BertForMaskedLM", labels, self.config.vocab_size)

    def _finish(self, batch: Batch, output: BertOutput, target: Any, extras: dict[str, Any]) -> MaskedLMOutput:
        hidden, head = output.last_hidden_state, self.predictions
        loss = None if target is None else head.loss(hidden, target)
        return MaskedLMOutput(loss, later(lambda: head.scores(hidden, batch)), **extras)


class BertForPreTraining(BertHeadModel):
    """Both tasks of BERT's pre-training: masked words, and whether the second sentence follows the first."""

    checkpoint_names = _PREDICTIONS | _SEQ_RELATIONSHIP

    def build(self, config: BertConfig) -> None:
        self.bert = BertModel(config)
        self.predictions = PredictionHead(config, _tied(config, self.bert))
        self.seq_relationship = nn.Linear(config.hidden_size, 2, std=config.initializer_range)

    def forward(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        next_sentence_label: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> PreTrainingOutput:
        """`labels` as in `BertForMaskedLM` and `next_sentence_label` as in `BertForNextSentencePrediction`.

        The loss is the sum of both. Raises ValueError if only one is given.
        """
        both = self._together(labels=labels, next_sentence_label=next_sentence_label)
        batch = self.bert.pack(input_ids, attention_mask, token_type_ids)
        output: PreTrainingOutput = self._run(batch, both, output_hidden_states, output_attentions)
        return output

    def forward_ragged(
        self,
        input_ids: ArrayLike,
        cu_seqlens: ArrayLike,
        token_type_ids: ArrayLike | None = None,
        position_ids: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        next_sentence_label: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        places: ArrayLike | None = None,
    ) -> PreTrainingOutput:
        """As the call, of a ragged batch, see `BertModel.forward_ragged`: `labels` are `[tokens]`.

        With `places`, integers `[n]`, `prediction_logits` are the scores of these tokens, `[n, vocab_size]`.
        """
        both = self._together(labels=labels, next_sentence_label=next_sentence_label)
        batch = _with_places(self.bert.check_ragged(input_ids, cu_seqlens, token_type_ids, position_ids), places)
        output: PreTrainingOutput = self._run(batch, both, output_hidden_states, output_attentions)
        return output

    def _target(self, batch: Batch, labels: dict[str, Any]) -> Any:
        owner, next_label = "BertForPreTraining", "next_sentence_label"
        words = batch.pack_labels(owner, labels["labels"], self.config.vocab_size)
        return words, check_labels(owner, next_label, labels[next_label], (batch.sequences,), 2)

    def _finish(self, batch: Batch, output: BertOutput, target: Any, extras: dict[str, Any]) -> PreTrainingOutput:
        hidden, head = output.last_hidden_state, self.predictions
        scores = self.seq_relationship(output.pooler_output)
        loss = None if target is None else head.loss(hidden, target[0]) + F.cross_entropy(scores, target[1])
        return PreTrainingOutput(loss, later(lambda: head.scores(hidden, batch)), scores, **extras)


def _with_places(batch: Batch, places: ArrayLike | None) -> Batch:
    """The batch, with scores at `places` alone. Raises TypeError or ValueError for what are no tokens of it."""
    if places is not None:
        batch.places = integers("places", places)
        if batch.places.ndim != 1:
            raise ValueError(f"places must have shape (n,), got {batch.places.shape}")
        batch.check_rows("places", batch.places, len(batch.ids))
    return batch


def _tied(config: BertConfig, bert: BertModel) -> Parameter | None:
    return bert.embeddings.word_embeddings.weight if config.tie_word_embeddings else None
