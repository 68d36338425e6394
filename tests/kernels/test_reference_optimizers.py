"""adamw, sgd and gradient_norm of the reference, against their formulas one number at a time, and against torch."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest

from fastattn import reference

RNG = np.random.default_rng(23)
ADAM = {"lr": 0.03, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3}
SGD = [
    {"lr": 0.1, "momentum": m, "dampening": d, "weight_decay": w, "nesterov": n}
    for m, d, w, n in product((0.0, 0.9), (0.0, 0.3), (0.0, 0.2), (False, True))
    if not n or (m and not d)
]


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw(weight_decay: float, decoupled: bool) -> None:
    param, exp_avg, exp_avg_sq = RNG.standard_normal((3, 3, 4)) * [[[1.0]], [[0.0]], [[0.0]]]
    by_hand = [[value, 0.0, 0.0] for value in param.ravel().tolist()]
    for step in (1, 2, 3):
        grad = RNG.standard_normal((3, 4))
        before = grad.copy()
        reference.adamw(
            *(param, grad, exp_avg, exp_avg_sq), step=step, weight_decay=weight_decay, decoupled=decoupled, **ADAM
        )
        np.testing.assert_array_equal(grad, before)
        for state, g in zip(by_hand, grad.ravel().tolist(), strict=True):
            p, m, v = state
            if decoupled:
                p -= 0.03 * weight_decay * p
            else:
                g += weight_decay * p
            m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
            mean, square = m / (1 - 0.8**step), v / (1 - 0.95**step)
            state[:] = p - 0.03 * mean / (math.sqrt(square) + 1e-3), m, v
        expected = np.array(by_hand).T.reshape(3, 3, 4)
        np.testing.assert_allclose([param, exp_avg, exp_avg_sq], expected, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("options", SGD, ids=str)
def test_sgd(options: dict[str, Any]) -> None:
    param = RNG.standard_normal((3, 4))
    buffer = np.full((3, 4), np.nan) if options["momentum"] else None  # what it holds before the first step is unread
    by_hand = [[value, 0.0] for value in param.ravel().tolist()]
    for step in range(3):
        grad = RNG.standard_normal((3, 4))
        before = grad.copy()
        reference.sgd(param, grad, buffer, first=step == 0, **options)
        np.testing.assert_array_equal(grad, before)
        for state, g in zip(by_hand, grad.ravel().tolist(), strict=True):
            p, b = state
            g += options["weight_decay"] * p
            b = g if step == 0 else options["momentum"] * b + (1 - options["dampening"]) * g
            change = g if not options["momentum"] else g + options["momentum"] * b if options["nesterov"] else b
            state[:] = p - 0.1 * change, b
        np.testing.assert_allclose(param.ravel(), [p for p, _ in by_hand], rtol=1e-13, atol=1e-16)
        if buffer is not None:
            np.testing.assert_allclose(buffer.ravel(), [b for _, b in by_hand], rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("decoupled", [False, True])
def test_adamw_against_torch(decoupled: bool) -> None:
    torch = pytest.importorskip("torch")
    param = RNG.standard_normal(50)
    theirs = torch.tensor(param, requires_grad=True)
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimizer = kind([theirs], lr=0.03, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1)
    averages = np.zeros((2, 50))
    for step in range(1, 6):
        grad = RNG.standard_normal(50)
        theirs.grad = torch.tensor(grad)
        optimizer.step()
        reference.adamw(param, grad, *averages, step=step, weight_decay=0.1, decoupled=decoupled, **ADAM)
        np.testing.assert_allclose(param, theirs.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("options", SGD, ids=str)
def test_sgd_against_torch(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    param = RNG.standard_normal(50)
    theirs = torch.tensor(param, requires_grad=True)
    optimizer = torch.optim.SGD([theirs], **options)
    buffer = np.zeros(50) if options["momentum"] else None
    for step in range(5):
        grad = RNG.standard_normal(50)
        theirs.grad = torch.tensor(grad)
        optimizer.step()
        reference.sgd(param, grad, buffer, first=step == 0, **options)
        np.testing.assert_allclose(param, theirs.detach().numpy(), rtol=1e-12)


def strided(array: Any) -> Any:
    """The same numbers, every other one of a wider array."""
    wide = np.zeros((len(array), 2 * array.shape[1]), array.dtype)
    wide[:, ::2] = array
    return wide[:, ::2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_strided_arrays_and_numpy_numbers(dtype: Any) -> None:
    """Arrays larger than a block, views with gaps, and options that are NumPy's: the same, and in their own dtype."""
    arrays = [RNG.standard_normal((50, 400)).astype(dtype) for _ in range(4)]
    arrays[3] = np.abs(arrays[3])
    for call in (
        lambda p, g, m, v: reference.adamw(p, g, m, v, step=3, lr=np.float64(0.1), weight_decay=np.float64(0.1)),
        lambda p, g, m, v: reference.adamw(p, g, m, v, step=3, lr=0.1, weight_decay=0.1, decoupled=False),
        lambda p, g, m, _: reference.sgd(p, g, m, lr=np.float64(0.1), momentum=np.float64(0.9), weight_decay=0.1),
        lambda p, g, m, _: reference.sgd(p, g, m, lr=0.1, momentum=0.9, nesterov=True),
    ):
        plain, gaps = [a.copy() for a in arrays], [strided(a) for a in arrays]
        call(*plain)
        call(*gaps)
        assert (plain[0] != arrays[0]).any()
        for a, b in zip(plain, gaps, strict=True):
            np.testing.assert_array_equal(a, b)


def test_gradient_norm() -> None:
    arrays = [RNG.standard_normal(shape) for shape in ((300, 200), (7,), (0, 3), (2, 3, 4), ())]
    exact = math.sqrt(math.fsum(float(x) ** 2 for a in arrays for x in a.ravel()))
    assert reference.gradient_norm(arrays) == pytest.approx(exact, rel=1e-14)
    assert reference.gradient_norm([a[..., ::2] for a in arrays[:2]]) > 0
    assert reference.gradient_norm([]) == 0.0
    large = np.full(1000, 1e30, np.float32)  # its squares overflow float32
    assert reference.gradient_norm([large]) == pytest.approx(1e30 * math.sqrt(1000), rel=1e-6)
    assert math.isnan(reference.gradient_norm([np.array([1.0, np.nan])]))


def test_errors() -> None:
    x = np.ones(3)
    with pytest.raises(ValueError, match="adamw: step must be at least 1, got 0"):
        reference.adamw(x, x, x, x, step=0, lr=0.1)
    with pytest.raises(ValueError, match=r"sgd: momentum_buffer must be given with momentum 0\.9"):
        reference.sgd(x, x, None, lr=0.1, momentum=0.9)
