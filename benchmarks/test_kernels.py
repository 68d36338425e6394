"""Every kernel against good NumPy, by pytest-benchmark: ``python -m pytest benchmarks/test_kernels.py``.

The shapes are those of ``fastattn bench`` (fastattn/bench/), so that a new case is timed by both.
A case is verified before it is timed. ``--benchmark-columns=median,iqr,rounds`` keeps the table narrow, ``-k
layer_norm`` picks a kernel, ``--benchmark-json=FILE`` writes what was measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastattn
from fastattn.bench import KernelCase, flat, kernel_cases

CASES = pytest.mark.parametrize("case", kernel_cases(), ids=lambda case: case.name)


def describe(benchmark: Any, case: KernelCase) -> None:
    """What the table and the JSON say about a case."""
    benchmark.group = case.name
    benchmark.extra_info.update(
        kernel=case.kernel,
        shape=case.shape_name,
        flops=case.flops,
        bytes=case.bytes,
        isa=fastattn.isa(),
        threads=fastattn.num_threads(),
        numpy=np.__version__,
    )


@CASES
def test_fastattn(benchmark: Any, case: KernelCase) -> None:
    arguments = case.make(np.random.default_rng(0))
    prepared = case.prepare(arguments)
    expected = flat(case.reference(**arguments))
    for ours, theirs in zip(flat(case.ours(**prepared)), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=case.tolerance(theirs))
    describe(benchmark, case)
    benchmark(case.ours, **prepared)


@CASES
def test_numpy(benchmark: Any, case: KernelCase) -> None:
    arguments = case.make(np.random.default_rng(0))
    describe(benchmark, case)
    benchmark(case.reference, **arguments)
