"""The kernel cases of what training alone calls: backward passes, losses, dropout and optimizers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .bench_case import FLOAT, Arguments, KernelCase, cu_seqlens, normal, own_out, same


def _make_linear(m: int, k: int, n: int, rng: np.random.Generator) -> Arguments:
    return {
        "dy": normal(rng, m, n),
        "x": normal(rng, m, k),
        "weight": normal(rng, n, k, scale=k**-0.5),
        "activation": "gelu",
        "pre_activation": normal(rng, m, n),
    }


def _linear(layer: str, m: int, k: int, n: int) -> KernelCase:
    return KernelCase(
        kernel="linear_backward",
        shape_name=f"{layer} {m}x{k}x{n} + gelu",
        make=partial(_make_linear, m, k, n),
        flops=4 * m * n * k,
        bytes=FLOAT * (2 * m * k + 2 * k * n + 2 * m * n),
        length=max(m, n),
    )


def _make_attention(batch: int, heads: int, seq: int, dim: int, rng: np.random.Generator) -> Arguments:
    from fastattn import reference

    dout, q, k, v = (normal(rng, batch, heads, seq, dim) for _ in range(4))
    out, lse = reference.scaled_dot_product_attention(q, k, v, return_softmax_lse=True)
    return {"dout": dout, "q": q, "k": k, "v": v, "out": out, "softmax_lse": lse}


def _attention(model: str, batch: int, heads: int, seq: int, dim: int) -> KernelCase:
    return KernelCase(
        kernel="scaled_dot_product_attention_backward",
        shape_name=f"{model} {batch}x{heads}x{seq}x{dim}",
        make=partial(_make_attention, batch, heads, seq, dim),
        flops=10 * batch * heads * seq * seq * dim,
        bytes=FLOAT * 8 * batch * heads * seq * dim,
        length=seq + dim,
    )


def _make_layer_norm(rows: int, dim: int, rng: np.random.Generator) -> Arguments:
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


def _layer_norm(model: str, rows: int, dim: int) -> KernelCase:
    return KernelCase(
        kernel="layer_norm_backward",
        shape_name=f"{model} {rows}x{dim}",
        make=partial(_make_layer_norm, rows, dim),
        flops=0,
        bytes=FLOAT * 5 * rows * dim,
        length=rows,
    )


def _make_elementwise(
    rows: int, dim: int, names: tuple[str, ...], options: Arguments, rng: np.random.Generator
) -> Arguments:
    out = np.empty((rows, dim), np.float32)
    return {**{name: normal(rng, rows, dim) for name in names}, **options, "out": out}


def _elementwise(kernel: str, label: str, rows: int, dim: int, names: str, **options: Any) -> KernelCase:
    """A kernel of arrays called `names`, all of one shape, which is that of its result."""
    return KernelCase(
        kernel=kernel,
        shape_name=f"{label} {rows}x{dim}",
        make=partial(_make_elementwise, rows, dim, tuple(names.split()), options),
        flops=0,
        bytes=FLOAT * (len(names.split()) + 1) * rows * dim,
        length=dim,
        prepare=own_out,
    )


def _make_embedding(tokens: int, dim: int, vocabulary: int, rng: np.random.Generator) -> Arguments:
    return {
        "dy": normal(rng, tokens, dim),
        "input_ids": rng.integers(0, vocabulary, tokens, dtype=np.int64),
        "num_embeddings": vocabulary,
    }


def _embedding(model: str, tokens: int, dim: int, vocabulary: int = 30522) -> KernelCase:
    return KernelCase(
        kernel="embedding_backward",
        shape_name=f"{model} {tokens}x{dim}",
        make=partial(_make_embedding, tokens, dim, vocabulary),
        flops=0,
        bytes=FLOAT * 3 * tokens * dim,
        length=tokens,
    )


def _make_pooling(batch: int, seq: int, dim: int, mode: str, rng: np.random.Generator) -> Arguments:
    bounds = cu_seqlens((seq,) * batch)
    return {"dy": normal(rng, batch, dim), "x": normal(rng, batch * seq, dim), "cu_seqlens": bounds, "mode": mode}


def _pooling(model: str, batch: int, seq: int, dim: int, mode: str) -> KernelCase:
    return KernelCase(
        kernel="pooling_backward",
        shape_name=f"{model} {mode} {batch}x{seq}x{dim}",
        make=partial(_make_pooling, batch, seq, dim, mode),
        flops=0,
        bytes=FLOAT * (batch * seq * dim + batch * dim),
        length=seq,
    )


def _make_cross_entropy(rows: int, classes: int, backward: bool, rng: np.random.Generator) -> Arguments:
    logits, target = normal(rng, rows, classes), rng.integers(0, classes, rows, dtype=np.int64)
    if not backward:
        return {"logits": logits, "target": target}
    lse = np.log(np.exp(logits).sum(axis=-1))
    dloss, out = np.full(rows, 1 / rows, np.float32), np.empty_like(logits)
    return {"dloss": dloss, "logits": logits, "target": target, "lse": lse, "out": out}


def _cross_entropy(model: str, rows: int, classes: int, backward: bool) -> KernelCase:
    return KernelCase(
        kernel="cross_entropy_backward" if backward else "cross_entropy",
        shape_name=f"{model} {rows}x{classes}",
        make=partial(_make_cross_entropy, rows, classes, backward),
        flops=0,
        bytes=FLOAT * (1 + backward) * rows * classes,
        length=classes,
        prepare=own_out if backward else same,
    )


def _make_arrays(
    names: tuple[str, ...], shape: tuple[int, ...], options: Arguments, rng: np.random.Generator
) -> Arguments:
    arrays = {name: normal(rng, *shape) for name in names}
    if "exp_avg_sq" in arrays:
        np.square(arrays["exp_avg_sq"], out=arrays["exp_avg_sq"])
    return arrays | options


def _copies(names: tuple[str, ...]) -> Callable[[Arguments], Arguments]:
    return lambda arguments: arguments | {name: arguments[name].copy() for name in names}


def _optimizer(kernel: str, model: str, shape: tuple[int, int], names: str, **options: Any) -> KernelCase:
    """One step; `names` are those of its arrays, of which all but grad are written."""
    writes = tuple(name for name in names.split() if name != "grad")
    return KernelCase(
        kernel=kernel,
        shape_name=f"{model} {shape[0]}x{shape[1]}",
        make=partial(_make_arrays, tuple(names.split()), shape, options),
        flops=0,
        bytes=FLOAT * (1 + 2 * len(writes)) * shape[0] * shape[1],
        length=1,
        prepare=_copies(writes),
        writes=writes,
    )


def _make_gradients(count: int, dim: int, rng: np.random.Generator) -> Arguments:
    return {"gradients": [normal(rng, dim, dim) for _ in range(count)]}


def _gradient_norm(model: str, count: int, dim: int) -> KernelCase:
    return KernelCase(
        kernel="gradient_norm",
        shape_name=f"{model} {count}x{dim}x{dim}",
        make=partial(_make_gradients, count, dim),
        flops=0,
        bytes=FLOAT * count * dim * dim,
        length=1,
    )


def training_cases() -> list[KernelCase]:
    """The cases of what training alone calls, in a fixed order."""
    return [
        _linear("BERT-base feed-forward", 1024, 768, 3072),
        _attention("BERT-base", 1, 12, 512, 64),
        _layer_norm("BERT-base", 4096, 768),
        _elementwise("activation_backward", "tanh BERT-base", 4096, 3072, "dy x", function="tanh"),
        _elementwise("gelu_backward", "erf BERT-base", 4096, 3072, "dy x", approximate="none"),
        _elementwise("gelu_backward", "tanh BERT-base", 4096, 3072, "dy x", approximate="tanh"),
        _elementwise("softmax_backward", "BERT-base 12x512 attention rows", 6144, 512, "dy y"),
        _elementwise("log_softmax_backward", "BERT-base vocabulary", 128, 30522, "dy y"),
        _elementwise("l2_normalize_backward", "MiniLM", 4096, 384, "dy x"),
        _embedding("BERT-base", 4096, 768),
        _pooling("MiniLM", 32, 128, 384, "mean"),
        _pooling("MiniLM", 32, 128, 384, "max"),
        _cross_entropy("BERT-base vocabulary", 128, 30522, backward=False),
        _cross_entropy("BERT-base vocabulary", 128, 30522, backward=True),
        _elementwise("dropout", "BERT-base", 4096, 768, "x", p=0.1, seed=1),
        _elementwise("dropout_backward", "BERT-base", 4096, 768, "dy", p=0.1, seed=1),
        _optimizer("adamw", "BERT-base", (768, 3072), "param grad exp_avg exp_avg_sq", step=10, lr=1e-4),
        _optimizer("sgd", "BERT-base", (768, 3072), "param grad momentum_buffer", lr=1e-4, momentum=0.9),
        _gradient_norm("BERT-base layer", 12, 768),
    ]
