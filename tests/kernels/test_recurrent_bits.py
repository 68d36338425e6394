"""What must not change a bit of lstm and gru and their gradients, and what stays apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, assert_close, assert_same_bits, cumulative, double, place
from helpers_recurrent import KINDS, Case, expected_backward, flat, make_case, same_bits
from hypothesis import given
from hypothesis import strategies as st

import fastattn
from fastattn import kernels

LAYERS = pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param("lstm", {}, id="lstm"),
        pytest.param("lstm", {"projection": 9, "cell_clip": 1.0, "proj_clip": 0.5}, id="lstm, projected"),
        pytest.param("gru", {}, id="gru"),
    ],
)
RAGGED = (3, 0, 7, 1, 4, 4)


def packed(case: Case) -> Case:
    """All matrices packed."""
    groups = 4 if case.kind == "lstm" else 3

    def pack(ih: Any, hh: Any, bias: Any, last: Any) -> tuple[Any, ...]:
        if case.kind == "lstm" and last is not None:
            last = kernels.PackedMatrix(last)
        return kernels.PackedMatrix(ih), kernels.PackedMatrix(hh, groups=groups), bias, last

    return replace(case, weights=[pack(*own) for own in case.weights])


@LAYERS
@pytest.mark.parametrize("hidden", [1, 7, 16, 33, 64])
def test_packed_weights(isa: str, threads: int, kind: str, options: dict[str, Any], hidden: int) -> None:
    case = make_case(kind, RAGGED, 11, hidden, directions=2, **options)
    gradients = case.gradients()
    same_bits(packed(case).forward(kernels), case.forward(kernels))
    for recompute in (False, True):
        dx, dweights, *dstates = packed(case).both(kernels, gradients, recompute)
        expected_dx, expected, *expected_dstates = case.both(kernels, gradients)
        same_bits((dx, *dstates), (expected_dx, *expected_dstates))
        for own, others, weights in zip(dweights, expected, packed(case).weights, strict=True):
            for gradient, other, weight in zip(own, others, weights, strict=True):
                if isinstance(weight, np.ndarray):
                    assert_same_bits(gradient, other)
                else:
                    assert gradient is None


@LAYERS
@pytest.mark.parametrize("size", [(5, 7), (17, 33), (64, 64)], ids=str)
def test_neighbours(isa: str, threads: int, kind: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    """A sequence alone, in company, in any order."""
    lengths = tuple(i * 7 % 11 for i in range(40))
    case = make_case(kind, lengths, *size, directions=2, **options)
    out, *final = case.forward(kernels)
    order = np.random.default_rng(3).permutation(40)
    for chosen in ([0], [1], [7], [39], range(12), range(5, 25), range(39), order[:17], order, order[::-1]):
        sequences = list(chosen)
        for part in (case.of(sequences), packed(case).of(sequences)):
            own_out, *own_final = part.forward(kernels)
            assert_same_bits(own_out, out[case.tokens(sequences)])
            for own, all_ in zip(own_final, final, strict=True):
                assert_same_bits(own, all_[:, sequences])


@LAYERS
def test_threads(isa: str, kind: str, options: dict[str, Any]) -> None:
    before = fastattn.num_threads()
    sizes = (((9,) * 33, 40, 70), (tuple(i % 23 for i in range(70)), 33, 17), ((60,), 64, 130), ((2,) * 300, 5, 16))
    try:
        for directions, (lengths, inputs, hidden) in product((1, 2), sizes):
            case = make_case(kind, lengths, inputs, hidden, directions=directions, **options)
            results = []
            for count in (1, 2, 5):  # 5: more parts than two threads make
                fastattn.set_num_threads(count)
                results.append((case.forward(kernels), case.both(kernels, case.gradients())))
            for others in results[1:]:
                same_bits(others, results[0])
    finally:
        fastattn.set_num_threads(before)


@LAYERS
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
def test_parts_with_the_state_carried(
    isa: str, threads: int, kind: str, options: dict[str, Any], reverse: bool
) -> None:
    """Two calls, or one for each token, have the bits of one."""
    batch, steps, hidden = 5, 9, 17
    case = make_case(kind, (steps,) * batch, 11, hidden, reverse=(reverse,), **options)
    out, *final = case.forward(kernels)
    rows = np.arange(batch * steps).reshape(batch, steps)
    for cuts in ((0, 4, 9), (0, 1, 9), (0, 8, 9), (0, 0, 9), range(10)):
        states: Any = case.states
        spans = list(pairwise(cuts))
        for start, end in reversed(spans) if reverse else spans:
            chosen = rows[:, start:end].ravel()
            part = replace(case, x=case.x[chosen], cu_seqlens=cumulative((end - start,) * batch), states=states)
            part_out, *states = part.forward(kernels)
            assert_same_bits(part_out, out[chosen])
        same_bits(states, final)


@LAYERS
def test_recomputed_gates(isa: str, threads: int, kind: str, options: dict[str, Any]) -> None:
    for lengths, inputs, hidden in ((RAGGED, 11, 7), ((2, 5), 3, 33), ((9,) * 40, 5, 16), ((), 5, 7), ((0, 0), 5, 7)):
        for more in ({}, {"directions": 2}, {"separate": True, "directions": 2}, {"states": False, "bias": False}):
            case = make_case(kind, lengths, inputs, hidden, **more, **options)
            gradients = case.gradients()
            *kept, reserve = case.forward(kernels, return_reserve=True)
            *again, smaller = case.forward(kernels, return_reserve=True, recompute=True)
            same_bits(again, kept)
            expected = case.backward(kernels, gradients, reserve)
            for _ in range(2):  # what is kept is not used up
                same_bits(case.backward(kernels, gradients, smaller), expected)
                same_bits(case.backward(kernels, gradients, reserve), expected)


@LAYERS
@pytest.mark.parametrize("lengths", [tuple(i % 100 for i in range(500)), (9000,), (1, 2) * 4500], ids=len)
def test_many_tokens(isa: str, threads: int, kind: str, options: dict[str, Any], lengths: Any) -> None:
    """Inference has the gates of some steps at a time, of one at least; with a reserve all are there."""
    case = make_case(kind, lengths, 3, 64, directions=2, **options)
    *expected, _ = case.forward(kernels, return_reserve=True)
    same_bits(case.forward(kernels), expected)


@LAYERS
def test_a_run_says_the_same_thing_twice(isa: str, threads: int, kind: str, options: dict[str, Any]) -> None:
    """Backward too, whatever memory it gets, and it writes to none of its operands."""
    case = make_case(kind, RAGGED, 11, 17, directions=2, separate=True, **options)
    gradients = case.gradients()
    copies = [None if a is None else a.copy() for a in flat((case.x, case.weights, case.states, gradients))]
    first = case.both(kernels, gradients)
    for _ in range(3):
        same_bits(case.both(kernels, gradients), first)
    same_bits(flat((case.x, case.weights, case.states, gradients)), copies)


@LAYERS
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(isa: str, threads: int, kind: str, options: dict[str, Any], layout: str) -> None:
    """Rows of x, of the matrices and of out's gradient may lie apart; nothing is read beyond an end."""
    for hidden, inputs in ((7, 11), (16, 1), (33, 17)):
        case = make_case(kind, RAGGED, inputs, hidden, directions=2, **options)
        gradients = case.gradients()
        expected = case.forward(kernels), case.both(kernels, gradients)

        def placed(array: Any) -> Any:
            return place(array, "plain" if layout == "strided" and array.ndim != 2 else layout)

        other = case.mapped(placed)
        for x in (other.x, (other.x, other.x)):
            same = replace(other, x=x)
            same_bits(same.forward(kernels), expected[0])
            got = same.both(kernels, [placed(g) for g in gradients])
            same_bits(got[1:], expected[1][1:])
            if x is other.x:
                assert_same_bits(got[0], expected[1][0])
            else:
                assert_close(sum(got[0]), double(expected[1][0]), 2)


@LAYERS
def test_columns_of_one_array(isa: str, threads: int, kind: str, options: dict[str, Any]) -> None:
    """The two inputs of an upper layer are the two halves of the lower one's result."""
    case = make_case(kind, RAGGED, 11, 17, directions=2, separate=True, **options)
    gradients = case.gradients()
    apart = replace(case, x=[np.ascontiguousarray(a) for a in case.x])
    same_bits(case.forward(kernels), apart.forward(kernels))
    dx, *others = apart.both(kernels, gradients)
    assert isinstance(dx, tuple)
    same_bits(case.both(kernels, gradients), (dx, *others))
    for d in range(2):  # and each direction is on its own
        one = replace(
            case, x=case.x[d], weights=case.weights[d : d + 1], states=tuple(s[d : d + 1] for s in case.states),
            options={**case.options, "reverse": (d == 1,)},
        )  # fmt: skip
        p = gradients[1].shape[2]
        own = [np.ascontiguousarray(gradients[0][:, d * p : (d + 1) * p]), *(g[d : d + 1] for g in gradients[1:])]
        one_dx, (one_dweights,), *one_dstates = one.both(kernels, own)
        assert_same_bits(one_dx, dx[d])
        same_bits(one_dweights, others[0][d])
        same_bits(one_dstates, [state[d : d + 1] for state in others[1:]])


@LAYERS
def test_nan_stays_in_its_sequence(isa: str, threads: int, kind: str, options: dict[str, Any]) -> None:
    case = make_case(kind, RAGGED, 11, 17, directions=2, **options)
    gradients = case.gradients()
    out, *final = case.forward(kernels)
    dx, _, *dstates = case.both(kernels, gradients)
    for sequence, token in ((0, 0), (2, 4), (5, 3)):
        others = [s for s in range(len(RAGGED)) if s != sequence]
        rows = case.tokens(others)
        start, end = case.cu_seqlens[sequence : sequence + 2]
        spoilt = replace(case, x=case.x.copy())
        spoilt.x[start + token, 10] = np.nan
        bad_out, *bad_final = spoilt.forward(kernels)
        half = out.shape[1] // 2
        assert np.isnan(bad_out[start + token : end, :half]).all()
        assert np.isnan(bad_out[start : start + token + 1, half:]).all()
        assert_same_bits(bad_out[start : start + token, :half], out[start : start + token, :half])
        assert_same_bits(bad_out[start + token + 1 : end, half:], out[start + token + 1 : end, half:])
        assert_same_bits(bad_out[rows], out[rows])
        bad_dx, bad_dweights, *bad_dstates = spoilt.both(kernels, gradients)
        assert np.isnan(bad_dx[start:end]).any()
        assert np.isnan(bad_dweights[0][0]).any()
        assert_same_bits(bad_dx[rows], dx[rows])
        for bad, good in zip((*bad_final, *bad_dstates), (*final, *dstates), strict=True):
            assert_same_bits(bad[:, others], good[:, others])


@LAYERS
def test_given_accumulators(isa: str, threads: int, kind: str, options: dict[str, Any]) -> None:
    case = make_case(kind, RAGGED, 11, 17, directions=2, **options)
    gradients = case.gradients()
    dx, dweights, *dstates = case.both(kernels, gradients)
    expected = flat(expected_backward(case, gradients)[1])

    def some(left_out: int, layout: str) -> Any:
        return tuple(
            tuple(
                place(np.full(g.shape, 3, np.float32), layout) if g is not None and i != left_out else None
                for i, g in enumerate(own)
            )
            for own in dweights
        )

    for left_out, layout in product(range(5), ("end", "start")):
        totals = some(left_out, layout)
        added_dx, added, *added_dstates = case.both(kernels, gradients, dweights=totals)
        same_bits((added_dx, *added_dstates), (dx, *dstates))
        for total, result, gradient, ideal in zip(flat(totals), flat(added), flat(dweights), expected, strict=True):
            if total is None:
                same_bits(result, gradient)
            else:
                assert result is total
                assert_close(result, ideal + 3, case.backward_length())


@LAYERS
def test_only_what_is_needed(isa: str, kind: str, options: dict[str, Any]) -> None:
    for separate, recompute in product((False, True), repeat=2):
        case = make_case(kind, RAGGED, 11, 17, directions=2, separate=separate, **options)
        gradients = case.gradients()
        dx, dweights, *dstates = case.both(kernels, gradients)
        for need_dx, need_dweights in product((False, True), repeat=2):
            needed = {"need_dx": need_dx, "need_dweights": need_dweights}
            some_dx, some_dweights, *some_dstates = case.both(kernels, gradients, recompute, **needed)
            same_bits(some_dstates, dstates)
            for result, expected, need in ((some_dx, dx, need_dx), (some_dweights, dweights, need_dweights)):
                if need:
                    same_bits(result, expected)
                else:
                    assert result is None


@LAYERS
def test_none_is_a_gradient_of_zero(isa: str, threads: int, kind: str, options: dict[str, Any]) -> None:
    case = make_case(kind, RAGGED, 11, 17, directions=2, **options)
    gradients = case.gradients()
    for kept in product((False, True), repeat=len(gradients)):
        some = [g if keep else None for g, keep in zip(gradients, kept, strict=True)]
        zeros = [g if keep else np.zeros_like(g) for g, keep in zip(gradients, kept, strict=True)]
        for a, b in zip(flat(case.both(kernels, some)), flat(case.both(kernels, zeros)), strict=True):
            np.testing.assert_array_equal(a, b)


@LAYERS
@pytest.mark.parametrize("lengths", [(), (0,), (0, 0, 0)], ids=str)
def test_nothing_to_read(isa: str, threads: int, kind: str, options: dict[str, Any], lengths: Any) -> None:
    """The initial states are the final ones, and so are their gradients; what is added to stays."""
    for hidden, inputs in ((7, 11), (64, 1)):
        case = make_case(kind, lengths, inputs, hidden, directions=2, **options)
        out, *final = case.forward(kernels)
        assert out.shape == case.shapes()[0]
        same_bits(final, case.states)
        gradients = case.gradients()
        dx, dweights, *dstates = case.both(kernels, gradients)
        assert dx.shape == (0, inputs)
        assert not any(g.any() for g in flat(dweights) if g is not None)
        same_bits(dstates, gradients[1:])
        totals = tuple(tuple(None if w is None else np.ones_like(w) for w in own) for own in case.weights)
        case.both(kernels, gradients, dweights=totals)
        assert all((total == 1).all() for total in flat(totals) if total is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_results_have_memory_of_their_own(isa: str, kind: str) -> None:
    case = make_case(kind, RAGGED, 11, 17, directions=2)
    gradients = case.gradients()
    *results, reserve = case.forward(kernels, return_reserve=True)
    arrays = flat((case.x, case.weights, case.states, gradients, results, case.backward(kernels, gradients, reserve)))
    arrays = [a for a in arrays if a is not None]
    for i, a in enumerate(arrays):
        assert not any(np.shares_memory(a, b) for b in arrays[:i])


@given(
    layer=st.sampled_from([("lstm", 0), ("lstm", 1), ("lstm", 19), ("gru", 0)]),
    lengths=st.lists(st.integers(0, 9), max_size=40),
    inputs=st.integers(1, 70),
    hidden=st.integers(1, 70),
    directions=st.integers(1, 2),
    bias=st.booleans(),
    separate=st.booleans(),
    packs=st.booleans(),
    recompute=st.booleans(),
    reverse=st.tuples(st.booleans(), st.booleans()),
)
def test_any_shape(isa: str, threads: int, layer: Any, packs: bool, recompute: bool, **shape: Any) -> None:
    kind, projection = layer
    case = make_case(kind, projection=projection, **shape)
    expected = case.double().forward(fastattn.reference)
    case.check_forward((packed(case) if packs else case).forward(kernels), expected, magnitude=1.0)
    gradients = case.gradients()
    case.check_backward(case.both(kernels, gradients, recompute), expected_backward(case, gradients))
