"""kernels.rotary_embedding and its backward pass: against the reference, in place, and what must not change bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, assert_close, assert_same_bits, double, nan_out, normal, place

import fastattn
from fastattn import kernels, nn, reference

DIRECTIONS = pytest.mark.parametrize("name", ["rotary_embedding", "rotary_embedding_backward"])


def operands(tokens: int, parts: int, heads: int, dim: int) -> tuple[Any, Any, Any]:
    """x, position_ids, table."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 90, tokens)
    table, rows = nn.SinusoidalPositions(dim, order="concatenated", max_timescale=100.0).lookup(np.arange(90))
    assert rows.tolist() == list(range(90))
    return normal(rng, tokens, parts, heads, dim), ids, table


@DIRECTIONS
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(isa: str, threads: int, layout: str, name: str) -> None:
    for dim in (2, 4, 14, 16, 18, 30, 32, 34, 64, 66, 128, 256):
        for tokens, parts, heads in ((1, 2, 1), (7, 3, 2), (5, 4, 3)):
            x, ids, table = operands(tokens, parts, heads, dim)
            x, table = place(x, layout), place(table, layout)
            y = getattr(kernels, name)(x, ids, table, out=nan_out(*x.shape))
            assert_close(y, getattr(reference, name)(double(x), ids, double(table)))
            assert_same_bits(y[:, 2:], np.ascontiguousarray(x[:, 2:]))


@DIRECTIONS
def test_bits(isa: str, threads: int, name: str) -> None:
    """A token alone, among NaN, from any strides, in place, with one thread or two."""
    call = getattr(kernels, name)
    x, ids, table = operands(1031, 3, 4, 24)
    y = call(x, ids, table)
    for rows in (slice(0, 1), slice(7, 60), slice(1030, None)):
        assert_same_bits(call(x[rows], ids[rows], table), y[rows])
    spoilt = np.full_like(x, np.nan)
    spoilt[5] = x[5]
    assert_same_bits(call(spoilt, ids, table)[5], y[5])
    apart = np.ascontiguousarray(x.transpose(2, 1, 0, 3)).transpose(2, 1, 0, 3)
    assert_same_bits(call(apart, ids, table), y)
    assert_same_bits(call(np.broadcast_to(x[:1], x.shape), ids, table)[0], y[0])
    out = x.copy()
    assert call(out, ids, table, out=out) is out
    assert_same_bits(out, y)
    assert_same_bits(call(x[:, :2], ids, table), np.ascontiguousarray(y[:, :2]))
    fastattn.set_num_threads(1)
    assert_same_bits(call(x, ids, table), y)


def test_backward_turns_back(isa: str) -> None:
    x, ids, table = operands(40, 3, 2, 64)
    again = kernels.rotary_embedding_backward(kernels.rotary_embedding(x, ids, table), ids, table)
    np.testing.assert_allclose(again, x, rtol=0, atol=2e-6)


def test_empty() -> None:
    _, ids, table = operands(0, 3, 2, 4)
    for shape in ((0, 3, 2, 4), (0, 3, 0, 4)):
        assert kernels.rotary_embedding(np.zeros(shape, np.float32), ids, table).shape == shape
    x = np.zeros((2, 3, 0, 4), np.float32)
    assert kernels.rotary_embedding(x, np.array([1, 0]), table).shape == x.shape


@DIRECTIONS
def test_bad_input(name: str) -> None:
    x, ids, table = operands(4, 3, 2, 6)
    argument = "dy" if "backward" in name else "x"

    def refused(error: type[Exception], message: str, *given: Any, **out: Any) -> None:
        with pytest.raises(error, match=f"^{name}: {message}"):
            getattr(kernels, name)(*given, **out)

    wanted = f"{argument} must have queries and keys, and heads of an even size, got shape "
    refused(TypeError, f"{argument} must be float32, got float64$", double(x), ids, table)
    refused(TypeError, f"{argument} must be .*, got NoneType$", None, ids, table)
    refused(ValueError, f"{argument} must have 4 axes", x[0], ids, table)
    refused(ValueError, f"{argument} .*contiguous", x[..., ::2], ids, table)
    refused(ValueError, rf"{wanted}\(4, 1, 2, 6\)$", x[:, :1], ids, table)
    refused(ValueError, rf"{wanted}\(4, 3, 2, 5\)$", x[..., :5], ids, table)
    refused(TypeError, "position_ids must be int64, got int32$", x, ids.astype(np.int32), table)
    refused(ValueError, r"position_ids must have shape \(4,\), got \(3,\)$", x, ids[:3], table)
    refused(ValueError, r"position_ids must be in \[0, 3\).*table, got", x, np.full(4, 3), table[:3])
    refused(ValueError, r"position_ids must be in \[0, 3\).*table, got -1", x, np.full(4, -1), table[:3])
    refused(TypeError, "table must be float32, got float64$", x, ids, double(table))
    refused(ValueError, r"table must have shape \(128, 6\), got \(128, 4\)$", x, ids, table[:, :4])
    refused(ValueError, r"out must have shape \(4, 3, 2, 6\), got \(4, 2, 2, 6\)$", x, ids, table, out=x[:, :2].copy())
    refused(ValueError, "out .*contiguous", x, ids, table, out=np.zeros((4, 3, 2, 7), np.float32)[..., :6])
    refused(ValueError, "out .*(writable|read-only)", x, ids, table, out=place(x, "read-only"))
    room = np.zeros(x.size + 1, np.float32)
    shifted = room[1:].reshape(x.shape)
    refused(ValueError, f"out must not overlap {argument}$", room[:-1].reshape(x.shape), ids, table, out=shifted)
    own = np.zeros((144, 6), np.float32)
    refused(ValueError, "out must not overlap table$", x, ids, own, out=own[:24].reshape(x.shape))
