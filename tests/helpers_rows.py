"""What every kernel that works row by row must do: the checks that their test files share.

`call(x, out=...)` is the compiled kernel and `exact(x)` the reference, each with its other arguments bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import SIZES, assert_close, assert_same_bits, double, nan_out, normal, place

import fastattn

Call = Callable[..., Any]


ROLES = pytest.mark.parametrize("role", ["dy", "saved"])


def of_one(backward: Call, role: str) -> Call:
    """`backward(dy, saved, out=...)` as a function of one of the two; the other is that one with its rows reversed.

    So a backward pass can be checked by what checks a forward pass.
    """

    def call(x: Any, **out: Any) -> Any:
        other = np.ascontiguousarray(x[..., ::-1])
        return backward(x, other, **out) if role == "dy" else backward(other, x, **out)

    return call


def check_backward_rows(backward: Call, exact: Call, role: str) -> None:
    """What is checked apart for a forward pass: many rows, one by one, `out` and emptiness."""
    call = of_one(backward, role)
    check_many_rows(call, of_one(exact, role))
    check_rows_are_independent(call)
    check_out(call)
    check_empty(call)


def check_bad_backward(name: str, backward: Call, saved: str) -> None:
    """What is refused of dy, of what is saved of the forward pass, and of `out`."""
    good = np.zeros((4, 6), np.float32)
    check_bad_x_and_out(name, lambda dy, **out: backward(dy, good, **out), "dy")
    check_bad_x_and_out(name, lambda x, **out: backward(good, x, **out), saved)
    with pytest.raises(ValueError, match=rf"^{name}: {saved} must have shape \(4, 6\), got \(6,\)$"):
        backward(good, good[0])


def check_values(call: Call, exact: Call, layout: str, length: Callable[[int], int] = int, c: float = 8.0) -> None:
    """Every odd size in this layout against float64; `length(dim)` terms are summed for one element."""
    rng = np.random.default_rng(1)
    for dim in SIZES:
        for rows in (1, 2, 7):
            x = place(normal(rng, rows, dim, mean=0.5), layout)
            y = call(x, out=nan_out(rows, dim))
            assert_close(y, exact(double(x)), length(dim), c)


def check_many_rows(call: Call, exact: Call) -> None:
    """Enough work for several threads, and the same bits with one of them."""
    x = normal(np.random.default_rng(2), 1031, 257)
    y = call(x, out=nan_out(*x.shape))
    assert_close(y, exact(double(x)), x.shape[1])
    fastattn.set_num_threads(1)
    assert_same_bits(call(x), y)


def check_rows_are_independent(call: Call) -> None:
    """A row has the same bits alone, among others, among others of NaN, in another order, in more axes."""
    rng = np.random.default_rng(3)
    for dim in (1, 7, 16, 33, 130, 768):
        x = normal(rng, 24, dim)
        y = call(x)
        for i in (0, 1, 5, 23):
            assert_same_bits(call(x[i]), y[i])
            assert_same_bits(call(x[i : i + 1]), y[i : i + 1])
            spoilt = np.full_like(x, np.nan)
            spoilt[i] = x[i]
            assert_same_bits(call(spoilt)[i], y[i])
        order = rng.permutation(24)
        assert_same_bits(call(x[order]), y[order])
        assert_same_bits(call(x.reshape(2, 3, 4, dim)), y.reshape(2, 3, 4, dim))
        for layout in ("strided", "end", "start", "read-only"):
            assert_same_bits(call(place(x, layout)), y)
        assert_same_bits(call(x[::-1])[::-1], y)
        assert_same_bits(call(np.broadcast_to(x[0], x.shape)), np.repeat(y[:1], 24, axis=0))


def check_empty(call: Call) -> None:
    """No rows, or rows of nothing, give an empty array of the same shape."""
    for shape in ((0, 5), (3, 0), (0,), (2, 0, 4)):
        assert call(np.zeros(shape, np.float32)).shape == shape


def check_out(call: Call) -> None:
    """`out` is what comes back, and may be `x` itself."""
    x = normal(np.random.default_rng(4), 5, 37)
    y = call(x)
    out = np.full_like(x, np.nan)
    assert call(x, out=out) is out
    assert_same_bits(out, y)
    assert call(x, out=x) is x
    assert_same_bits(x, y)


def check_bad_x_and_out(name: str, call: Call, x: str = "x") -> None:
    """Every kernel's first and last argument, the first being called `x`: what is refused, and in which words."""
    good = np.zeros((4, 6), np.float32)
    with pytest.raises(TypeError, match=f"^{name}: {x} must be float32, got float64$"):
        call(good.astype(np.float64))
    with pytest.raises(TypeError, match=f"^{name}: {x} must be .*, got list$"):
        call([[1.0, 2.0]])
    with pytest.raises(TypeError, match=f"^{name}: {x} must be .*, got NoneType$"):
        call(None)
    with pytest.raises(TypeError, match=f"^{name}: {x} must be float32, got >f4$"):
        call(good.astype(">f4"))
    with pytest.raises(ValueError, match=f"^{name}: {x} .*contiguous"):
        call(good[:, ::2])
    with pytest.raises(ValueError, match=f"^{name}: {x} .*contiguous"):
        call(np.asfortranarray(np.zeros((4, 6), np.float32)))
    crooked = np.frombuffer(bytes(97), np.uint8)[1:97].view(np.float32).reshape(4, 6)
    with pytest.raises(ValueError, match=f"^{name}: {x} must be aligned"):
        call(crooked)
    check_bad_out(name, call, good, good.shape)


def check_bad_out(name: str, call: Call, x: Any, shape: tuple[int, ...]) -> None:
    """What no kernel takes as `out`; `x` is a good first argument that gives an array of `shape`."""
    rows, columns = shape
    with pytest.raises(TypeError, match=f"^{name}: out must be float32, got float64$"):
        call(x, out=np.zeros(shape))
    with pytest.raises(TypeError, match=f"^{name}: out must be .*, got list$"):
        call(x, out=[])
    with pytest.raises(ValueError, match=rf"^{name}: out must have shape \({rows}, {columns}\), got \({rows + 1}, "):
        call(x, out=np.zeros((rows + 1, columns), np.float32))
    with pytest.raises(ValueError, match=f"^{name}: out .*contiguous"):
        call(x, out=np.zeros((rows, columns + 1), np.float32)[:, :columns])
    with pytest.raises(ValueError, match=f"^{name}: out .*(writable|read-only)"):
        call(x, out=place(np.zeros(shape, np.float32), "read-only"))
    if x.dtype == np.float32:
        room = np.zeros(x.size + rows * columns, np.float32)
        overlapping = room[: x.size].reshape(x.shape)
        out = room[x.size - 1 :][: rows * columns].reshape(shape)
        with pytest.raises(ValueError, match=f"^{name}: out .*overlap"):
            call(overlapping, out=out)


def check_random_rows(call: Call, exact: Call, values: Any) -> None:
    """Whatever hypothesis thinks of, against the reference; `values` is a list of rows of one length."""
    x = np.array(values, np.float32)
    assert_close(call(x, out=nan_out(*x.shape)), exact(double(x)), x.shape[1])
