"""The bidirectional language model that ELMo is taken from: the next word, and the previous one.

    model = BidirectionalLanguageModel(config, len(vocabulary))
    loss = StreamLoss(model)                        # carries the LSTMs' state from one step to the next
    trainer = Trainer(model, Adam(model.parameters()), None, batches, loss=loss, carried=loss, epochs=10)
    trainer.train()
    model.perplexities(sentence_batches(text, vocabulary, character_ids))
    model.save_pretrained("model")                  # which Elmo.from_pretrained reads

`fastattn.text.language_model` makes the batches. One softmax serves both directions.

Source: Peters et al. 2018, "Deep contextualized word representations", section 3.1; sizes, dropout and first values are
those of bilm-tf's training.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastattn import functional as F
from fastattn import nn
from fastattn.autograd import Tensor, no_grad
from fastattn.checks import FRACTION, PROBABILITY, config_integer, config_number
from fastattn.formats import hugging_face
from fastattn.models.elmo_config import ElmoConfig
from fastattn.models.elmo_network import ElmoNetwork, State, detached
from fastattn.nn.module import Values
from fastattn.nn.parameter import Array
from fastattn.random import next_seed

__all__ = ["BidirectionalLanguageModel", "LanguageModelOutput", "StreamLoss"]

_SETTINGS = "language_model"  # what config.json has beside the network's options

Self = TypeVar("Self", bound="BidirectionalLanguageModel")


@dataclass(frozen=True)
class LanguageModelOutput:
    """What the model gives.

    Attributes:
        loss: the mean of the next two.
        forward_loss: the mean of -log p(next word), a Tensor of one number.
        backward_loss: the mean of -log p(previous word).
        state: what each layer remembers, as `ElmoNetwork.lstm` takes it: arrays, through which no gradient goes.
    """

    loss: Tensor
    forward_loss: Tensor
    backward_loss: Tensor
    state: list[tuple[Array, Array]]


class BidirectionalLanguageModel(nn.Module):
    """ELMo's network and a softmax over a vocabulary, with new parameters, in training mode.

    Args:
        config: of the network.
        vocabulary_size: how many words the softmax knows.
        num_sampled: how many wrong words a softmax compares the right one with while training; None for all of them.
            In evaluation mode it is always all. A sampled one wants a vocabulary sorted by frequency.
        dropout: of the input of each LSTM and of the last one's output, while training.

    Raises TypeError for a `config` that is none; ValueError for a `vocabulary_size` below 1, a `num_sampled` that is
    not below it, and a dropout out of range.
    """

    def __init__(
        self, config: ElmoConfig, vocabulary_size: int, *, num_sampled: int | None = None, dropout: float = 0.1
    ) -> None:
        name = type(self).__name__
        if not isinstance(config, ElmoConfig):
            raise TypeError(f"{name}: config must be an ElmoConfig, got {type(config).__name__}")
        vocabulary_size = config_integer(f"{name}: vocabulary_size", vocabulary_size)
        if num_sampled is not None:
            wanted = f"from 1 to below the vocabulary's {vocabulary_size}"
            num_sampled = config_integer(f"{name}: num_sampled", num_sampled, high=vocabulary_size, wanted=wanted)
        dropout = config_number(f"{name}: dropout", dropout, **PROBABILITY)
        self.config, self.vocabulary_size, self.num_sampled = config, vocabulary_size, num_sampled
        size = config.projection_dim
        self.network = ElmoNetwork(config, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.softmax = nn.Linear(size, vocabulary_size, std=size**-0.5)

    def forward(
        self,
        char_ids: NDArray[np.int64],
        inputs: NDArray[np.integer[Any]],
        targets: NDArray[np.integer[Any]],
        cu_seqlens: NDArray[np.int32],
        state: Sequence[State] | None = None,
    ) -> LanguageModelOutput:
        """Read sequences in both directions and compare with what comes next.

        Args:
            char_ids: int64 `[words, max_characters_per_token]`, the characters of the distinct words.
            inputs: integers `[2, tokens]`, the words that the forward and the backward direction read, as rows of
                `char_ids`. Each sequence of either stands in the order in which it is read.
            targets: integers `[2, tokens]`, the numbers of the words to predict.
            cu_seqlens: int32 `[batch + 1]`, of both directions.
            state: `state` of the output for what went before; zeros unless given.

        Raises TypeError and ValueError for other types, shapes, rows and numbers.
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
        if self.training and self.num_sampled is not None:
            weight, bias = self.softmax.weight, self.softmax.bias
            loss = F.sampled_softmax_loss(x, target, weight, bias, self.num_sampled)
        else:
            loss = F.cross_entropy(self.softmax(x), target)
        return loss if isinstance(loss, Tensor) else Tensor(loss)

    def perplexities(self, batches: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """The perplexity of a text, by the full softmax, in evaluation mode: exp of the mean loss of all tokens.

        `batches` are arguments of `__call__`. Those of `sentence_batches` have each sentence once, and nothing is
        carried from one to another: then the result does not depend on how they are put together.

        Returns `perplexity`, `forward_perplexity` and `backward_perplexity`; the first is the root of the product of
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

    @classmethod
    def from_pretrained(cls: type[Self], folder: str | os.PathLike[str], *, trainable: bool = True) -> Self:
        """Load a folder that `save_pretrained` wrote, in evaluation mode; `trainable=False` freezes it.

        Raises FileNotFoundError or ValueError, naming the file and the value, for a file that is missing or damaged,
        and weights that do not fit the configuration.
        """
        source = str(Path(folder) / hugging_face.CONFIG)
        values = hugging_face.read_config(folder)
        config = ElmoConfig.from_options(values, source)
        settings = values.get(_SETTINGS)
        if not isinstance(settings, dict) or set(settings) != {"vocabulary_size", "num_sampled", "dropout"}:
            wanted = "vocabulary_size, num_sampled and dropout"
            raise ValueError(f"{source}: {_SETTINGS} must be an object with {wanted}, got {settings!r}")
        try:
            with nn.init.uninitialized():
                model = cls(config, **settings)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{source}: {_SETTINGS}: {error}") from error
        with hugging_face.read_state_dict(folder) as tensors:
            if problems := [f"tensor {name!r} {text}" for name, text in model.problems(tensors)]:
                raise ValueError(f"{tensors.source}: {'; '.join(problems)}")
            model.load(tensors, freeze=not trainable)
        return model.eval()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors, each whole or not at all; `Elmo.from_pretrained` reads them, too."""
        config = {
            "model_type": "elmo",
            **self.config.to_options(),
            _SETTINGS: {
                "vocabulary_size": self.vocabulary_size,
                "num_sampled": self.num_sampled,
                "dropout": self.dropout.p,
            },
        }
        hugging_face.write_checkpoint(folder, config, self.state_dict())


class StreamLoss:
    """The loss of a model's steps in their order: each begins with what the LSTMs remember of the step before.

    No gradient goes from one step to another: truncated back-propagation through time (Williams and Peng 1990). For a
    `Trainer`, both as `loss` and as `carried`; the first step begins with zeros. A model that never began with zeros
    again would not know what to do with them when it is asked about a sentence alone: with the probability `reset` each
    direction of each stream begins a step so. bilm-tf has none of this. Raises ValueError for another number.
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
        """What each layer remembers, `0.h`, `0.c`, `1.h` and so on; nothing before the first step."""
        layers = enumerate(self._state or ())
        return {f"{i}.{name}": array for i, pair in layers for name, array in zip("hc", pair, strict=True)}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Go on with what `state_dict` gave."""
        layers = range(len(state) // 2)
        self._state = [(state[f"{i}.h"], state[f"{i}.c"]) for i in layers] or None
