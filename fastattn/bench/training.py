"""Kernels that only training calls: the loss, the optimizers and the gradient norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastattn import reference

from .case import FLOAT, Arguments, KernelCase, normal, own_out, same


def _cross_entropy(model: str, rows: int, classes: int, backward: bool) -> KernelCase:
    def make(rng: np.random.Generator) -> Arguments:
        logits, target = normal(rng, rows, classes), rng.integers(0, classes, rows, dtype=np.int64)
        if not backward:
            return {"logits": logits, "target": target}
        lse = np.log(np.exp(logits).sum(axis=-1, dtype=np.float64))
        dloss, out = np.full(rows, 1 / rows, np.float32), np.empty_like(logits)
        return {"dloss": dloss, "logits": logits, "target": target, "lse": lse, "out": out}

    kernel, prepare = ("cross_entropy_backward", own_out) if backward else ("cross_entropy", same)
    moved = FLOAT * (1 + backward) * rows * classes
    return KernelCase(kernel, f"{model} {rows}x{classes}", make, moved, classes, prepare=prepare)


def _crf(function: str, model: str, batch: int, length: int, num_tags: int) -> KernelCase:
    """`crf` or its backward pass, or `crf_viterbi`, for sentences of one length."""

    def make(rng: np.random.Generator) -> Arguments:
        cu_seqlens = np.arange(batch + 1, dtype=np.int32) * np.int32(length)
        given = {"emissions": normal(rng, batch * length, num_tags), "cu_seqlens": cu_seqlens}
        given |= {"transitions": normal(rng, num_tags, num_tags)}
        given |= {name: normal(rng, num_tags) for name in ("start_transitions", "end_transitions")}
        if function != "crf_viterbi":
            given["tags"] = rng.integers(0, num_tags, batch * length, dtype=np.int64)
        if function == "crf_backward":
            given["log_likelihood"], given["alpha"] = reference.crf(**given)
            given["dlog_likelihood"] = np.ones(batch, np.float32)
        return given

    moved = FLOAT * 2 * batch * length * num_tags
    return KernelCase(function, f"{model} {batch}x{length}x{num_tags}", make, moved, length * num_tags)


def _optimizer(kernel: str, model: str, shape: tuple[int, int], names: str, **options: Any) -> KernelCase:
    """One step. `names` are its arrays; all except grad are written."""
    writes = tuple(name for name in names.split() if name != "grad")

    def make(rng: np.random.Generator) -> Arguments:
        arrays = {name: normal(rng, *shape) for name in names.split()}
        if "exp_avg_sq" in arrays:
            np.square(arrays["exp_avg_sq"], out=arrays["exp_avg_sq"])
        return arrays | options

    def copy_written(arguments: Arguments) -> Arguments:
        return arguments | {name: arguments[name].copy() for name in writes}

    moved = FLOAT * (1 + 2 * len(writes)) * shape[0] * shape[1]
    shape_name = f"{model} {shape[0]}x{shape[1]}"
    return KernelCase(kernel, shape_name, make, moved, 1, prepare=copy_written, writes=writes)


def _gradient_norm(model: str, count: int, dim: int) -> KernelCase:
    def make(rng: np.random.Generator) -> Arguments:
        return {"gradients": [normal(rng, dim, dim) for _ in range(count)]}

    return KernelCase("gradient_norm", f"{model} {count}x{dim}x{dim}", make, FLOAT * count * dim * dim, 1)


CASES = [
    _cross_entropy("BERT-base vocabulary", 128, 30522, backward=False),
    _cross_entropy("BERT-base vocabulary", 128, 30522, backward=True),
    *(_crf(function, "ud_ewt", 32, 25, 17) for function in ("crf", "crf_backward", "crf_viterbi")),
    _optimizer("adamw", "BERT-base", (768, 3072), "param grad exp_avg exp_avg_sq", step=10, lr=1e-4),
    _optimizer("sgd", "BERT-base", (768, 3072), "param grad momentum_buffer", lr=1e-4, momentum=0.9),
    _gradient_norm("BERT-base layer", 12, 768),
]
