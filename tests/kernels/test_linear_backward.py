"""linear_backward against the reference: every gradient, its bits, and what must not change them."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, SIZES, assert_close, assert_same_bits, double, normal, place
from hypothesis import given
from hypothesis import strategies as st

import fastattn
from fastattn import kernels, reference
from fastattn.kernels import PackedMatrix

ACTIVATIONS = (None, "relu", "gelu", "gelu_tanh", "silu", "tanh")
PACKED = pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
SHAPES = [*((s, 33, 65) for s in SIZES), *((7, s, 65) for s in SIZES), *((7, 33, s) for s in SIZES)]
"""(M, N, K)."""


def operands(m: int, n: int, k: int, seed: int = 1) -> tuple[Any, Any, Any, Any]:
    """dy, x, weight, pre_activation; in the first three no sum is small by chance."""
    rng = np.random.default_rng(seed)
    return normal(rng, m, n, mean=0.5), normal(rng, m, k, mean=0.5), normal(rng, n, k, mean=0.5), normal(rng, m, n)


def check(gradients: Any, expected: Any, m: int, n: int) -> None:
    """dx sums over N, dweight and dbias over M."""
    for gradient, ideal, length in zip(gradients, expected, (n, m, m), strict=True):
        assert_close(gradient, ideal, max(1, length), c=2)


def same_bits(gradients: Any, expected: Any) -> None:
    for gradient, other in zip(gradients, expected, strict=True):
        assert_same_bits(gradient, other)


def totals(n: int, k: int, value: float, layout: str = "end") -> dict[str, Any]:
    """dweight and dbias full of `value`, at an unreadable page."""
    return {
        "dweight": place(np.full((n, k), value, np.float32), layout),
        "dbias": place(np.full(n, value, np.float32), layout),
    }


@PACKED
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(isa: str, threads: int, layout: str, packed: bool) -> None:
    for m, n, k in SHAPES:
        dy, x, weight, _ = (place(a, layout) for a in operands(m, n, k))
        w = PackedMatrix(weight) if packed else weight
        check(kernels.linear_backward(dy, x, w), reference.linear_backward(*double(dy, x, weight)), m, n)


@PACKED
@pytest.mark.parametrize(
    "shape", [(700, 300, 200), (65, 770, 1030), (65, 1100, 40), (130, 64, 2100), (2100, 70, 40)], ids=str
)
def test_large(isa: str, threads: int, shape: tuple[int, int, int], packed: bool) -> None:
    """More than one block of each axis, and the same bits with one thread."""
    dy, x, weight, pre = operands(*shape)
    w = PackedMatrix(weight) if packed else weight
    options = {"activation": "gelu", "pre_activation": pre}
    gradients = kernels.linear_backward(dy, x, w, **options)
    expected = reference.linear_backward(*double(dy, x, weight), activation="gelu", pre_activation=double(pre))
    check(gradients, expected, *shape[:2])
    same_bits(kernels.linear_backward(dy, x, weight, **options), gradients)
    fastattn.set_num_threads(1)
    same_bits(kernels.linear_backward(dy, x, w, **options), gradients)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
def test_activations(isa: str, threads: int, activation: str, layout: str) -> None:
    for m, n, k in ((1, 1, 1), (3, 17, 5), (9, 70, 33), (70, 9, 33)):
        dy, x, weight, pre = (place(a, layout) for a in operands(m, n, k))
        gradients = kernels.linear_backward(dy, x, weight, activation=activation, pre_activation=pre)
        expected = reference.linear_backward(*double(dy, x, weight), activation=activation, pre_activation=double(pre))
        # where few slopes meet, all of them may be small
        for gradient, ideal, length, usual in zip(
            gradients, expected, (n, m, m), (float(np.abs(weight).max()), float(np.abs(x).max()), 1.0), strict=True
        ):
            assert_close(gradient, ideal, length, magnitude=usual * float(np.abs(dy).max()))


@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
def test_the_slope(isa: str, activation: str) -> None:
    """The derivative itself, on a fine grid, for any incoming gradient."""
    pre = np.concatenate([np.linspace(-20, 20, 4001), [0.0, -0.0, 1e-38, -1e-38, 1e-45]]).astype(np.float32)[:, None]
    one = np.ones((1, 1), np.float32)
    for scale in (1.0, -3e5):
        dy = np.full_like(pre, scale)
        dx, *_ = kernels.linear_backward(dy, pre, one, activation=activation, pre_activation=pre, need_dweight=False)
        expected, *_ = reference.linear_backward(
            *double(dy, pre, one), activation=activation, pre_activation=double(pre), need_dweight=False
        )
        if activation == "relu":
            dx, expected = dx[:-3], expected[:-3]  # denormal numbers are 0 here
        assert_close(dx, expected, c=4)


@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
def test_special_values(isa: str, activation: str) -> None:
    pre = np.array([[np.inf, -np.inf, np.nan, 0.0, 1e38, -1e38, 60.0, -60.0, -110.0, 1.0]], np.float32)
    eye = np.eye(10, dtype=np.float32)
    x = np.ones((1, 1), np.float32)
    options = {"need_dx": False, "activation": activation}
    for dy in (np.ones_like(pre), -np.ones_like(pre)):
        _, dweight, dbias = kernels.linear_backward(dy, x, eye[:, :1], pre_activation=pre, **options)
        _, expected, _ = reference.linear_backward(*double(dy, x, eye[:, :1]), pre_activation=double(pre), **options)
        assert_close(dweight, expected)
        assert_same_bits(dbias + 0, dweight[:, 0] + 0)  # -0 is 0


def test_every_element_is_one_fma_chain(isa: str) -> None:
    """dx over n, dweight over m from what was there: the rule that makes all else invariant, checked bit by bit."""

    def chain(start: Any, a: Any, b: Any) -> Any:
        """start + a[:, 0] b[0] + a[:, 1] b[1] + ..., rounded once per step; the generic fma rounds twice."""
        for i in range(a.shape[1]):
            if isa == "generic":
                start = start + a[:, i, None] * b[i]
            else:
                start = (start + double(a[:, i, None]) * double(b[i])).astype(np.float32)
        return start

    for m, n, k in ((3, 600, 70), (600, 9, 33), (1, 1, 1), (40, 1030, 20)):
        dy, x, weight, _ = operands(m, n, k)
        given = normal(np.random.default_rng(2), n, k)
        dx, dweight, _ = kernels.linear_backward(dy, x, weight)
        assert_same_bits(dx, chain(np.zeros((m, k), np.float32), dy, weight))
        assert_same_bits(dweight, chain(np.zeros((n, k), np.float32), dy.T, x))
        _, dweight, _ = kernels.linear_backward(dy, x, PackedMatrix(weight), dweight=given.copy())
        assert_same_bits(dweight, chain(given, dy.T, x))


@PACKED
def test_rows_of_dx_do_not_depend_on_each_other(isa: str, threads: int, packed: bool) -> None:
    m = 300
    dy, x, weight, pre = operands(m, 130, 200)
    w = PackedMatrix(weight) if packed else weight

    def dx_of(rows: Any) -> Any:
        given = kernels.linear_backward(
            dy[rows], x[rows], w, activation="silu", pre_activation=pre[rows], need_dweight=False, need_dbias=False
        )
        return given[0]

    dx = dx_of(slice(None))
    for size in (1, 2, 5, 6, 7, 14, 29, 64, 65):
        for start in (0, 1, m - size):
            assert_same_bits(dx_of(slice(start, start + size)), dx[start : start + size])


def test_gradients_are_added_to_given_arrays(isa: str, threads: int) -> None:
    """Every shape, between guard pages; what is given comes back."""
    for m, n, k in ((1, 1, 1), (7, 33, 65), (65, 31, 17), (130, 70, 300)):
        dy, x, weight, pre = operands(m, n, k)
        for layout in ("end", "start"):
            given, options = totals(n, k, 3.0, layout), {"activation": "tanh", "pre_activation": pre}
            _, dweight, dbias = kernels.linear_backward(dy, x, weight, **options, **given)
            assert dweight is given["dweight"]
            assert dbias is given["dbias"]
            _, *expected = reference.linear_backward(
                *double(dy, x, weight), activation="tanh", pre_activation=double(pre)
            )
            for total, gradient in zip((dweight, dbias), expected, strict=True):
                assert_close(total, 3 + gradient, m + 1)


def test_two_halves_give_the_dweight_of_the_whole(isa: str, threads: int) -> None:
    dy, x, weight, _ = operands(150, 40, 90)
    _, whole, _ = kernels.linear_backward(dy, x, weight, need_dx=False, need_dbias=False)
    for cut in (1, 64, 77, 149):
        total = None
        for rows in (slice(cut), slice(cut, None)):
            _, total, _ = kernels.linear_backward(dy[rows], x[rows], weight, dweight=total)
        assert_same_bits(total, whole)


def test_a_row_view_of_a_stacked_gradient(isa: str, threads: int) -> None:
    """As for query, key and value: rows of one array, of which the others stay as they are."""
    dy, x, weight, _ = operands(20, 30, 40)
    stacked, bias = np.zeros((3, 30, 40), np.float32), np.zeros((3, 30), np.float32)
    _, dweight, dbias = kernels.linear_backward(dy, x, weight)
    kernels.linear_backward(dy, x, weight, dweight=stacked[1], dbias=bias[1])
    assert_same_bits(stacked[1], dweight)
    assert_same_bits(bias[1], dbias)
    assert not stacked[[0, 2]].any()
    assert not bias[[0, 2]].any()


@pytest.mark.parametrize("activation", [None, "gelu"])
def test_only_what_is_needed(isa: str, activation: str | None) -> None:
    dy, x, weight, pre = operands(70, 33, 65)
    options = {"activation": activation, "pre_activation": None if activation is None else pre}
    everything = kernels.linear_backward(dy, x, weight, **options)
    for choice in product((False, True), repeat=3):
        flags = dict(zip(("need_dx", "need_dweight", "need_dbias"), choice, strict=True))
        given = totals(33, 65, 0.0)
        for gradients in (
            kernels.linear_backward(dy, x, weight, **options, **flags),
            kernels.linear_backward(dy, x, PackedMatrix(weight), **options, **flags, **given),
        ):
            for gradient, expected, needed in zip(gradients, everything, choice, strict=True):
                if needed:
                    assert_same_bits(gradient, expected)
                else:
                    assert gradient is None
        assert flags["need_dweight"] or not given["dweight"].any()
        assert flags["need_dbias"] or not given["dbias"].any()


def test_every_gradient_is_new_memory(isa: str) -> None:
    dy, x, weight, _ = operands(5, 5, 5)
    arrays = [dy, x, weight, *kernels.linear_backward(dy, x, weight)]
    for i, j in product(range(6), repeat=2):
        assert i == j or not np.shares_memory(arrays[i], arrays[j])


def test_nan_stays_in_its_row_and_column(isa: str, threads: int) -> None:
    dy, x, weight, _ = operands(90, 70, 50)
    clean = kernels.linear_backward(dy, x, weight)
    for row, column in ((0, 0), (63, 64), (89, 69)):
        spoilt = dy.copy()
        spoilt[row, column] = np.nan
        for w in (weight, PackedMatrix(weight)):
            dx, dweight, dbias = kernels.linear_backward(spoilt, x, w)
            assert np.isnan(dx[row]).all()
            assert np.isnan(dweight[column]).all()
            assert np.isnan(dbias[column])
            assert_same_bits(np.delete(dx, row, 0), np.delete(clean[0], row, 0))
            assert_same_bits(np.delete(dweight, column, 0), np.delete(clean[1], column, 0))
            assert_same_bits(np.delete(dbias, column), np.delete(clean[2], column))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_changes_nothing(isa: str, layout: str) -> None:
    dy, x, weight, pre = operands(67, 35, 129)
    expected = kernels.linear_backward(dy, x, weight, activation="gelu", pre_activation=pre)
    dy, x, weight, pre = (place(a, layout) for a in (dy, x, weight, pre))
    same_bits(kernels.linear_backward(dy, x, weight, activation="gelu", pre_activation=pre), expected)


def test_any_number_of_axes(isa: str) -> None:
    dy, x, weight, pre = operands(24, 10, 17)
    dx, dweight, dbias = kernels.linear_backward(dy, x, weight, activation="relu", pre_activation=pre)
    deep = [a.reshape(2, 3, 4, -1) for a in (dy, x, pre)]
    again = kernels.linear_backward(*deep[:2], weight, activation="relu", pre_activation=deep[2])
    same_bits(again, (dx.reshape(2, 3, 4, 17), dweight, dbias))
    one = kernels.linear_backward(dy[0], x[0], weight)
    same_bits(one, (one[0], np.multiply.outer(dy[0], x[0]), dy[0]))
    assert one[0].shape == (17,)


@PACKED
@pytest.mark.parametrize("shape", [(0, 5, 7), (4, 0, 7), (4, 5, 0), (0, 0, 0)], ids=str)
def test_empty(isa: str, threads: int, shape: tuple[int, int, int], packed: bool) -> None:
    m, n, k = shape
    dy, x, weight, pre = operands(m, n, k)
    w = PackedMatrix(weight) if packed else weight
    options = {"activation": "gelu", "pre_activation": pre}
    expected = reference.linear_backward(*double(dy, x, weight), activation="gelu", pre_activation=double(pre))
    check(kernels.linear_backward(dy, x, w, **options), expected, m, n)
    given = totals(n, k, 2.0)
    kernels.linear_backward(dy, x, w, **options, **given)
    if 0 in (m, k):
        assert (given["dweight"] == 2).all()
    if m == 0:
        assert (given["dbias"] == 2).all()


@given(
    m=st.integers(1, 150),
    n=st.integers(1, 150),
    k=st.integers(1, 150),
    packed=st.booleans(),
    activation=st.sampled_from(ACTIVATIONS),
    layout=st.sampled_from(LAYOUTS),
)
def test_any_shape(
    isa: str, threads: int, m: int, n: int, k: int, packed: bool, activation: str | None, layout: str
) -> None:
    # all positive, where slopes are: no sum is small by chance
    dy, x, weight, pre = (place(np.abs(a), layout) for a in operands(m, n, k))
    options = {"activation": activation, "pre_activation": None if activation is None else pre}
    gradients = kernels.linear_backward(dy, x, PackedMatrix(weight) if packed else weight, **options)
    options["pre_activation"] = double(options["pre_activation"])
    usual = float(dy.max()) if activation == "tanh" else 0.0  # its slope may be small everywhere
    expected = reference.linear_backward(*double(dy, x, weight), **options)
    for gradient, ideal, length, other in zip(gradients, expected, (n, m, m), (weight, x, np.ones(1)), strict=True):
        assert_close(gradient, ideal, length, magnitude=usual * float(other.max()))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gradient_of_linear(isa: str, threads: int, activation: str | None) -> None:
    """From linear's own pre-activation: how fast the float64 result changes in a direction of all arguments."""
    rng = np.random.default_rng(5)
    x, weight, bias, dy, residual = (normal(rng, *shape) for shape in ((6, 20), (9, 20), (9,), (6, 9), (6, 9)))
    y, pre = kernels.linear(x, weight, bias, activation=activation, return_pre_activation=True)
    assert_same_bits(y, kernels.linear(x, weight, bias, activation=activation))
    assert_same_bits(pre, kernels.linear(x, weight, bias))
    both = kernels.linear(x, weight, bias, residual, activation=activation, return_pre_activation=True)
    same_bits(both, (y + residual, pre))
    pre_activation = None if activation is None else pre
    gradients = kernels.linear_backward(dy, x, weight, activation=activation, pre_activation=pre_activation)
    direction = double(normal(rng, 6, 20), normal(rng, 9, 20), normal(rng, 9))
    slope = sum(float((double(g) * d).sum()) for g, d in zip(gradients, direction, strict=True))
    step = 1e-6

    def moved(by: float) -> Any:
        arguments = (a + by * d for a, d in zip(double(x, weight, bias), direction, strict=True))
        return reference.linear(*arguments, activation=activation)

    above, below = moved(step), moved(-step)
    assert slope == pytest.approx(float(((above - below) * dy).sum() / (2 * step)), rel=1e-4, abs=1e-3)


def test_bad_input() -> None:
    dy, x, weight, pre = operands(4, 5, 6)
    call = kernels.linear_backward
    name = "^linear_backward: "
    for i, argument in enumerate(("dy", "x", "weight")):
        arguments = [dy, x, weight]
        arguments[i] = arguments[i].astype(np.float64)
        with pytest.raises(TypeError, match=f"{name}{argument} must be float32, got float64$"):
            call(*arguments)
        arguments[i] = [1.0]
        with pytest.raises(TypeError, match=f"{name}{argument} must be .*, got list$"):
            call(*arguments)
        arguments = [dy, x, weight]
        arguments[i] = np.zeros((4, 12), np.float32)[:, ::2]
        with pytest.raises(ValueError, match=f"{name}{argument} .*contiguous"):
            call(*arguments)
    for form in (weight, PackedMatrix(weight)):
        with pytest.raises(ValueError, match=rf"{name}dy must have shape \(4, 5\), got \(4, 4\)$"):
            call(dy[:, :4], x, form)
        with pytest.raises(ValueError, match=rf"{name}dy must have shape \(4, 5\), got \(3, 5\)$"):
            call(dy[:3], x, form)
        with pytest.raises(ValueError, match=rf"{name}x must have 6 columns, .*got shape \(4, 5\)$"):
            call(dy, x[:, :5], form)
        with pytest.raises(ValueError, match=f"{name}activation must be .*, got 'elu'$"):
            call(dy, x, form, activation="elu", pre_activation=pre)
        with pytest.raises(ValueError, match=f"{name}pre_activation must be given"):
            call(dy, x, form, activation="gelu")
        with pytest.raises(ValueError, match=rf"{name}pre_activation must have shape \(4, 5\), got \(5, 5\)$"):
            call(dy, x, form, activation="gelu", pre_activation=np.zeros((5, 5), np.float32))
        with pytest.raises(ValueError, match=rf"{name}dweight must have shape \(5, 6\), got \(6, 5\)$"):
            call(dy, x, form, dweight=np.zeros((6, 5), np.float32))
        with pytest.raises(ValueError, match=rf"{name}dbias must have shape \(5,\), got \(6,\)$"):
            call(dy, x, form, dbias=np.zeros(6, np.float32))
        with pytest.raises(TypeError, match=f"{name}dweight must be float32, got float64$"):
            call(dy, x, form, dweight=np.zeros((5, 6)))
        with pytest.raises(ValueError, match=f"{name}dweight .*contiguous"):
            call(dy, x, form, dweight=np.zeros((5, 7), np.float32)[:, :6])
        with pytest.raises(ValueError, match=f"{name}dbias .*(writable|read-only)"):
            call(dy, x, form, dbias=place(np.zeros(5, np.float32), "read-only"))
        with pytest.raises(ValueError, match=f"{name}dbias .*overlap"):
            call(dy, x, form, dbias=dy[0])
    with pytest.raises(ValueError, match=f"{name}dweight .*overlap"):
        call(dy, x, weight, dweight=weight)
