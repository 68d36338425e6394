"""Reference of `char_cnn` and `char_cnn_backward`: words from their characters, by convolution and maximum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from fastattn._types import Floats, IntArray

from .embedding import check_ids
from .linear import Packed, _add, _plain

ACTIVATIONS = ("relu", "tanh")
BLOCK = 1 << 18
"""Elements of a convolution's result computed at a time, few enough to stay in the cache until the maximum is taken."""


def char_cnn(
    char_ids: IntArray,
    embedding: Floats,
    weights: Sequence[Floats | Packed],
    biases: Sequence[Floats],
    *,
    activation: str = "relu",
    return_argmax: bool = False,
    out: Floats | None = None,
) -> Any:
    """activation(max over all positions of the convolution + bias), for every filter of every word.

    See `fastattn.kernels.char_cnn`.

    >>> letters = np.array([[0.0], [1.0], [3.0]])
    >>> weight, bias = np.array([[[1.0], [-1.0]], [[1.0], [1.0]]]), np.array([0.0, 0.5])
    >>> y, argmax = char_cnn(np.array([[2, 1, 0, 0]]), letters, [weight], [bias], return_argmax=True)
    >>> y.tolist(), argmax.tolist()
    ([[2.0, 4.5]], [[0, 0]])
    """
    filters = _check("char_cnn", char_ids, embedding, weights, biases, activation)
    y = np.empty((len(char_ids), sum(len(weight) for weight in filters)), embedding.dtype) if out is None else out
    argmax = np.empty(y.shape, np.int32) if return_argmax else None
    for columns, weight, bias in zip(_columns(filters), filters, biases, strict=True):
        flat = weight.reshape(len(weight), weight.shape[1] * weight.shape[2])
        for rows in _word_blocks(char_ids, weight):
            conv = _windows(char_ids[rows], embedding, weight.shape[1]) @ flat.T
            conv.max(axis=1, out=y[rows, columns])
            if argmax is not None:
                argmax[rows, columns] = conv.argmax(axis=1)
        y[:, columns] += bias
    if activation == "relu":
        np.maximum(y, 0, out=y)
    else:
        np.tanh(y, out=y)
    return y if argmax is None else (y, argmax)


def char_cnn_backward(
    dy: Floats,
    char_ids: IntArray,
    embedding: Floats,
    weights: Sequence[Floats | Packed],
    biases: Sequence[Floats],
    y: Floats,
    argmax: npt.NDArray[np.int32],
    *,
    activation: str = "relu",
    need_dembedding: bool = True,
    need_dweights: bool = True,
    need_dbiases: bool = True,
    dembedding: Floats | None = None,
    dweights: Sequence[Floats | None] | None = None,
    dbiases: Sequence[Floats | None] | None = None,
) -> tuple[Floats | None, tuple[Floats, ...] | None, tuple[Floats, ...] | None]:
    """The gradients of `char_cnn`: each element of dy reaches the window that holds the maximum.

    See `fastattn.kernels.char_cnn_backward`.

    >>> letters, weight = np.array([[0.0], [1.0], [3.0]]), np.array([[[1.0], [-1.0]]])
    >>> ids, bias, dy = np.array([[2, 1, 0, 0]]), np.zeros(1), np.full((1, 1), 10.0)
    >>> y, argmax = char_cnn(ids, letters, [weight], [bias], return_argmax=True)
    >>> dembedding, dweights, dbiases = char_cnn_backward(dy, ids, letters, [weight], [bias], y, argmax)
    >>> dembedding.tolist(), dweights[0].tolist(), dbiases[0].tolist()
    ([[0.0], [-10.0], [10.0]], [[[30.0], [10.0]]], [10.0])
    """
    filters = _check("char_cnn_backward", char_ids, embedding, weights, biases, activation)
    d = np.where(y <= 0, y.dtype.type(0), dy) if activation == "relu" else dy * ((1 - y) * (1 + y))
    dim = embedding.shape[1]
    dx = np.zeros((*char_ids.shape, dim), embedding.dtype) if need_dembedding else None
    kernels = []
    for columns, weight in zip(_columns(filters), filters, strict=True):
        count, width, _ = weight.shape
        flat = weight.reshape(count, width * dim)
        dweight = np.zeros_like(flat)
        for rows in _word_blocks(char_ids, weight):
            windows = _windows(char_ids[rows], embedding, width)
            dconv = np.zeros((*windows.shape[:2], count), embedding.dtype)
            np.put_along_axis(dconv, argmax[rows, None, columns].astype(np.int64), d[rows, None, columns], axis=1)
            dconv = dconv.reshape(len(windows) * windows.shape[1], count)
            if need_dweights:
                for row, gradient in zip(dweight, dconv.T, strict=True):  # without what is 0 times infinity
                    used = gradient != 0
                    row += gradient[used] @ windows.reshape(-1, width * dim)[used]
            if dx is not None:
                dwindows = (dconv @ flat).reshape(*windows.shape[:2], width, dim)
                for i in range(width):
                    dx[rows, i : i + windows.shape[1]] += dwindows[:, :, i]
        kernels.append(dweight.reshape(weight.shape))
    if dx is not None:
        places = char_ids.reshape(-1, 1) * dim + np.arange(dim)
        sums = np.bincount(places.reshape(-1), dx.reshape(-1), embedding.size)
        dembedding = _add(dembedding, sums.astype(embedding.dtype).reshape(embedding.shape))
    given = dweights or [None] * len(filters), dbiases or [None] * len(filters)
    return (
        dembedding if need_dembedding else None,
        tuple(_add(a, b) for a, b in zip(given[0], kernels, strict=True)) if need_dweights else None,
        tuple(_add(a, d[:, columns].sum(axis=0)) for a, columns in zip(given[1], _columns(filters), strict=True))
        if need_dbiases
        else None,
    )


def _check(
    function: str,
    char_ids: IntArray,
    embedding: Floats,
    weights: Sequence[Floats | Packed],
    biases: Sequence[Floats],
    activation: str,
) -> list[Floats]:
    """The weights as arrays `[filters, width, E]`."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"{function}: activation must be one of 'relu', 'tanh', got {activation!r}")
    if len(weights) != len(biases):
        raise ValueError(f"{function}: biases must be as many as weights, {len(weights)}, got {len(biases)}")
    check_ids(function, "char_ids", char_ids.reshape(-1), "embedding", len(embedding))
    dim = embedding.shape[1]
    filters = []
    for i, weight in enumerate(weights):
        plain = _plain(weight)
        if plain.ndim == 2 and plain.shape[1] % max(1, dim) == 0:  # packed
            plain = plain.reshape(len(plain), plain.shape[1] // max(1, dim), dim)
        if plain.ndim != 3 or plain.shape[2] != dim:
            raise ValueError(f"{function}: weights[{i}] must have shape (filters, width, {dim}), got {plain.shape}")
        if not 1 <= plain.shape[1] <= char_ids.shape[1]:
            raise ValueError(
                f"{function}: weights[{i}] must have a width from 1 to {char_ids.shape[1]}, the characters of a word, "
                f"got {plain.shape[1]}"
            )
        if biases[i].shape != (len(plain),):
            raise ValueError(f"{function}: biases[{i}] must have shape ({len(plain)},), got {biases[i].shape}")
        filters.append(plain)
    return filters


def _columns(filters: Sequence[Floats]) -> list[slice]:
    """The columns of each width in the result."""
    ends = np.cumsum([0, *(len(weight) for weight in filters)]).tolist()
    return [slice(a, b) for a, b in pairwise(ends)]


def _word_blocks(char_ids: IntArray, weight: Floats) -> Iterator[slice]:
    """Slices of the words such that the results of this convolution for one slice have about BLOCK elements."""
    step = max(1, BLOCK // max(1, char_ids.shape[1] * len(weight)))
    for start in range(0, len(char_ids), step):
        yield slice(start, start + step)


def _windows(char_ids: IntArray, embedding: Floats, width: int) -> Floats:
    """`[words, positions, width * E]`: the characters under the filter at each position."""
    positions = char_ids.shape[1] - width + 1
    ids = np.lib.stride_tricks.sliding_window_view(char_ids, width, axis=1)
    return embedding[ids].reshape(len(char_ids), positions, width * embedding.shape[1])
