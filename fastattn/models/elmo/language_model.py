"""The bidirectional language model behind ELMo: it predicts the next word and the previous one.

One softmax serves both directions. `fastattn.text.streams` makes the batches.

Source: Peters et al. 2018, "Deep contextualized word representations", section 3.1. Sizes, dropout and initial values
are as in bilm-tf's training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import functional as F
from fastattn import nn, ragged
from fastattn.autograd import Tensor
from fastattn.checks import integers
from fastattn.formats import hugging_face
from fastattn.models.base import PreTrainedModel
from fastattn.models.elmo.config import ElmoConfig
from fastattn.models.elmo.network import LAYER_NAMES, ElmoNetwork, State, detached
from fastattn.models.language_model import LanguageModelOutput, mean_of_losses, room_for_logits, token_losses
from fastattn.models.outputs import as_tensor
from fastattn.nn.module import Values


class BidirectionalLanguageModel(PreTrainedModel):
    """ELMo's network and a softmax over `vocabulary_size` words. A loaded model is trainable. `Elmo` reads its folder.

    >>> config = ElmoConfig(filters=((1, 4),), dim=8, projection_dim=4, vocabulary_size=3)
    >>> model = BidirectionalLanguageModel(config)
    >>> char_ids, words = np.full((2, 50), 260), np.array([[0, 1], [1, 0]])
    >>> model(char_ids, inputs=words, targets=words, cu_seqlens=np.array([0, 2], np.int32)).state[0][0].shape
    (2, 1, 4)
    """

    config_class = ElmoConfig
    loads_trainable = True
    whole = ("network.", "softmax.")
    layer_names: ClassVar = LAYER_NAMES
    deep = ("n_layers",)

    config: ElmoConfig

    def build(self, config: ElmoConfig) -> None:
        if config.vocabulary_size is None:
            raise ValueError(f"{type(self).__name__}: vocabulary_size must be a positive integer, got None")
        size = config.projection_dim
        self.network = ElmoNetwork(config, dropout=config.lstm_dropout)
        self.dropout = nn.Dropout(config.lstm_dropout)
        self.softmax = nn.Linear(size, config.vocabulary_size, std=size**-0.5)

    @classmethod
    def _read_config(cls, folder: Path, changes: Mapping[str, Any]) -> Any:
        config = super()._read_config(folder, changes)
        if config.vocabulary_size is None:
            raise ValueError(f"{folder / hugging_face.CONFIG}: language_model is missing; {cls.__name__} needs it")
        return config

    def forward(
        self,
        char_ids: ArrayLike,
        inputs: ArrayLike,
        targets: ArrayLike,
        cu_seqlens: ArrayLike,
        state: Sequence[State] | None = None,
    ) -> LanguageModelOutput:
        """Read sequences in both directions and predict the targets. The loss is the mean of both losses.

        Args:
            char_ids: int64 `[words, max_characters_per_token]`, the characters of the distinct words.
            inputs: integers `[2, tokens]`, the words that the forward and the backward direction read, as row indices
                of `char_ids`, in reading order.
            targets: integers `[2, tokens]`, the ids of the words to predict.
            cu_seqlens: integers `[batch + 1]`, for both directions.
            state: the `state` of the previous output; zeros by default.

        Raises TypeError and ValueError for other types and shapes, and for indices and ids out of range.
        """
        owner = type(self).__name__
        offsets = ragged.check_cu_seqlens(cu_seqlens, None, f"{owner}: cu_seqlens")
        shape = (2, int(offsets[-1]))
        inputs, targets = integers(f"{owner}: inputs", inputs, shape), integers(f"{owner}: targets", targets, shape)
        with self.one_pass():
            vectors = self.network.tokens(integers(f"{owner}: char_ids", char_ids))
            forward, backward = (F.embedding(rows, vectors) for rows in inputs)
            outputs, states = self.network.lstm(forward, backward, offsets, state, (False, False))
            top, size = self.dropout(outputs[-1]), self.config.projection_dim
            parts = list(zip((top[:, :size], top[:, size:]), targets, strict=True))
            if frozen := self.frozen and isinstance(top, np.ndarray):
                logits = room_for_logits(len(top), self.softmax.out_features)  # of one direction after the other
                terms = [token_losses(self.softmax, x, target, logits) for x, target in parts]
            else:
                losses = [self._loss(x, target) for x, target in parts]
        if frozen:
            losses = [mean_of_losses(*pair) for pair in zip(terms, targets, strict=True)]
        forward_loss, backward_loss = losses
        return LanguageModelOutput((forward_loss + backward_loss) * 0.5, forward_loss, backward_loss, detached(states))

    def _loss(self, x: Values, target: NDArray[np.integer[Any]]) -> Tensor:
        if self.training and self.config.num_sampled is not None:
            softmax: Any = self.softmax  # it always has a bias
            loss = F.sampled_softmax_loss(x, target, softmax.weight, softmax.bias, self.config.num_sampled)
        else:
            loss = F.cross_entropy(self.softmax(x), target)
        return as_tensor(loss)
