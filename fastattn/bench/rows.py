"""Kernels of rows: rows x dim."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .case import FLOAT, Arguments, KernelCase, normal, own_out


def _make_layer_norm(rows: int, dim: int, rng: np.random.Generator) -> Arguments:
    return {
        "x": normal(rng, rows, dim),
        "weight": normal(rng, dim),
        "bias": normal(rng, dim),
        "eps": 1e-12,
        "out": np.empty((rows, dim), np.float32),
    }


def _layer_norm(model: str, rows: int, dim: int) -> KernelCase:
    return KernelCase(
        kernel="layer_norm",
        shape_name=f"{model} {rows}x{dim}",
        make=partial(_make_layer_norm, rows, dim),
        flops=0,
        bytes=FLOAT * 2 * rows * dim,
        length=dim,
        prepare=own_out,
    )


def _make_layer_norm_backward(rows: int, dim: int, rng: np.random.Generator) -> Arguments:
    x, residual = normal(rng, rows, dim), normal(rng, rows, dim)
    t = x + residual
    return {
        "dy": normal(rng, rows, dim),
        "x": x,
        "weight": normal(rng, dim),
        "mean": t.mean(axis=-1),
        "rstd": 1 / t.std(axis=-1),
        "residual": residual,
    }


def _layer_norm_backward(model: str, rows: int, dim: int) -> KernelCase:
    return KernelCase(
        kernel="layer_norm_backward",
        shape_name=f"{model} {rows}x{dim}",
        make=partial(_make_layer_norm_backward, rows, dim),
        flops=0,
        bytes=FLOAT * 5 * rows * dim,
        length=rows,
    )


def _make_elementwise(
    rows: int, dim: int, names: tuple[str, ...], options: Arguments, rng: np.random.Generator
) -> Arguments:
    out = np.empty((rows, dim), np.float32)
    return {**{name: normal(rng, rows, dim) for name in names}, **options, "out": out}


def _elementwise(
    kernel: str, label: str, rows: int, dim: int, names: str = "x", *, length: int = 0, **options: Any
) -> KernelCase:
    """A kernel of arrays called `names`, all of one shape, which is that of its result."""
    return KernelCase(
        kernel=kernel,
        shape_name=f"{label} {rows}x{dim}",
        make=partial(_make_elementwise, rows, dim, tuple(names.split()), options),
        flops=0,
        bytes=FLOAT * (len(names.split()) + 1) * rows * dim,
        length=length or dim,
        prepare=own_out,
    )


CASES = [
    _layer_norm("BERT-base", 4096, 768),
    _layer_norm("MiniLM", 128, 384),
    _layer_norm_backward("BERT-base", 4096, 768),
    _elementwise("gelu", "erf BERT-base", 4096, 3072, length=1, approximate="none"),
    _elementwise("gelu", "tanh BERT-base", 4096, 3072, length=1, approximate="tanh"),
    _elementwise("gelu_backward", "erf BERT-base", 4096, 3072, "dy x", approximate="none"),
    _elementwise("gelu_backward", "tanh BERT-base", 4096, 3072, "dy x", approximate="tanh"),
    _elementwise("softmax", "BERT-base 12x512 attention rows", 6144, 512),
    _elementwise("softmax_backward", "BERT-base 12x512 attention rows", 6144, 512, "dy y"),
    _elementwise("log_softmax", "BERT-base vocabulary", 128, 30522),
    _elementwise("log_softmax_backward", "BERT-base vocabulary", 128, 30522, "dy y"),
    _elementwise("l2_normalize", "MiniLM", 4096, 384),
    _elementwise("l2_normalize_backward", "MiniLM", 4096, 384, "dy x"),
    _elementwise("dropout", "BERT-base", 4096, 768, p=0.1, seed=1),
    _elementwise("dropout_backward", "BERT-base", 4096, 768, "dy", p=0.1, seed=1),
]
