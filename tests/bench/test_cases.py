"""The benchmark cases, which `fastattn bench` and benchmarks/ share."""

from __future__ import annotations

import numpy as np
import pytest

import fastattn
from fastattn.bench import flat, kernel_cases


def test_every_kernel_has_a_case_and_every_name_is_its_own():
    names = [case.name for case in kernel_cases()]
    assert len(set(names)) == len(names)
    cases = {case.kernel for case in kernel_cases()}
    assert cases == {name for name in fastattn.kernels.__all__ if name.islower()}


def arrays(argument):
    """What an argument holds; of the reserve of a recurrent layer what it keeps."""
    return flat(getattr(argument, "kept", argument))


@pytest.mark.parametrize("case", kernel_cases(), ids=lambda case: case.name)
def test_cases_are_reproducible_and_do_not_share_outputs(case):
    first, second = case.make(np.random.default_rng(0)), case.make(np.random.default_rng(0))
    assert first.keys() == second.keys()
    for name in first.keys() - {"out"}:
        for one, other in zip(arrays(first[name]), arrays(second[name]), strict=True):
            np.testing.assert_array_equal(one, other)
    if "out" in first and case.kernel != "scaled_dot_product_attention_backward":  # there it is an input
        assert case.prepare(first)["out"] is not first["out"]
