"""kernels.gated_activation and its backward pass: against the reference, in place, and what must not change bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, SIZES, assert_close, assert_same_bits, double, nan_out, normal, place
from helpers_rows import check_bad_out

import fastattn
from fastattn import kernels, reference

ACTIVATIONS = pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "silu", "tanh"])


def operands(rows: int, dim: int, seed: int = 1) -> tuple[Any, Any]:
    """dy, x."""
    rng = np.random.default_rng(seed)
    return normal(rng, rows, dim), normal(rng, rows, 2 * dim)


@ACTIVATIONS
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(isa: str, threads: int, layout: str, activation: str) -> None:
    for dim in SIZES:
        for rows in (1, 7):
            dy, x = (place(array, layout) for array in operands(rows, dim))
            y = kernels.gated_activation(x, activation, out=nan_out(rows, dim))
            assert_close(y, reference.gated_activation(double(x), activation))
            dx = kernels.gated_activation_backward(dy, x, activation, out=nan_out(rows, 2 * dim))
            assert_close(dx, reference.gated_activation_backward(*double(dy, x), activation))


@ACTIVATIONS
def test_the_parts_are_those_of_other_kernels(isa: str, activation: str) -> None:
    """The activation has the bits of `linear`'s."""
    _, x = operands(5, 40)
    a, b = (np.ascontiguousarray(half) for half in np.split(x, 2, axis=1))
    acted = kernels.linear(a, np.eye(40, dtype=np.float32), activation=activation)
    assert_same_bits(kernels.gated_activation(x, activation), acted * b)


def test_rows_are_independent(isa: str, threads: int) -> None:
    """Alone, among NaN, in more axes, with one thread or two: the same bits."""
    dy, x = operands(1031, 129)
    calls = [
        lambda rows: kernels.gated_activation(x[rows], "gelu"),
        lambda rows: kernels.gated_activation_backward(dy[rows], x[rows], "gelu"),
    ]
    for call in calls:
        y = call(slice(None))
        for rows in (slice(0, 1), slice(7, 60), slice(1030, None)):
            assert_same_bits(call(rows), y[rows])
        assert_same_bits(call(0), y[0])
        assert_same_bits(call(np.arange(1031)[::-1])[::-1], y)
        fastattn.set_num_threads(1)
        assert_same_bits(call(slice(None)), y)
        fastattn.set_num_threads(threads)
    spoilt = np.full_like(x, np.nan)
    spoilt[3] = x[3]
    assert_same_bits(kernels.gated_activation(spoilt, "gelu")[3], calls[0](3))
    deep = kernels.gated_activation(x[:30].reshape(2, 3, 5, 258), "gelu")
    assert_same_bits(deep.reshape(30, 129), calls[0](slice(30)))


def test_in_place(isa: str, threads: int) -> None:
    """`out` may be the first half of x, which may have gaps between its rows; the second half stays."""
    for shape, gap in (((200, 38), 0), ((1, 38), 0), ((200, 38), 5), ((2, 3, 38), 0), ((38,), 0)):
        given = normal(np.random.default_rng(2), *shape[:-1], shape[-1] + gap)
        whole = given.copy()
        x = whole[..., : shape[-1]]
        out = x[..., :19]
        y = kernels.gated_activation(x, "silu")
        assert kernels.gated_activation(x, "silu", out=out) is out
        assert_same_bits(np.ascontiguousarray(out), y)
        assert_same_bits(whole[..., 19:], given[..., 19:])


def test_more_than_the_caches_hold(isa: str) -> None:
    """Streamed results are the same as others."""
    dy, x = operands(4, 3000)
    for call, some in (
        (lambda d, x: kernels.gated_activation(x, "silu"), 3000),
        (lambda d, x: kernels.gated_activation_backward(d, x, "silu"), 6000),
    ):
        many = [np.broadcast_to(a[:, None], (4, 700, a.shape[1])).reshape(2800, -1) for a in (dy, x)]
        y, expected = call(*many).reshape(4, 700, some), call(dy, x)
        for i in (0, 1, 349, 699):
            assert_same_bits(y[:, i], expected)


def test_far_out(isa: str) -> None:
    """A NaN stays, and a gate of 0 lets nothing through."""
    x = np.array([[np.nan, 1.0], [1.0, np.nan], [-np.inf, 2.0], [np.inf, 2.0]], np.float32)
    for activation in ("gelu", "silu", "relu"):
        y = kernels.gated_activation(x, activation)[:, 0]
        np.testing.assert_array_equal(y, [np.nan, np.nan, 0.0, np.inf])


def test_empty() -> None:
    for shape in ((0, 6), (3, 0), (2, 0, 4)):
        x = np.zeros(shape, np.float32)
        half = (*shape[:-1], shape[-1] // 2)
        assert kernels.gated_activation(x, "relu").shape == half
        assert kernels.gated_activation_backward(np.zeros(half, np.float32), x, "relu").shape == shape


def test_bad_input() -> None:
    dy, x = np.zeros((4, 3), np.float32), np.zeros((4, 6), np.float32)
    forward, backward = "gated_activation", "gated_activation_backward"
    check_bad_out(forward, lambda x, **out: kernels.gated_activation(x, "relu", **out), x, (4, 3))
    check_bad_out(backward, lambda x, **out: kernels.gated_activation_backward(dy, x, "relu", **out), x, (4, 6))

    def refused(name: str, error: type[Exception], message: str, *given: Any, **out: Any) -> None:
        with pytest.raises(error, match=f"^{name}: {message}"):
            getattr(kernels, name)(*given, **out)

    for name, given in ((forward, ()), (backward, (dy,))):
        refused(name, TypeError, "x must be float32, got float64$", *given, double(x), "relu")
        refused(name, ValueError, "x .*contiguous", *given, np.zeros((4, 12), np.float32)[:, ::2], "relu")
        refused(name, ValueError, "activation must be one of 'relu', 'gelu', .*, got 'sigmoid'$", *given, x, "sigmoid")
        refused(
            name, ValueError, r"x must have an even number of columns, got shape \(4, 5\)$", *given, x[:, :5], "relu"
        )
    refused(backward, TypeError, "dy must be float32, got float64$", double(dy), x, "relu")
    refused(backward, ValueError, r"dy must have shape \(4, 3\), got \(4, 6\)$", x, x, "relu")
    refused(backward, ValueError, "out must not overlap x$", dy, x, "relu", out=x)
    refused(forward, ValueError, "out .*(overlap|contiguous)", x, "relu", out=x[:, 3:])
    whole = np.zeros((4, 9), np.float32)
    refused(forward, ValueError, "out .*contiguous", whole[:, :6], "relu", out=whole[:, 1:4])
    fixed = place(x, "read-only")
    refused(forward, ValueError, "out .*(writable|read-only)", fixed, "relu", out=fixed[:, :3])


def test_same_as_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch, the other side of this test, is not installed")
    dy, x = operands(50, 33)
    tensor = torch.tensor(x, requires_grad=True)
    a, b = tensor.chunk(2, dim=-1)
    y = torch.nn.functional.gelu(a) * b
    y.backward(torch.tensor(dy))
    np.testing.assert_allclose(kernels.gated_activation(x, "gelu"), y.detach().numpy(), rtol=0, atol=1e-5)
    dx = kernels.gated_activation_backward(dy, x, "gelu")
    np.testing.assert_allclose(dx, tensor.grad.numpy(), rtol=0, atol=2e-5)
