"""The kernel cases of `fastattn bench` and of `benchmarks/`: one list, so that both time the same work.

A case names a kernel. The same name in `fastattn.kernels` and in `fastattn.reference` gives the two contenders, and
`make` gives the arguments of both, so a case can favour neither:

    case = kernel_cases("linear")[0]
    arguments = case.make(np.random.default_rng(0))
    expected = case.reference(**arguments)                 # plain NumPy
    actual = case.ours(**case.prepare(arguments))          # weights packed, as the models hold them

To add a case, add a line to `CASES` in the file of its kernel. Every function of `fastattn.kernels` must have one.
"""

from __future__ import annotations

from . import char_cnn, embedding, linear, recurrent, rows, scaled_dot_product_attention, training
from .case import KernelCase, flat

__all__ = ["KernelCase", "flat", "kernel_cases"]

_FILES = (linear, scaled_dot_product_attention, rows, embedding, recurrent, char_cnn, training)


def kernel_cases(contains: str | None = None) -> list[KernelCase]:
    """All cases, or those whose name contains `contains` (upper and lower case alike), in a fixed order.

    >>> [case.shape_name for case in kernel_cases("gelu tanh")]
    ['tanh BERT-base 4096x3072']
    """
    cases = [case for file in _FILES for case in file.CASES]
    return [case for case in cases if contains is None or contains.lower() in case.name.lower()]
