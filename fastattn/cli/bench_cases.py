"""The kernel cases of `fastattn bench` and of `benchmarks/`: one list, so that both time the same work.

A case names a kernel. The same name in `fastattn.kernels` and in `fastattn.reference` gives the two contenders, and
`make` gives the arguments of both, so a case can favour neither:

    case = kernel_cases("linear")[0]
    arguments = case.make(np.random.default_rng(0))
    expected = case.reference(**arguments)                 # plain NumPy
    actual = case.ours(**case.prepare(arguments))          # weights packed, as the models hold them

To add a case, add a line to `kernel_cases`, to `recurrent_cases` (bench_recurrent_cases.py) or `character_cases`
(bench_character_cases.py), or to `training_cases` (bench_training_cases.py) for what training alone calls. Every
function of `fastattn.kernels` must have one.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .bench_case import FLOAT, Arguments, KernelCase, cu_seqlens, normal, own_out
from .bench_character_cases import character_cases
from .bench_recurrent_cases import recurrent_cases
from .bench_training_cases import training_cases

__all__ = ["KernelCase", "kernel_cases"]

# linear: tokens x in x out


def _make_linear(m: int, k: int, n: int, activation: str | None, rng: np.random.Generator) -> Arguments:
    return {
        "x": normal(rng, m, k),
        "weight": normal(rng, n, k, scale=k**-0.5),
        "bias": normal(rng, n),
        "activation": activation,
    }


def _pack_weight(arguments: Arguments) -> Arguments:
    from fastattn.kernels import PackedMatrix

    return {**arguments, "weight": PackedMatrix(arguments["weight"])}


def _linear(layer: str, m: int, k: int, n: int, activation: str | None = None) -> KernelCase:
    return KernelCase(
        kernel="linear",
        shape_name=f"{layer} {m}x{k}x{n}" + (f" + {activation}" if activation else ""),
        make=partial(_make_linear, m, k, n, activation),
        flops=2 * m * n * k,
        bytes=FLOAT * (m * k + k * n + m * n),
        length=k,
        prepare=_pack_weight,
    )


# attention: batch x heads x seq x dim, and ragged


def _make_attention(batch: int, heads: int, seq: int, dim: int, rng: np.random.Generator) -> Arguments:
    return {name: normal(rng, batch, heads, seq, dim) for name in ("q", "k", "v")}


def _attention(model: str, batch: int, heads: int, seq: int, dim: int) -> KernelCase:
    return KernelCase(
        kernel="scaled_dot_product_attention",
        shape_name=f"{model} {batch}x{heads}x{seq}x{dim}",
        make=partial(_make_attention, batch, heads, seq, dim),
        flops=4 * batch * heads * seq * seq * dim,
        bytes=FLOAT * 4 * batch * heads * seq * dim,
        length=seq + dim,
    )


def _make_ragged_attention(lengths: tuple[int, ...], heads: int, dim: int, rng: np.random.Generator) -> Arguments:
    # Views of one fused projection, as the models pass them.
    qkv = normal(rng, sum(lengths), 3, heads, dim)
    return {"q": qkv[:, 0], "k": qkv[:, 1], "v": qkv[:, 2], "cu_seqlens_q": cu_seqlens(lengths)}


def _ragged_attention(model: str, lengths: tuple[int, ...], heads: int, dim: int) -> KernelCase:
    return KernelCase(
        kernel="scaled_dot_product_attention",
        shape_name=f"{model} ragged {min(lengths)}..{max(lengths)} {sum(lengths)}x{heads}x{dim}",
        make=partial(_make_ragged_attention, lengths, heads, dim),
        flops=4 * heads * dim * sum(n * n for n in lengths),
        bytes=FLOAT * 4 * sum(lengths) * heads * dim,
        length=max(lengths) + dim,
    )


# row kernels: tokens x dim


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


def _make_elementwise(rows: int, dim: int, options: Arguments, rng: np.random.Generator) -> Arguments:
    return {"x": normal(rng, rows, dim), **options, "out": np.empty((rows, dim), np.float32)}


def _elementwise(kernel: str, label: str, rows: int, dim: int, length: int, **options: Any) -> KernelCase:
    return KernelCase(
        kernel=kernel,
        shape_name=f"{label} {rows}x{dim}",
        make=partial(_make_elementwise, rows, dim, options),
        flops=0,
        bytes=FLOAT * 2 * rows * dim,
        length=length,
        prepare=own_out,
    )


def _make_embedding(tokens: int, dim: int, vocabulary: int, rng: np.random.Generator) -> Arguments:
    return {
        "input_ids": rng.integers(0, vocabulary, tokens, dtype=np.int64),
        "weight": normal(rng, vocabulary, dim),
        "position_ids": np.arange(tokens, dtype=np.int64) % 512,
        "position_weight": normal(rng, 512, dim),
        "token_type_ids": np.zeros(tokens, np.int64),
        "token_type_weight": normal(rng, 2, dim),
        "norm_weight": normal(rng, dim),
        "norm_bias": normal(rng, dim),
    }


def _embedding(model: str, tokens: int, dim: int, vocabulary: int = 30522) -> KernelCase:
    return KernelCase(
        kernel="embedding",
        shape_name=f"{model} {tokens}x{dim}",
        make=partial(_make_embedding, tokens, dim, vocabulary),
        flops=0,
        bytes=FLOAT * 4 * tokens * dim,
        length=dim,
    )


def _make_pooling(batch: int, seq: int, dim: int, mode: str, rng: np.random.Generator) -> Arguments:
    return {"x": normal(rng, batch * seq, dim), "cu_seqlens": cu_seqlens((seq,) * batch), "mode": mode}


def _pooling(model: str, batch: int, seq: int, dim: int, mode: str) -> KernelCase:
    return KernelCase(
        kernel="pooling",
        shape_name=f"{model} {mode} {batch}x{seq}x{dim}",
        make=partial(_make_pooling, batch, seq, dim, mode),
        flops=0,
        bytes=FLOAT * (batch * seq * dim + batch * dim),
        length=seq,
    )


def kernel_cases(contains: str | None = None) -> list[KernelCase]:
    """All cases, or those whose name contains `contains` (upper and lower case alike), in a fixed order.

    >>> [case.shape_name for case in kernel_cases("gelu tanh")]
    ['tanh BERT-base 4096x3072']
    """
    cases = [
        _linear("BERT-base projection", 128, 768, 768),
        _linear("BERT-base feed-forward", 128, 768, 3072),
        _linear("BERT-base feed-forward", 128, 768, 3072, "gelu"),
        _linear("BERT-base output", 128, 3072, 768),
        _linear("BERT-base feed-forward", 1024, 768, 3072),
        _linear("MiniLM feed-forward", 8, 384, 1536),
        _attention("BERT-base", 1, 12, 128, 64),
        _attention("BERT-base", 1, 12, 512, 64),
        _attention("BERT-base", 1, 12, 2048, 64),
        _ragged_attention("MiniLM", (8, 12, 15, 20, 24, 33, 47, 97), 12, 32),
        _layer_norm("BERT-base", 4096, 768),
        _layer_norm("MiniLM", 128, 384),
        _elementwise("activation", "tanh BERT-base", 4096, 3072, 1, function="tanh"),
        _elementwise("gelu", "erf BERT-base", 4096, 3072, 1, approximate="none"),
        _elementwise("gelu", "tanh BERT-base", 4096, 3072, 1, approximate="tanh"),
        _elementwise("softmax", "BERT-base 12x512 attention rows", 6144, 512, 512),
        _elementwise("log_softmax", "BERT-base vocabulary", 128, 30522, 30522),
        _embedding("BERT-base", 4096, 768),
        _pooling("MiniLM", 32, 128, 384, "mean"),
        _pooling("MiniLM", 32, 128, 384, "max"),
        _elementwise("l2_normalize", "MiniLM", 4096, 384, 384),
    ]
    cases += recurrent_cases()
    cases += character_cases()
    cases += training_cases()
    if contains is None:
        return cases
    return [case for case in cases if contains.lower() in case.name.lower()]
