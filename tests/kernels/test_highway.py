"""highway and its backward pass against the reference, and what must not change their bits."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, SIZES, assert_close, assert_same_bits, double, nan_out, normal, place
from helpers_rows import check_bad_out, check_bad_x_and_out

import fastattn
from fastattn import kernels, reference
from fastattn.kernels import PackedMatrix


def operands(rows: int, dim: int, seed: int = 1) -> tuple[Any, Any, Any]:
    """x, weight, bias."""
    rng = np.random.default_rng(seed)
    return normal(rng, rows, dim), normal(rng, 2 * dim, dim) / np.float32(dim**0.5), normal(rng, 2 * dim)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(isa: str, threads: int, layout: str, packed: bool) -> None:
    for dim, rows in product(SIZES[:-1], (1, 7)):
        x, weight, bias = (place(a, layout) for a in operands(rows, dim))
        w = PackedMatrix(weight) if packed else weight
        y = kernels.highway(x, w, bias, out=nan_out(rows, dim))
        assert_close(y, reference.highway(*double(x, weight, bias)), dim)
        again, projection = kernels.highway(x, w, bias, return_projection=True)
        assert_same_bits(again, y)
        assert_same_bits(projection, kernels.linear(x, w, bias))


def test_rows_are_independent(isa: str, threads: int) -> None:
    """Alone, among NaN, in more than one block of rows, packed or plain, with one thread or two: the same bits."""
    x, weight, bias = operands(700, 40)
    packed = PackedMatrix(weight)
    y = kernels.highway(x, packed, bias, out=nan_out(700, 40))
    assert_close(y, reference.highway(*double(x, weight, bias)), 40)
    assert_same_bits(kernels.highway(x, weight, bias), y)
    assert_same_bits(kernels.highway(x.reshape(7, 100, 40), packed, bias), y.reshape(7, 100, 40))
    for i in (0, 255, 256, 699):
        spoilt = np.full_like(x, np.nan)
        spoilt[i] = x[i]
        for w in (packed, weight):
            assert_same_bits(kernels.highway(x[i], w, bias), y[i])
            assert_same_bits(kernels.highway(spoilt, w, bias)[i], y[i])
    fastattn.set_num_threads(1)
    assert_same_bits(kernels.highway(x, packed, bias), y)


def test_an_open_and_a_closed_gate(isa: str) -> None:
    """Far out the result is h or x itself, without NaN; and NaN stays NaN."""
    x = np.array([[3.0], [-3.0], [np.nan]], np.float32)
    weight = np.array([[2.0], [0.0]], np.float32)
    for t, expected in (
        (np.inf, [6.0, 0.0]),
        (200.0, [6.0, 0.0]),
        (-np.inf, [3.0, -3.0]),
        (-200.0, [3.0, -3.0]),
        (np.nan, [np.nan] * 2),
    ):
        y = kernels.highway(x, weight, np.array([0.0, t], np.float32))
        np.testing.assert_array_equal(y[:, 0], [*expected, np.nan])


def test_out_may_be_x(isa: str, threads: int) -> None:
    x, weight, bias = operands(300, 19)
    for w in (weight, PackedMatrix(weight)):
        y = kernels.highway(x, w, bias)
        out = x.copy()
        assert kernels.highway(out, w, bias, out=out) is out
        assert_same_bits(out, y)


def test_empty(isa: str, threads: int) -> None:
    _, weight, bias = operands(0, 5)
    for w in (weight, PackedMatrix(weight)):
        y, projection = kernels.highway(np.zeros((2, 0, 5), np.float32), w, bias, return_projection=True)
        assert y.shape == (2, 0, 5)
        assert projection.shape == (2, 0, 10)
    nothing = np.zeros((3, 0), np.float32)
    assert kernels.highway(nothing, np.zeros((0, 0), np.float32), np.zeros(0, np.float32)).shape == (3, 0)
    dx, dweight, dbias = kernels.highway_backward(
        *(np.zeros((0, 5), np.float32),) * 2, weight, np.zeros((0, 10), np.float32)
    )
    assert dx.shape == (0, 5)
    assert not dweight.any()
    assert not dbias.any()


def test_bad_input() -> None:
    x, weight, bias = (np.zeros(shape, np.float32) for shape in ((4, 6), (12, 6), 12))

    def refused(error: type[Exception], message: str, *given: Any) -> None:
        with pytest.raises(error, match=f"^highway: {message}"):
            kernels.highway(*given)

    check_bad_out("highway", lambda x, out: kernels.highway(x, weight, bias, out=out), x, (4, 6))
    check_bad_x_and_out("highway", lambda x, **out: kernels.highway(x, weight, bias, **out))
    refused(TypeError, "weight must be float32, got float64$", x, double(weight), bias)
    refused(ValueError, r"weight must have shape \(12, 6\), got \(6, 6\)$", x, weight[:6], bias)
    refused(ValueError, r"weight must have shape \(12, 6\), got \(6, 6\)$", x, PackedMatrix(weight[:6]), bias)
    refused(ValueError, "weight must be packed with groups=1, got 2$", x, PackedMatrix(weight, 2), bias)
    refused(ValueError, r"bias must have shape \(12,\), got \(6,\)$", x, weight, bias[:6])
    refused(TypeError, "bias must be .*, got NoneType$", x, weight, None)
    with pytest.raises(ValueError, match=r"^highway: out must not overlap weight$"):
        kernels.highway(x, weight, bias, out=weight[:4])


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward_values(isa: str, threads: int, layout: str, packed: bool) -> None:
    rng = np.random.default_rng(2)
    for dim, rows in product(SIZES[:-1], (1, 70)):
        x, weight, bias = operands(rows, dim)
        projection = kernels.highway(x, weight, bias, return_projection=True)[1]
        dy, x, weight = (place(a, layout) for a in (normal(rng, rows, dim), x, weight))
        saved = projection if layout == "strided" else place(projection, layout)
        gradients = kernels.highway_backward(dy, x, PackedMatrix(weight) if packed else weight, saved)
        expected = reference.highway_backward(*double(dy, x, weight, projection))
        for gradient, exact, length in zip(gradients, expected, (2 * dim, rows, rows), strict=True):
            assert_close(gradient, exact, length, magnitude=1.0)


def test_backward_only_what_is_needed_and_added_to(isa: str) -> None:
    x, weight, bias = operands(130, 33)
    projection = kernels.highway(x, weight, bias, return_projection=True)[1]
    dy = normal(np.random.default_rng(3), 130, 33)
    everything = kernels.highway_backward(dy, x, weight, projection)
    for needed in product((False, True), repeat=3):
        flags = dict(zip(("need_dx", "need_dweight", "need_dbias"), needed, strict=True))
        gradients = kernels.highway_backward(dy, x, weight, projection, **flags)
        for gradient, expected, wanted in zip(gradients, everything, needed, strict=True):
            if wanted:
                assert_same_bits(gradient, expected)
            else:
                assert gradient is None
    dweight, dbias = np.ones((66, 33), np.float32), np.ones(66, np.float32)
    _, a, b = kernels.highway_backward(dy, x, weight, projection, dweight=dweight, dbias=dbias)
    assert a is dweight
    assert b is dbias
    assert_close(dweight, 1 + double(everything[1]), 130)
    assert_close(dbias, 1 + double(everything[2]), 130)


def test_backward_bits(isa: str, threads: int) -> None:
    """A row's gradient is its own, and all are those of one thread."""
    x, weight, bias = operands(300, 70)
    projection = kernels.highway(x, weight, bias, return_projection=True)[1]
    dy = normal(np.random.default_rng(4), 300, 70)
    gradients = kernels.highway_backward(dy, x, weight, projection)
    for rows in (slice(0, 1), slice(7, 60), slice(299, 300)):
        assert_same_bits(kernels.highway_backward(dy[rows], x[rows], weight, projection[rows])[0], gradients[0][rows])
    fastattn.set_num_threads(1)
    for a, b in zip(kernels.highway_backward(dy, x, weight, projection), gradients, strict=True):
        assert_same_bits(a, b)


def test_backward_of_relu_at_zero_and_nan(isa: str) -> None:
    one, weight = np.ones((3, 1), np.float32), np.zeros((2, 1), np.float32)
    projection = np.array([[0.0, 0.0], [-1.0, 0.0], [np.nan, 0.0]], np.float32)
    for row, expected in enumerate((0.0, 0.0, 0.5)):
        dbias = kernels.highway_backward(one[:1], one[:1], weight, projection[row : row + 1])[2]
        assert dbias[0] == expected


def test_backward_bad_input() -> None:
    x, weight, projection = (np.zeros(shape, np.float32) for shape in ((4, 6), (12, 6), (4, 12)))

    def refused(error: type[Exception], message: str, *given: Any, **options: Any) -> None:
        with pytest.raises(error, match=f"^highway_backward: {message}"):
            kernels.highway_backward(*given, **options)

    good = (x, x, weight, projection)
    refused(TypeError, "dy must be float32, got float64$", double(x), *good[1:])
    refused(ValueError, r"dy must have shape \(4, 6\), got \(3, 6\)$", x[:3], *good[1:])
    refused(TypeError, "x must be float32, got float64$", x, double(x), weight, projection)
    refused(ValueError, r"weight must have shape \(12, 6\), got \(6, 6\)$", x, x, weight[:6], projection)
    refused(ValueError, r"projection must have shape \(4, 12\), got \(4, 6\)$", x, x, weight, x)
    refused(ValueError, "projection must be C-contiguous", x, x, weight, np.zeros((4, 24), np.float32)[:, ::2])
    refused(ValueError, r"dweight must have shape \(12, 6\), got \(4, 6\)$", *good, dweight=np.zeros_like(x))
    refused(ValueError, "dweight must not overlap weight$", *good, dweight=weight)
    refused(ValueError, r"dbias must have shape \(12,\), got \(6,\)$", *good, dbias=np.zeros(6, np.float32))
    refused(ValueError, "dbias must not overlap projection$", *good, dbias=projection[0])
    dweight = np.zeros((12, 6), np.float32)
    refused(ValueError, "dbias must not overlap dweight$", *good, dweight=dweight, dbias=dweight.reshape(-1)[:12])


def test_same_as_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch, the other side of this test, is not installed")
    x, weight, bias = operands(50, 33)
    dy = normal(np.random.default_rng(5), 50, 33)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    h, t = torch.nn.functional.linear(*tensors).chunk(2, dim=-1)
    gate = torch.sigmoid(t)
    wanted = gate * torch.relu(h) + (1 - gate) * tensors[0]
    wanted.backward(torch.tensor(dy))
    y, projection = kernels.highway(x, weight, bias, return_projection=True)
    np.testing.assert_allclose(y, wanted.detach().numpy(), rtol=0, atol=1e-5)
    for gradient, tensor in zip(kernels.highway_backward(dy, x, weight, projection), tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=0, atol=1e-5 * float(tensor.grad.abs().max()))


def test_out_of_the_reference_may_be_x() -> None:
    x, weight, bias = operands(6, 8)
    expected, out = reference.highway(x, weight, bias), x.copy()
    assert reference.highway(out, weight, bias, out=out) is out
    assert_same_bits(out, expected)
