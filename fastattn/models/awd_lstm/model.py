"""AWD-LSTM: a language model of words, whose LSTMs are regularised in many ways.

A batch is ragged: rows are tokens, and sequence i is rows `cu_seqlens[i]` to `cu_seqlens[i + 1]`. The backward network
has inputs and targets of its own, in its reading order. `fastattn.text.streams` makes the batches.

Source: Merity, Keskar and Socher 2018 (arXiv 1708.02182). First values are those of the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastattn import functional as F
from fastattn import nn, ragged
from fastattn._core import run_pass
from fastattn._types import CuSeqlens, IntArray
from fastattn.autograd import Tensor, values
from fastattn.checks import integers, operand, sequence, shown
from fastattn.models.awd_lstm.config import AwdLstmConfig
from fastattn.models.base import PreTrainedModel
from fastattn.models.language_model import LanguageModelOutput, mean_of_losses, room_for_logits, token_losses
from fastattn.models.layers import by_layer
from fastattn.models.outputs import as_tensor
from fastattn.nn.dropout import locked_dropout
from fastattn.nn.module import Values
from fastattn.nn.parameter import AnyParameter, Array, Table

State = tuple[Any, Any]
"""The states of a layer, h and c: `[directions, batch, size]`."""
SPREAD = 0.1 / 3**0.5
"""The standard deviation of new embeddings; the authors draw uniformly within +-0.1."""


class Read(NamedTuple):
    """What a network gives for a batch.

    Attributes:
        raw: the last layer's output, `[tokens, embedding_dim]`.
        output: the same after dropout.
        states: the last states of each layer, each `[1, batch, size]`.
    """

    raw: Any
    output: Any
    states: list[State]


class AwdLstm(nn.Module):
    """The network of one direction: embeddings, and layers of LSTMs above them."""

    def __init__(self, config: AwdLstmConfig) -> None:
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.embedding_dim, std=SPREAD)
        self.layers = [nn.LSTM(*sizes, weight_dropout=config.weight_dropout) for sizes in config.sizes]

    def forward(self, input_ids: IntArray, cu_seqlens: CuSeqlens, state: Sequence[State] | None = None) -> Read:
        """Read words in their order, as `states` does."""
        raw, states = self.states(input_ids, cu_seqlens, state)
        rate = self.dropout_rate(self.config.output_dropout)
        return Read(raw, locked_dropout(raw, cu_seqlens, rate), states)

    def states(
        self, input_ids: IntArray, cu_seqlens: CuSeqlens, state: Sequence[State] | None = None
    ) -> tuple[Any, list[State]]:
        """The last layer's output for words in their order, and the last states of each layer.

        Args:
            input_ids: int64 `[tokens]`.
            cu_seqlens: int32 `[batch + 1]`.
            state: the states of each layer to start from; zeros by default.

        A trainable network returns Tensors. Raises ValueError for an id outside the vocabulary.
        """
        config = self.config
        x = self._words(input_ids)
        rate, states = config.input_dropout, []
        for i, layer in enumerate(self.layers):
            x = locked_dropout(x, cu_seqlens, self.dropout_rate(rate))
            x, final = layer(x, None if state is None else state[i], cu_seqlens)
            states.append(final)
            rate = config.hidden_dropout
        return x, states

    def _words(self, input_ids: IntArray) -> Any:
        """Embeddings, of which dropout leaves out words: every place of a word at once."""
        x, rate = self.embedding(input_ids), self.dropout_rate(self.config.embedding_dropout)
        if not rate:
            return x
        kept = F.dropout(np.ones((1, self.config.vocabulary_size), x.dtype), rate)
        run_pass()
        return x * kept[0, input_ids][:, None]


class AwdLstmModel(PreTrainedModel):
    """An `AwdLstm` for each direction, and something above each. A loaded model is trainable."""

    config_class = AwdLstmConfig
    loads_trainable = True
    layer_names: ClassVar = {"n_layers": "networks.0.layers.{}."}
    above: ClassVar[str]
    """How the names of what is above the networks begin."""

    config: AwdLstmConfig
    networks: list[AwdLstm]

    def layer_groups(self) -> list[list[AnyParameter]]:
        """The parameters by layer, see `PreTrainedModel`; those of both directions together."""
        names = self._names()
        parts = [(f"networks.{i}.", f"{self.above}{i}.") for i in range(len(self.networks))]
        own = [by_layer([x for x in names if x[0].startswith(part)], [f"{part[0]}layers.{{}}."]) for part in parts]
        return [list(chain.from_iterable(groups)) for groups in zip(*own, strict=True)]


class AwdLstmForLanguageModel(AwdLstmModel):
    """An `AwdLstm` for each direction and a softmax above it. A loaded model is trainable.

    >>> config = AwdLstmConfig(vocabulary_size=10, embedding_dim=4, dim=6, n_layers=2)
    >>> model = AwdLstmForLanguageModel(config)
    >>> words = np.array([[1, 2, 3, 4, 5]])
    >>> output = model(words[:, :-1], targets=words[:, 1:], cu_seqlens=np.array([0, 4], np.int32))
    >>> [h.shape for h, c in output.state]
    [(1, 1, 6), (1, 1, 4)]
    """

    whole = ("networks.", "decoders.")
    above = "decoders."

    def build(self, config: AwdLstmConfig) -> None:
        self.networks = [AwdLstm(config) for _ in config.directions]
        self.decoders = [nn.Linear(config.sizes[-1][1], config.vocabulary_size, std=SPREAD) for _ in self.networks]
        if config.tie_weights:
            for network, decoder in zip(self.networks, self.decoders, strict=True):
                decoder.weight = network.embedding.weight

    def forward(
        self,
        input_ids: ArrayLike,
        targets: ArrayLike,
        cu_seqlens: ArrayLike,
        state: Sequence[State] | None = None,
    ) -> LanguageModelOutput:
        """Read sequences in each direction and predict the targets.

        Args:
            input_ids: integers `[directions, tokens]`, the words that each direction reads, in reading order.
            targets: integers `[directions, tokens]`, the words to predict.
            cu_seqlens: integers `[batch + 1]`, for all directions.
            state: the `state` of the previous output; zeros by default.

        The loss is the sum over the directions, so that each trains as it would alone. While training it has the
        penalties too, which are not in `forward_loss` and `backward_loss`.

        Raises TypeError and ValueError for other types and shapes, and for ids out of range.
        """
        owner = type(self).__name__
        offsets = ragged.check_cu_seqlens(cu_seqlens, None, f"{owner}: cu_seqlens")
        shape = (len(self.networks), int(offsets[-1]))
        ids, wanted = integers(f"{owner}: input_ids", input_ids, shape), integers(f"{owner}: targets", targets, shape)
        starts = self._split(state, len(offsets) - 1)
        with self.one_pass():
            calls = zip(self.networks, ids, starts, strict=True)
            reads = [network(words, offsets, start) for network, words, start in calls]
            outputs = list(zip(self.decoders, reads, wanted, strict=True))
            if frozen := self.frozen and isinstance(reads[0].output, np.ndarray):
                logits = room_for_logits(shape[1], self.config.vocabulary_size)  # of one direction after another
                terms = [
                    token_losses(partial(_scores, decoder), read.output, target, logits)
                    for decoder, read, target in outputs
                ]
            else:
                losses = [
                    as_tensor(F.cross_entropy(_scores(decoder, read.output), target))
                    for decoder, read, target in outputs
                ]
        if frozen:
            losses = [mean_of_losses(*pair) for pair in zip(terms, wanted, strict=True)]
        loss = losses[0] if len(losses) == 1 else losses[0] + losses[1]
        if self.training:
            for read in reads:
                loss = loss + _penalties(self.config, read, offsets)
        named = dict(zip(self.config.directions, losses, strict=True))
        return LanguageModelOutput(loss, named.get(0), named.get(1), _join([read.states for read in reads]))

    def with_words(self, count: int) -> AwdLstmForLanguageModel:
        """A model like this one, with `count` more words: each begins as the mean of the others."""

        def grown(name: str, x: Array) -> Array:
            if name.startswith("networks.") and not name.endswith("embedding.weight"):
                return x
            mean = x.mean(axis=0, dtype=np.float64, keepdims=True).astype(x.dtype)
            return np.concatenate([x, np.repeat(mean, count, axis=0)])

        config = self.config.replace(vocabulary_size=self.config.vocabulary_size + count)
        return type(self)(config, {name: grown(name, x) for name, x in self.state_dict().items()})

    def _split(self, state: Sequence[State] | None, batch: int) -> list[list[State] | None]:
        """The states of each direction, each `[1, batch, size]`."""
        count, name = len(self.networks), f"{type(self).__name__}: state"
        if state is None:
            return [None] * count
        layers = list(sequence(name, state, "(h, c)"))
        if len(layers) != self.config.n_layers:
            raise ValueError(f"{name} must have (h, c) for each of {self.config.n_layers} layers, got {len(layers)}")
        for i, (pair, (_, size)) in enumerate(zip(layers, self.config.sizes, strict=True)):
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise ValueError(f"{name}[{i}] must be (h, c), got {shown(pair)}")
            for part, x in zip("hc", pair, strict=True):
                if operand(f"{name}[{i}]: {part}", x).shape != (count, batch, size):
                    wanted = f"shape {(count, batch, size)}"
                    raise ValueError(f"{name}[{i}]: {part} must have {wanted}, got {x.shape}")
        directions = [slice(i, i + 1) for i in range(count)]
        return [[(h[each], c[each]) for h, c in layers] for each in directions]


def _scores(decoder: nn.Linear, x: Values, out: Array | None = None) -> Any:
    """The scores of words. A frozen table of embeddings is packed once to be a matrix."""
    weight: Any = decoder.weight
    return F.linear(x, weight.matrix if weight.frozen and isinstance(weight, Table) else weight, decoder.bias, out=out)


def _penalties(config: AwdLstmConfig, read: Read, cu_seqlens: CuSeqlens) -> Any:
    """AR and TAR of one direction."""
    raw, total = as_tensor(read.raw), Tensor(np.zeros((), read.raw.dtype))
    if config.activation_penalty and len(raw):
        total = total + (as_tensor(read.output) ** 2).mean() * config.activation_penalty
    follows = ragged.positions(cu_seqlens)[1:] > 0  # the step before, in the same sequence
    pairs = int(np.count_nonzero(follows))
    if config.temporal_penalty and pairs:
        change = (raw[1:] - raw[:-1]) * follows[:, None].astype(raw.dtype)
        total = total + (change**2).sum() * (config.temporal_penalty / (pairs * raw.shape[1]))
    return total


def _join(states: list[list[State]]) -> list[tuple[Array, Array]]:
    """The states of each layer, without gradients, from those of each direction."""
    layers = [[values(*pair) for pair in layer] for layer in zip(*states, strict=True)]
    return [(_stacked([h for h, _ in layer]), _stacked([c for _, c in layer])) for layer in layers]


def _stacked(arrays: list[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
