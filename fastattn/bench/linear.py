"""linear: tokens x in x out."""

from __future__ import annotations

from functools import partial

import numpy as np

from .case import FLOAT, Arguments, KernelCase, normal, pack_weight


def _make_linear(m: int, k: int, n: int, activation: str | None, rng: np.random.Generator) -> Arguments:
    return {
        "x": normal(rng, m, k),
        "weight": normal(rng, n, k, scale=k**-0.5),
        "bias": normal(rng, n),
        "activation": activation,
    }


def _linear(layer: str, m: int, k: int, n: int, activation: str | None = None) -> KernelCase:
    return KernelCase(
        kernel="linear",
        shape_name=f"{layer} {m}x{k}x{n}" + (f" + {activation}" if activation else ""),
        make=partial(_make_linear, m, k, n, activation),
        flops=2 * m * n * k,
        bytes=FLOAT * (m * k + k * n + m * n),
        length=k,
        prepare=pack_weight,
    )


def _make_linear_backward(m: int, k: int, n: int, rng: np.random.Generator) -> Arguments:
    return {
        "dy": normal(rng, m, n),
        "x": normal(rng, m, k),
        "weight": normal(rng, n, k, scale=k**-0.5),
        "activation": "gelu",
        "pre_activation": normal(rng, m, n),
    }


def _linear_backward(layer: str, m: int, k: int, n: int) -> KernelCase:
    return KernelCase(
        kernel="linear_backward",
        shape_name=f"{layer} {m}x{k}x{n} + gelu",
        make=partial(_make_linear_backward, m, k, n),
        flops=4 * m * n * k,
        bytes=FLOAT * (2 * m * k + 2 * k * n + 2 * m * n),
        length=max(m, n),
    )


CASES = [
    _linear("BERT-base projection", 128, 768, 768),
    _linear("BERT-base feed-forward", 128, 768, 3072),
    _linear("BERT-base feed-forward", 128, 768, 3072, "gelu"),
    _linear("BERT-base output", 128, 3072, 768),
    _linear("BERT-base feed-forward", 1024, 768, 3072),
    _linear("MiniLM feed-forward", 8, 384, 1536),
    _linear_backward("BERT-base feed-forward", 1024, 768, 3072),
]
