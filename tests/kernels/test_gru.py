"""gru, gru_backward and gru_cell against the reference in float64."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, assert_same_bits
from helpers_recurrent import SHAPES, VARIANTS, Case, expected_backward, make_case, same_bits

from fastattn import kernels, reference


@cache
def example(lengths: Any, inputs: int, hidden: int, variant: str) -> tuple[Any, ...]:
    """A case, the gradients of its results, and what the reference makes of them."""
    case = make_case("gru", lengths, inputs, hidden, **VARIANTS[variant])
    gradients = case.gradients()
    return case, gradients, case.double().forward(reference), expected_backward(case, gradients)


@pytest.mark.parametrize("variant", VARIANTS)
def test_values_and_gradients(isa: str, threads: int, variant: str) -> None:
    large = [((2, 3), 5, 1030)] if variant == "forward" else []  # more than one depth block of the recurrent product
    for shape in SHAPES + large:
        case, gradients, expected, expected_gradients = example(*shape, variant)
        *results, reserve = case.forward(kernels, return_reserve=True)
        case.check_forward(results, expected)
        same_bits(case.forward(kernels), tuple(results))
        case.check_backward(case.backward(kernels, gradients, reserve), expected_gradients)


def test_the_calls_written_out(isa: str) -> None:
    """Every argument in its place, some by position and some by name."""
    case, (dout, dh_n), *_ = example((3, 0, 7, 1, 4), 9, 8, "both")
    x, cu_seqlens, weights, (h0,) = case.x, case.cu_seqlens, case.weights, case.states
    *results, reserve = kernels.gru(
        x, cu_seqlens, weights, h0, reverse=(False, True), return_reserve=True, recompute=False
    )
    same_bits(tuple(results), case.forward(kernels))
    gradients = kernels.gru_backward(
        dout, dh_n, x, cu_seqlens, weights, reserve, h0, reverse=[False, True],
        need_dx=True, need_dweights=True, dweights=None,
    )  # fmt: skip
    same_bits(gradients, case.both(kernels, (dout, dh_n)))


def test_one_bias_of_two(isa: str) -> None:
    """They are not the same: the second is multiplied by r."""
    for lengths, inputs, hidden in SHAPES[:3]:
        case = make_case("gru", lengths, inputs, hidden)
        gradients = case.gradients()
        own = case.weights[0]
        for weights in ((*own[:2], own[2], None), (*own[:2], None, own[3])):
            one = Case(**{**vars(case), "weights": [weights]})
            one.check_forward(one.forward(kernels), one.double().forward(reference))
            one.check_backward(one.both(kernels, gradients), expected_backward(one, gradients))


def test_gates_that_are_0_or_1(isa: str) -> None:
    """Sums far out, and infinite ones."""
    cu_seqlens, h0 = np.array([0, 1, 2], np.int32), np.full((1, 2, 1), 0.5, np.float32)
    for scale in (30.0, 1e4, 1e30, np.inf):
        x = np.array([[scale], [-scale]], np.float32)
        for signs in product((1, -1), repeat=3):
            weights = (np.array(signs, np.float32)[:, None], np.zeros((3, 1), np.float32), None, None)
            case = Case("gru", x, cu_seqlens, [weights], (h0,), {})
            for result, ideal in zip(case.forward(kernels), case.double().forward(reference), strict=True):
                assert_close(result, ideal, magnitude=1.0)
            if np.isfinite(scale):
                _, dweights, *_ = case.both(kernels, [np.ones((2, 1), np.float32), None])
                assert all(np.isfinite(g).all() for g in dweights[0] if g is not None)


def test_cell(isa: str, threads: int) -> None:
    """One step has the bits of the layer's, so a loop of cells has those of a call."""
    for batch, inputs, hidden in ((1, 1, 1), (2, 9, 7), (33, 5, 16), (5, 17, 33), (2, 3, 64)):
        case = make_case("gru", (3,) * batch, inputs, hidden)
        out, h_n = case.forward(kernels)
        h = case.states[0][0]
        weights = case.weights[0]
        packed = (kernels.PackedMatrix(weights[0]), kernels.PackedMatrix(weights[1], groups=3), *weights[2:])
        steps = case.x.reshape(batch, 3, inputs)
        for t in range(3):
            h = kernels.gru_cell(np.ascontiguousarray(steps[:, t]), h, *(packed if t == 1 else weights))
            assert_same_bits(h, out.reshape(batch, 3, -1)[:, t])
        assert_same_bits(h, h_n[0])


def test_a_cell_of_nothing(isa: str) -> None:
    case = make_case("gru", (1,), 5, 4)
    h = kernels.gru_cell(case.x[:0], np.zeros((0, 4), np.float32), *case.weights[0])
    assert h.shape == (0, 4)
