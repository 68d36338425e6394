"""Queries, keys and values for the attention tests, and the reference's answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from helpers import assert_close, cumulative, double, normal

from fastattn import reference

HEAD_DIMS = (1, 3, 8, 17, 32, 64, 80, 96, 128, 255, 256)


def ragged(
    lengths_q: Sequence[int], lengths_k: Sequence[int] | None, heads: int, dim: int, seed: int = 1
) -> dict[str, Any]:
    """q, k, v and cu_seqlens; with the queries' lengths (`lengths_k` None) views of one fused projection."""
    rng = np.random.default_rng(seed)
    if lengths_k is None:
        fused = normal(rng, sum(lengths_q), 3, heads, dim)
        return {**dict(zip("qkv", fused.swapaxes(0, 1), strict=True)), "cu_seqlens_q": cumulative(lengths_q)}
    return {
        "q": normal(rng, sum(lengths_q), heads, dim),
        "k": normal(rng, sum(lengths_k), heads, dim),
        "v": normal(rng, sum(lengths_k), heads, dim),
        "cu_seqlens_q": cumulative(lengths_q),
        "cu_seqlens_k": cumulative(lengths_k),
    }


def padded(batch: int, heads: int, seq_q: int, seq_k: int, dim: int, seed: int = 1) -> dict[str, Any]:
    """q, k, v."""
    rng = np.random.default_rng(seed)
    return {name: normal(rng, batch, heads, n, dim) for name, n in (("q", seq_q), ("k", seq_k), ("v", seq_k))}


def in_float64(options: dict[str, Any]) -> dict[str, Any]:
    """Options for the reference: an additive mask and a bias in float64."""
    floats = {name: options.get(name) for name in ("attn_mask", "position_bias")}
    return options | {name: double(a) for name, a in floats.items() if a is not None and a.dtype != np.bool_}


def exact(given: dict[str, Any], **options: Any) -> tuple[Any, Any, Any]:
    """Output, softmax_lse and attn_weights in float64."""
    floats = {name: double(given[name]) for name in "qkv"}
    result: tuple[Any, Any, Any] = reference.scaled_dot_product_attention(
        **given | floats, **in_float64(options), return_softmax_lse=True, return_attn_weights=True
    )
    return result


def usual_score(given: dict[str, Any], softmax_scale: float | None = None, **_: Any) -> float:
    """The root mean square of all scores: a single one, and with it the lse, may be small by chance."""
    if 0 in given["q"].shape or 0 in given["k"].shape:
        return 0.0
    q, k = (float(np.sqrt(np.mean(np.square(double(given[name]))))) for name in "qk")
    dim = given["q"].shape[-1]
    return q * k * (1.0 if softmax_scale is None else softmax_scale * dim**0.5)


def check_all(actual: tuple[Any, Any, Any], given: dict[str, Any], **options: Any) -> None:
    """Output, softmax_lse and attn_weights against the reference's."""
    expected = exact(given, **options)
    # a score is a sum of `dim` products, and exp turns its error into a relative one of the softmax
    length = given["q"].shape[-1] + given["k"].shape[-2 if given["k"].ndim == 4 else 0]
    for got, ideal, usual in zip(actual, expected, (0.0, usual_score(given, **options), 0.0), strict=True):
        assert_close(got, ideal, length, magnitude=usual)


def one_by_one(given: dict[str, Any], i: int) -> dict[str, Any]:
    """Sequence `i` of ragged arguments, alone."""
    cu_q = given["cu_seqlens_q"]
    cu_k = given.get("cu_seqlens_k", cu_q)
    q, k = (slice(cu[i], cu[i + 1]) for cu in (cu_q, cu_k))
    return {
        "q": given["q"][q],
        "k": given["k"][k],
        "v": given["v"][k],
        "cu_seqlens_q": cumulative((q.stop - q.start,)),
        "cu_seqlens_k": cumulative((k.stop - k.start,)),
    }
