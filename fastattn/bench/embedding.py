"""embedding, scatter_rows and pooling: rows are gathered, spread, or combined into one."""

from __future__ import annotations

import numpy as np

from .case import FLOAT, Arguments, KernelCase, cu_seqlens, normal


def _embedding(model: str, tokens: int, dim: int, vocabulary: int = 30522) -> list[KernelCase]:
    def make(rng: np.random.Generator) -> Arguments:
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

    def make_backward(rng: np.random.Generator) -> Arguments:
        dy, ids = normal(rng, tokens, dim), rng.integers(0, vocabulary, tokens, dtype=np.int64)
        return {"dy": dy, "input_ids": ids, "num_embeddings": vocabulary}

    shape, moved = f"{model} {tokens}x{dim}", FLOAT * tokens * dim
    return [
        KernelCase("embedding", shape, make, 4 * moved, dim),
        KernelCase("embedding_backward", shape, make_backward, 3 * moved, tokens),
    ]


def _pooling(model: str, batch: int, seq: int, dim: int, mode: str, backward: bool = False) -> KernelCase:
    def make(rng: np.random.Generator) -> Arguments:
        dy = {"dy": normal(rng, batch, dim)} if backward else {}
        return {**dy, "x": normal(rng, batch * seq, dim), "cu_seqlens": cu_seqlens((seq,) * batch), "mode": mode}

    shape, moved = f"{model} {mode} {batch}x{seq}x{dim}", FLOAT * (batch * seq * dim + batch * dim)
    return KernelCase("pooling_backward" if backward else "pooling", shape, make, moved, seq)


def _scatter_rows(model: str, tokens: int, dim: int) -> KernelCase:
    def make(rng: np.random.Generator) -> Arguments:
        rows, into = rng.permutation(4 * tokens)[:tokens], normal(rng, 4 * tokens, dim)
        return {"x": normal(rng, tokens, dim), "rows": rows, "into": into}

    def own_rows(arguments: Arguments) -> Arguments:
        return arguments | {"into": arguments["into"].copy()}

    shape = f"{model} {tokens}x{dim}"
    return KernelCase("scatter_rows", shape, make, 2 * FLOAT * tokens * dim, 1, prepare=own_rows)


CASES = [
    *_embedding("BERT-base", 4096, 768),
    _scatter_rows("BERT-base", 4096, 768),
    _pooling("MiniLM", 32, 128, 384, "mean"),
    _pooling("MiniLM", 32, 128, 384, "max"),
    _pooling("MiniLM", 32, 128, 384, "mean", backward=True),
    _pooling("MiniLM", 32, 128, 384, "max", backward=True),
]
