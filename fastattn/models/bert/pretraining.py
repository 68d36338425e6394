"""BERT with its pre-training heads: masked words, and whether one sentence follows another.

Calls, labels and errors are as in `models.heads`.

Source: Devlin et al. 2019, section 3.1 and figure 1; losses as in transformers' `modeling_bert`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import ArrayLike

from fastattn import nn
from fastattn.autograd import Tensor
from fastattn.models import heads
from fastattn.models.bert.config import BertConfig
from fastattn.models.bert.model import BertHead
from fastattn.models.encoder import Batch
from fastattn.models.inputs import check_labels
from fastattn.models.masked_lm import MaskedLM, PreTraining, with_places
from fastattn.models.outputs import EncoderOutput, HeadOutput, Output, loss_of
from fastattn.nn.module import Values

_SEQ_RELATIONSHIP = {"seq_relationship": "cls.seq_relationship"}
_PREDICTIONS = {
    "predictions": "cls.predictions",
    "predictions.dense": "cls.predictions.transform.dense",
    "predictions.LayerNorm": "cls.predictions.transform.LayerNorm",
}


@dataclass(eq=False, repr=False)
class PreTrainingOutput(Output):
    """`prediction_logits` as `logits` of `MaskedLMOutput`, and `seq_relationship_logits`, `[batch, 2]`."""

    loss: Tensor | None
    compute_prediction_logits: Callable[[], Any] = field(repr=False)
    seq_relationship_logits: Any
    hidden_states: tuple[Any, ...] | None = None
    attentions: tuple[Any, ...] | None = None


class BertForNextSentencePrediction(heads.RaggedModel, BertHead):
    """Whether the second sentence follows the first (0) or is a random one (1).

    `labels` are 0 or 1, integers `[batch]`. The result is a `HeadOutput`.
    """

    checkpoint_names = _SEQ_RELATIONSHIP

    pools = True

    def build(self, config: BertConfig) -> None:
        self._build_encoder(config)
        self.seq_relationship = nn.Linear(config.hidden_size, 2, std=config.initializer_range)

    def _target(self, batch: Batch, labels: ArrayLike) -> Any:
        return check_labels("BertForNextSentencePrediction", "labels", labels, (batch.sequences,), 2)

    def _finish(self, batch: Batch, output: EncoderOutput, target: Any, extras: dict[str, Any]) -> HeadOutput:
        scores = self.seq_relationship(output.pooler_output)
        return HeadOutput(loss_of(scores, target), scores, **extras)


class BertForMaskedLM(MaskedLM, BertHead):
    """See `models.masked_lm.MaskedLM`."""

    checkpoint_names = _PREDICTIONS


class BertForPreTraining(PreTraining, BertHead):
    """Both tasks of BERT's pre-training: masked words, and whether the second sentence follows the first."""

    checkpoint_names = _PREDICTIONS | _SEQ_RELATIONSHIP

    pair_label = "next_sentence_label"

    def build(self, config: BertConfig) -> None:
        self._build_encoder(config)
        self._build_predictions(config)
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
        batch = self.base_model.pack(input_ids, attention_mask, token_type_ids)
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
        batch = with_places(self.base_model.check_ragged(input_ids, cu_seqlens, token_type_ids, position_ids), places)
        output: PreTrainingOutput = self._run(batch, both, output_hidden_states, output_attentions)
        return output

    def _pair_scores(self, pooled: Values) -> Any:
        return self.seq_relationship(pooled)

    def _result(self, *values: Any, **extras: Any) -> PreTrainingOutput:
        return PreTrainingOutput(*values, **extras)
