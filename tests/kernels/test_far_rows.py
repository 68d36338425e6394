"""Rows more than 2^32 elements apart: no offset fits into 32 bits. The memory is a file with holes, so only what is
touched takes room.

The calls run in a process of their own, because a wrong offset kills it. It writes the name of each before it begins.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from helpers import normal
from numpy.lib.stride_tricks import as_strided

from fastattn import kernels

APART = 2**31 + 64  # elements between two rows; the third row is beyond 2^32
ROWS, DIM = 3, 8
CU_SEQLENS = np.array([0, 1, ROWS], np.int32)


def test_rows_that_are_far_apart(tmp_path: Path) -> None:
    paths = "; ".join(f"sys.path.insert(0, {str(folder)!r})" for folder in Path(__file__).parents[:2])
    code = f"import sys; {paths}; import test_far_rows; test_far_rows.run({str(tmp_path / 'memory')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0, f"{last}: returned {done.returncode}: {done.stderr}"
    assert last == ["embedding_backward: dweight"]


def run(path: str) -> None:
    memory = np.memmap(path, np.float32, "w+", shape=((ROWS - 1) * APART + 4096,))
    for name, call, given, names in calls():
        wanted = flat(call(**given))
        for argument in names:
            print(f"{name}: {argument}", flush=True)
            array = given[argument]
            some = memory if array.dtype == np.float32 else memory.view(array.dtype)
            far = as_strided(some, array.shape, (APART * array.itemsize, *array.strides[1:]))
            far[...] = array
            for one, other in zip(flat(call(**given | {argument: far})), wanted, strict=True):
                np.testing.assert_array_equal(one, other)
    long_table(memory)


def calls() -> Iterator[tuple[str, Callable[..., Any], dict[str, Any], tuple[str, ...]]]:
    """Kernels, valid arguments, and the names of those whose rows need not be near each other."""
    rng = np.random.default_rng(1)
    x, dy, more = (normal(rng, ROWS, DIM) for _ in range(3))
    weight, wide, vector, both = (
        normal(rng, ROWS, DIM),
        normal(rng, 2 * DIM, DIM),
        normal(rng, DIM),
        normal(rng, 2 * DIM),
    )
    ids, p = np.array([2, 0, 1]), {"p": 0.5, "seed": 1}
    for name in ("softmax", "log_softmax"):
        yield name, getattr(kernels, name), {"x": x}, ("x",)
        yield name, getattr(kernels, f"{name}_backward"), {"dy": dy, "y": x}, ("dy", "y")
    for name, options in (("l2_normalize", {}), ("gelu", {}), ("activation", {"function": "silu"})):
        yield name, getattr(kernels, name), {"x": x, **options}, ("x",)
        yield f"{name}_backward", getattr(kernels, f"{name}_backward"), {"dy": dy, "x": x, **options}, ("dy", "x")
    yield "log_softmax_topk", kernels.log_softmax_topk, {"x": x, "k": 3}, ("x",)
    yield "dropout", kernels.dropout, {"x": x, "residual": more, **p}, ("x", "residual")
    yield "dropout_backward", kernels.dropout_backward, {"dy": dy, **p}, ("dy",)

    norm = {"x": x, "weight": vector, "residual": more}
    yield "layer_norm", kernels.layer_norm, norm, ("x", "residual")
    _, mean, rstd = kernels.layer_norm(**norm, return_stats=True)
    given = {**norm, "dy": dy, "mean": mean, "rstd": rstd}
    yield "layer_norm_backward", kernels.layer_norm_backward, given, ("dy", "x", "residual")

    for name, made in (("linear", weight), ("linear with a PackedMatrix", kernels.PackedMatrix(weight))):
        given = {"x": x, "weight": made, "residual": normal(rng, ROWS, ROWS)}
        yield name, kernels.linear, given, ("x", "residual") if made is not weight else ("x", "weight", "residual")
    square = {"dy": normal(rng, ROWS, ROWS), "x": x, "weight": weight, "pre_activation": normal(rng, ROWS, ROWS)}
    yield "linear_backward", kernels.linear_backward, {**square, "activation": "gelu"}, tuple(square)
    yield "PackedMatrix", lambda weight: kernels.PackedMatrix(weight).unpack(), {"weight": weight}, ("weight",)

    tables = {name: normal(rng, ROWS, DIM) for name in ("weight", "position_weight", "token_type_weight")}
    places = {"input_ids": ids, "position_ids": ids, "token_type_ids": ids}
    yield "embedding", kernels.embedding, {**tables, **places}, tuple(tables)
    given = {"dy": dy, "input_ids": ids, "num_embeddings": ROWS}
    yield "embedding_backward", kernels.embedding_backward, given, ("dy",)
    given = {"x": x, "rows": ids, "into": np.empty_like(x)}
    yield "scatter_rows", kernels.scatter_rows, given, ("x",)
    for mode in ("mean", "cls", "max", "last", "mean_sqrt_len", "weighted_mean"):
        given = {"x": x, "cu_seqlens": CU_SEQLENS, "mode": mode}
        yield f"pooling {mode}", kernels.pooling, given, ("x",)
        yield f"pooling_backward {mode}", kernels.pooling_backward, {**given, "dy": dy[:2]}, ("dy", "x")

    yield "cross_entropy", kernels.cross_entropy, {"logits": x, "target": ids}, ("logits",)
    given = {"dloss": vector[:ROWS], "logits": x, "target": ids, "lse": kernels.cross_entropy(x, ids)[1]}
    yield "cross_entropy_backward", kernels.cross_entropy_backward, given, ("logits",)

    scores = {"emissions": normal(rng, ROWS, 3), "cu_seqlens": CU_SEQLENS, "transitions": normal(rng, 3, 3)}
    scores |= {"start_transitions": vector[:3], "end_transitions": vector[3:6]}
    yield "crf_viterbi", kernels.crf_viterbi, {**scores, "n": 2}, ("emissions", "transitions")
    scores["tags"] = ids
    yield "crf", kernels.crf, scores, ("emissions", "transitions")
    given = {**scores, "dlog_likelihood": vector[:2]}
    given |= dict(zip(("log_likelihood", "alpha"), kernels.crf(**scores), strict=True))
    yield "crf_backward", kernels.crf_backward, given, ("emissions", "transitions")

    rows, halves = normal(rng, ROWS, 2 * DIM), {"activation": "silu"}
    yield "gated_activation", kernels.gated_activation, {"x": rows, **halves}, ("x",)
    yield "gated_activation_backward", kernels.gated_activation_backward, {"dy": dy, "x": rows, **halves}, ("dy", "x")
    turns = {"position_ids": ids, "table": normal(rng, ROWS, 4)}
    for name, first in (("rotary_embedding", "x"), ("rotary_embedding_backward", "dy")):
        yield name, getattr(kernels, name), {first: normal(rng, ROWS, 3, 2, 4), **turns}, (first, "table")

    given = {"x": x, "weight": wide, "bias": both}
    yield "highway", kernels.highway, given, ("x",)
    _, projection = kernels.highway(**given, return_projection=True)
    given = {"dy": dy, "x": x, "weight": wide, "projection": projection}
    yield "highway_backward", kernels.highway_backward, given, ("dy", "x")

    given = {"char_ids": ids[:, None] + np.zeros((1, 4), np.int64), "embedding": x}
    given |= {"weights": [normal(rng, DIM, 2, DIM)], "biases": [vector]}
    yield "char_cnn", kernels.char_cnn, given, ("embedding",)
    y, argmax = kernels.char_cnn(**given, return_argmax=True)
    given = {**given, "dy": dy, "y": y, "argmax": argmax}
    yield "char_cnn_backward", kernels.char_cnn_backward, given, ("embedding", "dy", "y")

    for name, gates in (("lstm", 4), ("gru", 3)):
        direction = (normal(rng, gates * DIM, DIM), normal(rng, gates * DIM, DIM), normal(rng, gates * DIM))
        last = (None,) if name == "lstm" else (direction[2],)
        given = {"x": x, "cu_seqlens": CU_SEQLENS, "weights": [(*direction, *last)]}
        yield name, getattr(kernels, name), given, ("x",)

    heads = {name: normal(rng, ROWS, 2, DIM) for name in "qkv"}
    yield from attention(heads, {"cu_seqlens_q": CU_SEQLENS}, "ragged")
    yield from attention({name: normal(rng, ROWS, 2, 4, DIM) for name in "qkv"}, {}, "padded")
    mask = rng.random((ROWS, 2, 4, 4), np.float32) < 0.5
    given = {name: normal(rng, ROWS, 2, 4, DIM) for name in "qkv"}
    for masks in (mask, mask.astype(np.float32)):
        yield "masked attention", kernels.scaled_dot_product_attention, {**given, "attn_mask": masks}, ("attn_mask",)


def attention(heads: dict[str, Any], options: dict[str, Any], name: str) -> Iterator[Any]:
    yield f"{name} attention", kernels.scaled_dot_product_attention, {**heads, **options}, tuple(heads)
    out, lse = kernels.scaled_dot_product_attention(**heads, **options, return_softmax_lse=True)
    given = {**heads, "out": out, "dout": np.roll(out, 1)}
    given |= {gradient: np.zeros_like(out) for gradient in ("dq", "dk", "dv")}
    yield (
        f"backward of {name} attention",
        kernels.scaled_dot_product_attention_backward,
        {**given, "softmax_lse": lse, **options},
        tuple(given),
    )


def long_table(memory: Any) -> None:
    """A table without gaps that has more than 2^32 elements."""
    rows = len(memory) // DIM
    table, ids = memory[: rows * DIM].reshape(rows, DIM), np.array([rows - 1, 0, rows // 2 + 1])
    print("embedding: weight", flush=True)
    table[ids] = wanted = normal(np.random.default_rng(2), 3, DIM)
    np.testing.assert_array_equal(kernels.embedding(ids, table), wanted)
    print("embedding_backward: dweight", flush=True)
    table[ids] = 0
    kernels.embedding_backward(wanted, ids, rows, dweight=table)
    np.testing.assert_array_equal(table[ids], wanted)


def flat(results: Any) -> list[Any]:
    """The arrays of a result, copied."""
    if isinstance(results, np.ndarray):
        return [results.copy()]
    return [array for result in results or () for array in flat(result)]
