"""What training alone calls: the loss, optimizers and the norm of gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .case import FLOAT, Arguments, KernelCase, normal, own_out, same


def _make_cross_entropy(rows: int, classes: int, backward: bool, rng: np.random.Generator) -> Arguments:
    logits, target = normal(rng, rows, classes), rng.integers(0, classes, rows, dtype=np.int64)
    if not backward:
        return {"logits": logits, "target": target}
    lse = np.log(np.exp(logits).sum(axis=-1, dtype=np.float64))
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


CASES = [
    _cross_entropy("BERT-base vocabulary", 128, 30522, backward=False),
    _cross_entropy("BERT-base vocabulary", 128, 30522, backward=True),
    _optimizer("adamw", "BERT-base", (768, 3072), "param grad exp_avg exp_avg_sq", step=10, lr=1e-4),
    _optimizer("sgd", "BERT-base", (768, 3072), "param grad momentum_buffer", lr=1e-4, momentum=0.9),
    _gradient_norm("BERT-base layer", 12, 768),
]
