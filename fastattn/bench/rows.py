"""Row-wise kernels: rows x dim, or tokens x parts x heads x dim."""

from __future__ import annotations

from typing import Any

import numpy as np

from .case import FLOAT, Arguments, KernelCase, normal, own_out


def _layer_norm(model: str, rows: int, dim: int, backward: bool = False) -> KernelCase:
    def make(rng: np.random.Generator) -> Arguments:
        arrays = {"x": normal(rng, rows, dim), "weight": normal(rng, dim), "bias": normal(rng, dim)}
        return {**arrays, "eps": 1e-12, "out": np.empty((rows, dim), np.float32)}

    def make_backward(rng: np.random.Generator) -> Arguments:
        x, residual = normal(rng, rows, dim), normal(rng, rows, dim)
        t = x + residual
        arrays = {"dy": normal(rng, rows, dim), "x": x, "weight": normal(rng, dim)}
        return {**arrays, "mean": t.mean(axis=-1), "rstd": 1 / t.std(axis=-1), "residual": residual}

    shape, moved = f"{model} {rows}x{dim}", FLOAT * rows * dim
    if backward:
        return KernelCase("layer_norm_backward", shape, make_backward, 5 * moved, rows)
    return KernelCase("layer_norm", shape, make, 2 * moved, dim, prepare=own_out)


def _elementwise(
    kernel: str, label: str, rows: int, dim: int, names: str = "x", *, length: int = 0, **options: Any
) -> KernelCase:
    """A kernel on arrays called `names`. They and the result have the same shape."""

    def make(rng: np.random.Generator) -> Arguments:
        out = np.empty((rows, dim), np.float32)
        return {**{name: normal(rng, rows, dim) for name in names.split()}, **options, "out": out}

    moved = FLOAT * (len(names.split()) + 1) * rows * dim
    return KernelCase(kernel, f"{label} {rows}x{dim}", make, moved, length or dim, prepare=own_out)


def _gated_activation(model: str, rows: int, dim: int, activation: str, backward: bool = False) -> KernelCase:
    def make(rng: np.random.Generator) -> Arguments:
        dy = {"dy": normal(rng, rows, dim)} if backward else {}
        out = np.empty((rows, 2 * dim if backward else dim), np.float32)
        return {**dy, "x": normal(rng, rows, 2 * dim), "activation": activation, "out": out}

    kernel, arrays = ("gated_activation_backward", 5) if backward else ("gated_activation", 3)
    return KernelCase(
        kernel, f"{activation} {model} {rows}x{dim}", make, arrays * FLOAT * rows * dim, 1, prepare=own_out
    )


def _rotary_embedding(model: str, tokens: int, heads: int, dim: int, backward: bool = False) -> KernelCase:
    def make(rng: np.random.Generator) -> Arguments:
        x, angles = normal(rng, tokens, 3, heads, dim), rng.random((512, dim // 2)) * 6
        table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
        ids = {"position_ids": np.arange(tokens) % 512, "table": table}
        return {"dy" if backward else "x": x, **ids, "out": np.empty_like(x)}

    kernel, shape = "rotary_embedding_backward" if backward else "rotary_embedding", f"{tokens}x3x{heads}x{dim}"
    return KernelCase(kernel, f"{model} {shape}", make, 6 * FLOAT * tokens * heads * dim, 2, prepare=own_out)


def _log_softmax_topk(model: str, rows: int, dim: int, k: int) -> KernelCase:
    def make(rng: np.random.Generator) -> Arguments:
        return {"x": normal(rng, rows, dim), "k": k}

    shape, moved = f"{model} {k} of {rows}x{dim}", FLOAT * rows * (dim + 3 * k)
    return KernelCase("log_softmax_topk", shape, make, moved, dim)


CASES = [
    _layer_norm("BERT-base", 4096, 768),
    _layer_norm("MiniLM", 128, 384),
    _layer_norm("BERT-base", 4096, 768, backward=True),
    _elementwise("activation", "tanh BERT-base", 4096, 3072, length=1, function="tanh"),
    _elementwise("activation_backward", "tanh BERT-base", 4096, 3072, "dy x", function="tanh"),
    _elementwise("gelu", "erf BERT-base", 4096, 3072, length=1, approximate="none"),
    _elementwise("gelu", "tanh BERT-base", 4096, 3072, length=1, approximate="tanh"),
    _elementwise("gelu_backward", "erf BERT-base", 4096, 3072, "dy x", approximate="none"),
    _elementwise("gelu_backward", "tanh BERT-base", 4096, 3072, "dy x", approximate="tanh"),
    _gated_activation("ModernBERT-base", 4096, 1152, "gelu"),
    _gated_activation("NomicBERT", 4096, 3072, "silu"),
    _gated_activation("ModernBERT-base", 4096, 1152, "gelu", backward=True),
    _rotary_embedding("ModernBERT-base", 4096, 12, 64),
    _rotary_embedding("ModernBERT-base", 4096, 12, 64, backward=True),
    _elementwise("softmax", "BERT-base 12x512 attention rows", 6144, 512),
    _elementwise("softmax_backward", "BERT-base 12x512 attention rows", 6144, 512, "dy y"),
    _elementwise("log_softmax", "BERT-base vocabulary", 128, 30522),
    _elementwise("log_softmax_backward", "BERT-base vocabulary", 128, 30522, "dy y"),
    _log_softmax_topk("MarianMT", 128, 32000, 8),
    _log_softmax_topk("MarianMT", 4, 32000, 8),
    _elementwise("l2_normalize", "MiniLM", 4096, 384),
    _elementwise("l2_normalize_backward", "MiniLM", 4096, 384, "dy x"),
    _elementwise("dropout", "BERT-base", 4096, 768, p=0.1, seed=1),
    _elementwise("dropout_backward", "BERT-base", 4096, 768, "dy", p=0.1, seed=1),
]
