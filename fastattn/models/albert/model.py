"""ALBERT: BERT with narrower embeddings, and layers that share their weights.

Source: Lan et al. 2020 (arXiv 1909.11942). Names, files and results match Hugging Face's `AlbertModel`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import nn
from fastattn.autograd import Tensor
from fastattn.models import heads
from fastattn.models.albert.config import AlbertConfig
from fastattn.models.encoder import Batch, Embeddings, Encoder, encoder_block
from fastattn.models.masked_lm import MaskedLM, PreTraining, with_places
from fastattn.models.outputs import Output
from fastattn.nn.module import Values

_BLOCK = "encoder.albert_layer_groups.{}.albert_layers.{}"


class AlbertModel(Encoder):
    """An ALBERT encoder."""

    config_class = AlbertConfig
    prefix = "albert."
    layer_names: ClassVar = {
        "num_hidden_groups": "encoder.albert_layer_groups.{}.",
        "inner_group_num": "encoder.albert_layer_groups.0.albert_layers.{}.",
    }
    deep = ("num_hidden_groups",)
    checkpoint_names = {  # noqa: RUF012
        "embedding_hidden_mapping_in": "encoder.embedding_hidden_mapping_in",
        "groups.{}.{}.self_attn.q_proj": f"{_BLOCK}.attention.query",
        "groups.{}.{}.self_attn.k_proj": f"{_BLOCK}.attention.key",
        "groups.{}.{}.self_attn.v_proj": f"{_BLOCK}.attention.value",
        "groups.{}.{}.self_attn.out_proj": f"{_BLOCK}.attention.dense",
        "groups.{}.{}.self_attn_layer_norm": f"{_BLOCK}.attention.LayerNorm",
        "groups.{}.{}.fc1": f"{_BLOCK}.ffn",
        "groups.{}.{}.fc2": f"{_BLOCK}.ffn_output",
        "groups.{}.{}.final_layer_norm": f"{_BLOCK}.full_layer_layer_norm",
    }
    config: AlbertConfig

    def build(self, config: AlbertConfig) -> None:
        width, dim, std = config.embedding_size, config.hidden_size, config.initializer_range
        self.embeddings = Embeddings(config, width)
        self.embedding_hidden_mapping_in = nn.Linear(width, dim, std=std)
        self.groups = [
            [encoder_block(config) for _ in range(config.inner_group_num)] for _ in range(config.num_hidden_groups)
        ]
        self._build_pooler(config)

    def input_layer(self) -> nn.Linear:
        return self.embedding_hidden_mapping_in

    def embed(self, batch: Batch, token_type_ids: NDArray[np.int64] | None) -> Any:
        return self.embedding_hidden_mapping_in(super().embed(batch, token_type_ids))

    def blocks(self) -> Sequence[nn.EncoderBlock]:
        layers, groups = self.config.num_hidden_layers, self.groups
        return [block for i in range(layers) for block in groups[int(i / (layers / len(groups)))]]


class AlbertHead(heads.HeadModel):
    """A model with an ALBERT encoder under a head."""

    encoder_class = AlbertModel
    dropouts: ClassVar[tuple[str, ...]] = ("classifier_dropout_prob",)
    config: AlbertConfig
    albert: AlbertModel


class AlbertForTokenClassification(heads.TokenClassification, AlbertHead):
    """See `models.heads.TokenClassification`."""


class AlbertForQuestionAnswering(heads.QuestionAnswering, AlbertHead):
    """See `models.heads.QuestionAnswering`."""


class AlbertForSequenceClassification(heads.SequenceClassification, AlbertHead):
    """See `models.heads.SequenceClassification`."""


class AlbertForMultipleChoice(heads.MultipleChoice, AlbertHead):
    """See `models.heads.MultipleChoice`."""


class AlbertForMaskedLM(MaskedLM, AlbertHead):
    """See `models.masked_lm.MaskedLM`."""


@dataclass(eq=False, repr=False)
class AlbertPreTrainingOutput(Output):
    """`prediction_logits` as `logits` of `MaskedLMOutput`, and `sop_logits`, `[batch, 2]`."""

    loss: Tensor | None
    compute_prediction_logits: Callable[[], Any] = field(repr=False)
    sop_logits: Any
    hidden_states: tuple[Any, ...] | None = None
    attentions: tuple[Any, ...] | None = None


class AlbertForPreTraining(PreTraining, AlbertHead):
    """Both tasks of ALBERT's pre-training: masked words, and whether two texts are in order (0) or swapped (1)."""

    pair_label = "sentence_order_label"
    checkpoint_names = {"classifier": "sop_classifier.classifier"}  # noqa: RUF012

    def build(self, config: AlbertConfig) -> None:
        self._build_encoder(config)
        self._build_predictions(config)
        self.dropout = self._dropout(config)
        self.classifier = nn.Linear(config.hidden_size, 2, std=config.initializer_range)

    def forward(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        sentence_order_label: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> AlbertPreTrainingOutput:
        """`labels` as in `AlbertForMaskedLM`; `sentence_order_label` are 0 or 1, integers `[batch]`.

        The loss is the sum of both. Raises ValueError if only one is given.
        """
        both = self._together(labels=labels, sentence_order_label=sentence_order_label)
        batch = self.base_model.pack(input_ids, attention_mask, token_type_ids)
        output: AlbertPreTrainingOutput = self._run(batch, both, output_hidden_states, output_attentions)
        return output

    def forward_ragged(
        self,
        input_ids: ArrayLike,
        cu_seqlens: ArrayLike,
        token_type_ids: ArrayLike | None = None,
        position_ids: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        sentence_order_label: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        places: ArrayLike | None = None,
    ) -> AlbertPreTrainingOutput:
        """As the call, of a ragged batch, see `Encoder.forward_ragged`: `labels` are `[tokens]`.

        With `places`, integers `[n]`, `prediction_logits` are the scores of these tokens, `[n, vocab_size]`.
        """
        both = self._together(labels=labels, sentence_order_label=sentence_order_label)
        batch = with_places(self.base_model.check_ragged(input_ids, cu_seqlens, token_type_ids, position_ids), places)
        output: AlbertPreTrainingOutput = self._run(batch, both, output_hidden_states, output_attentions)
        return output

    def _pair_scores(self, pooled: Values) -> Any:
        return self.classifier(self.dropout(pooled))

    def _result(self, *values: Any, **extras: Any) -> AlbertPreTrainingOutput:
        return AlbertPreTrainingOutput(*values, **extras)
