"""sgd against the reference, and what must not change its bits."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from helpers import SIZES, assert_close, assert_same_bits, double, normal, place
from helpers_optimizers import check_bad_input, check_many_elements

from fastattn import kernels, reference

NAMES = ("param", "grad", "momentum_buffer")
OPTIONS: list[dict[str, Any]] = [
    {"momentum": 0.9},
    {"momentum": 0.9, "first": True},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.9, "nesterov": True, "first": True, "weight_decay": 0.1},
    {"momentum": 0.5, "dampening": 0.25, "weight_decay": 0.1},
]


def arrays(*shape: int, layout: str = "plain") -> list[Any]:
    rng = np.random.default_rng(1)
    return [place(normal(rng, *shape), layout) for _ in NAMES]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(options))
@pytest.mark.parametrize("layout", ["plain", "end", "start"])
def test_values(isa: str, threads: int, layout: str, options: dict[str, Any]) -> None:
    for size in SIZES:
        given = arrays(size, layout=layout)
        exact = double(*given)
        kernels.sgd(*given, lr=0.1, **options)
        reference.sgd(*exact, lr=0.1, **options)
        for actual, expected in zip(given, exact, strict=True):
            assert_close(actual, expected)


def test_without_momentum(isa: str, threads: int) -> None:
    for size in SIZES:
        param, grad, _ = arrays(size, layout="end")
        exact = double(param)
        kernels.sgd(param, grad, None, lr=0.1, weight_decay=0.2)
        reference.sgd(exact, double(grad), None, lr=0.1, weight_decay=0.2)
        assert_close(param, exact)


def test_the_first_buffer_is_not_read(isa: str) -> None:
    param, grad, buffer = arrays(33)
    buffer[...] = np.nan
    kernels.sgd(param, grad, buffer, lr=0.1, momentum=0.9, first=True)
    assert_same_bits(buffer, grad)
    assert np.isfinite(param).all()


def test_many_elements(isa: str, threads: int) -> None:
    check_many_elements(partial(kernels.sgd, lr=0.1, momentum=0.9), arrays)


def test_empty(isa: str) -> None:
    kernels.sgd(*arrays(0, 3), lr=0.1)


def test_bad_input() -> None:
    refused = check_bad_input("sgd", partial(kernels.sgd, lr=0.1, momentum=0.9), arrays, NAMES)
    for name in ("lr", "momentum", "dampening", "weight_decay"):
        refused(ValueError, f"{name} must be .* not negative, got -1.0$", **{name: -1.0})
    with pytest.raises(ValueError, match=r"^sgd: momentum_buffer must be given with momentum 0.9$"):
        kernels.sgd(*arrays(3)[:2], None, lr=0.1, momentum=0.9)
