"""lstm and gru, kernels and reference, against what torch computed once (tests/data/make_golden_recurrent.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_heads import assert_gradients
from helpers_recurrent import TORCH_CASES, Case, golden_case, named, split_gradients

from fastattn import kernels, reference

GOLDEN = Path(__file__).parent.parent / "data" / "recurrent.npz"


def check(name: str, case: Case, gradients: Any, module: Any) -> None:
    with np.load(GOLDEN) as golden:
        arrays = {key.removeprefix(f"{name}/"): golden[key] for key in golden.files if key.startswith(f"{name}/")}
    *results, reserve = case.forward(module, return_reserve=True)
    ours = split_gradients(named(case, results, case.backward(module, gradients, reserve)))
    theirs = split_gradients(arrays)
    assert set(ours[0]) == set(theirs[0])
    for key, values in theirs[0].items():
        np.testing.assert_allclose(ours[0][key], values, rtol=0, atol=1e-6, err_msg=key)
    assert_gradients(ours[1], theirs[1])


@pytest.mark.parametrize("name", TORCH_CASES)
def test_kernels(isa: str, threads: int, name: str) -> None:
    case, gradients = golden_case(name)
    check(name, case, gradients, kernels)


@pytest.mark.parametrize("name", TORCH_CASES)
def test_reference(name: str) -> None:
    case, gradients = golden_case(name)
    check(name, case.double(), [g.astype(np.float64) for g in gradients], reference)
