"""embedding and pooling: where rows are gathered, and where they become one."""

from __future__ import annotations

from functools import partial

import numpy as np

from .case import FLOAT, Arguments, KernelCase, cu_seqlens, normal


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


def _make_embedding_backward(tokens: int, dim: int, vocabulary: int, rng: np.random.Generator) -> Arguments:
    return {
        "dy": normal(rng, tokens, dim),
        "input_ids": rng.integers(0, vocabulary, tokens, dtype=np.int64),
        "num_embeddings": vocabulary,
    }


def _embedding_backward(model: str, tokens: int, dim: int, vocabulary: int = 30522) -> KernelCase:
    return KernelCase(
        kernel="embedding_backward",
        shape_name=f"{model} {tokens}x{dim}",
        make=partial(_make_embedding_backward, tokens, dim, vocabulary),
        flops=0,
        bytes=FLOAT * 3 * tokens * dim,
        length=tokens,
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


def _make_pooling_backward(batch: int, seq: int, dim: int, mode: str, rng: np.random.Generator) -> Arguments:
    bounds = cu_seqlens((seq,) * batch)
    return {"dy": normal(rng, batch, dim), "x": normal(rng, batch * seq, dim), "cu_seqlens": bounds, "mode": mode}


def _pooling_backward(model: str, batch: int, seq: int, dim: int, mode: str) -> KernelCase:
    return KernelCase(
        kernel="pooling_backward",
        shape_name=f"{model} {mode} {batch}x{seq}x{dim}",
        make=partial(_make_pooling_backward, batch, seq, dim, mode),
        flops=0,
        bytes=FLOAT * (batch * seq * dim + batch * dim),
        length=seq,
    )


CASES = [
    _embedding("BERT-base", 4096, 768),
    _embedding_backward("BERT-base", 4096, 768),
    _pooling("MiniLM", 32, 128, 384, "mean"),
    _pooling("MiniLM", 32, 128, 384, "max"),
    _pooling_backward("MiniLM", 32, 128, 384, "mean"),
    _pooling_backward("MiniLM", 32, 128, 384, "max"),
]
