"""Products with weights of fewer bits: exact integers, the bits of the reference, and what must not change them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, SIZES, assert_same_bits, nan_out, normal, place
from hypothesis import given, settings
from hypothesis import strategies as st

import fastattn
from fastattn import _core, kernels, reference
from fastattn.kernels import PackedMatrix
from fastattn.reference.quantization import fits, quantize_rows, quantize_weight

SHAPES = [*((s, 33, 65) for s in SIZES), *((7, s, 65) for s in SIZES), *((7, 33, s) for s in SIZES), (130, 70, 600)]
"""(M, N, K)."""


@pytest.fixture(params=[True, False], ids=["dot", "pairs"])
def dot(request: pytest.FixtureRequest) -> Iterator[bool]:
    """With the processor's instruction for products of bytes, if it has one, and without."""
    _core.allow_dot_product(request.param)
    yield request.param
    _core.allow_dot_product(True)


def reference_of(x: Any, weight: PackedMatrix, bias: Any = None) -> Any:
    return reference.linear(x, weight, bias)


def rounded_to_bfloat16(x: Any) -> Any:
    bits = x.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_int8_has_the_bits_of_the_reference(isa: str, threads: int, dot: bool, layout: str) -> None:
    rng = np.random.default_rng(0)
    for m, n, k in SHAPES:
        x, weight, bias = normal(rng, m, k, mean=0.3), normal(rng, n, k), normal(rng, n)
        input_scales = np.exp(normal(rng, k)) if n % 2 else None
        w = PackedMatrix(weight, dtype="int8", input_scales=input_scales)
        y = kernels.linear(place(x, layout), w, place(bias, layout), out=nan_out(m, n))
        assert_same_bits(y, reference_of(x, w, bias))
        assert_same_bits(kernels.linear(place(x, layout), w), reference_of(x, w))


@pytest.mark.parametrize("k", [1, 2, 7, 8, 9, 4097, 131_000])
def test_integers_are_exact_at_their_extremes(isa: str, dot: bool, k: int) -> None:
    """All weights at the limit of their lane and all activations at 255: the largest sums, and the int16 in between."""
    pattern = [127, 1, 64, 64, 0, 0, 0, 0, 32, 32, 127, 1, 32, 32, 0, 0]
    numbers = np.resize(np.array(pattern, np.int8), k) * np.array([[1], [-1], [1]], np.int8)
    numbers[2, ::2] *= -1
    assert fits(numbers.astype(np.int64)).all()
    scales = np.array([1.0, 0.5, 2.0], np.float32)
    weight = PackedMatrix.of_numbers(numbers, scales)
    x = np.full((5, k), 255.0, np.float32)
    x[1:] = np.random.default_rng(k).integers(0, 256, (4, k))
    x[:, 0] = 255.0  # the scale is 1, the zero point 0
    x[4] -= 255.0  # and 255
    x[4, 1:2] = -255.0
    exact = x.astype(np.int64) @ numbers.T.astype(np.int64)
    assert_same_bits(kernels.linear(x, weight), exact.astype(np.float32) * scales)


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "silu", "tanh"])
def test_epilogue(isa: str, activation: str) -> None:
    rng = np.random.default_rng(1)
    x, weight, bias, residual = (normal(rng, *shape) for shape in ((9, 100), (67, 100), (67,), (9, 67)))
    w = PackedMatrix(weight, dtype="int8")
    ones = PackedMatrix(np.eye(67, dtype=np.float32))
    y = kernels.linear(x, w, bias, residual, activation=activation, out=nan_out(9, 67))
    assert_same_bits(y, kernels.linear(kernels.linear(x, w, bias), ones, activation=activation) + residual)


def test_bfloat16_has_the_bits_of_rounded_weights(isa: str, threads: int) -> None:
    rng = np.random.default_rng(2)
    for m, n, k in [*SHAPES, (3, 40, 2101), (40, 40, 3001)]:
        x, weight, bias, residual = (normal(rng, *shape) for shape in ((m, k), (n, k), (n,), (m, n)))
        w, rounded = PackedMatrix(weight, dtype="bfloat16"), rounded_to_bfloat16(weight)
        y = kernels.linear(x, w, bias, residual, activation="gelu", out=nan_out(m, n))
        assert_same_bits(y, kernels.linear(x, rounded, bias, residual, activation="gelu"))
        assert_same_bits(w.unpack(), rounded)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_rows_do_not_depend_on_their_company(isa: str, threads: int, dot: bool, dtype: str) -> None:
    rng = np.random.default_rng(3)
    x, weight = normal(rng, 300, 200), PackedMatrix(normal(rng, 130, 200), dtype=dtype)
    x[17, 3], x[100, 5] = np.nan, np.inf
    whole = kernels.linear(x, weight, activation="gelu")
    order = rng.permutation(300)
    assert_same_bits(kernels.linear(x[order], weight, activation="gelu"), whole[order])
    for rows in (slice(0, 1), slice(5, 12), slice(90, 111), slice(200, 299)):
        assert_same_bits(kernels.linear(x[rows], weight, activation="gelu"), whole[rows])
    fastattn.set_num_threads(3 - threads)
    assert_same_bits(kernels.linear(x, weight, activation="gelu"), whole)


def test_all_instruction_sets_agree() -> None:
    """Bit for bit, with and without the instruction for products of bytes."""
    rng = np.random.default_rng(4)
    for m, n, k in ((1, 5, 1), (13, 70, 65), (40, 33, 3000)):
        x, bias = normal(rng, m, k), normal(rng, n)
        weight = PackedMatrix(normal(rng, n, k), dtype="int8", input_scales=np.exp(normal(rng, k)))
        results = []
        for isa in fastattn.available_isas():
            fastattn.use_isa(isa)
            for allowed in (True, False):
                _core.allow_dot_product(allowed)
                results.append(kernels.linear(x, weight, bias))
        for result in results[1:]:
            assert_same_bits(result, results[0])


def test_a_row_that_is_not_finite_is_nan_and_others_are_not(isa: str) -> None:
    rng = np.random.default_rng(5)
    weight = PackedMatrix(normal(rng, 20, 50), dtype="int8")
    for bad in (np.nan, np.inf, -np.inf):
        for at in (0, 31, 49):
            x = normal(rng, 3, 50)
            clean = kernels.linear(x, weight)
            x[1, at] = bad
            y = kernels.linear(x, weight)
            assert np.isnan(y[1]).all()
            assert_same_bits(y[[0, 2]], clean[[0, 2]])


def test_extreme_rows(isa: str) -> None:
    """Zeros and less than a span give the bias; the largest floats neither overflow nor become NaN."""
    bias = np.array([1.0, -2.0], np.float32)
    weight = PackedMatrix(np.array([[1.0, 2.0, -1.0], [0.0, 0.0, 0.0]], np.float32), dtype="int8")
    largest = np.finfo(np.float32).max
    rows = [[0, 0, 0], [1e-37, -1e-37, 0], [1e-45, 0, 0], [largest, -largest, largest / 2], [5, 5, 5], [-3, -3, -3]]
    x = np.array(rows, np.float32)
    y = kernels.linear(x, weight, bias)
    assert_same_bits(y[:3], np.tile(bias, (3, 1)))
    assert_same_bits(y, reference_of(x, weight, bias))
    assert np.isneginf(y[3, 0]) or np.isfinite(y[3, 0])
    assert y[3, 1] == -2.0
    np.testing.assert_allclose(y[4:, 0], [11.0, -5.0], rtol=0.02)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (20, 64), (7, 65), (33, 384), (5, 1000)])
def test_scales_are_the_smallest_that_fit(n: int, k: int) -> None:
    rng = np.random.default_rng(6)
    weight = normal(rng, n, k) * np.exp(2 * normal(rng, n, 1))
    weight[0] = 0
    input_scales = np.exp(normal(rng, k))
    for given_scales in (None, input_scales):
        packed = PackedMatrix(weight, dtype="int8", input_scales=given_scales)
        found, wanted = packed.numbers(), quantize_weight(weight, given_scales)
        np.testing.assert_array_equal(found["weight"], wanted[0])
        assert_same_bits(found["scales"], wanted[1])
        assert ("input_scales" in found) == (given_scales is not None)
        steps = found["scales"][:, None] * (1 if given_scales is None else given_scales)
        assert (np.abs(packed.unpack() - weight) <= 0.5001 * steps).all()


@given(st.integers(1, 40), st.integers(1, 200), st.integers(0, 2**32 - 1), st.sampled_from([1e-30, 1.0, 1e30]))
@settings(deadline=None, max_examples=60)
def test_any_rows(m: int, k: int, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    x = (normal(rng, m, k, mean=float(rng.uniform(-2, 2))) * np.float32(size)).astype(np.float32)
    weight = PackedMatrix(normal(rng, 19, k), dtype="int8")
    assert_same_bits(kernels.linear(x, weight), reference_of(x, weight))
    numbers, scales, zeros = quantize_rows(x)
    about = (numbers.astype(np.float64) - zeros[:, None]) * scales[:, None]
    assert (np.abs(about - x) <= 0.5001 * scales[:, None]).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_numbers_make_the_same_matrix(dtype: str) -> None:
    rng = np.random.default_rng(7)
    x, weight = normal(rng, 5, 37), normal(rng, 21, 37)
    for scales in (None, np.exp(normal(rng, 37))) if dtype == "int8" else (None,):
        packed = PackedMatrix(weight, dtype=dtype, input_scales=scales)
        same = PackedMatrix.of_numbers(**packed.numbers())
        assert (same.dtype, same.shape, same.nbytes) == (packed.dtype, packed.shape, packed.nbytes)
        assert_same_bits(kernels.linear(x, same), kernels.linear(x, packed))
        assert_same_bits(same.unpack(), packed.unpack())
    assert f"dtype={dtype}" in repr(packed)


def test_a_quarter_of_the_memory() -> None:
    weight = np.ones((768, 768), np.float32)
    whole = PackedMatrix(weight).nbytes
    assert PackedMatrix(weight, dtype="bfloat16").nbytes == whole / 2
    assert whole / 4 <= PackedMatrix(weight, dtype="int8").nbytes <= whole / 4 + 2 * 4 * 768


def test_empty() -> None:
    for dtype in ("bfloat16", "int8"):
        empty = PackedMatrix(np.zeros((3, 0), np.float32), dtype=dtype)
        assert kernels.linear(np.zeros((2, 0), np.float32), empty).tolist() == [[0, 0, 0]] * 2
        assert kernels.linear(
            np.zeros((0, 4), np.float32), PackedMatrix(np.ones((3, 4), np.float32), dtype=dtype)
        ).shape == (0, 3)
        assert kernels.linear(
            np.ones((2, 4), np.float32), PackedMatrix(np.ones((0, 4), np.float32), dtype=dtype)
        ).shape == (2, 0)


def test_errors() -> None:
    weight = np.ones((4, 16), np.float32)
    int8 = PackedMatrix(weight, dtype="int8")
    x = np.ones((2, 16), np.float32)

    def refuses(error: type[Exception], match: str, call: Any) -> None:
        with pytest.raises(error, match=match):
            call()

    refuses(
        ValueError,
        "dtype must be one of 'float32', 'bfloat16', 'int8', got 'int4'",
        lambda: PackedMatrix(weight, dtype="int4"),
    )
    refuses(ValueError, "groups must be 1 for dtype 'int8', got 4", lambda: PackedMatrix(weight, 4, dtype="int8"))
    refuses(ValueError, "input_scales are for dtype 'int8'", lambda: PackedMatrix(weight, input_scales=weight[0]))
    refuses(
        ValueError,
        r"input_scales must have shape \(16,\)",
        lambda: PackedMatrix(weight, dtype="int8", input_scales=weight[0, :3]),
    )
    refuses(
        ValueError,
        "input_scales must be positive and finite, got 0.0.* at 2",
        lambda: PackedMatrix(weight, dtype="int8", input_scales=np.where(np.arange(16) == 2, 0, weight[0])),
    )
    bad = weight.copy()
    bad[2, 5] = np.nan
    for dtype in ("int8", "bfloat16"):
        refuses(ValueError, "weight must be finite, got nan at 2, 5", partial(PackedMatrix, bad, dtype=dtype))
    small, large = np.full(16, 1e-38, np.float32), np.full((4, 16), 1e30, np.float32)
    refuses(
        ValueError,
        "weight divided by input_scales must be finite, is not at 0, 0",
        lambda: PackedMatrix(large, dtype="int8", input_scales=small),
    )
    refuses(
        ValueError,
        "at most 262144 columns as int8, got 262145",
        lambda: PackedMatrix(np.zeros((1, 262145), np.float32), dtype="int8"),
    )
    refuses(
        ValueError,
        "return_pre_activation is for training",
        lambda: kernels.linear(x, int8, activation="relu", return_pre_activation=True),
    )
    refuses(
        TypeError,
        "weight must be float32, got a PackedMatrix of int8",
        lambda: kernels.linear_backward(np.ones((2, 4), np.float32), x, int8),
    )
    refuses(
        TypeError,
        "weight must be float32, got a PackedMatrix of int8",
        lambda: kernels.highway(x, PackedMatrix(np.ones((32, 16), np.float32), dtype="int8"), np.ones(32, np.float32)),
    )
    full = np.full((1, 8), 64, np.int8)
    refuses(
        ValueError, "must sum to at most 128 in each row", lambda: PackedMatrix.of_numbers(full, np.ones(1, np.float32))
    )
    refuses(
        ValueError,
        "scales must be finite and not negative, got -1.0",
        lambda: PackedMatrix.of_numbers(full // 2, -np.ones(1, np.float32)),
    )
    refuses(TypeError, "scales must be", lambda: PackedMatrix.of_numbers(full // 2))
    refuses(
        ValueError, "scales are for a weight of int8", lambda: PackedMatrix.of_numbers(weight, np.ones(4, np.float32))
    )
    refuses(ValueError, "weight must be finite", lambda: PackedMatrix.of_numbers(np.full((1, 2), 0x7F80, np.uint16)))
    refuses(TypeError, "weight must be float32, got float64", lambda: PackedMatrix.of_numbers(np.ones((1, 2))))
    with pytest.raises(TypeError):
        pickle.dumps(int8)


def test_the_reference_computes_with_the_same_numbers() -> None:
    rng = np.random.default_rng(8)
    x, weight, bias = normal(rng, 6, 50), normal(rng, 20, 50), normal(rng, 20)
    for dtype in ("int8", "bfloat16"):
        packed = PackedMatrix(weight, dtype=dtype)
        y, wanted = kernels.linear(x, packed, bias), reference.linear(x, packed, bias)
        if dtype == "int8":
            assert_same_bits(y, wanted)
        else:
            np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)
