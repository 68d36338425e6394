"""linear: tokens x in x out."""

from __future__ import annotations

import numpy as np

from .case import FLOAT, Arguments, KernelCase, normal, pack_weight


def _linear(layer: str, m: int, k: int, n: int, activation: str | None = None) -> KernelCase:
    def make(rng: np.random.Generator) -> Arguments:
        x, weight, bias = normal(rng, m, k), normal(rng, n, k, scale=k**-0.5), normal(rng, n)
        return {"x": x, "weight": weight, "bias": bias, "activation": activation}

    shape = f"{layer} {m}x{k}x{n}" + (f" + {activation}" if activation else "")
    moved = FLOAT * (m * k + k * n + m * n)
    return KernelCase("linear", shape, make, moved, k, flops=2 * m * n * k, prepare=pack_weight)


def _linear_backward(layer: str, m: int, k: int, n: int) -> KernelCase:
    def make(rng: np.random.Generator) -> Arguments:
        arrays = {"dy": normal(rng, m, n), "x": normal(rng, m, k), "weight": normal(rng, n, k, scale=k**-0.5)}
        return {**arrays, "activation": "gelu", "pre_activation": normal(rng, m, n)}

    shape, moved = f"{layer} {m}x{k}x{n} + gelu", FLOAT * 2 * (m * k + k * n + m * n)
    return KernelCase("linear_backward", shape, make, moved, max(m, n), flops=4 * m * n * k)


CASES = [
    _linear("BERT-base projection", 128, 768, 768),
    _linear("BERT-base feed-forward", 128, 768, 3072),
    _linear("BERT-base feed-forward", 128, 768, 3072, "gelu"),
    _linear("BERT-base output", 128, 3072, 768),
    _linear("BERT-base feed-forward", 1024, 768, 3072),
    _linear("MiniLM feed-forward", 8, 384, 1536),
    _linear_backward("BERT-base feed-forward", 1024, 768, 3072),
]
