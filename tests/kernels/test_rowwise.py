"""The kernels that map each row to a row, against the reference, and what must not change their bits."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, assert_same_bits, normal
from helpers_rows import (
    ROLES,
    check_backward_rows,
    check_bad_backward,
    check_bad_x_and_out,
    check_empty,
    check_many_rows,
    check_out,
    check_rows_are_independent,
    check_values,
    of_one,
)

from fastattn import kernels, reference

ELEMENTWISE: list[tuple[str, dict[str, Any]]] = [
    *(("gelu", {"approximate": form}) for form in ("none", "tanh")),
    *(("activation", {"function": function}) for function in ("relu", "sigmoid", "silu", "tanh")),
]
CASES: list[tuple[str, dict[str, Any]]] = [
    ("softmax", {}),
    ("log_softmax", {}),
    ("l2_normalize", {}),
    ("l2_normalize", {"eps": 1.5}),  # above the length of the shortest rows: one element's direction has no gradient
    *ELEMENTWISE,
]


def parametrize(cases: list[tuple[str, dict[str, Any]]]) -> Any:
    ids = ["-".join(map(str, (name, *options.values()))) for name, options in cases]
    return pytest.mark.parametrize(("name", "options"), cases, ids=ids)


def both(name: str, options: dict[str, Any]) -> list[partial[Any]]:
    return [partial(getattr(module, name), **options) for module in (kernels, reference)]


def tolerance(name: str) -> dict[str, Any]:
    return {"length": lambda dim: 1} if name in ("gelu", "activation") else {}


@parametrize(CASES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(isa: str, threads: int, layout: str, name: str, options: dict[str, Any]) -> None:
    check_values(*both(name, options), layout, **tolerance(name))


@parametrize(CASES)
def test_rows(isa: str, threads: int, name: str, options: dict[str, Any]) -> None:
    call, exact = both(name, options)
    check_many_rows(call, exact)
    check_rows_are_independent(call)
    check_out(call)
    check_empty(call)


@parametrize(CASES)
@ROLES
@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward_values(isa: str, threads: int, role: str, layout: str, name: str, options: dict[str, Any]) -> None:
    call, exact = (of_one(backward, role) for backward in both(f"{name}_backward", options))
    check_values(call, exact, layout, **tolerance(name), c=16.0 if name == "l2_normalize" else 8.0)


@parametrize(CASES)
@ROLES
def test_backward_rows(isa: str, threads: int, role: str, name: str, options: dict[str, Any]) -> None:
    check_backward_rows(*both(f"{name}_backward", options), role)


@parametrize(ELEMENTWISE)
def test_more_than_the_caches_hold(isa: str, threads: int, name: str, options: dict[str, Any]) -> None:
    """Streamed results are the same as others."""
    forward, backward = (both(f, options)[0] for f in (name, f"{name}_backward"))
    dy, x = normal(np.random.default_rng(9), 2, 4, 3000)
    many = [np.broadcast_to(array[:, None], (4, 700, 3000)).reshape(2800, 3000) for array in (dy, x)]
    out = np.empty(2800 * 3000 + 1, np.float32)[1:].reshape(2800, 3000)  # not aligned to a vector
    for call, arguments, expected in ((forward, many[1:], forward(x)), (backward, many, backward(dy, x))):
        y = call(*arguments, out=out).reshape(4, 700, 3000)
        for i in (0, 1, 349, 699):
            assert_same_bits(y[:, i], expected)


@parametrize(CASES)
def test_bad_input(name: str, options: dict[str, Any]) -> None:
    check_bad_x_and_out(name, both(name, options)[0])
    saved = "y" if "softmax" in name else "x"
    check_bad_backward(f"{name}_backward", both(f"{name}_backward", options)[0], saved)
