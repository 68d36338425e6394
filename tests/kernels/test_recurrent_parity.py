"""lstm and gru against torch on packed sequences: values within 1e-5, gradients by the rule of `assert_gradients`."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_heads import assert_gradients
from helpers_recurrent import TORCH_CASES, golden_case, make_case, named, split_gradients

from fastattn import kernels

torch = pytest.importorskip("torch", reason="torch, the other side of the parity tests, is not installed")

from helpers_recurrent_torch import torch_results  # noqa: E402 - imports torch

SIZES = [
    ((1,), 1, 2),
    ((30, 1, 17, 8, 22), 33, 64),
    (tuple(1 + i * 7 % 20 for i in range(32)), 20, 37),
]
"""lengths, I, H."""


@pytest.mark.parametrize("size", SIZES, ids=["tiny", "long", "batch"])
@pytest.mark.parametrize("name", TORCH_CASES)
def test_results_and_gradients(isa: str, threads: int, name: str, size: tuple[tuple[int, ...], int, int]) -> None:
    """Theirs are computed in float64: what cancels is rounding alone in float32."""
    options = TORCH_CASES[name]
    lengths, inputs, hidden = size
    if "projection" in options:
        options = {**options, "projection": max(1, hidden // 2)}
    case = make_case(lengths=lengths, inputs=inputs, hidden=hidden, **options)
    gradients = case.gradients()
    *results, reserve = case.forward(kernels, return_reserve=True)
    ours = split_gradients(named(case, results, case.backward(kernels, gradients, reserve)))
    theirs = split_gradients(torch_results(case, gradients))
    for key, values in theirs[0].items():
        np.testing.assert_allclose(ours[0][key], values, rtol=0, atol=1e-5, err_msg=key)
    assert_gradients(ours[1], theirs[1])


@pytest.mark.parametrize("name", TORCH_CASES)
def test_the_golden_file_is_theirs(name: str) -> None:
    """So that a changed case is noticed where torch is."""
    from test_recurrent_golden import GOLDEN

    with np.load(GOLDEN) as golden:
        for key, values in torch_results(*golden_case(name)).items():
            np.testing.assert_allclose(golden[f"{name}/{key}"], values, rtol=1e-5, atol=1e-6)
