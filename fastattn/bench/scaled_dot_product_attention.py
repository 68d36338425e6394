"""scaled_dot_product_attention: batch x heads x seq x dim, and ragged."""

from __future__ import annotations

import numpy as np

from .case import FLOAT, Arguments, KernelCase, cu_seqlens, normal

KERNEL = "scaled_dot_product_attention"


def _attention(
    model: str,
    batch: int,
    heads: int,
    seq: int,
    dim: int,
    backward: bool = False,
    *,
    window: tuple[int, int] | None = None,
    max_distance: int | None = None,
) -> KernelCase:
    def make(rng: np.random.Generator) -> Arguments:
        arguments: Arguments = {name: normal(rng, batch, heads, seq, dim) for name in ("q", "k", "v")}
        if window:
            arguments["window"] = window
        if max_distance is not None:
            arguments["position_bias"] = normal(rng, 2 * max_distance + 1, heads)
        return arguments

    def make_backward(rng: np.random.Generator) -> Arguments:
        from fastattn import reference

        dout, arguments = normal(rng, batch, heads, seq, dim), make(rng)
        out, lse = reference.scaled_dot_product_attention(**arguments, return_softmax_lse=True)
        return {"dout": dout, **arguments, "out": out, "softmax_lse": lse}

    left, right = window or (seq, seq)
    pairs = batch * heads * sum(min(i + right, seq - 1) - max(i - left, 0) + 1 for i in range(seq))
    extras = f" window {left}+{right}" if window else "" if max_distance is None else f" bias {max_distance}"
    shape, size, length = f"{model} {batch}x{heads}x{seq}x{dim}{extras}", batch * heads * seq * dim, seq + dim
    if backward:
        name = f"{KERNEL}_backward"
        return KernelCase(name, shape, make_backward, FLOAT * 8 * size, length, flops=10 * pairs * dim)
    return KernelCase(KERNEL, shape, make, FLOAT * 4 * size, length, flops=4 * pairs * dim)


def _ragged_attention(model: str, lengths: tuple[int, ...], heads: int, dim: int) -> KernelCase:
    tokens = sum(lengths)

    def make(rng: np.random.Generator) -> Arguments:
        qkv = normal(rng, tokens, 3, heads, dim)  # views of one fused projection, as the models pass them
        return {"q": qkv[:, 0], "k": qkv[:, 1], "v": qkv[:, 2], "cu_seqlens_q": cu_seqlens(lengths)}

    shape = f"{model} ragged {min(lengths)}..{max(lengths)} {tokens}x{heads}x{dim}"
    flops = 4 * heads * dim * sum(n * n for n in lengths)
    return KernelCase(KERNEL, shape, make, FLOAT * 4 * tokens * heads * dim, max(lengths) + dim, flops=flops)


CASES = [
    _attention("BERT-base", 1, 12, 128, 64),
    _attention("BERT-base", 1, 12, 512, 64),
    _attention("BERT-base", 1, 12, 2048, 64),
    _ragged_attention("MiniLM", (8, 12, 15, 20, 24, 33, 47, 97), 12, 32),
    _attention("ModernBERT-base", 1, 12, 2048, 64, window=(64, 64)),
    _attention("MPNet-base", 1, 12, 512, 64, max_distance=128),
    _attention("BERT-base", 1, 12, 512, 64, backward=True),
    _attention("ModernBERT-base", 1, 12, 2048, 64, backward=True, window=(64, 64)),
    _attention("MPNet-base", 1, 12, 512, 64, backward=True, max_distance=128),
]
