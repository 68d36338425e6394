"""The bidirectional language model behind ELMo: it predicts the next word and the previous one.

One softmax serves both directions. `fastattn.text.language_model` makes the batches.

Source: Peters et al. 2018, "Deep contextualized word representations", section 3.1. Sizes, dropout and first values are
those of bilm-tf's training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import functional as F
from fastattn import nn, ragged
from fastattn.autograd import Tensor, no_grad
from fastattn.checks import FRACTION, config_number, integers
from fastattn.formats import hugging_face
from fastattn.models.base import PreTrainedModel
from fastattn.models.elmo.config import ElmoConfig
from fastattn.models.elmo.network import ElmoNetwork, State, detached
from fastattn.models.outputs import as_tensor
from fastattn.nn.module import Values
from fastattn.nn.parameter import Array
from fastattn.random import next_seed


@dataclass(frozen=True)
class LanguageModelOutput:
    """The output of the model.

    Attributes:
        loss: the mean of the next two.
        forward_loss: the mean of -log p(next word), a Tensor of one number.
        backward_loss: the mean of -log p(previous word).
        state: the last states of each layer, as `ElmoNetwork.lstm` takes them: arrays, without gradients.
    """

    loss: Tensor
    forward_loss: Tensor
    backward_loss: Tensor
    state: list[tuple[Array, Array]]


class BidirectionalLanguageModel(PreTrainedModel):
    """ELMo's network and a softmax over `vocabulary_size` words. It is trainable when loaded. `Elmo` reads its folder.

    >>> config = ElmoConfig(filters=((1, 4),), dim=8, projection_dim=4, vocabulary_size=3)
    >>> model = BidirectionalLanguageModel(config)
    >>> char_ids, words = np.full((2, 50), 260), np.array([[0, 1], [1, 0]])
    >>> model(char_ids, inputs=words, targets=words, cu_seqlens=np.array([0, 2], np.int32)).state[0][0].shape
    (2, 1, 4)
    """

    config_class = ElmoConfig
    loads_trainable = True
    layer_names: ClassVar = {"n_layers": "network.layers.{}."}

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
        """Read sequences in both directions and predict the targets.

        Args:
            char_ids: int64 `[words, max_characters_per_token]`, the characters of the distinct words.
            inputs: integers `[2, tokens]`, the words that the forward and the backward direction read, as rows of
                `char_ids`, in the order in which each reads them.
            targets: integers `[2, tokens]`, the numbers of the words to predict.
            cu_seqlens: integers `[batch + 1]`, of both directions.
            state: the `state` of the output for what went before; zeros unless given.

        Raises TypeError and ValueError for other types, shapes, rows and numbers.
        """
        owner = type(self).__name__
        offsets = ragged.check_cu_seqlens(cu_seqlens, None, f"{owner}: cu_seqlens")
        shape = (2, int(offsets[-1]))
        inputs, targets = integers(f"{owner}: inputs", inputs, shape), integers(f"{owner}: targets", targets, shape)
        vectors = self.network.tokens(integers(f"{owner}: char_ids", char_ids))
        forward, backward = (F.embedding(rows, vectors) for rows in inputs)
        outputs, states = self.network.lstm(forward, backward, offsets, state, (False, False))
        top, size = self.dropout(outputs[-1]), self.config.projection_dim
        forward_loss, backward_loss = self._loss(top[:, :size], targets[0]), self._loss(top[:, size:], targets[1])
        return LanguageModelOutput((forward_loss + backward_loss) * 0.5, forward_loss, backward_loss, detached(states))

    def _loss(self, x: Values, target: NDArray[np.integer[Any]]) -> Tensor:
        if self.training and self.config.num_sampled is not None:
            softmax: Any = self.softmax  # which has a bias
            loss = F.sampled_softmax_loss(x, target, softmax.weight, softmax.bias, self.config.num_sampled)
        else:
            loss = F.cross_entropy(self.softmax(x), target)
        return as_tensor(loss)

    def perplexities(self, batches: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """The perplexity of a text by the full softmax, in evaluation mode: exp of the mean loss of all tokens.

        `batches` are arguments of a call. Those of `sentence_batches` have each sentence once, and nothing is carried
        from one to the next. So the result does not depend on how sentences are put together.

        Returns `perplexity`, `forward_perplexity` and `backward_perplexity`. The first is the root of the product of
        the others. Raises ValueError when there are no tokens.
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
    """The loss of a model's successive steps: each begins with the states in which the step before ended.

    No gradient goes from one step to another: truncated back-propagation through time (Williams and Peng 1990). Give it
    to a `Trainer` both as `loss` and as `carried`. The first step begins with zeros. Later, each direction of each
    stream begins a step with zeros again with the probability `reset`; otherwise the model would not know them when it
    is asked about a single sentence. bilm-tf has no resets. Raises ValueError for a `reset` outside [0, 1].
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
        """The states of each layer, `0.h`, `0.c`, `1.h` and so on; nothing before the first step."""
        layers = enumerate(self._state or ())
        return {f"{i}.{name}": array for i, pair in layers for name, array in zip("hc", pair, strict=True)}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Go on from a `state_dict`."""
        layers = range(len(state) // 2)
        self._state = [(state[f"{i}.h"], state[f"{i}.c"]) for i in layers] or None
