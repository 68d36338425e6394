"""The bidirectional language model behind ELMo: it predicts the next word and the previous one.

One softmax serves both directions. `fastattn.text.language_model` makes the batches.

Source: Peters et al. 2018, "Deep contextualized word representations", section 3.1. Sizes, dropout and initial values
are as in bilm-tf's training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastattn import functional as F
from fastattn import nn
from fastattn.autograd import Tensor, no_grad
from fastattn.checks import FRACTION, config_number
from fastattn.formats import hugging_face
from fastattn.models.base import PreTrainedModel
from fastattn.models.elmo.config import ElmoConfig
from fastattn.models.elmo.network import LAYER_NAMES, ElmoNetwork, State, detached
from fastattn.models.outputs import as_tensor
from fastattn.nn.module import Values
from fastattn.nn.parameter import Array
from fastattn.random import next_seed


@dataclass(frozen=True)
class LanguageModelOutput:
    """The output of the model.

    Attributes:
        loss: the mean of `forward_loss` and `backward_loss`.
        forward_loss: the mean of -log p(next word), a Tensor of one number.
        backward_loss: the mean of -log p(previous word).
        state: the last states of each layer, as `ElmoNetwork.lstm` takes them: arrays, without gradients.
    """

    loss: Tensor
    forward_loss: Tensor
    backward_loss: Tensor
    state: list[tuple[Array, Array]]


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
        char_ids: NDArray[np.int64],
        inputs: NDArray[np.integer[Any]],
        targets: NDArray[np.integer[Any]],
        cu_seqlens: NDArray[np.int32],
        state: Sequence[State] | None = None,
    ) -> LanguageModelOutput:
        """Read sequences in both directions and predict the targets.

        Args:
            char_ids: int64 `[words, max_characters_per_token]`, the characters of the distinct words.
            inputs: integers `[2, tokens]`, the words that the forward and the backward direction read, as row indices
                of `char_ids`, in reading order.
            targets: integers `[2, tokens]`, the ids of the words to predict.
            cu_seqlens: int32 `[batch + 1]`, for both directions.
            state: the `state` of the previous output; zeros by default.

        Raises TypeError and ValueError for other types and shapes, and for indices and ids out of range.
        """
        owner = type(self).__name__
        arrays = {"char_ids": char_ids, "inputs": inputs, "targets": targets, "cu_seqlens": cu_seqlens}
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{owner}: {name} must be an array, got {type(array).__name__}")
        wanted = (2, int(cu_seqlens[-1]))
        for name, array in (("inputs", inputs), ("targets", targets)):
            if array.shape != wanted:
                raise ValueError(f"{owner}: {name} must have shape {wanted}, got {array.shape}")
        vectors = self.network.tokens(char_ids)
        forward, backward = (F.embedding(np.ascontiguousarray(rows), vectors) for rows in inputs)
        outputs, states = self.network.lstm(forward, backward, cu_seqlens, state, (False, False))
        top, size = self.dropout(outputs[-1]), self.config.projection_dim
        forward_loss, backward_loss = self._loss(top[:, :size], targets[0]), self._loss(top[:, size:], targets[1])
        return LanguageModelOutput((forward_loss + backward_loss) * 0.5, forward_loss, backward_loss, detached(states))

    def _loss(self, x: Values, target: NDArray[np.integer[Any]]) -> Tensor:
        if self.training and self.config.num_sampled is not None:
            softmax: Any = self.softmax  # it always has a bias
            loss = F.sampled_softmax_loss(x, target, softmax.weight, softmax.bias, self.config.num_sampled)
        else:
            loss = F.cross_entropy(self.softmax(x), target)
        return as_tensor(loss)

    def perplexities(self, batches: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """The perplexity of a text with the full softmax, in evaluation mode: exp of the mean loss over all tokens.

        `batches` are arguments of a call. Batches from `sentence_batches` have each sentence once, and no state is
        carried from one to the next, so the result does not depend on how sentences are batched.

        Returns `perplexity`, `forward_perplexity` and `backward_perplexity`. The first is the geometric mean of the
        others. Raises ValueError if there are no tokens.
        """
        training = self.training
        self.eval()
        total, tokens = np.zeros(2), 0
        try:
            with no_grad():
                for batch in batches:
                    output, count = self(**batch), batch["targets"].shape[1]
                    total += count * np.array([output.forward_loss.item(), output.backward_loss.item()])
                    tokens += count
        finally:
            self.train(training)
        if not tokens:
            raise ValueError("perplexities: there are no tokens")
        with np.errstate(over="ignore"):
            forward, backward, both = np.exp([*total / tokens, total.mean() / tokens]).tolist()
        return {"perplexity": both, "forward_perplexity": forward, "backward_perplexity": backward}


class StreamLoss:
    """The loss over successive steps of a model: each starts from the states in which the previous step ended.

    No gradient crosses steps: this is truncated back-propagation through time (Williams and Peng 1990). Pass it to a
    `Trainer` both as `loss` and as `carried`. The first step starts from zeros. Later, each direction of each stream is
    reset to zeros before a step with probability `reset`. Without resets the model would not learn to start from zeros,
    as it must for a single sentence. bilm-tf has no resets. Raises ValueError for a `reset` outside [0, 1].
    """

    def __init__(self, model: BidirectionalLanguageModel, reset: float = 0.0) -> None:
        self._model, self._reset = model, config_number("StreamLoss: reset", reset, **FRACTION)
        self._state: list[tuple[Array, Array]] | None = None

    def __call__(self, batch: Mapping[str, Any]) -> Tensor:
        """The loss of the next step."""
        state = self._state
        if state and self._reset:
            draws = np.random.default_rng(next_seed()).random((*state[0][0].shape[:2], 1))
            keep = (draws >= self._reset).astype(np.float32)
            state = [(h * keep, c * keep) for h, c in state]
        output: LanguageModelOutput = self._model(**batch, state=state)
        self._state = output.state
        return output.loss

    def state_dict(self) -> dict[str, Array]:
        """The states of each layer, `0.h`, `0.c`, `1.h` and so on; empty before the first step."""
        layers = enumerate(self._state or ())
        return {f"{i}.{name}": array for i, pair in layers for name, array in zip("hc", pair, strict=True)}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Continue from a `state_dict`."""
        layers = range(len(state) // 2)
        self._state = [(state[f"{i}.h"], state[f"{i}.c"]) for i in layers] or None
