"""adamw against the reference, and what must not change its bits."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from helpers import SIZES, assert_close, assert_same_bits, double, normal, place
from helpers_optimizers import check_bad_input, check_many_elements

from fastattn import kernels, reference

NAMES = ("param", "grad", "exp_avg", "exp_avg_sq")


def arrays(*shape: int, layout: str = "plain") -> list[Any]:
    """param, grad and the two averages, as after some steps."""
    rng = np.random.default_rng(1)
    values = [normal(rng, *shape), normal(rng, *shape), normal(rng, *shape), normal(rng, *shape) ** 2]
    return [place(value, layout) for value in values]


@pytest.mark.parametrize("decoupled", [True, False])
@pytest.mark.parametrize("layout", ["plain", "end", "start"])
def test_values(isa: str, threads: int, layout: str, decoupled: bool) -> None:
    for size in SIZES:
        for step in (1, 2, 1000, 10**6):
            given = arrays(size, layout=layout)
            exact = double(*given)
            options: dict[str, Any] = {"step": step, "lr": 0.01, "weight_decay": 0.1, "decoupled": decoupled}
            kernels.adamw(*given, **options)
            reference.adamw(*exact, **options)
            for actual, expected in zip(given, exact, strict=True):
                assert_close(actual, expected)


def test_a_run(isa: str) -> None:
    """Errors do not add up over a hundred steps from zero."""
    param, *_ = arrays(33)
    state = [param, np.zeros(33, np.float32), np.zeros(33, np.float32)]
    exact = double(*state)
    for step in range(1, 101):
        grad = normal(np.random.default_rng(step), 33)
        kernels.adamw(state[0], grad, state[1], state[2], step=step, lr=1e-3)
        reference.adamw(exact[0], double(grad), exact[1], exact[2], step=step, lr=1e-3)
    for actual, expected in zip(state, exact, strict=True):
        assert_close(actual, expected, length=100)


def test_a_small_decay_is_not_rounded_away(isa: str) -> None:
    """1 - lr * weight_decay has few digits in float32; what is taken off has all of them."""
    param = np.full(8, 1024.0, np.float32)
    rest = [np.zeros(8, np.float32) for _ in range(3)]
    kernels.adamw(param, *rest, step=1, lr=1e-4, weight_decay=1e-2)
    assert (np.abs(param - 1024 * (1 - 1e-6)) <= np.spacing(np.float32(1024)) / 2).all()


@pytest.mark.parametrize("beta1", [0.0, 0.001, 0.1, 0.49, 0.5, 0.9, 0.999])
def test_a_mean_far_from_the_gradient_takes_no_digits_of_the_nearer_one(isa: str, beta1: float) -> None:
    """Of a mean of 1000 and a gradient of 0.1 a small beta1 leaves little but the gradient."""
    for old, new in ((1000.0, 0.1), (0.1, 1000.0), (-1e6, 1.0)):
        mean, grad = np.full(19, old, np.float32), np.full(19, new, np.float32)
        kernels.adamw(np.zeros(19, np.float32), grad, mean, np.zeros(19, np.float32), step=1, lr=0.0, beta1=beta1)
        exact = beta1 * float(np.float32(old)) + (1 - beta1) * float(np.float32(new))
        assert np.abs(mean - exact).max() <= 2 * np.spacing(np.float32(abs(exact))) + abs(old - new) * beta1 * 2e-7


def test_many_elements(isa: str, threads: int) -> None:
    check_many_elements(partial(kernels.adamw, step=3, lr=0.01), arrays)


def test_elements_are_independent(isa: str, threads: int) -> None:
    """A piece of the arrays has the bits of the whole, NaN or not beside it."""
    whole, spoilt = arrays(100_003), arrays(100_003)
    spoilt[1][5] = np.nan
    piece = [array[7:70_001] for array in arrays(100_003)]
    for given in (whole, spoilt, piece):
        kernels.adamw(*given, step=3, lr=0.01)
    for a, b, c in zip(whole, spoilt, piece, strict=True):
        assert_same_bits(c, a[7:70_001])
        assert_same_bits(b[6:], a[6:])
    assert np.isnan(spoilt[0][5])


def test_empty(isa: str) -> None:
    """Nothing is written where there is nothing, not beside it either."""
    whole = arrays(8, 3)
    expected = [a.copy() for a in whole]
    kernels.adamw(*(a.ravel()[4:4] for a in whole), step=1, lr=0.1)
    for a, b in zip(whole, expected, strict=True):
        assert_same_bits(a, b)


def test_bad_input() -> None:
    refused = check_bad_input("adamw", partial(kernels.adamw, step=1, lr=0.1), arrays, NAMES)
    with pytest.raises(TypeError, match=r"^adamw: exp_avg must be .*, got NoneType$"):
        kernels.adamw(*arrays(3)[:2], None, np.zeros(3, np.float32), step=1, lr=0.1)  # type: ignore[arg-type]
    refused(ValueError, "step must be at least 1, got 0$", step=0)
    refused(TypeError, "step must be an integer, got float$", step=1.0)
    for name in ("lr", "eps", "weight_decay"):
        refused(ValueError, f"{name} must be .* not negative, got -1.0$", **{name: -1.0})
    for name in ("beta1", "beta2"):
        refused(ValueError, rf"{name} must be in \[0, 1\), got 1.0$", **{name: 1.0})
