"""char_cnn and highway, the layers of ELMo's character encoder, forward and backward."""

from __future__ import annotations

from functools import partial

import numpy as np

from .case import FLOAT, Arguments, KernelCase, normal, pack_weight

CHARACTERS, DIM, WORD = 261, 16, 50
FILTERS = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))  # width, number
FILTER_FLOATS = DIM * sum(width * number for width, number in FILTERS)
OUTPUTS = sum(number for _, number in FILTERS)


def _windows(words: int) -> int:
    """The windows that differ: one for each character but the padding, and one of padding alone."""
    return int((_lengths(words) + 1).sum())


def _lengths(words: int) -> np.ndarray:
    """One to nine letters, as in running text, between the beginning and the end of a word."""
    return 3 + np.arange(words) % 9


def _make_char_cnn(words: int, rng: np.random.Generator) -> Arguments:
    ids = rng.integers(97, 123, (words, WORD), dtype=np.int64)
    ids[:, 0] = 258
    for word, length in zip(ids, _lengths(words), strict=True):
        word[length - 1] = 259
        word[length:] = 260
    return {
        "char_ids": ids,
        "embedding": normal(rng, CHARACTERS, DIM),
        "weights": [normal(rng, number, width, DIM, scale=(width * DIM) ** -0.5) for width, number in FILTERS],
        "biases": [normal(rng, number) for _, number in FILTERS],
    }


def _pack_filters(arguments: Arguments) -> Arguments:
    from fastattn.kernels import PackedMatrix

    weights = arguments["weights"]
    return {**arguments, "weights": [PackedMatrix(weight.reshape(len(weight), -1)) for weight in weights]}


def _make_char_cnn_backward(words: int, rng: np.random.Generator) -> Arguments:
    from fastattn import reference

    arguments = _make_char_cnn(words, rng)
    y, argmax = reference.char_cnn(**arguments, return_argmax=True)
    return {"dy": normal(rng, words, OUTPUTS), **arguments, "y": y, "argmax": argmax}


def _make_highway(rows: int, dim: int, rng: np.random.Generator) -> Arguments:
    return {
        "x": normal(rng, rows, dim),
        "weight": normal(rng, 2 * dim, dim, scale=dim**-0.5),
        "bias": normal(rng, 2 * dim),
    }


def _make_highway_backward(rows: int, dim: int, rng: np.random.Generator) -> Arguments:
    arguments = _make_highway(rows, dim, rng)
    del arguments["bias"]
    return {"dy": normal(rng, rows, dim), **arguments, "projection": normal(rng, rows, 2 * dim)}


def _char_cnn(words: int) -> list[KernelCase]:
    shape = f"ELMo {words}x{WORD} x {OUTPUTS} filters"
    return [
        KernelCase(
            kernel="char_cnn",
            shape_name=shape,
            make=partial(_make_char_cnn, words),
            flops=2 * FILTER_FLOATS * _windows(words),
            bytes=FLOAT * (FILTER_FLOATS + words * (OUTPUTS + 2 * WORD)),
            length=7 * DIM,
            prepare=_pack_filters,
        ),
        KernelCase(
            kernel="char_cnn_backward",
            shape_name=shape,
            make=partial(_make_char_cnn_backward, words),
            flops=4 * FILTER_FLOATS * words,
            bytes=FLOAT * (3 * FILTER_FLOATS + words * (3 * OUTPUTS + 2 * WORD)),
            length=words * OUTPUTS,
        ),
    ]


def _highway(rows: int, dim: int) -> list[KernelCase]:
    shape = f"ELMo {rows}x{dim}"
    return [
        KernelCase(
            kernel="highway",
            shape_name=shape,
            make=partial(_make_highway, rows, dim),
            flops=4 * rows * dim * dim,
            bytes=FLOAT * 2 * dim * (dim + rows),
            length=dim,
            prepare=pack_weight,
        ),
        KernelCase(
            kernel="highway_backward",
            shape_name=shape,
            make=partial(_make_highway_backward, rows, dim),
            flops=8 * rows * dim * dim,
            bytes=FLOAT * (4 * dim * dim + 5 * rows * dim),
            length=2 * dim,
        ),
    ]


CASES = [*_char_cnn(128), *_highway(128, 2048)]
