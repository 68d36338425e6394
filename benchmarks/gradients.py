"""Kernels as a training step calls them, forward and backward, against NumPy and PyTorch's autograd.

Part of `python -m benchmarks kernels`. Results and gradients are new arrays for everyone, as autograd's are.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .measure import Contender
from .worker import Job

Arrays = dict[str, Any]
FLOAT = 4  # bytes of a float32


def attention(ops: Any, dy: Any, q: Any, k: Any, v: Any) -> tuple[Any, ...]:
    out, lse = ops.scaled_dot_product_attention(q, k, v, return_softmax_lse=True)
    return (out, *ops.scaled_dot_product_attention_backward(dy, q, k, v, out, lse))


def layer_norm(ops: Any, dy: Any, x: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
    y, mean, rstd = ops.layer_norm(x, weight, bias, return_stats=True)
    return (y, *ops.layer_norm_backward(dy, x, weight, mean, rstd))


def gelu(ops: Any, dy: Any, x: Any) -> tuple[Any, ...]:
    return ops.gelu(x), ops.gelu_backward(dy, x)


def linear(ops: Any, dy: Any, x: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
    return (ops.linear(x, weight, bias), *ops.linear_backward(dy, x, weight))


# The same in PyTorch, forward only.
TORCH: dict[str, Callable[..., Any]] = {
    "scaled_dot_product_attention": lambda F, q, k, v: F.scaled_dot_product_attention(q, k, v),
    "layer_norm": lambda F, x, weight, bias: F.layer_norm(x, weight.shape, weight, bias),
    "gelu": lambda F, x: F.gelu(x),
    "linear": lambda F, x, weight, bias: F.linear(x, weight, bias),
}


@dataclass(frozen=True)
class Pair:
    """A kernel and its backward at one shape.

    Attributes:
        kernel: the stem of the kernel.
        shape_name: the model that has the shape, and the shape.
        run: forward and backward, of `fastattn.kernels` or `fastattn.reference`, the gradient dy and the inputs.
        shapes: of the inputs, in the order of `run` and of the gradients.
        output: the shape of the result.
        flops: of both together; None where memory is what counts.
    """

    kernel: str
    shape_name: str
    run: Callable[..., tuple[Any, ...]]
    shapes: dict[str, tuple[int, ...]]
    output: tuple[int, ...]
    flops: float | None = None

    @property
    def name(self) -> str:
        return f"{self.kernel} forward+backward {self.shape_name}"

    @property
    def bytes(self) -> int:
        """Read at least: every input twice and dy; written: the result and every gradient."""
        return FLOAT * (3 * sum(map(math.prod, self.shapes.values())) + 2 * math.prod(self.output))

    def make(self, rng: np.random.Generator) -> Arrays:
        """The inputs, and the gradient of the result as `dy`; a weight matrix is scaled as a model's."""
        arrays = {name: rng.standard_normal(shape, np.float32) for name, shape in self.shapes.items()}
        if arrays.get("weight", np.empty(0)).ndim == 2:
            arrays["weight"] *= np.float32(arrays["weight"].shape[1] ** -0.5)
        return {**arrays, "dy": rng.standard_normal(self.output, np.float32)}


def attention_pair(batch: int, heads: int, seq: int, dim: int) -> Pair:
    shape = (batch, heads, seq, dim)
    flops = 3.0 * 4 * batch * heads * seq * seq * dim
    name = f"BERT-base {batch}x{heads}x{seq}x{dim}"
    return Pair("scaled_dot_product_attention", name, attention, dict.fromkeys("qkv", shape), shape, flops)


PAIRS = [
    attention_pair(1, 12, 128, 64),
    attention_pair(1, 12, 512, 64),
    attention_pair(8, 12, 128, 64),
    Pair(
        "layer_norm",
        "BERT-base 4096x768",
        layer_norm,
        {"x": (4096, 768), "weight": (768,), "bias": (768,)},
        (4096, 768),
    ),
    Pair("gelu", "erf BERT-base 4096x3072", gelu, {"x": (4096, 3072)}, (4096, 3072)),
    Pair(
        "linear",
        "BERT-base feed-forward 1024x768x3072",
        linear,
        {"x": (1024, 768), "weight": (3072, 768), "bias": (3072,)},
        (1024, 3072),
        3.0 * 2 * 1024 * 768 * 3072,
    ),
]


def find(name: str) -> Pair:
    return next(pair for pair in PAIRS if pair.name == name)


def make_arguments(name: str) -> Arrays:
    """The same arguments for every contender."""
    return find(name).make(np.random.default_rng(0))


def numpy_job(module: str, case: str, threads: int) -> Job:
    """`module` is `fastattn.kernels` or `fastattn.reference`."""
    importlib.import_module("fastattn").set_num_threads(threads)
    importlib.import_module("fastattn._core").keep_memory()  # as the first backward() of a training process does
    ops, run, arguments = importlib.import_module(module), find(case).run, make_arguments(case)
    return lambda: run(ops, **arguments)


def torch_job(case: str, threads: int) -> Job:
    """PyTorch's function and autograd's gradients of it."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    pair = find(case)
    arguments = {name: torch.from_numpy(array) for name, array in make_arguments(case).items()}
    dy = arguments.pop("dy")
    inputs = [each.requires_grad_() for each in arguments.values()]
    forward, functional = TORCH[pair.kernel], torch.nn.functional

    def run() -> tuple[Any, ...]:
        y = forward(functional, **arguments)
        return tuple(each.detach().numpy() for each in (y, *torch.autograd.grad(y, inputs, dy)))

    return run


def contenders(name: str, options: argparse.Namespace) -> list[Contender]:
    shared = {"case": name, "threads": options.threads}
    entrants = [
        Contender(title, sys.executable, "benchmarks.gradients:numpy_job", {"module": module, **shared}, (title,))
        for title, module in (("fastattn", "fastattn.kernels"), ("numpy", "fastattn.reference"))
    ]
    if "torch" in options.rivals:
        function = "benchmarks.gradients:torch_job"
        entrants.append(Contender("torch", options.rivals_python, function, shared, ("torch",)))
    return entrants
