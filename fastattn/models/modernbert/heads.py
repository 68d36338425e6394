"""ModernBERT with a head for a task: every head begins with a dense layer and a norm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastattn import functional as F
from fastattn import nn
from fastattn.models import heads, masked_lm
from fastattn.models.config import ACTIVATIONS
from fastattn.models.encoder import Batch
from fastattn.models.modernbert.config import ModernBertConfig
from fastattn.models.modernbert.model import ModernBertModel
from fastattn.models.outputs import EncoderOutput
from fastattn.nn.module import Values
from fastattn.nn.parameter import Parameter
from fastattn.nn.quantization import Normed


class PredictionHead(nn.Module):
    """The dense layer and the norm, from `[.., hidden_size]` to the same shape."""

    def __init__(self, config: ModernBertConfig) -> None:
        dim, activation = config.hidden_size, ACTIVATIONS[config.classifier_activation]
        self.dense = nn.Linear(dim, dim, config.classifier_bias, activation=activation, std=config.initializer_range)
        self.norm = nn.LayerNorm(dim, config.norm_eps, bias=config.norm_bias)

    def forward(self, x: Values) -> Any:
        return self.norm(self.dense(x))


class Predictions(masked_lm.PredictionHead):
    """Scores of all words: the head, and a matrix that is the parameter `words` unless it is None."""

    def __init__(self, config: ModernBertConfig, words: Parameter | None) -> None:
        self.head = PredictionHead(config)
        with nn.init.uninitialized():
            self.decoder = nn.Linear(
                config.hidden_size, config.vocab_size, config.decoder_bias, std=config.initializer_range
            )
        if words is not None:
            self.decoder.weight = words

    def normed_layers(self) -> Iterator[Normed]:
        yield Normed(self.head.norm, self.decoder)

    def forward(self, x: Values) -> Any:
        return self.decoder(self.head(x))


class ModernBertHead(heads.HeadModel):
    """A model with a ModernBERT encoder under a head."""

    encoder_class = ModernBertModel
    dropouts = ("classifier_dropout",)
    config: ModernBertConfig
    model: ModernBertModel


class ModernBertForMaskedLM(masked_lm.MaskedLM, ModernBertHead):
    """See `models.masked_lm.MaskedLM`."""

    checkpoint_names: Mapping[str, str] = {"predictions.head": "head", "predictions.decoder": "decoder"}

    def _build_predictions(self, config: ModernBertConfig) -> None:
        words = self.model.embeddings.word_embeddings.weight if config.tie_word_embeddings else None
        self.predictions = Predictions(config, words)


class TaskHead(ModernBertHead):
    """A head for a task, which has the dense layer and the norm besides its own layer."""

    def _build_encoder(self, config: ModernBertConfig) -> None:
        super()._build_encoder(config)
        self.head = PredictionHead(config)

    def _states(self, output: EncoderOutput) -> Any:
        return self.head(output.last_hidden_state)


class _Pooled(heads.SummaryModel):
    """A head over the first token, or the mean of all tokens, of a sequence: `config.classifier_pooling`."""

    head: PredictionHead

    def _scores(self, batch: Batch, output: EncoderOutput) -> Any:
        pooled = F.pooling(output.last_hidden_state, batch.cu_seqlens, self.config.classifier_pooling)
        return self.classifier(self.dropout(self.head(pooled)))


class ModernBertForTokenClassification(heads.TokenClassification, TaskHead):
    """See `models.heads.TokenClassification`."""


class ModernBertForQuestionAnswering(heads.QuestionAnswering, TaskHead):
    """See `models.heads.QuestionAnswering`."""

    dropouts = ("classifier_dropout",)
    checkpoint_names: Mapping[str, str] = {"qa_outputs": "classifier"}


class ModernBertForSequenceClassification(_Pooled, heads.SequenceClassification, TaskHead):
    """See `models.heads.SequenceClassification`."""


class ModernBertForMultipleChoice(_Pooled, heads.MultipleChoice, TaskHead):
    """See `models.heads.MultipleChoice`."""
