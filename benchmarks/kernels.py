"""Single kernels against NumPy and PyTorch: `python -m benchmarks kernels`.

The cases, and how each kernel is called, are those of `fastattn bench`, and the pairs of `benchmarks/gradients.py`.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from . import gradients
from .measure import Case, Contender, measure
from .report import Report, timing_report, write
from .worker import Job

TOLERANCE = 1e-3


def kernel_case(name: str) -> Any:
    cases = importlib.import_module("fastattn.bench").kernel_cases()
    return next(case for case in cases if case.name == name)


def make_arguments(name: str) -> dict[str, Any]:
    """The same arguments for every contender."""
    arguments: dict[str, Any] = kernel_case(name).make(np.random.default_rng(0))
    return arguments


def fastattn_job(case: str, threads: int) -> Job:
    """The compiled kernel, weights packed as the models hold them."""
    importlib.import_module("fastattn").set_num_threads(threads)
    kernel = kernel_case(case)
    function, arguments = kernel.ours, kernel.prepare(make_arguments(case))
    return lambda: function(**arguments)


def numpy_job(case: str, threads: int) -> Job:
    """The reference of the same name in plain NumPy."""
    function, arguments = kernel_case(case).reference, make_arguments(case)
    return lambda: function(**arguments)


def torch_job(kernel: str, arguments: str, threads: int) -> Job:
    """PyTorch's function for the kernel, in inference mode, into a ready output where it can."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    with np.load(arguments) as file:
        options = json.loads(str(file["options"]))
        tensors = {name: torch.from_numpy(file[name]) for name in file.files if name != "options"}
    function = getattr(TorchKernels(torch), kernel)(**tensors, **options)

    def run() -> Any:
        with torch.inference_mode():
            return function().numpy()

    return run


class TorchKernels:
    """One method per kernel that PyTorch has too: takes the kernel's arguments, returns what PyTorch is to do."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.functional = torch.nn.functional

    def linear(self, x: Any, weight: Any, bias: Any, activation: str | None = None) -> Any:
        if activation is not None:
            activate = getattr(self.functional, activation)
            return lambda: activate(self.functional.linear(x, weight, bias))
        out = self.torch.empty(x.shape[0], weight.shape[0])
        return lambda: self.torch.addmm(bias, x, weight.t(), out=out)

    def scaled_dot_product_attention(self, q: Any, k: Any, v: Any, cu_seqlens_q: Any = None) -> Any:
        attend = self.functional.scaled_dot_product_attention
        if cu_seqlens_q is None:
            return lambda: attend(q, k, v)
        bounds = cu_seqlens_q.tolist()
        spans = [slice(*pair) for pair in itertools.pairwise(bounds)]
        out = self.torch.empty_like(q)

        def ragged() -> Any:
            for span in spans:
                one = (tensor[span].transpose(0, 1).unsqueeze(0) for tensor in (q, k, v))
                out[span] = attend(*one)[0].transpose(0, 1)
            return out

        return ragged

    def layer_norm(self, x: Any, weight: Any, bias: Any, eps: float, out: Any) -> Any:
        stats = {name: self.torch.empty(x.shape[0], 1) for name in ("out1", "out2")}
        function = self.torch.ops.aten.native_layer_norm.out
        return lambda: function(x, list(weight.shape), weight, bias, eps, out0=out, **stats)[0]

    def gelu(self, x: Any, approximate: str, out: Any) -> Any:
        return lambda: self.torch.ops.aten.gelu.out(x, approximate=approximate, out=out)

    def softmax(self, x: Any, out: Any) -> Any:
        return lambda: self.torch.softmax(x, -1, out=out)

    def log_softmax(self, x: Any, out: Any) -> Any:
        return lambda: self.torch.log_softmax(x, -1, out=out)

    def l2_normalize(self, x: Any, out: Any) -> Any:
        return lambda: self.functional.normalize(x, dim=-1, out=out)

    def pooling(self, x: Any, cu_seqlens: Any, mode: str) -> Any:
        padded = x.unflatten(0, (len(cu_seqlens) - 1, -1))  # the cases' sequences are of equal length
        return lambda: padded.mean(1) if mode == "mean" else padded.amax(1)

    def embedding(
        self,
        input_ids: Any,
        weight: Any,
        position_ids: Any,
        position_weight: Any,
        token_type_ids: Any,
        token_type_weight: Any,
        norm_weight: Any,
        norm_bias: Any,
    ) -> Any:
        look_up = self.functional.embedding

        def run() -> Any:
            rows = look_up(input_ids, weight)
            rows += look_up(token_type_ids, token_type_weight)
            rows += look_up(position_ids, position_weight)
            return self.functional.layer_norm(rows, norm_weight.shape, norm_weight, norm_bias, 1e-12)

        return run


def contenders(name: str, options: argparse.Namespace, folder: Path) -> list[Contender]:
    shared = {"case": name, "threads": options.threads}
    here = sys.executable
    entrants = [
        Contender("fastattn", here, "benchmarks.kernels:fastattn_job", shared, ("fastattn",)),
        Contender("numpy", here, "benchmarks.kernels:numpy_job", shared, ("numpy",)),
    ]
    if "torch" in options.rivals and hasattr(TorchKernels, kernel_case(name).kernel):
        arguments = make_arguments(name)
        rest = {key: each for key, each in arguments.items() if not isinstance(each, np.ndarray)}
        arrays: dict[str, Any] = {key: each for key, each in arguments.items() if key not in rest}
        path = folder / "arguments.npz"
        np.savez(path, options=np.array(json.dumps(rest)), **arrays)
        for_torch = {"kernel": kernel_case(name).kernel, "arguments": str(path), "threads": options.threads}
        function = "benchmarks.kernels:torch_job"
        entrants.append(Contender("torch", options.rivals_python, function, for_torch, ("torch",)))
    return entrants


def main(options: argparse.Namespace) -> Report:
    cases = [*importlib.import_module("fastattn.bench").kernel_cases(), *gradients.PAIRS]
    wanted = [case for case in cases if not options.cases or any(part in case.name for part in options.cases)]
    if not wanted:
        raise SystemExit("\n  ".join(["no kernel case has such a name; there are:", *(c.name for c in cases)]))
    results = []
    for each in wanted:
        with tempfile.TemporaryDirectory() as folder:
            if each in gradients.PAIRS:
                entrants = gradients.contenders(each.name, options)
            else:
                entrants = contenders(each.name, options, Path(folder))
            case = Case(each.name, entrants, each.bytes / 1e9, "GB/s", TOLERANCE, each.flops or None)
            results.append(measure(case, options.threads, options.samples))
        report = timing_report("kernels", "Kernels", results, options.threads)
        write(report, options.json)
    return report
