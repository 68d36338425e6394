"""scaled_dot_product_attention: batch x heads x seq x dim, and ragged."""

from __future__ import annotations

from functools import partial

import numpy as np

from .case import FLOAT, Arguments, KernelCase, cu_seqlens, normal


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


def _make_attention_backward(batch: int, heads: int, seq: int, dim: int, rng: np.random.Generator) -> Arguments:
    from fastattn import reference

    dout, q, k, v = (normal(rng, batch, heads, seq, dim) for _ in range(4))
    out, lse = reference.scaled_dot_product_attention(q, k, v, return_softmax_lse=True)
    return {"dout": dout, "q": q, "k": k, "v": v, "out": out, "softmax_lse": lse}


def _attention_backward(model: str, batch: int, heads: int, seq: int, dim: int) -> KernelCase:
    return KernelCase(
        kernel="scaled_dot_product_attention_backward",
        shape_name=f"{model} {batch}x{heads}x{seq}x{dim}",
        make=partial(_make_attention_backward, batch, heads, seq, dim),
        flops=10 * batch * heads * seq * seq * dim,
        bytes=FLOAT * 8 * batch * heads * seq * dim,
        length=seq + dim,
    )


CASES = [
    _attention("BERT-base", 1, 12, 128, 64),
    _attention("BERT-base", 1, 12, 512, 64),
    _attention("BERT-base", 1, 12, 2048, 64),
    _ragged_attention("MiniLM", (8, 12, 15, 20, 24, 33, 47, 97), 12, 32),
    _attention_backward("BERT-base", 1, 12, 512, 64),
]
