"""lstm, lstm_backward and lstm_cell against the reference in float64."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, assert_same_bits, double, normal
from helpers_recurrent import (
    SHAPES,
    VARIANTS,
    Case,
    by_hand,
    expected_backward,
    make_case,
    same_bits,
)

from fastattn import kernels, reference

PROJECTED = [
    ((1,), 1, 1, 1),
    ((2, 5), 3, 7, 5),
    ((3, 0, 7, 1, 4), 9, 17, 8),
    ((4, 4, 1), 5, 33, 15),
    ((2, 3, 1, 0, 5), 17, 64, 17),
    ((3, 2), 5, 40, 33),
    ((2, 3), 5, 6, 1100),  # more than one depth block of the recurrent product,
    ((2, 3), 5, 1100, 6),  # and of the projection
    ((2,) * 140, 5, 20, 9),
]
"""lengths, I, H, P."""
CLIPS = {
    "neither": {},
    "cell_clip": {"cell_clip": 0.7},
    "proj_clip": {"proj_clip": 0.3},
    "both": {"cell_clip": 0.7, "proj_clip": 0.3},
}
MARGIN = 2e-5
"""No value may be so near to a clip that float32 rounds it to the other side, where the gradient is another."""


@cache
def example(lengths: Any, inputs: int, hidden: int, projection: int, variant: str, clips: str) -> tuple[Any, ...]:
    """A case, the gradients of its results, and what the reference makes of them."""
    for seed in range(9):
        case = make_case(
            "lstm", lengths, inputs, hidden, projection=projection, seed=seed, **VARIANTS[variant], **CLIPS[clips]
        )
        if clips == "neither" or by_hand(case)[1] > MARGIN:
            break
    else:
        raise AssertionError("a value is near to a clip with every seed")
    gradients = case.gradients()
    return case, gradients, case.double().forward(reference), expected_backward(case, gradients)


def check(case: Case, gradients: Any, expected: Any, expected_gradients: Any) -> None:
    *results, reserve = case.forward(kernels, return_reserve=True)
    case.check_forward(results, expected)
    same_bits(case.forward(kernels), tuple(results))
    case.check_backward(case.backward(kernels, gradients, reserve), expected_gradients)


@pytest.mark.parametrize("shape", PROJECTED, ids=str)
@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_a_residual_is_added_to_out_alone(shape: Any, projected: bool, packed: bool, isa: str) -> None:
    lengths, inputs, hidden, projection = shape
    case = make_case("lstm", lengths, inputs, hidden, directions=2, projection=projection if projected else 0)
    out, *states = case.forward(kernels)
    wide = normal(np.random.default_rng(2), len(out), out.shape[1] + 3)
    if packed:
        weights = [(w[0], kernels.PackedMatrix(w[1], 4), *w[2:]) for w in case.weights]
        case = replace(case, weights=weights)
    for residual in (wide[:, : out.shape[1]], np.ascontiguousarray(wide[:, 3:])):
        found, *others = case.forward(kernels, residual=residual)
        assert_same_bits(found, out + residual)
        for ours, theirs in zip(others, states, strict=True):
            assert_same_bits(ours, theirs)


def test_a_residual_has_the_shape_of_out() -> None:
    case = make_case("lstm")
    with pytest.raises(ValueError, match="lstm: residual must have shape"):
        case.forward(kernels, residual=np.zeros((len(case.x), 5), np.float32))
    with pytest.raises(TypeError, match="lstm: residual must be float32"):
        case.forward(kernels, residual=np.zeros((len(case.x), 4)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_values_and_gradients(isa: str, threads: int, variant: str) -> None:
    for shape in SHAPES:
        check(*example(*shape, 0, variant, "neither"))


@pytest.mark.parametrize("variant", ["forward", "reversed", "both", "separate", "from 0"])
def test_projection(isa: str, threads: int, variant: str) -> None:
    for shape in PROJECTED:
        check(*example(*shape, variant, "neither"))


@pytest.mark.parametrize(("clips", "projection"), [("cell_clip", 0), *product(list(CLIPS)[1:], (5, 17))], ids=str)
def test_clips(isa: str, threads: int, clips: str, projection: int) -> None:
    for lengths, inputs, hidden in (((2, 5), 3, 7), ((3, 0, 7, 1, 4), 9, 17), ((4, 1), 5, 33)):
        case, *expected = example(lengths, inputs, hidden, projection, "both", clips)
        out, _, c_n = case.forward(kernels)
        if "cell_clip" in case.options:
            read = np.diff(case.cu_seqlens) > 0
            assert np.abs(c_n[:, read]).max() == np.float32(case.options["cell_clip"])
        if "proj_clip" in case.options:
            assert np.abs(out).max() == np.float32(case.options["proj_clip"])
        check(case, *expected)


def test_what_is_clipped_has_no_gradient_even_if_it_is_nan(isa: str) -> None:
    x, cu_seqlens = np.ones((1, 1), np.float32), np.array([0, 1], np.int32)
    weights = [(np.zeros((16, 1), np.float32), np.zeros((16, 2), np.float32), None, np.ones((2, 4), np.float32))]
    c0 = np.array([[[10, 0, -10, 0.1]]], np.float32)  # a step halves it; the first and the third are clipped
    options: dict[str, Any] = {"c0": c0, "reverse": (False,), "cell_clip": 1.0}
    *_, reserve = kernels.lstm(x, cu_seqlens, weights, **options, return_reserve=True)
    dc_n = np.full((1, 1, 4), np.nan, np.float32)
    *_, dc0 = kernels.lstm_backward(None, None, dc_n, x, cu_seqlens, weights, reserve, **options)
    np.testing.assert_array_equal(dc0[0, 0], [0, np.nan, 0, np.nan])


def test_the_calls_written_out(isa: str) -> None:
    """Every argument in its place, some by position and some by name."""
    case, (dout, dh_n, dc_n), *_ = example((3, 0, 7, 1, 4), 9, 17, 8, "both", "both")
    x, cu_seqlens, weights, (h0, c0) = case.x, case.cu_seqlens, case.weights, case.states
    clips = {"cell_clip": 0.7, "proj_clip": 0.3}
    *results, reserve = kernels.lstm(
        x, cu_seqlens, weights, h0, c0, reverse=(False, True), return_reserve=True, recompute=False, **clips
    )
    same_bits(tuple(results), case.forward(kernels))
    gradients = kernels.lstm_backward(
        dout, dh_n, dc_n, x, cu_seqlens, weights, reserve, h0, c0, reverse=[False, True],
        need_dx=True, need_dweights=True, dweights=None, **clips,
    )  # fmt: skip
    same_bits(gradients, case.both(kernels, (dout, dh_n, dc_n)))


def test_a_clip_that_clips_nothing_changes_no_bit(isa: str) -> None:
    case, gradients, *_ = example((3, 0, 7, 1, 4), 9, 17, 8, "both", "neither")
    wide = Case(**{**vars(case), "options": {"cell_clip": 1e4, "proj_clip": 1e4}})
    same_bits(wide.forward(kernels), case.forward(kernels))
    same_bits(wide.both(kernels, gradients), case.both(kernels, gradients))


def test_clipped_passes_no_gradient(isa: str) -> None:
    """With everything clipped only o has a gradient, or with a clipped projection nothing at all."""
    case = make_case("lstm", (3, 2), 5, 9, projection=4)
    for name, clip in (("cell_clip", 1e-6), ("proj_clip", 1e-6)):
        clipped = Case(**{**vars(case), "options": {name: clip}})
        assert np.abs(clipped.forward(kernels)[0 if name == "proj_clip" else 2]).max() == np.float32(clip)
        dx, dweights, dh0, dc0 = clipped.both(kernels, [case.gradients()[0], None, None])
        assert not dc0.any()
        if name == "proj_clip":
            assert not any(a.any() for a in (dx, dh0, *dweights[0]))
        else:
            assert not dweights[0][2][:27].any()
            assert dweights[0][2][27:].all()


def test_gates_that_are_0_or_1(isa: str) -> None:
    """Sums far out, and infinite ones."""
    for scale in (30.0, 1e4, 1e30, np.inf):
        x = np.array([[scale], [-scale]], np.float32)
        weights = [(np.array([[a], [b], [c], [d]], np.float32), np.zeros((4, 1), np.float32), None, None)
                   for a, b, c, d in product((1, -1), repeat=4)]  # fmt: skip
        for own in weights:
            case = Case(
                "lstm", x, np.array([0, 1, 2], np.int32), [own], (None, np.full((1, 2, 1), 0.5, np.float32)), {}
            )
            *results, _ = case.forward(kernels, return_reserve=True)
            for result, ideal in zip(results, case.double().forward(reference), strict=True):
                assert_close(result, ideal, magnitude=1.0)
            if np.isfinite(scale):
                _, dweights, *_ = case.both(kernels, [np.ones((2, 1), np.float32), None, None])
                assert all(np.isfinite(g).all() for g in dweights[0] if g is not None)


def test_cell(isa: str, threads: int) -> None:
    """One step has the bits of the layer's, so a loop of cells has those of a call."""
    for batch, inputs, hidden, projection in (
        (1, 1, 1, 0),
        (2, 9, 7, 0),
        (33, 5, 16, 0),
        (5, 17, 33, 8),
        (2, 3, 64, 5),
    ):
        options = {"cell_clip": 0.7, "proj_clip": 0.5} if projection else {}
        case = make_case("lstm", (3,) * batch, inputs, hidden, projection=projection, **options)
        out, h_n, c_n = case.forward(kernels)
        h, c = (state[0] for state in case.states)
        steps = case.x.reshape(batch, 3, inputs)
        weights = case.weights[0]
        for t in range(3):
            packed = (kernels.PackedMatrix(weights[0]), kernels.PackedMatrix(weights[1], groups=4), *weights[2:])
            h, c = kernels.lstm_cell(
                np.ascontiguousarray(steps[:, t]), h, c, *(packed if t == 1 else weights), **options
            )
            assert_same_bits(h, out.reshape(batch, 3, -1)[:, t])
        assert_same_bits(h, h_n[0])
        assert_same_bits(c, c_n[0])


def test_a_cell_of_nothing(isa: str) -> None:
    case = make_case("lstm", (1,), 5, 4)
    none = np.zeros((0, 4), np.float32)
    h, c = kernels.lstm_cell(case.x[:0], none, none, *case.weights[0])
    assert h.shape == c.shape == (0, 4)


def test_the_gradient_of_a_long_sequence(isa: str, threads: int) -> None:
    """In a direction of all arguments, through a hundred steps: how fast the float64 result changes."""
    case = make_case("lstm", (100,), 6, 20, projection=7)
    gradients = case.gradients()
    slopes = case.both(kernels, gradients)
    rng = np.random.default_rng(5)
    moves = case.mapped(lambda a: normal(rng, *a.shape).astype(np.float64))

    def moved(by: float) -> float:
        pairs = iter(double(*[a for a in (moves.x, *moves.weights[0], *moves.states) if a is not None]))
        results = case.mapped(lambda a: double(a) + by * next(pairs)).forward(reference)
        return sum(float((r * g).sum()) for r, g in zip(results, gradients, strict=True))

    dx, dweights, dh0, dc0 = slopes
    slope = sum(
        float((double(g) * m).sum())
        for g, m in zip((dx, *dweights[0], dh0, dc0), (moves.x, *moves.weights[0], *moves.states), strict=True)
        if g is not None
    )
    assert slope == pytest.approx((moved(1e-6) - moved(-1e-6)) / 2e-6, rel=1e-4, abs=1e-3)
