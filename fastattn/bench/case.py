"""`KernelCase`, and helpers to build cases."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastattn.ragged import cu_seqlens

__all__ = ["FLOAT", "Arguments", "KernelCase", "cu_seqlens", "flat", "normal", "own_out", "pack_weight", "same"]

Arguments = dict[str, Any]
FLOAT = 4  # bytes of a float32


def same(arguments: Arguments) -> Arguments:
    return arguments


@dataclass(frozen=True)
class KernelCase:
    """One kernel at one shape.

    Attributes:
        kernel: the name of the function in both modules, e.g. `"layer_norm"` or `"layer_norm_backward"`.
        shape_name: the model or layer that has this shape, and the shape.
        make: makes the arguments (NumPy only) from a random generator.
        bytes: the minimum number of bytes that one call reads and writes.
        length: the number of terms in the longest sum of the kernel, for `tolerance`.
        flops: floating-point operations of one call; 0 if the kernel is bound by memory.
        prepare: converts `make`'s arguments for the compiled kernel: weights packed, an `out` of its own.
        writes: the arguments that a kernel without a result writes; `ours` and `reference` return them.
    """

    kernel: str
    shape_name: str
    make: Callable[[np.random.Generator], Arguments]
    bytes: int
    length: int
    flops: int = 0
    prepare: Callable[[Arguments], Arguments] = same
    writes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Kernel and shape in one string, e.g. `"linear BERT-base feed-forward 128x768x3072"`."""
        return f"{self.kernel} {self.shape_name}"

    @property
    def ours(self) -> Callable[..., Any]:
        """The compiled kernel."""
        return self._function("fastattn.kernels")

    @property
    def reference(self) -> Callable[..., Any]:
        """The same function in plain NumPy."""
        return self._function("fastattn.reference")

    def _function(self, module: str) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(importlib.import_module(module), self.kernel)
        if not self.writes:
            return function

        def and_return(**arguments: Any) -> Any:
            function(**arguments)
            return tuple(arguments[name] for name in self.writes)

        return and_return

    def tolerance(self, expected: np.ndarray | float) -> float:
        """How far apart two float32 results may be: 8 * eps * sqrt(length) * max|expected| + the smallest normal."""
        values = np.asarray(expected)
        largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
        info = np.finfo(np.float32)
        return 8.0 * float(info.eps) * math.sqrt(self.length) * largest + float(info.tiny)


def normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    values: np.ndarray = rng.standard_normal(shape, dtype=np.float32)
    values *= np.float32(scale)
    return values


def flat(result: Any) -> list[np.ndarray]:
    """The arrays of a kernel's result in order, including arrays in nested tuples, without None."""
    if isinstance(result, (tuple, list)):
        return [array for each in result for array in flat(each)]
    return [] if result is None else [np.asarray(result)]


def own_out(arguments: Arguments) -> Arguments:
    return {**arguments, "out": np.empty_like(arguments["out"])}


def pack_weight(arguments: Arguments) -> Arguments:
    from fastattn.kernels import PackedMatrix

    return {**arguments, "weight": PackedMatrix(arguments["weight"])}
