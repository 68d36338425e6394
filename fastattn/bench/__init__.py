"""The kernel cases of `fastattn bench` and `benchmarks/`: one list, so that both time the same work.

A case names a kernel. `fastattn.kernels` and `fastattn.reference` have a function of that name each, and both get the
arguments from `make`, so a case can favour neither:

    case = kernel_cases("linear")[0]
    arguments = case.make(np.random.default_rng(0))
    expected = case.reference(**arguments)                 # plain NumPy
    actual = case.ours(**case.prepare(arguments))          # weights packed, as the models hold them

To add a case, add a line to `CASES` in the kernel's file. Every function of `fastattn.kernels` must have a case.
"""

from __future__ import annotations

from . import char_cnn, embedding, linear, recurrent, rows, scaled_dot_product_attention, training
from .case import KernelCase, flat

__all__ = ["KernelCase", "flat", "kernel_cases"]

_FILES = (linear, scaled_dot_product_attention, rows, embedding, recurrent, char_cnn, training)


def kernel_cases(contains: str | None = None) -> list[KernelCase]:
    """All cases, or the cases whose name contains `contains` (case-insensitive), in a fixed order.

    >>> [case.shape_name for case in kernel_cases("gelu tanh")]
    ['tanh BERT-base 4096x3072']
    """
    cases = [case for file in _FILES for case in file.CASES]
    return [case for case in cases if contains is None or contains.lower() in case.name.lower()]
