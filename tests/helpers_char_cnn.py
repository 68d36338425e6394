"""Operands of a character CNN, and what its maximum must be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from helpers import double, normal, tolerance

from fastattn.kernels import PackedMatrix

ACTIVATIONS = pytest.mark.parametrize("activation", ["relu", "tanh"])
CHARACTERS = 5


def operands(words: int, chars: int, dim: int, filters: Sequence[tuple[int, int]], seed: int = 1) -> tuple[Any, ...]:
    """char_ids, embedding, weights, biases; filters: how many, and of which width.

    Most words end in padding (the last character), some are nothing else, and some have none.
    """
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, CHARACTERS, (words, chars))
    for word, length in zip(ids, rng.integers(0, chars + 1, words), strict=True):
        word[length:] = CHARACTERS - 1
    return (
        ids,
        normal(rng, CHARACTERS, dim),
        [normal(rng, count, width, dim) / np.float32((width * dim) ** 0.5) for count, width in filters],
        [normal(rng, count) for count, _ in filters],
    )


def doubled(ids: Any, embedding: Any, weights: Any, biases: Any) -> tuple[Any, ...]:
    """The same in float64."""
    return ids, double(embedding), [double(w) for w in weights], [double(b) for b in biases]


def packed(weights: Any) -> list[PackedMatrix]:
    return [PackedMatrix(weight.reshape(len(weight), np.prod(weight.shape[1:]))) for weight in weights]


def largest_at(argmax: Any, ids: Any, embedding: Any, weights: Any) -> None:
    """Each position in `argmax` holds the maximum, and is the first one whose window has these characters."""
    column = 0
    for weight in weights:
        count, width, _ = weight.shape
        windows = np.lib.stride_tricks.sliding_window_view(ids, width, axis=1)
        values = np.tensordot(double(embedding)[windows], double(weight), axes=((2, 3), (1, 2)))
        places = argmax[:, column : column + count].astype(np.int64)
        at = np.take_along_axis(values, places[:, None], axis=1)[:, 0]
        assert (at >= values.max(axis=1) - tolerance(values, weight[0].size)).all()
        same = (windows[:, :, None] == windows[:, None]).all(axis=-1)
        np.testing.assert_array_equal(np.take_along_axis(same.argmax(axis=2), places, axis=1), places)
        column += count
