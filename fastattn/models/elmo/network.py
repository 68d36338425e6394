"""The network of ELMo: characters to token vectors, and LSTMs that read these forward and backward.

`Elmo` and `BidirectionalLanguageModel` are built on it. Everything is ragged: rows are tokens, and sequence i is rows
`cu_seqlens[i]` to `cu_seqlens[i + 1]`.

Source: Peters et al. 2018, "Deep contextualized word representations", section 3; Jozefowicz et al. 2016, "Exploring
the Limits of Language Modeling", section 3.1, for the characters. Sizes, clips and initial values are as in bilm-tf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastattn import functional as F
from fastattn import nn
from fastattn._core import run_pass
from fastattn.autograd import values
from fastattn.checks import sequence
from fastattn.models.elmo.config import CHARACTERS, ElmoConfig
from fastattn.nn.module import Values
from fastattn.nn.parameter import Array

LAYER_NAMES = {"n_layers": "network.layers.{}.", "n_highway": "network.token_encoder.highway.layers.{}."}
"""Fields of the config that count layers, with the beginning of the names of their tensors in a checkpoint."""
MOST_FEATURES = 2**19
"""A pass that has more bytes of features is computed before it goes on, so that their memory can be used again."""
State = tuple[Any, Any]
"""The states of a layer: h `[2, batch, projection_dim]` and c `[2, batch, dim]`, the forward direction first."""


class TokenEncoder(nn.Module):
    """From the characters of words to token vectors: convolutions and their maximum, highway layers, a projection."""

    def __init__(self, config: ElmoConfig) -> None:
        n = config.n_filters
        self.char_cnn = nn.CharCNN(CHARACTERS, config.char_embedding_dim, config.filters, config.activation)
        self.highway = nn.Highway(n, config.n_highway) if config.n_highway else None
        self.projection = nn.Linear(n, config.projection_dim, std=n**-0.5) if config.projects_tokens else None

    def forward(self, char_ids: ArrayLike) -> Any:
        """From `char_ids` int64 `[words, max_characters_per_token]` to `[words, projection_dim]`."""
        x = self.char_cnn(char_ids)
        if self.highway is not None:
            x = self.highway(x, out=x if self.highway.frozen and isinstance(x, np.ndarray) else None)
        y = x if self.projection is None else self.projection(x)
        if self.frozen and x.nbytes > MOST_FEATURES:
            run_pass()
        return y


class Direction(nn.Module):
    """The weights of one direction of a layer, as `fastattn.functional.lstm` takes them."""

    def __init__(self, config: ElmoConfig) -> None:
        size, cells = config.projection_dim, config.dim
        bound = (6 / (2 * size + 4 * cells)) ** 0.5  # Glorot's bound for TensorFlow's matrix, which joins both
        self.weight_ih = nn.Parameter((4 * cells, size), nn.init.uniform(bound), packed=True)
        self.weight_hh = nn.Parameter((4 * cells, size), nn.init.uniform(bound), packed=True, groups=4)
        self.bias = nn.Parameter((4 * cells,), _forget_nothing)
        self.weight_hr: nn.Parameter | None = None
        if config.projects_outputs:
            self.weight_hr = nn.Parameter((size, cells), nn.init.uniform((6 / (size + cells)) ** 0.5), packed=True)

    def operands(self) -> tuple[Any, ...]:
        """weight_ih, weight_hh, bias, no second bias, weight_hr."""
        return self.weight_ih, self.weight_hh, self.bias, None, self.weight_hr


class Layer(nn.Module):
    """A forward LSTM and an independent backward LSTM."""

    checkpoint_names: Mapping[str, str] = {"forwards": "forward", "backwards": "backward"}

    def __init__(self, config: ElmoConfig) -> None:
        self.forwards = Direction(config)
        self.backwards = Direction(config)


class ElmoNetwork(nn.Module):
    """Token vectors from characters, and layers of LSTMs in both directions above them.

    `dropout` acts on the input of every layer while training, as in bilm-tf.
    """

    def __init__(self, config: ElmoConfig, *, dropout: float = 0.0) -> None:
        self.config = config
        self.token_encoder = TokenEncoder(config)
        self.dropout = nn.Dropout(dropout)
        self.layers = [Layer(config) for _ in range(config.n_layers)]

    def tokens(self, char_ids: ArrayLike) -> Any:
        """The vectors of words, from `char_ids` int64 `[words, max_characters_per_token]`: `[words, projection_dim]`.

        A vector depends only on the characters of its word, so a repeated word need not be computed twice.
        """
        return self.token_encoder(char_ids)

    def lstm(
        self,
        x_forward: Values,
        x_backward: Values,
        cu_seqlens: ArrayLike,
        state: Sequence[State] | None = None,
        reverse: Sequence[bool] = (False, True),
        *,
        recompute: bool = False,
    ) -> tuple[list[Any], list[State]]:
        """Read token vectors in both directions.

        Args:
            x_forward: the input of the forward LSTMs, `[tokens, projection_dim]`.
            x_backward: the input of the backward LSTMs, of the same shape; may be `x_forward`.
            cu_seqlens: integers `[batch + 1]`, for both.
            state: the initial states of each layer, for each sequence; zeros by default.
            reverse: whether each direction reads a sequence from its end. (False, False) is for a training stream in
                which both inputs are in reading order, the backward input from the end of the text.
            recompute: keep less for the backward pass, and compute the gates again.

        Returns:
            The output of each layer, `[tokens, 2 * projection_dim]`, the half of the forward direction first, and the
            last states of each layer, for a call that continues from here. A trainable network returns Tensors.
            Gradients flow through the states too, so a stream passes them through `detached`.

        Raises ValueError for a `state` of another number of layers, and what `fastattn.functional.lstm` raises.
        """
        config, size = self.config, self.config.projection_dim
        state = None if state is None else list(sequence("ElmoNetwork: state", state, "(h, c)"))
        if state is not None and len(state) != config.n_layers:
            wanted = f"(h, c) for each of {config.n_layers} layers"
            raise ValueError(f"ElmoNetwork: state must have {wanted}, got {len(state)}")
        outputs: list[Any] = []
        states: list[State] = []
        x: Any = None
        inputs = self.dropout(x_forward), self.dropout(x_backward)
        for i, layer in enumerate(self.layers):
            if i:
                x = self.dropout(outputs[-1])
                inputs = x[:, :size], x[:, size:]
            y, last = F.lstm(
                inputs,
                cu_seqlens,
                [layer.forwards.operands(), layer.backwards.operands()],
                None if state is None else state[i],
                reverse=reverse,
                cell_clip=config.cell_clip,
                proj_clip=config.proj_clip if config.projects_outputs else None,
                recompute=recompute,
                residual=x if config.use_skip_connections else None,
            )
            outputs.append(y)
            states.append(last)
        return outputs, states


def detached(state: Sequence[State]) -> list[tuple[Array, Array]]:
    """States as arrays, without gradients."""
    return [(h, c) for h, c in (values(*pair) for pair in state)]


def _forget_nothing(shape: tuple[int, ...]) -> Array:
    """A bias of 0, but 1 for the forget gates (the second of i, f, g, o)."""
    bias = np.zeros(shape, np.float32)
    cells = len(bias) // 4
    bias[cells : 2 * cells] = 1
    return bias
