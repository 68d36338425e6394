"""MPNet: BERT with RoBERTa's positions and heads, and a bias of the scores by distance, shared by the layers.

The first token has the position 2, so a text has at most `max_position_embeddings - 2` tokens.

Source: Song et al. 2020 (arXiv 2004.09297); Raffel et al. 2020 (arXiv 1910.10683), section 2.1, for the buckets. Names,
files and results match Hugging Face's `MPNetModel`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastattn import nn
from fastattn.models import heads
from fastattn.models.encoder import BERT_NAMES, Encoder
from fastattn.models.masked_lm import MaskedLM
from fastattn.models.mpnet.config import BUCKETS, MPNetConfig

_FARTHEST = 128
"""All greater distances have the bucket of this one."""


def _bucket(distance: int) -> int:
    """The bucket of a key's position less the query's: 8 for 0 to 7, then 8 up to 128 on a logarithmic scale."""
    half, exact = BUCKETS // 2, BUCKETS // 4
    n = abs(distance)
    if n >= exact:  # the integers: the logarithm of a power of two may be rounded down
        n = exact + sum(n**exact >= exact**exact * (_FARTHEST // exact) ** k for k in range(1, exact))
    return n + half * (distance > 0)


_DISTANCES = np.array([_bucket(distance) for distance in range(-_FARTHEST, _FARTHEST + 1)])


class MPNetModel(Encoder):
    """An MPNet encoder."""

    config_class = MPNetConfig
    prefix = "mpnet."
    gapless = True
    checkpoint_names = BERT_NAMES | {
        "layers.{}.self_attn.q_proj": "encoder.layer.{}.attention.attn.q",
        "layers.{}.self_attn.k_proj": "encoder.layer.{}.attention.attn.k",
        "layers.{}.self_attn.v_proj": "encoder.layer.{}.attention.attn.v",
        "layers.{}.self_attn.out_proj": "encoder.layer.{}.attention.attn.o",
        "layers.{}.self_attn_layer_norm": "encoder.layer.{}.attention.LayerNorm",
        "relative_attention_bias": "encoder.relative_attention_bias",
    }
    config: MPNetConfig

    def build(self, config: MPNetConfig) -> None:
        super().build(config)
        rows, std = config.relative_attention_num_buckets, config.initializer_range
        self.relative_attention_bias = nn.Embedding(rows, config.num_attention_heads, std=std)

    def position_bias(self) -> Any:
        return self.relative_attention_bias(_DISTANCES)


class MPNetHead(heads.HeadModel):
    """A model with an MPNet encoder under a head."""

    encoder_class = MPNetModel
    dropouts: ClassVar[tuple[str, ...]] = ("hidden_dropout_prob",)
    config: MPNetConfig
    mpnet: MPNetModel


class MPNetForTokenClassification(heads.TokenClassification, MPNetHead):
    """See `models.heads.TokenClassification`."""


class MPNetForQuestionAnswering(heads.QuestionAnswering, MPNetHead):
    """See `models.heads.QuestionAnswering`."""


class MPNetForSequenceClassification(heads.SequenceClassification, MPNetHead):
    """See `models.heads.SequenceClassification`."""

    dense_activation = "tanh"
    checkpoint_names = {"dense": "classifier.dense", "classifier": "classifier.out_proj"}  # noqa: RUF012


class MPNetForMultipleChoice(heads.MultipleChoice, MPNetHead):
    """See `models.heads.MultipleChoice`."""


class MPNetForMaskedLM(MaskedLM, MPNetHead):
    """See `models.masked_lm.MaskedLM`. The mask is `<mask>`."""

    activation = "gelu"
    checkpoint_names = {"predictions": "lm_head", "predictions.LayerNorm": "lm_head.layer_norm"}  # noqa: RUF012
