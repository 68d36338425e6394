"""linear against the reference, its FMA chain, and what must not change its bits."""

from __future__ import annotations

import pickle
from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, SIZES, assert_close, assert_same_bits, double, nan_out, normal, place
from helpers_rows import check_bad_out, check_bad_x_and_out
from hypothesis import given
from hypothesis import strategies as st

import fastattn
from fastattn import kernels, reference
from fastattn.kernels import PackedMatrix

ACTIVATIONS = (None, "relu", "gelu", "gelu_tanh", "silu", "tanh")
SHAPES = [*((s, 33, 65) for s in SIZES), *((7, s, 65) for s in SIZES), *((7, 33, s) for s in SIZES)]
"""(M, N, K)."""


def operands(m: int, n: int, k: int, seed: int = 1) -> tuple[Any, Any, Any, Any]:
    """x, weight, bias, residual; no sum is small by chance, so that its magnitude is the terms'."""
    rng = np.random.default_rng(seed)
    return (
        normal(rng, m, k, mean=0.5),
        normal(rng, n, k, mean=0.5),
        normal(rng, n),
        normal(rng, m, n),
    )


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(isa: str, threads: int, layout: str, packed: bool) -> None:
    for m, n, k in SHAPES:
        x, weight, bias, residual = (place(a, layout) for a in operands(m, n, k))
        w = PackedMatrix(weight) if packed else weight
        y = kernels.linear(x, w, bias, residual, out=nan_out(m, n))
        assert_close(y, reference.linear(*double(x, weight, bias, residual)), k)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_epilogue(isa: str, threads: int, activation: str | None) -> None:
    """Bias, activation and residual: each with and without, in this order."""
    for (m, n, k), use_bias, use_residual in product(((1, 17, 33), (9, 65, 300)), (False, True), (False, True)):
        x, weight, bias, residual = operands(m, n, k)
        x -= np.float32(0.5)  # both signs
        weight /= np.float32(k**0.5)
        b, r = (bias if use_bias else None), (residual if use_residual else None)
        y = kernels.linear(x, weight, b, r, activation=activation, out=nan_out(m, n))
        assert_close(y, reference.linear(*double(x, weight, b, r), activation=activation), k)
        apart = kernels.linear(x, weight, b)
        if activation == "relu":
            apart = np.maximum(apart, 0)
        elif activation in ("gelu", "gelu_tanh"):
            apart = kernels.gelu(apart, "none" if activation == "gelu" else "tanh")
        elif activation is not None:
            continue
        assert_same_bits(y, apart if r is None else apart + r)


def test_every_element_is_one_fma_chain(isa: str) -> None:
    """Over k = 0 .. K-1 from 0, then the bias: the rule that makes all else invariant, checked bit by bit."""
    for m, n, k in ((3, 70, 600), (40, 9, 33), (1, 1, 1030), (20, 40, 2100)):
        x, weight, bias, _ = operands(m, n, k)
        y = np.zeros((m, n), np.float32)
        for i in range(k):
            if isa == "generic":  # its fma is a * b + c
                y = y + x[:, i, None] * weight[None, :, i]
            else:  # the product of two float32 is exact in float64
                y = (y + double(x[:, i, None]) * double(weight[None, :, i])).astype(np.float32)
        assert_same_bits(kernels.linear(x, weight), y)
        assert_same_bits(kernels.linear(x, PackedMatrix(weight), bias), y + bias)


@pytest.mark.parametrize("shape", [(300, 200, 300), (37, 130, 2100)], ids=str)
def test_no_row_or_column_depends_on_the_others(isa: str, threads: int, shape: tuple[int, int, int]) -> None:
    """Any M, any place, any N, packed or plain, one thread or two: the same bits."""
    m, n, k = shape
    x, weight, bias, residual = operands(m, n, k)
    packed = PackedMatrix(weight)
    y = kernels.linear(x, packed, bias, residual, activation="gelu", out=nan_out(m, n))
    assert_same_bits(kernels.linear(x, weight, bias, residual, activation="gelu"), y)
    for size in (1, 2, 3, 5, 6, 7, 13, 14, 15, 28, 29, 31):
        for start in (0, 1, m - size):
            rows = slice(start, start + size)
            for w in (packed, weight):
                part = kernels.linear(x[rows], w, bias, residual[rows], activation="gelu")
                assert_same_bits(part, y[rows])
    for columns in (slice(0, 1), slice(3, 20), slice(60, 130), slice(n - 1, n)):
        w = weight[columns]
        for form in (w, PackedMatrix(w)):
            part = kernels.linear(x, form, bias[columns], residual[:, columns], activation="gelu")
            assert_same_bits(part, y[:, columns])
    order = np.random.default_rng(2).permutation(m)
    assert_same_bits(kernels.linear(x[order], packed, bias, residual[order], activation="gelu"), y[order])
    fastattn.set_num_threads(1)
    assert_same_bits(kernels.linear(x, packed, bias, residual, activation="gelu"), y)


def test_nan_stays_in_its_row_and_column(isa: str, threads: int) -> None:
    x, weight, bias, _ = operands(23, 70, 90)
    clean = kernels.linear(x, weight, bias)
    for row, column in ((0, 0), (5, 64), (22, 69)):
        spoilt_x, spoilt_w = x.copy(), weight.copy()
        spoilt_x[row, 89] = np.nan
        spoilt_w[column, 0] = np.nan
        for w in (spoilt_w, PackedMatrix(spoilt_w)):
            y = kernels.linear(spoilt_x, w, bias, out=nan_out(23, 70))
            assert np.isnan(y[row]).all()
            assert np.isnan(y[:, column]).all()
            rest = np.ix_([i for i in range(23) if i != row], [j for j in range(70) if j != column])
            assert_same_bits(y[rest], clean[rest])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_special_values(isa: str, activation: str | None) -> None:
    special = np.array([np.inf, -np.inf, np.nan, 0.0, 1e38, -1e38, 3e38, 60.0, -60.0, -110.0], np.float32)
    one = np.ones((1, 1), np.float32)
    y = kernels.linear(special[:, None], one, activation=activation)
    expected = reference.linear(double(special[:, None]), double(one), activation=activation)
    for got, exact in zip(y, expected, strict=True):
        assert_close(got, exact)
    if activation is None:
        assert kernels.linear(special[4:5, None], 10 * one) == np.inf
        assert np.isnan(kernels.linear(special[None, :2], np.ones((1, 2), np.float32)))


@given(
    m=st.integers(1, 40),
    n=st.integers(1, 150),
    k=st.integers(1, 300),
    packed=st.booleans(),
    activation=st.sampled_from(ACTIVATIONS),
    use_bias=st.booleans(),
    use_residual=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
)
def test_any_shape(
    isa: str,
    threads: int,
    m: int,
    n: int,
    k: int,
    packed: bool,
    activation: str | None,
    use_bias: bool,
    use_residual: bool,
    layout: str,
) -> None:
    # all positive: no sum is small by chance
    x, weight, bias, residual = (place(np.abs(a), layout) for a in operands(m, n, k))
    b, r = (bias if use_bias else None), (residual if use_residual else None)
    w = PackedMatrix(weight) if packed else weight
    y = kernels.linear(x, w, b, r, activation=activation, out=nan_out(m, n))
    assert_close(y, reference.linear(*double(x, weight, b, r), activation=activation), k)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("shape", [(0, 5, 7), (4, 0, 7), (4, 5, 0), (0, 0, 0)], ids=str)
def test_empty(isa: str, threads: int, shape: tuple[int, int, int], packed: bool) -> None:
    m, n, k = shape
    x, weight, bias, residual = operands(m, n, k)
    w = PackedMatrix(weight) if packed else weight
    y = kernels.linear(x, w, bias, residual, activation="relu")
    assert_same_bits(y, np.maximum(np.broadcast_to(bias, (m, n)), 0) + residual)


def test_any_number_of_axes(isa: str) -> None:
    x, weight, bias, residual = operands(24, 10, 17)
    y = kernels.linear(x, weight, bias, residual)
    assert_same_bits(kernels.linear(x[0], weight, bias, residual[0]), y[0])
    deep = kernels.linear(x.reshape(2, 3, 4, 17), weight, bias, residual.reshape(2, 3, 4, 10))
    assert_same_bits(deep, y.reshape(2, 3, 4, 10))


def test_out(isa: str) -> None:
    x, weight, *_ = operands(5, 6, 7)
    out = np.full((5, 6), np.nan, np.float32)
    assert kernels.linear(x, weight, out=out) is out
    assert_same_bits(out, kernels.linear(x, weight))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_packed_matrix(layout: str) -> None:
    for n, k in ((1, 1), (5, 7), (64, 33), (65, 256), (130, 300), (0, 4), (4, 0)):
        weight = place(normal(np.random.default_rng(3), n, k), layout)
        packed = PackedMatrix(weight)
        assert packed.shape == (n, k)
        assert packed.dtype == "float32"
        assert packed.nbytes >= 4 * n * k
        plain = packed.unpack()
        assert_same_bits(plain, weight)
        assert not plain.flags.writeable
        assert not np.shares_memory(plain, weight)


def test_a_packed_matrix_is_a_copy_that_cannot_change() -> None:
    weight = np.ones((3, 4), np.float32)
    packed = PackedMatrix(weight)
    weight[:] = 7
    assert (packed.unpack() == 1).all()
    with pytest.raises(AttributeError):
        packed.shape = (4, 3)
    with pytest.raises(TypeError):
        pickle.dumps(packed)


def test_bad_packed_matrix() -> None:
    with pytest.raises(TypeError, match=r"PackedMatrix: weight must be float32, got float64"):
        PackedMatrix(np.zeros((3, 4)))
    with pytest.raises(TypeError, match=r"PackedMatrix: weight must be .*got list"):
        PackedMatrix([[1.0]])
    with pytest.raises(ValueError, match=r"PackedMatrix: weight must have 2 axes, got shape \(3,\)"):
        PackedMatrix(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"PackedMatrix: weight .*contiguous"):
        PackedMatrix(np.zeros((4, 3), np.float32).T)


def test_bad_input() -> None:
    x, weight, bias, residual = operands(4, 5, 6)

    def call(x: Any, out: Any = None) -> Any:
        return kernels.linear(x, weight, bias, out=out)

    check_bad_out("linear", call, x, (4, 5))
    check_bad_x_and_out("linear", lambda x, out=None: kernels.linear(x, np.zeros((6, 6), np.float32), out=out))
    for form in (weight, PackedMatrix(weight)):
        with pytest.raises(ValueError, match=r"^linear: x must have 6 columns, .*got shape \(4, 5\)$"):
            kernels.linear(x[:, :5], form)
        with pytest.raises(ValueError, match=r"^linear: bias must have shape \(5,\), got \(4,\)$"):
            kernels.linear(x, form, bias[:4])
        with pytest.raises(ValueError, match=r"^linear: bias must have shape \(5,\), got \(1, 5\)$"):
            kernels.linear(x, form, bias[None])
        with pytest.raises(ValueError, match=r"^linear: residual must have shape \(4, 5\), got \(3, 5\)$"):
            kernels.linear(x, form, bias, residual[:3])
        with pytest.raises(TypeError, match=r"^linear: residual must be float32, got float16$"):
            kernels.linear(x, form, bias, residual.astype(np.float16))
        with pytest.raises(ValueError, match=r"^linear: activation must be .*, got 'elu'$"):
            kernels.linear(x, form, activation="elu")
        with pytest.raises(ValueError, match=r"^linear: out .*overlap"):
            kernels.linear(x, form, bias, residual, out=residual)
    with pytest.raises(TypeError, match=r"^linear: weight must be .*, got list$"):
        kernels.linear(x, weight.tolist())
    with pytest.raises(TypeError, match=r"^linear: weight must be float32, got float64$"):
        kernels.linear(x, weight.astype(np.float64))
    with pytest.raises(ValueError, match=r"^linear: weight must have 2 axes, got shape \(6,\)$"):
        kernels.linear(x, weight[0])
    with pytest.raises(ValueError, match=r"^linear: weight .*contiguous"):
        kernels.linear(x, np.zeros((6, 5), np.float32).T)
