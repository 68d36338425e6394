"""Models for masked words, whatever their encoder. Calls, labels and errors are as in `heads`.

Source: Devlin et al. 2019, section 3.1; losses as in transformers' `modeling_bert`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastattn import functional as F
from fastattn import nn
from fastattn.checks import integers
from fastattn.functional.losses import IGNORE_INDEX
from fastattn.models.config import ACTIVATIONS
from fastattn.models.encoder import Batch
from fastattn.models.heads import HeadModel, RaggedModel
from fastattn.models.inputs import check_labels
from fastattn.models.outputs import EncoderOutput, MaskedLMOutput, later, loss_of
from fastattn.nn.module import Values
from fastattn.nn.parameter import Array, Parameter
from fastattn.nn.quantization import Normed


class PredictionHead(nn.Module):
    """Scores of all words for a token: `[tokens, hidden_size]` to `[tokens, vocab_size]`.

    The matrix is the parameter `words` unless it is None. With `two_biases` the bias has a name of its own besides the
    decoder's: it is the same parameter with `words`, and not used without.
    """

    def __init__(
        self, config: Any, words: Parameter | None, dim: int, activation: str | None, two_biases: bool = True
    ) -> None:
        std = config.initializer_range
        self.dense = nn.Linear(config.hidden_size, dim, activation=activation, std=std)
        self.LayerNorm = nn.LayerNorm(dim, config.layer_norm_eps)
        self.bias = Parameter((config.vocab_size,)) if two_biases else None
        with nn.init.uninitialized():
            self.decoder = nn.Linear(dim, config.vocab_size, std=std)
        if words is not None:
            self.decoder.weight = words
            if self.bias is not None:
                self.decoder.bias = self.bias

    def normed_layers(self) -> Iterator[Normed]:
        yield Normed(self.LayerNorm, self.decoder)

    def forward(self, x: Values) -> Any:
        return self.decoder(self.LayerNorm(self.dense(x)))

    def loss(self, hidden: Values, target: Array) -> Any:
        """The mean cross-entropy of the tokens that have a `target`. The others get no scores."""
        places = np.flatnonzero(target != IGNORE_INDEX)
        return loss_of(self(F.gather_rows(hidden, places)), target[places])

    def scores(self, hidden: Values, batch: Batch) -> Any:
        """The scores of all tokens, or of `batch.places`."""
        return batch.pad(self(hidden)) if batch.places is None else self(F.gather_rows(hidden, batch.places))


class MaskedModel(HeadModel):
    """The base class of the models with scores of words. `checkpoint_names` has the names of its `predictions`."""

    activation: ClassVar[str] = ""
    """Of the scores' dense layer. "" means the one in `config.hidden_act`."""
    two_biases: ClassVar[bool] = True
    predictions: PredictionHead

    def _build_predictions(self, config: Any) -> None:
        words = self.base_model.embeddings.word_embeddings.weight
        activation = self.activation or ACTIVATIONS[config.hidden_act]
        tied = words if config.tie_word_embeddings else None
        self.predictions = PredictionHead(config, tied, words.shape[1], activation, self.two_biases)


class MaskedLM(MaskedModel, RaggedModel):
    """The words hidden by [MASK]. With `tie_word_embeddings` the matrix of the scores is the word embeddings.

    `labels` `[batch, seq]` are the words at the positions to predict and -100 elsewhere. The result is a
    `MaskedLMOutput`.
    """

    def build(self, config: Any) -> None:
        self._build_encoder(config)
        self._build_predictions(config)

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
        batch = with_places(self.base_model.check_ragged(input_ids, cu_seqlens, token_type_ids, position_ids), places)
        output: MaskedLMOutput = self._run(batch, labels, output_hidden_states, output_attentions)
        return output

    def _target(self, batch: Batch, labels: ArrayLike) -> Any:
        return batch.pack_labels(type(self).__name__, labels, self.config.vocab_size)

    def _finish(self, batch: Batch, output: EncoderOutput, target: Any, extras: dict[str, Any]) -> MaskedLMOutput:
        hidden, head = output.last_hidden_state, self.predictions
        loss = None if target is None else head.loss(hidden, target)
        return MaskedLMOutput(loss, later(lambda: head.scores(hidden, batch)), **extras)


class PreTraining(MaskedModel):
    """The base class of the models with masked words, and two classes of pairs of texts."""

    pools = True
    pair_label: ClassVar[str]
    """The name of the argument with the classes, integers `[batch]`, 0 or 1."""

    @abstractmethod
    def _pair_scores(self, pooled: Values) -> Any:
        """The scores `[batch, 2]` of the pairs."""

    @abstractmethod
    def _result(self, *values: Any, **extras: Any) -> Any:
        """The output object of a loss, of what computes the scores of words, and of the scores of pairs."""

    def _target(self, batch: Batch, labels: dict[str, Any]) -> Any:
        owner, name = type(self).__name__, self.pair_label
        words = batch.pack_labels(owner, labels["labels"], self.config.vocab_size)
        return words, check_labels(owner, name, labels[name], (batch.sequences,), 2)

    def _finish(self, batch: Batch, output: EncoderOutput, target: Any, extras: dict[str, Any]) -> Any:
        hidden, head = output.last_hidden_state, self.predictions
        scores = self._pair_scores(output.pooler_output)
        loss = None if target is None else head.loss(hidden, target[0]) + F.cross_entropy(scores, target[1])
        return self._result(loss, later(lambda: head.scores(hidden, batch)), scores, **extras)


def with_places(batch: Batch, places: ArrayLike | None) -> Batch:
    """The batch, with scores at `places` alone. Raises TypeError or ValueError for what are no tokens of it."""
    if places is not None:
        batch.places = integers("places", places)
        if batch.places.ndim != 1:
            raise ValueError(f"places must have shape (n,), got {batch.places.shape}")
        batch.check_rows("places", batch.places, len(batch.ids))
    return batch
