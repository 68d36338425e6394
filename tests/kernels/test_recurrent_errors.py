"""What lstm and gru refuse, and in which words: the function, the argument and its value."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import cumulative, place
from helpers_recurrent import KINDS, Case, make_case

from fastattn import kernels, reference

KIND = pytest.mark.parametrize("kind", KINDS)
MODULE = pytest.mark.parametrize("module", [kernels, reference], ids=["kernels", "reference"])
PASS = pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
LENGTHS, INPUTS, HIDDEN = (3, 0, 2), 5, 4
DIRECTIONS, TOKENS, BATCH = 2, sum(LENGTHS), len(LENGTHS)


def good(kind: str, **options: Any) -> Case:
    return make_case(kind, LENGTHS, INPUTS, HIDDEN, directions=DIRECTIONS, **options)


def with_weight(case: Case, index: int, weight: Any, direction: int = 1) -> Case:
    weights = list(case.weights)
    weights[direction] = (*weights[direction][:index], weight, *weights[direction][index + 1 :])
    return replace(case, weights=weights)


def refuses(error: type[Exception], words: str, case: Case, backward: bool, **options: Any) -> None:
    """The pass refuses the case with these words after its name."""
    case = replace(case, options={**case.options, **options})
    if not backward:
        with pytest.raises(error, match=f"^{case.kind}: {words}$"):
            case.forward(kernels)
        return
    first = good(case.kind)
    *_, reserve = first.forward(kernels, return_reserve=True)
    with pytest.raises(error, match=f"^{case.kind}_backward: {words}$"):
        case.backward(kernels, first.gradients(), reserve)


@KIND
@PASS
def test_x(kind: str, backward: bool) -> None:
    case = good(kind)
    x = case.x
    for bad in (x.astype(np.float64), (x, x.astype(np.float64))):
        refuses(TypeError, "x must be float32, got float64", replace(case, x=bad), backward)
    for bad in (5, (x, [1.0])):
        refuses(TypeError, "x must be .*, got (int|list)", replace(case, x=bad), backward)
    refuses(ValueError, r"x must have 2 .*, got .*\(5,\)", replace(case, x=x[:, 0].copy()), backward)
    refuses(ValueError, "x .*contiguous.*", replace(case, x=np.zeros((5, 10), np.float32)[:, ::2]), backward)
    refuses(ValueError, "x must have 2 items, got 1", replace(case, x=(x,)), backward)
    refuses(ValueError, "x must have 2 items, got 3", replace(case, x=(x, x, x)), backward)
    refuses(ValueError, r"x must have shape \(5, 5\), got \(4, 5\)", replace(case, x=(x, x[:4])), backward)


@KIND
@PASS
def test_cu_seqlens(kind: str, backward: bool) -> None:
    case = good(kind)
    for bad, words in (
        (case.cu_seqlens + np.int32(1), "cu_seqlens must start at 0, got 1"),
        (cumulative((3, -1, 3)), "cu_seqlens must not decrease, got 3 then 2.*"),
        (cumulative((3, 0, 1)), "cu_seqlens must end at .*5, got 4"),
        (np.zeros(0, np.int32), "cu_seqlens .*"),
        (np.zeros((4, 1), np.int32), "cu_seqlens .*"),
    ):
        refuses(ValueError, words, replace(case, cu_seqlens=bad), backward)
    refuses(
        TypeError,
        "cu_seqlens must be int32, got int64",
        replace(case, cu_seqlens=case.cu_seqlens.astype(int)),
        backward,
    )


@KIND
@PASS
def test_weights(kind: str, backward: bool) -> None:
    case = good(kind)
    rows = case.weights[0][0].shape[0]
    gates = rows // HIDDEN
    own = case.weights[0]
    refuses(TypeError, "weights must be a list or tuple, got int", replace(case, weights=5), backward)
    refuses(ValueError, "weights must have 1 to 2 items, got 0", replace(case, weights=[]), backward)
    refuses(ValueError, "weights must have 1 to 2 items, got 3", replace(case, weights=[own] * 3), backward)
    refuses(ValueError, "weights must have 4 items, got 3", replace(case, weights=[own[:3]] * 2), backward)
    for index, (name, columns) in enumerate((("weight_ih", INPUTS), ("weight_hh", HIDDEN))):
        for direction in range(DIRECTIONS):
            weight = case.weights[direction][index]
            for bad, error, words in (
                (weight.astype(np.float64), TypeError, f"{name} must be float32, got float64"),
                (None, TypeError, f"{name} must be .*, got NoneType"),
                (weight[0], ValueError, rf"{name} must have 2 .*, got .*\({columns},\)"),
                (np.zeros((rows, 2 * columns), np.float32)[:, ::2], ValueError, f"{name} .*contiguous.*"),
                (kernels.PackedMatrix(weight, groups=2), ValueError, f"{name} must be packed with groups=., got 2"),
            ):
                refuses(error, words, with_weight(case, index, bad, direction), backward)
        extra = np.zeros((rows, columns + 1), np.float32)
        for bad in (extra, kernels.PackedMatrix(extra, groups=1 if index == 0 else gates)):
            words = rf"{name} must have shape \({rows}, {columns}\), got \({rows}, {columns + 1}\)"
            refuses(ValueError, words, with_weight(case, index, bad), backward)
    long = np.zeros((rows + gates, HIDDEN), np.float32)
    refuses(ValueError, rf".* must have shape .*{rows + gates}.*", with_weight(case, 1, long), backward)
    odd = [(np.zeros((rows + 1, INPUTS), np.float32), np.zeros((rows + 1, HIDDEN), np.float32), None, None)]
    refuses(
        ValueError, rf"weight_hh must have {gates} \* hidden rows, got {rows + 1}", replace(case, weights=odd), False
    )
    for index, name in ((2, "bias"),) if kind == "lstm" else ((2, "bias_ih"), (3, "bias_hh")):
        bias = case.weights[1][index]
        words = rf"{name} must have shape \({rows},\), got \({rows - 1},\)"
        refuses(ValueError, words, with_weight(case, index, bias[1:]), backward)
        words = f"{name} must be float32, got float64"
        refuses(TypeError, words, with_weight(case, index, bias.astype(np.float64)), backward)


@KIND
@PASS
def test_states_and_flags(kind: str, backward: bool) -> None:
    case = good(kind)
    for i, (name, state) in enumerate(zip(("h0", "c0"), case.states, strict=False)):
        for bad, error, words in (
            (state.astype(np.float64), TypeError, f"{name} must be float32, got float64"),
            (state[:1], ValueError, rf"{name} must have shape \(2, 3, 4\), got \(1, 3, 4\)"),
            (state[:, 1:].copy(), ValueError, rf"{name} must have shape \(2, 3, 4\), got \(2, 2, 4\)"),
            (state.transpose(1, 0, 2).copy().transpose(1, 0, 2), ValueError, f"{name} .*contiguous.*"),
        ):
            states = (*case.states[:i], bad, *case.states[i + 1 :])
            refuses(error, words, replace(case, states=states), backward)
    refuses(ValueError, "reverse must have 2 items, got 1", case, backward, reverse=(False,))
    refuses(TypeError, "reverse must be True or False for each direction, got 1", case, backward, reverse=(0 == 0, 1))
    refuses(TypeError, "reverse must be a list or tuple, got bool", case, backward, reverse=True)


@PASS
def test_clips_and_projections(backward: bool) -> None:
    case = good("lstm")
    for value in (0.0, -1.0, np.inf, np.nan):
        for name in ("cell_clip", "proj_clip"):
            refuses(ValueError, f"{name} must be positive and finite, got {value}", case, backward, **{name: value})
    refuses(TypeError, "cell_clip must be .*, got str", case, backward, cell_clip="1")
    refuses(ValueError, "proj_clip clips a projection, and weight_hr is None", case, backward, proj_clip=1.0)
    weight_hr = np.zeros((HIDDEN, HIDDEN), np.float32)
    refuses(
        ValueError, "weight_hr must be given for all directions or for none", with_weight(case, 3, weight_hr), backward
    )
    for bad in (weight_hr[:, 1:], kernels.PackedMatrix(weight_hr[:, 1:])):
        both = with_weight(with_weight(case, 3, bad, 0), 3, bad, 1)
        refuses(ValueError, r"weight_hr must have shape \(4, 4\), got \(4, 3\)", both, backward)
    grouped = kernels.PackedMatrix(weight_hr, groups=4)
    refuses(ValueError, "weight_hr must be packed with groups=1, got 4", with_weight(case, 3, grouped, 0), backward)


@KIND
def test_gradients(kind: str) -> None:
    case = good(kind)
    *_, reserve = case.forward(kernels, return_reserve=True)
    gradients = case.gradients()
    name = f"^{kind}_backward: "
    for i, argument in enumerate(("dout", "dh_n", "dc_n")[: len(gradients)]):

        def call(bad: Any, i: int = i) -> None:
            case.backward(kernels, [*gradients[:i], bad, *gradients[i + 1 :]], reserve)

        gradient = gradients[i]
        with pytest.raises(TypeError, match=f"{name}{argument} must be float32, got float64$"):
            call(gradient.astype(np.float64))
        with pytest.raises(TypeError, match=f"{name}{argument} must be .*, got list$"):
            call([1.0])
        with pytest.raises(ValueError, match=rf"{name}{argument} must have shape .*, got "):
            call(gradient[:1])
        with pytest.raises(ValueError, match=f"{name}{argument} .*contiguous"):
            call(np.repeat(gradient, 2, axis=-1)[..., ::2])


@KIND
def test_accumulators(kind: str) -> None:
    case = good(kind)
    *_, reserve = case.forward(kernels, return_reserve=True)
    gradients = case.gradients()
    name = f"^{kind}_backward: "
    zeros = tuple(tuple(None if w is None else np.zeros_like(w) for w in own) for own in case.weights)

    def call(dweights: Any) -> None:
        case.backward(kernels, gradients, reserve, dweights=dweights)

    for bad, words in (
        (zeros[:1], "dweights must have 2 items, got 1"),
        ((zeros[0], zeros[1][:3]), "dweights must have 4 items, got 3"),
    ):
        with pytest.raises(ValueError, match=f"{name}{words}$"):
            call(bad)
    with pytest.raises(TypeError, match=f"{name}dweights must be a list or tuple, got int$"):
        call(5)
    last = () if kind == "lstm" else ("dbias_hh",)
    names = ("dweight_ih", "dweight_hh", "dbias" if kind == "lstm" else "dbias_ih", *last)
    for index, argument in enumerate(names):
        array = zeros[1][index]
        for bad, error, words in (
            (array.astype(np.float64), TypeError, "must be float32, got float64$"),
            (array[1:], ValueError, "must have shape .*, got "),
            (np.repeat(array, 2, axis=-1)[..., ::2], ValueError, ".*contiguous"),
            (place(array, "read-only"), ValueError, ".*(writable|read-only)"),
            (case.weights[1][index], ValueError, ".*overlap"),
        ):
            with pytest.raises(error, match=f"{name}{argument} {words}"):
                call((zeros[0], (*zeros[1][:index], bad, *zeros[1][index + 1 :])))


@KIND
@MODULE
def test_a_reserve_of_another_call(module: Any, kind: str) -> None:
    case = good(kind)
    gradients = case.gradients()
    name = f"^{kind}_backward: reserve "
    for other in (
        make_case(kind, (3, 0, 3), INPUTS, HIDDEN, directions=2),
        make_case(kind, LENGTHS, INPUTS, HIDDEN + 1, directions=2),
        make_case(kind, LENGTHS, INPUTS, HIDDEN),
    ):
        *_, reserve = other.forward(module, return_reserve=True)
        with pytest.raises(ValueError, match=name):
            case.backward(module, gradients, reserve)
    for bad in (None, 5, (1, 2), ((None,) * 4,) * 2):
        with pytest.raises(
            TypeError, match=f"{name}must be what {kind} returned with return_reserve, got {type(bad).__name__}$"
        ):
            case.backward(module, gradients, bad)


@KIND
@MODULE
@pytest.mark.parametrize("recompute", [False, True])
def test_a_reserve_of_another_kind_of_call(module: Any, kind: str, recompute: bool) -> None:
    """Their arrays might have the same shapes, or not be there: it is known whose they are."""
    case = make_case(kind, (5,), HIDDEN, HIDDEN, directions=2)
    single = make_case(kind, (5,), HIDDEN, HIDDEN, reverse=(False,))
    other = "gru" if kind == "lstm" else "lstm"
    for given, wanted, words in (
        (make_case(other, (5,), HIDDEN, HIDDEN, directions=2), case, f"of {kind}, got one of {other}"),
        (
            replace(case, options={"reverse": (True, False)}),
            case,
            r"with reverse \(False, True\), got one with reverse .*",
        ),
        (single, replace(single, options={"reverse": (True,)}), r"with reverse \(True,\), got one with reverse .*"),
        (make_case(kind, (2, 3), HIDDEN, HIDDEN, directions=2), case, "with this cu_seqlens, got one with another"),
        (replace(case, states=(None,) * len(case.states)), case, "with h0, got one without h0"),
        (case, replace(case, states=(None,) * len(case.states)), "without h0, got one with h0"),
        (
            make_case(kind, (5,), HIDDEN + 1, HIDDEN, directions=2),
            case,
            r"with inputs, .* \(4, 4, 4\), got .* \(5, 4, 4\)",
        ),
        (single, case, "with reverse .*"),
    ):
        *_, reserve = given.forward(module, return_reserve=True, recompute=recompute)
        with pytest.raises(ValueError, match=f"^{kind}_backward: reserve must be of a call {words}$"):
            wanted.backward(module, case.gradients() if len(wanted.weights) == 2 else single.gradients(), reserve)


@MODULE
def test_a_reserve_of_other_clips(module: Any) -> None:
    """A clip decides what has a gradient: the backward pass must know the one that was used."""
    plain = make_case("lstm", (5,), 4, 4, projection=3)
    clipped = [replace(plain, options={**plain.options, name: 2}) for name in ("cell_clip", "proj_clip")]
    other = replace(plain, options={**plain.options, "cell_clip": 0.5})
    for given, wanted, words in (
        (plain, clipped[0], "with cell_clip 2.0, got one without cell_clip"),
        (clipped[0], plain, "without cell_clip, got one with cell_clip 2.0"),
        (clipped[0], other, "with cell_clip 0.5, got one with cell_clip 2.0"),
        (plain, clipped[1], "with proj_clip 2.0, got one without proj_clip"),
    ):
        *_, reserve = given.forward(module, return_reserve=True)
        with pytest.raises(ValueError, match=f"^lstm_backward: reserve must be of a call {words}$"):
            wanted.backward(module, plain.gradients(), reserve)
        given.backward(module, plain.gradients(), reserve)


@MODULE
def test_a_reserve_of_a_projection(module: Any) -> None:
    case, other = (make_case("lstm", (5,), 4, 4, projection=p) for p in (0, 3))
    *_, reserve = other.forward(module, return_reserve=True)
    with pytest.raises(
        ValueError, match=r"^lstm_backward: reserve must be of a call .* \(4, 4, 4\), got .* \(4, 4, 3\)$"
    ):
        case.backward(module, case.gradients(), reserve)


def test_cells() -> None:
    """Their messages speak of their own arguments."""
    case = make_case("lstm", (1, 1), INPUTS, HIDDEN)
    h, c = (state[0] for state in case.states)
    weights = case.weights[0]
    assert kernels.lstm_cell(case.x, h, c, *weights)[0].shape == h.shape
    with pytest.raises(TypeError, match=r"^lstm_cell: x must be float32, got float64$"):
        kernels.lstm_cell(case.x.astype(np.float64), h, c, *weights)
    for arguments in ((case.x[:1], h, c), (case.x, h[:1], c), (case.x, h, c[:1]), (case.x[:, 1:], h, c)):
        with pytest.raises(ValueError, match=r"^lstm_cell: "):
            kernels.lstm_cell(*arguments, *weights)
    case = make_case("gru", (1, 1), INPUTS, HIDDEN)
    h, weights = case.states[0][0], case.weights[0]
    assert kernels.gru_cell(case.x, h, *weights).shape == h.shape
    for arguments in ((case.x[:1], h), (case.x, h[:1]), (case.x[:, 1:], h)):
        with pytest.raises(ValueError, match=r"^gru_cell: "):
            kernels.gru_cell(*arguments, *weights)
