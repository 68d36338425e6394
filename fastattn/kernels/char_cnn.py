"""Words from their characters: embedding, convolutions of several widths and their maximum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastattn import _core
from fastattn._core import PackedMatrix
from fastattn._types import FloatArray, IntArray


def char_cnn(
    char_ids: IntArray,
    embedding: FloatArray,
    weights: Sequence[FloatArray | PackedMatrix],
    biases: Sequence[FloatArray],
    *,
    activation: str = "relu",
    return_argmax: bool = False,
    out: FloatArray | None = None,
) -> Any:
    """activation(max over all positions of the convolution + bias), for every filter of every word.

    char_ids int64 `[words, chars]` index the rows of `embedding` `[n_characters, E]`. weights is a list or tuple with
    one array `[filters, width, E]` per width. A weight that is used more than once may be a `PackedMatrix` of
    `[filters, width * E]`. biases has one array `[filters]` per width. Floats are float32. The convolution at position
    p is the sum of weight * characters p to p + width - 1. Every full window counts, including windows over padding.
    activation is "relu" or "tanh".

    Returns y `[words, sum of filters]`, the filters in the order of `weights`. With `return_argmax` it returns
    `(y, argmax)` for the backward pass: argmax int32 `[words, sum of filters]` is the first position of each maximum.
    NaN counts as a maximum. Windows inside a run of one character at the end of a word are computed once, so padding
    costs nothing.

    Raises TypeError for another dtype, ValueError for an id outside `embedding` (naming it and its position), a width
    greater than chars, shapes that do not match, another activation or an `out` that overlaps an input.

    Source: Kim et al. 2016 (arXiv 1508.06615), section 2.2; as used in ELMo: Peters et al. 2018 (arXiv 1802.05365).

    >>> import numpy as np
    >>> letters = np.array([[0.0], [1.0], [3.0]], np.float32)
    >>> weight = np.array([[[1.0], [-1.0]], [[1.0], [1.0]]], np.float32)
    >>> char_cnn(np.array([[2, 1, 0, 0]]), letters, [weight], [np.array([0.0, 0.5], np.float32)]).tolist()
    [[2.0, 4.5]]
    """
    return _core.char_cnn(char_ids, embedding, weights, biases, activation, return_argmax, out)


def char_cnn_backward(
    dy: FloatArray,
    char_ids: IntArray,
    embedding: FloatArray,
    weights: Sequence[FloatArray | PackedMatrix],
    biases: Sequence[FloatArray],
    y: FloatArray,
    argmax: npt.NDArray[np.int32],
    *,
    activation: str = "relu",
    need_dembedding: bool = True,
    need_dweights: bool = True,
    need_dbiases: bool = True,
    dembedding: FloatArray | None = None,
    dweights: Sequence[FloatArray | None] | None = None,
    dbiases: Sequence[FloatArray | None] | None = None,
) -> tuple[Any, Any, Any]:
    """The gradients of `char_cnn`: each element of dy reaches only the window that holds the maximum.

    dy is `[words, sum of filters]` with evenly spaced rows. char_ids, embedding, weights, biases and activation are as
    in the forward call, which returned `y` and `argmax`.

    Returns `(dembedding, dweights, dbiases)`: `[n_characters, E]`, a tuple of `[filters, width, E]` and one of
    `[filters]`. A gradient that is not needed (`need_dembedding`, `need_dweights`, `need_dbiases`) is None and costs
    nothing. `dembedding` and the arrays in `dweights` and `dbiases` (lists or tuples like weights, with None for a new
    array) are added to and returned; they must be writable and C-contiguous. Sums follow the order of the words, so
    their bits do not depend on the number of threads. The gradient of relu at 0 is 0.

    Raises TypeError for another dtype, ValueError for ids or positions out of range, shapes that do not match, another
    activation or a gradient that overlaps an input.

    Source: Kim et al. 2016 (arXiv 1508.06615), section 2.2, differentiated.

    >>> import numpy as np
    >>> letters, weight = np.array([[0.0], [1.0], [3.0]], np.float32), np.array([[[1.0], [-1.0]]], np.float32)
    >>> ids, bias, dy = np.array([[2, 1, 0, 0]]), np.zeros(1, np.float32), np.full((1, 1), 10.0, np.float32)
    >>> y, argmax = char_cnn(ids, letters, [weight], [bias], return_argmax=True)
    >>> dembedding, dweights, dbiases = char_cnn_backward(dy, ids, letters, [weight], [bias], y, argmax)
    >>> dembedding.tolist(), dweights[0].tolist(), dbiases[0].tolist()
    ([[0.0], [-10.0], [10.0]], [[[30.0], [10.0]]], [10.0])
    """
    return _core.char_cnn_backward(
        dy,
        char_ids,
        embedding,
        weights,
        biases,
        y,
        argmax,
        activation,
        need_dembedding,
        need_dweights,
        need_dbiases,
        dembedding,
        dweights,
        dbiases,
    )
