"""Words from their characters: a convolution over the characters, and highway layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from numpy.typing import ArrayLike

from fastattn import functional as F
from fastattn.checks import choice, integer, shown
from fastattn.nn import init
from fastattn.nn.linear import Linear
from fastattn.nn.module import Module, Values
from fastattn.nn.parameter import Array, Parameter


class CharCNN(Module):
    """A vector for each word: the maxima of filters of several widths over the embeddings of its characters.

    `filters` are pairs `(width, number)`. The result has `output_dim` features, the sum of the numbers. `activation` is
    "relu" or "tanh". Parameters are `embedding` `[n_characters, embedding_dim]`, initialised uniformly in [-1, 1], and
    for each pair i `weight_i` `[number, width, embedding_dim]` and `bias_i` `[number]`. Weights are initialised
    uniformly in [-0.05, 0.05] for "relu", otherwise normally with standard deviation 1 / sqrt(width * embedding_dim);
    biases are 0. Raises ValueError for no filters, sizes less than 1 and an unknown activation.

    Source: Kim et al. 2016 (arXiv 1508.06615), section 2.2; initial values: bilm-tf.
    """

    def __init__(
        self, n_characters: int, embedding_dim: int, filters: Iterable[tuple[int, int]], activation: str = "relu"
    ) -> None:
        self.filters = check_filters("CharCNN: filters", filters, integer)
        self.activation = activation
        self.output_dim = sum(number for _, number in self.filters)
        choice("CharCNN: activation", activation, ("relu", "tanh"))
        n_characters = integer("CharCNN: n_characters", n_characters)
        embedding_dim = integer("CharCNN: embedding_dim", embedding_dim)
        self.embedding = Parameter((n_characters, embedding_dim), init.uniform(1.0))
        for i, (width, number) in enumerate(self.filters):
            relu = activation == "relu"
            first = init.uniform(0.05) if relu else init.normal((width * embedding_dim) ** -0.5)
            setattr(self, f"weight_{i}", Parameter((number, width, embedding_dim), first, packed=True))
            setattr(self, f"bias_{i}", Parameter((number,)))

    def forward(self, char_ids: ArrayLike) -> Any:
        """From `char_ids` `[words, chars]`, integers in [0, n_characters), to `[words, output_dim]`.

        Padding is a character like any other. Raises ValueError for words shorter than the widest filter.

        >>> CharCNN(262, 4, [(1, 8), (3, 16)])(np.zeros((5, 50), np.int64)).shape
        (5, 24)
        """
        parameters, count = vars(self), range(len(self.filters))
        weights = [parameters[f"weight_{i}"] for i in count]
        biases = [parameters[f"bias_{i}"] for i in count]
        return F.char_cnn(char_ids, self.embedding, weights, biases, activation=self.activation)


class Highway(Module):
    """`num_layers` layers that transform part of their input and carry the rest. The shape stays `[..., dim]`.

    y = sigmoid(t) relu(h) + (1 - sigmoid(t)) x, where h is the first half of x W^T + b and t the second. Parameters are
    `layers.i.weight` `[2 * dim, dim]`, initialised normally with standard deviation 1 / sqrt(dim), and `layers.i.bias`
    `[2 * dim]`, initially 0 for h and -2 for t, so that most of x is carried. Raises ValueError for sizes less than 1.

    Source: Srivastava et al. 2015 (arXiv 1505.00387), equation 3; initial values: section 2.2 and bilm-tf.
    """

    def __init__(self, dim: int, num_layers: int = 1) -> None:
        dim, num_layers = integer("Highway: dim", dim), integer("Highway: num_layers", num_layers)
        self.layers = [Linear(dim, 2 * dim, std=dim**-0.5) for _ in range(num_layers)]
        for layer in self.layers:
            layer.bias = Parameter((2 * dim,), _carry)

    def forward(self, x: Values, *, out: Array | None = None) -> Any:
        """From `x` `[..., dim]`, an array or a Tensor, to the same shape.

        `out`, an array, is written and returned if nothing is recorded. It may be `x`.

        >>> Highway(4, num_layers=2)(np.ones((5, 4), np.float32)).shape
        (5, 4)
        """
        for layer in self.layers:
            x = F.highway(x, layer.weight, layer.bias, out=out)
        return x


def _carry(shape: tuple[int, ...]) -> Array:
    bias = init.zeros(shape)
    bias[len(bias) // 2 :] = -2
    return bias


def check_filters(name: str, filters: Any, integer: Callable[[str, Any], int]) -> tuple[tuple[int, int], ...]:
    """`filters` as pairs (width, number), each checked by `integer(name, value)`. Raises ValueError."""
    try:
        pairs = [(width, number) for width, number in filters]
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be pairs (width, number), got {shown(filters)}") from None
    if not pairs:
        raise ValueError(f"{name} must not be empty")
    return tuple((integer(f"{name}: a width", width), integer(f"{name}: a number", n)) for width, n in pairs)
