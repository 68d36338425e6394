"""BERT with the heads of its pre-training: the masked words, and whether one sentence follows another.

Calls, labels and errors are as in `bert_heads`.

Source: Devlin et al. 2019, section 3.1 and figure 1; losses as in transformers' `modeling_bert`.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastattn import functional as F
from fastattn import nn
from fastattn.autograd import Tensor, no_grad
from fastattn.functional.losses import IGNORE_INDEX
from fastattn.models.bert.config import ACTIVATIONS, BertConfig
from fastattn.models.bert.head_model import BertHeadModel, numbers, tensor
from fastattn.models.bert.model import Batch, BertModel
from fastattn.models.bert.outputs import HeadOutput, MaskedLMOutput, PreTrainingOutput
from fastattn.models.inputs import Tokens, check_labels
from fastattn.nn.module import Values
from fastattn.nn.parameter import Array, Parameter

__all__ = ["BertForMaskedLM", "BertForNextSentencePrediction", "BertForPreTraining"]


class NextSentenceHead(nn.Module):
    """Whether the second sentence follows the first: `[batch, hidden_size]` to `[batch, 2]`."""

    def __init__(self, config: BertConfig) -> None:
        self.seq_relationship = nn.Linear(config.hidden_size, 2, std=config.initializer_range)


class BertForNextSentencePrediction(BertHeadModel):
    """Whether the second sentence follows the first (0) or is a random one (1)."""

    def build(self, config: BertConfig) -> None:
        self.bert = BertModel(config)
        self.cls = NextSentenceHead(config)

    def forward(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> HeadOutput:
        """The first three are `[batch, seq]`; `labels` are 0 or 1, integers `[batch]`."""
        batch = self.bert.pack(input_ids, attention_mask, token_type_ids)
        target = None
        if labels is not None:
            target = check_labels("BertForNextSentencePrediction", "labels", labels, (batch.sequences,), 2)
        output = self.bert.encode(batch, output_hidden_states, output_attentions)
        scores = self.cls.seq_relationship(output.pooler_output)
        loss = None if target is None else tensor(F.cross_entropy(scores, target))
        return HeadOutput(loss, numbers(scores), **self._extras(batch, output))


class PredictionTransform(nn.Module):
    """A linear layer, its activation and a LayerNorm: `[tokens, hidden_size]` to the same."""

    def __init__(self, config: BertConfig) -> None:
        dim, act = config.hidden_size, ACTIVATIONS[config.hidden_act]
        self.dense = nn.Linear(dim, dim, activation=act, std=config.initializer_range)
        self.LayerNorm = nn.LayerNorm(dim, config.layer_norm_eps)


class PredictionHead(nn.Module):
    """Scores of all words for a token: `[tokens, hidden_size]` to `[tokens, vocab_size]`.

    Its matrix is `word_embeddings`, the parameter, unless that is None.
    """

    def __init__(self, config: BertConfig, word_embeddings: Parameter | None) -> None:
        self.transform = PredictionTransform(config)
        self.bias = Parameter((config.vocab_size,))
        tied = word_embeddings is not None
        with nn.init.uninitialized() if tied else nullcontext():
            self.decoder = nn.Linear(config.hidden_size, config.vocab_size, std=config.initializer_range)
        if tied:
            self.decoder.weight, self.decoder.bias = word_embeddings, self.bias

    def forward(self, x: Values) -> Any:
        return self.decoder(self.transform.LayerNorm(self.transform.dense(x)))


class MaskedLMHead(nn.Module):
    """`PredictionHead` under its name in checkpoints."""

    def __init__(self, config: BertConfig, word_embeddings: Parameter | None) -> None:
        self.predictions = PredictionHead(config, word_embeddings)

    def loss(self, hidden: Values, target: Array) -> Any:
        """The mean cross-entropy of the tokens that have a `target`, the only ones that are computed."""
        places = np.flatnonzero(target != IGNORE_INDEX)
        return tensor(F.cross_entropy(self.predictions(F.gather_rows(hidden, places)), target[places]))

    def logits(self, hidden: Array, batch: Tokens) -> Array:
        """The scores of all words for all tokens, `[batch, seq, vocab_size]`."""
        with no_grad():
            padded: Array = batch.pad(self.predictions(hidden))
        return padded


class PreTrainingHeads(MaskedLMHead):
    """Both heads of the pre-training."""

    def __init__(self, config: BertConfig, word_embeddings: Parameter | None) -> None:
        super().__init__(config, word_embeddings)
        self.seq_relationship = nn.Linear(config.hidden_size, 2, std=config.initializer_range)


class BertForMaskedLM(BertHeadModel):
    """The words behind the [MASK]s. The matrix of its scores is the word embeddings if `tie_word_embeddings`."""

    def build(self, config: BertConfig) -> None:
        self.bert = BertModel(config, add_pooling_layer=False)
        self.cls = MaskedLMHead(config, _tied(config, self.bert))

    def forward(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> MaskedLMOutput:
        """All of them `[batch, seq]`; `labels` are the words at the places to predict and -100 elsewhere."""
        batch = self.bert.pack(input_ids, attention_mask, token_type_ids)
        return self._forward(batch, labels, output_hidden_states, output_attentions)

    def forward_ragged(
        self,
        input_ids: ArrayLike,
        cu_seqlens: ArrayLike,
        token_type_ids: ArrayLike | None = None,
        position_ids: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> MaskedLMOutput:
        """As `BertModel.forward_ragged`; `labels` are `[tokens]`, logits `[tokens, vocab_size]`."""
        batch = self.bert.check_ragged(input_ids, cu_seqlens, token_type_ids, position_ids)
        return self._forward(batch, labels, output_hidden_states, output_attentions)

    def _forward(self, batch: Batch, labels: ArrayLike | None, *outputs: bool) -> MaskedLMOutput:
        target = None
        if labels is not None:
            target = batch.pack_labels("BertForMaskedLM", labels, self.config.vocab_size)
        output = self.bert.encode(batch, *outputs)
        hidden, head = output.last_hidden_state, self.cls
        loss = None if target is None else head.loss(hidden, target)
        rows = hidden.data if isinstance(hidden, Tensor) else hidden
        return MaskedLMOutput(loss, lambda: head.logits(rows, batch), **self._extras(batch, output))


class BertForPreTraining(BertHeadModel):
    """Both tasks of BERT's pre-training: the masked words, and whether the second sentence follows the first."""

    def build(self, config: BertConfig) -> None:
        self.bert = BertModel(config)
        self.cls = PreTrainingHeads(config, _tied(config, self.bert))

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
        """`labels` as in `BertForMaskedLM` and `next_sentence_label` as in `BertForNextSentencePrediction`'s.

        The loss is the sum of both. Raises ValueError when one is given alone.
        """
        owner = "BertForPreTraining"
        if (labels is None) != (next_sentence_label is None):
            raise ValueError(f"{owner}: labels and next_sentence_label must be given together")
        batch = self.bert.pack(input_ids, attention_mask, token_type_ids)
        targets = None
        if labels is not None and next_sentence_label is not None:
            targets = (
                batch.pack_labels(owner, labels, self.config.vocab_size),
                check_labels(owner, "next_sentence_label", next_sentence_label, (batch.sequences,), 2),
            )
        output = self.bert.encode(batch, output_hidden_states, output_attentions)
        hidden, head = output.last_hidden_state, self.cls
        scores = head.seq_relationship(output.pooler_output)
        loss = None
        if targets is not None:
            loss = head.loss(hidden, targets[0]) + F.cross_entropy(scores, targets[1])
        rows = hidden.data if isinstance(hidden, Tensor) else hidden
        return PreTrainingOutput(loss, lambda: head.logits(rows, batch), numbers(scores), **self._extras(batch, output))


def _tied(config: BertConfig, bert: BertModel) -> Parameter | None:
    return bert.embeddings.word_embeddings.weight if config.tie_word_embeddings else None
