"""char_cnn and highway, the layers of ELMo's character encoder, forward and backward."""

from __future__ import annotations

import numpy as np

from .case import FLOAT, Arguments, KernelCase, normal, pack_weight

CHARACTERS, DIM, WORD = 261, 16, 50
FILTERS = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))  # width, number
FILTER_FLOATS = DIM * sum(width * number for width, number in FILTERS)
OUTPUTS = sum(number for _, number in FILTERS)


def _windows(words: int) -> int:
    """The number of distinct windows: one for each character that is not padding, and one of padding alone."""
    return int((_lengths(words) + 1).sum())


def _lengths(words: int) -> np.ndarray:
    """Word lengths of one to nine letters, as in running text, plus the marks for beginning and end."""
    return 3 + np.arange(words) % 9


def _pack_filters(arguments: Arguments) -> Arguments:
    from fastattn.kernels import PackedMatrix

    weights = arguments["weights"]
    return {**arguments, "weights": [PackedMatrix(weight.reshape(len(weight), -1)) for weight in weights]}


def _char_cnn(words: int) -> list[KernelCase]:
    def make(rng: np.random.Generator) -> Arguments:
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

    def make_backward(rng: np.random.Generator) -> Arguments:
        from fastattn import reference

        arguments = make(rng)
        y, argmax = reference.char_cnn(**arguments, return_argmax=True)
        return {"dy": normal(rng, words, OUTPUTS), **arguments, "y": y, "argmax": argmax}

    shape = f"ELMo {words}x{WORD} x {OUTPUTS} filters"
    flops, moved = 2 * FILTER_FLOATS * _windows(words), FLOAT * (FILTER_FLOATS + words * (OUTPUTS + 2 * WORD))
    backward_flops = 4 * FILTER_FLOATS * words
    backward_moved = FLOAT * (3 * FILTER_FLOATS + words * (3 * OUTPUTS + 2 * WORD))
    return [
        KernelCase("char_cnn", shape, make, moved, 7 * DIM, flops=flops, prepare=_pack_filters),
        KernelCase("char_cnn_backward", shape, make_backward, backward_moved, words * OUTPUTS, flops=backward_flops),
    ]


def _highway(rows: int, dim: int) -> list[KernelCase]:
    def make(rng: np.random.Generator) -> Arguments:
        x, weight = normal(rng, rows, dim), normal(rng, 2 * dim, dim, scale=dim**-0.5)
        return {"x": x, "weight": weight, "bias": normal(rng, 2 * dim)}

    def make_backward(rng: np.random.Generator) -> Arguments:
        arguments = make(rng)
        del arguments["bias"]
        return {"dy": normal(rng, rows, dim), **arguments, "projection": normal(rng, rows, 2 * dim)}

    shape, flops = f"ELMo {rows}x{dim}", 4 * rows * dim * dim
    moved, backward_moved = FLOAT * 2 * dim * (dim + rows), FLOAT * (4 * dim * dim + 5 * rows * dim)
    return [
        KernelCase("highway", shape, make, moved, dim, flops=flops, prepare=pack_weight),
        KernelCase("highway_backward", shape, make_backward, backward_moved, 2 * dim, flops=2 * flops),
    ]


CASES = [*_char_cnn(128), *_highway(128, 2048)]
