"""The reference's lstm and gru, in float64, against the definition by hand and central differences."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers import cumulative, normal
from helpers_gradients import STEP, check_gradients
from helpers_recurrent import KINDS, VARIANTS, Case, by_hand, flat, make_case

from fastattn import reference

CLIPS = {"cell_clip": 0.7, "proj_clip": 0.4}
LSTM_VARIANTS = {
    "clipped": {"cell_clip": 0.7},
    "projected": {"projection": 3, "directions": 2},
    "projected, clipped": {"projection": 3, "directions": 2, **CLIPS},
}
CASES = [
    *(pytest.param(kind, options, id=f"{kind}, {name}") for kind in KINDS for name, options in VARIANTS.items()),
    *(pytest.param("lstm", options, id=f"lstm, {name}") for name, options in LSTM_VARIANTS.items()),
]


def far_from_clips(kind: str, options: dict[str, Any], lengths: Any = (3, 0, 4, 1)) -> Case:
    """In float64, with no value so near to a clip that a step of a difference crosses it."""
    case = make_case(kind, lengths, 5, 4, **options).double()
    _, margin = by_hand(case)
    assert margin > 50 * STEP
    return case


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_values(kind: str, options: dict[str, Any]) -> None:
    for lengths in ((3, 0, 4, 1), (1,), (6, 6), (2, 7, 7, 0, 0, 1)):
        case = make_case(kind, lengths, 5, 4, **options).double()
        expected, _ = by_hand(case)
        results = case.forward(reference)
        assert isinstance(results, tuple)
        for result, ideal in zip(results, expected, strict=True):
            assert result.dtype == np.float64
            np.testing.assert_allclose(result, ideal, rtol=0, atol=1e-14)
        *again, _ = case.forward(reference, return_reserve=True)
        for result, other in zip(again, results, strict=True):
            np.testing.assert_array_equal(result, other)


def test_the_clips_clip() -> None:
    """Of the values above: some, and not all, so that the tests with clips say something."""
    for name, clip, place in (("cell_clip", 0.7, 2), ("proj_clip", 0.4, 0)):
        case = make_case("lstm", (3, 0, 4, 1), 5, 4, projection=3, directions=2, **CLIPS).double()
        values = np.abs(case.forward(reference)[place])
        assert values.max() <= max(clip, np.abs(case.states[1]).max() if place else 0), name
        assert 0.02 < np.mean(values == clip) < 0.7, name


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize(("kind", "options"), CASES)
def test_gradients(kind: str, options: dict[str, Any], recompute: bool) -> None:
    case = far_from_clips(kind, options)
    dy = [gradient.astype(np.float64) for gradient in case.gradients()]

    def joined() -> Any:
        return np.concatenate([result.ravel() for result in case.forward(reference)])

    gradients = flat(case.both(reference, dy, recompute))
    arguments = flat((case.x, case.weights, case.states))
    given = [i for i, argument in enumerate(arguments) if argument is not None]
    if options.get("states", True):
        assert [i for i, gradient in enumerate(gradients) if gradient is not None] == given
    check_gradients(
        joined,
        np.concatenate([gradient.ravel() for gradient in dy]),
        [arguments[i] for i in given],
        [gradients[i] for i in given],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_form_of_the_gradients(kind: str) -> None:
    """That of x and of weights; the initial states' gradients come whether these were given or not."""
    for separate, bias, states in product((False, True), repeat=3):
        case = make_case(kind, directions=2, separate=separate, bias=bias, states=states).double()
        dx, dweights, *dstates = case.both(reference, case.gradients())
        assert isinstance(dx, tuple) == separate
        assert [a.shape for a in flat(dx)] == [a.shape for a in flat(case.x)]
        assert isinstance(dweights, tuple)
        for own, weights in zip(dweights, case.weights, strict=True):
            assert [None if a is None else a.shape for a in own] == [None if w is None else w.shape for w in weights]
        assert [a.shape for a in dstates] == case.shapes()[1:]


@pytest.mark.parametrize("kind", KINDS)
def test_none_is_a_gradient_of_zero(kind: str) -> None:
    case = make_case(kind, directions=2).double()
    gradients = [g.astype(np.float64) for g in case.gradients()]
    for kept in product((False, True), repeat=len(gradients)):
        some = [g if keep else None for g, keep in zip(gradients, kept, strict=True)]
        zeros = [g if keep else np.zeros_like(g) for g, keep in zip(gradients, kept, strict=True)]
        for a, b in zip(flat(case.both(reference, some)), flat(case.both(reference, zeros)), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("kind", "projection"), [("lstm", 0), ("lstm", 3), ("gru", 0)])
def test_only_what_is_needed_and_given_accumulators(kind: str, projection: int) -> None:
    case = make_case(kind, directions=2, projection=projection).double()
    gradients = [g.astype(np.float64) for g in case.gradients()]
    _, dweights, *dstates = case.both(reference, gradients)
    for need_dx, need_dweights in product((False, True), repeat=2):
        some = case.both(reference, gradients, need_dx=need_dx, need_dweights=need_dweights)
        assert (some[0] is not None, some[1] is not None) == (need_dx, need_dweights)
        for a, b in zip(flat(some[2:]), dstates, strict=True):
            np.testing.assert_array_equal(a, b)
    totals = tuple(
        tuple(np.ones_like(g) if g is not None and k != 1 else None for k, g in enumerate(own)) for own in dweights
    )
    _, added, *_ = case.both(reference, gradients, dweights=totals)
    for total, result, gradient in zip(flat(totals), flat(added), flat(dweights), strict=True):
        assert total is None or result is total
        if gradient is not None:
            np.testing.assert_allclose(result, gradient + (total is not None), atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_dtypes_and_saturated_gates(kind: str, dtype: Any) -> None:
    """Gates that are 0 or 1, with no NaN and no warning on the way."""
    case = make_case(kind, directions=2).mapped(lambda a: (30 * a).astype(dtype))
    results = case.forward(reference, return_reserve=True)
    *results, reserve = results
    gradients = [g.astype(dtype) for g in case.gradients()]
    for result in (*results, *flat(case.backward(reference, gradients, reserve))):
        if result is not None:
            assert result.dtype == dtype
    for result in results:
        assert np.isfinite(result).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [(), (0,), (0, 0, 0)], ids=str)
def test_nothing_to_read(kind: str, lengths: Any) -> None:
    """The initial states are the final ones, and so are their gradients."""
    case = make_case(kind, lengths, directions=2).double()
    out, *final = case.forward(reference)
    assert out.shape == (0, 8)
    gradients = [g.astype(np.float64) for g in case.gradients()]
    dx, dweights, *dstates = case.both(reference, gradients)
    assert dx.shape == (0, 5)
    assert not any(g.any() for g in flat(dweights) if g is not None)
    for a, b in zip((*final, *dstates), (*case.states, *gradients[1:]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_cells() -> None:
    """One step of the layer."""
    for options in ({}, {"projection": 3, **CLIPS}):
        case = make_case("lstm", (1, 1, 1), **options)
        h, c = (state[0] for state in case.states)
        clips = {name: value for name, value in options.items() if name.endswith("clip")}
        results = reference.lstm_cell(case.x, h, c, *case.weights[0], **clips)
        for result, expected in zip(results, case.forward(reference)[1:], strict=True):
            np.testing.assert_array_equal(result, expected[0])
    case = make_case("gru", (1, 1, 1))
    result = reference.gru_cell(case.x, case.states[0][0], *case.weights[0])
    np.testing.assert_array_equal(result, case.forward(reference)[1][0])


@pytest.mark.parametrize("kind", KINDS)
def test_packed_weights(kind: str) -> None:
    from fastattn.kernels import PackedMatrix  # the only thing here that is compiled

    case = make_case(kind, directions=2)
    packed = replace(case, weights=[(*map(PackedMatrix, w[:2]), *w[2:]) for w in case.weights])
    gradients = case.gradients()
    dx, dweights, *dstates = packed.both(reference, gradients)
    expected_dx, expected, *expected_dstates = case.both(reference, gradients)
    assert [a is None for a in flat(dweights)] == [True, True, *[w is None for w in case.weights[0][2:]]] * 2
    for a, b in zip(
        flat((packed.forward(reference), dx, [own[2:] for own in dweights], dstates)),
        flat((case.forward(reference), expected_dx, [own[2:] for own in expected], expected_dstates)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input(kind: str) -> None:
    case = make_case(kind, directions=2)
    x, cu, weights = case.x, case.cu_seqlens, case.weights
    *_, reserve = replace(case, states=(None,) * len(case.states)).forward(reference, return_reserve=True)
    nothing = [None] * len(case.shapes())
    for name in (kind, f"{kind}_backward"):

        def call(
            x: Any = x, cu: Any = cu, weights: Any = weights, backward: bool = name != kind, **options: Any
        ) -> Any:
            if backward:
                return getattr(reference, f"{kind}_backward")(*nothing, x, cu, weights, reserve, **options)
            return getattr(reference, kind)(x, cu, weights, **options)

        call()
        for bad, words in (
            (cu + 1, "cu_seqlens must start at 0, got 1"),
            (cumulative((3, -1, 7)), "cu_seqlens must not decrease, got 3 then 2 at index 2"),
            (cu[:-1], "cu_seqlens must end at the number of tokens, 9, got 8"),
        ):
            with pytest.raises(ValueError, match=f"^{name}: {words}$"):
                call(cu=bad)
        with pytest.raises(ValueError, match=f"^{name}: weights must be those of 1 or 2 directions, got 3$"):
            call(weights=[*weights, weights[0]])
        with pytest.raises(ValueError, match=f"^{name}: x must be one array or one for each of 2 directions, got 1$"):
            call(x=(x,))
        with pytest.raises(ValueError, match=f"^{name}: reverse must have a flag for each of 2 directions, got 1$"):
            call(reverse=(False,))
        if kind == "lstm":
            for option, value in product(("cell_clip", "proj_clip"), (0.0, -1.0, float("inf"), float("nan"))):
                with pytest.raises(ValueError, match=f"^{name}: {option} must be positive and finite, got {value}$"):
                    call(**{option: value})
            with pytest.raises(ValueError, match=f"^{name}: proj_clip clips a projection, and weight_hr is None$"):
                call(proj_clip=1.0)


def test_a_sequence_does_not_touch_its_neighbours() -> None:
    """NaN and infinities stay where they are."""
    for kind in KINDS:
        case = make_case(kind, (3, 2, 4), directions=2).double()
        clean = case.forward(reference)
        case.x[3] = np.inf * normal(np.random.default_rng(3), 5)
        case.states[0][1, 0] = np.nan
        with np.errstate(invalid="ignore"):
            out, *final = case.forward(reference)
        assert np.isnan(out[3:5]).any()
        assert np.isnan(out[:3, 4:]).all()
        np.testing.assert_array_equal(out[:3, :4], clean[0][:3, :4])
        np.testing.assert_array_equal(out[5:], clean[0][5:])
        for a, b in zip(final, clean[1:], strict=True):
            np.testing.assert_array_equal(a[:, 2], b[:, 2])
