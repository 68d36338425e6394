"""Optimizers against their formulas written out in float64, and their state."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastattn import nn
from fastattn.autograd import Tensor
from fastattn.training import SGD, Adam, AdamW, Optimizer, clip_grad_norm

SHAPES = [(3, 5), (17,), (1,)]
STEPS = 5


def parameters() -> list[Tensor]:
    rng = np.random.default_rng(0)
    return [Tensor(rng.standard_normal(shape).astype(np.float32), requires_grad=True) for shape in SHAPES]


def gradients(step: int) -> list[np.ndarray]:
    rng = np.random.default_rng(100 + step)
    return [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]


def train(optimizer: Optimizer, own: list[Tensor], steps: range = range(STEPS)) -> None:
    for step in steps:
        for parameter, gradient in zip(own, gradients(step), strict=True):
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad()


def adam_by_hand(lr: float, betas: tuple[float, float], eps: float, decay: float, decoupled: bool) -> list[np.ndarray]:
    result = []
    for number, parameter in enumerate(parameters()):
        p = parameter.data.astype(np.float64)
        m, v = np.zeros_like(p), np.zeros_like(p)
        for step in range(STEPS):
            g = gradients(step)[number].astype(np.float64)
            if decoupled:
                p = p - lr * decay * p
            else:
                g = g + decay * p
            m = betas[0] * m + (1 - betas[0]) * g
            v = betas[1] * v + (1 - betas[1]) * g * g
            t = step + 1
            p = p - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
        result.append(p)
    return result


def sgd_by_hand(lr: float, momentum: float, dampening: float, decay: float, nesterov: bool) -> list[np.ndarray]:
    result = []
    for number, parameter in enumerate(parameters()):
        p = parameter.data.astype(np.float64)
        buffer = np.zeros_like(p)
        for step in range(STEPS):
            g = gradients(step)[number].astype(np.float64) + decay * p
            if momentum:
                buffer = g if step == 0 else momentum * buffer + (1 - dampening) * g
                g = g + momentum * buffer if nesterov else buffer
            p = p - lr * g
        result.append(p)
    return result


@pytest.mark.parametrize(
    ("make", "decoupled"), [(AdamW, True), (Adam, False)], ids=lambda value: getattr(value, "__name__", None)
)
@pytest.mark.parametrize(
    "options", [{}, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3}, {"lr": 0.02, "weight_decay": 0.3}]
)
def test_adam(make: type[Adam], decoupled: bool, options: dict[str, Any]) -> None:
    own = parameters()
    train(make(own, **options), own)
    decay = options.get("weight_decay", 0.01 if decoupled else 0.0)
    expected = adam_by_hand(
        options.get("lr", 1e-3), options.get("betas", (0.9, 0.999)), options.get("eps", 1e-8), decay, decoupled
    )
    for parameter, values in zip(own, expected, strict=True):
        np.testing.assert_allclose(parameter.data, values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.1, "weight_decay": 0.2},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1},
        {"momentum": 0.9, "nesterov": True},
    ],
)
def test_sgd(options: dict[str, Any]) -> None:
    own = parameters()
    train(SGD(own, **{"lr": 0.05, **options}), own)
    options = {"lr": 0.05, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, **options}
    options["decay"] = options.pop("weight_decay")
    for parameter, values in zip(own, sgd_by_hand(**options), strict=True):
        np.testing.assert_allclose(parameter.data, values, rtol=1e-5, atol=1e-6)


CASES: dict[str, Callable[[Any], Optimizer]] = {
    "AdamW": lambda params: AdamW(params, lr=0.01),
    "SGD": lambda params: SGD(params, lr=0.01, momentum=0.9),
    "plain SGD": lambda params: SGD(params, lr=0.01),
}


@pytest.mark.parametrize("case", CASES)
def test_a_continued_optimizer_gives_the_same_bits(case: str) -> None:
    whole, first = parameters(), parameters()
    train(CASES[case](whole), whole)
    before = CASES[case](first)
    train(before, first, range(2))
    after = CASES[case](first)
    after.load_state_dict(before.state_dict())
    train(after, first, range(2, STEPS))
    for a, b in zip(whole, first, strict=True):
        np.testing.assert_array_equal(a.data, b.data)


def test_the_state_is_copied_when_it_is_loaded() -> None:
    own = parameters()
    before, after = AdamW(own), AdamW(own)
    train(before, own)
    after.load_state_dict(before.state_dict())
    train(after, own)
    assert before.state[0]["step"] == STEPS
    assert after.state[0]["step"] == 2 * STEPS
    assert not np.shares_memory(before.state[0]["exp_avg"], after.state[0]["exp_avg"])


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    own = parameters()
    before = own[1].data.copy()
    optimizer = AdamW(own, lr=0.1, weight_decay=0.5)
    assert optimizer.state == [{}, {}, {}]  # nothing is allocated before it is needed
    own[0].grad = gradients(0)[0]
    optimizer.step()
    np.testing.assert_array_equal(own[1].data, before)
    assert [bool(state) for state in optimizer.state] == [True, False, False]
    assert list(optimizer.state_dict()["state"]) == [0]


def test_groups_have_settings_of_their_own() -> None:
    own = parameters()
    groups = [{"params": own[:1], "lr": 0.0, "weight_decay": 0.0}, {"params": iter(own[1:])}]
    optimizer = AdamW(groups, lr=0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.1]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.01]
    before = [parameter.data.copy() for parameter in own]
    train(optimizer, own)
    np.testing.assert_array_equal(own[0].data, before[0])
    assert (own[1].data != before[1]).all()
    assert [group["params"] for group in optimizer.state_dict()["param_groups"]] == [[0], [1, 2]]


def test_zero_grad() -> None:
    own = parameters()
    own[0].grad = gradients(0)[0]
    AdamW(own).zero_grad()
    assert own[0].grad is None


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AdamW([]), ValueError, "AdamW: params is empty"),
        (lambda: AdamW([{"params": []}]), ValueError, "AdamW: params is empty"),
        (lambda: AdamW(parameters()[0]), TypeError, "params must be a list of parameters or of dicts, got one"),
        (lambda: AdamW(nn.Linear(2, 2)), TypeError, "AdamW: params must be a list .*, got Linear"),
        (lambda: SGD([np.zeros(1)]), TypeError, "SGD: params must hold parameters, got ndarray"),
        (lambda: SGD([*parameters()[:1] * 2]), ValueError, "SGD: params holds a parameter twice"),
        (lambda: Adam(parameters(), lr=-1.0), ValueError, r"Adam: lr must be a number of at least 0, got -1\.0"),
        (lambda: Adam(parameters(), lr=math.nan), ValueError, "Adam: lr must be a number of at least 0, got nan"),
        (lambda: Adam(parameters(), eps=-1e-8), ValueError, "Adam: eps must be"),
        (
            lambda: Adam(parameters(), betas=(0.9, 1.0)),
            ValueError,
            "each of betas must be a number .*, got 1.0",
        ),
        (lambda: Adam(parameters(), weight_decay=-1), ValueError, "Adam: weight_decay must be"),
        (lambda: SGD(parameters(), momentum=-0.1), ValueError, "SGD: momentum must be"),
        (lambda: SGD(parameters(), nesterov=True), ValueError, "nesterov needs momentum above 0 and dampening 0"),
        (lambda: AdamW([{"params": parameters(), "lr": -2}]), ValueError, "AdamW: lr must be .*, got -2"),
        (
            lambda: AdamW([{"params": parameters(), "rate": 1}]),
            ValueError,
            "a group has params and lr.*, got params, r",
        ),
        (lambda: AdamW(parameters(), lr="a"), TypeError, "AdamW: lr must be a number of at least 0, got 'a'"),
        (lambda: AdamW(parameters(), lr=None), TypeError, "AdamW: lr must be a number of at least 0, got None"),
        (lambda: AdamW(parameters(), betas=0.9), TypeError, r"AdamW: betas must be two numbers .*, got 0\.9"),
        (lambda: AdamW(parameters(), betas=(0.9,)), ValueError, r"AdamW: betas must be two numbers .*, got \(0\.9,"),
        (lambda: AdamW(parameters(), betas=()), ValueError, r"AdamW: betas must be two numbers .*, got \(\)"),
        (lambda: AdamW(parameters(), betas="ab"), TypeError, "AdamW: betas must be two numbers .*, got 'ab'"),
        (lambda: AdamW(parameters(), betas=(0.9, "b")), TypeError, "AdamW: each of betas must be .*, got 'b'"),
        (
            lambda: SGD(parameters(), dampening=math.inf),
            ValueError,
            "SGD: dampening must be a number of at least 0, got inf",
        ),
        (lambda: AdamW([{"lr": 1}]), ValueError, "AdamW: a group has params and lr, .*, got lr"),
    ],
)
def test_bad_input(make: Callable[[], Optimizer], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    own = parameters()
    optimizer = AdamW(own)
    train(optimizer, own, range(1))
    state = optimizer.state_dict()
    sgd = SGD(own, momentum=0.9)
    train(sgd, own, range(1))
    fewer = AdamW(own[:2]).state_dict()
    for wrong, message in [
        (fewer, r"AdamW: the state has groups of \[2\] parameters, the optimizer of \[3\]"),
        (sgd.state_dict(), "AdamW: group 0 of the state has dampening, lr, .*, the optimizer betas, eps"),
        ({**state, "state": {0: {"step": 1}}}, "the state of parameter 0 has step, not step, exp_avg, exp_avg_sq"),
        ({**state, "state": {3: {}}}, "the state has a parameter 3, the optimizer has 3"),
        (
            {**state, "state": {1: state["state"][0]}},
            r"exp_avg of parameter 1 must have shape \(17,\), got \(3, 5\)",
        ),
    ]:
        kept = optimizer.state
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(wrong)
        assert optimizer.state is kept


def test_a_state_with_other_values_is_refused_and_changes_nothing() -> None:
    own = parameters()
    optimizer = AdamW(own)
    train(optimizer, own, range(1))
    state = optimizer.state_dict()
    first, group = state["state"][0], state["param_groups"][0]
    wrongs: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"state": {}}, ValueError, "AdamW: the state has no param_groups, only state"),
        ({}, ValueError, "AdamW: the state has no state, only nothing"),
        ({**state, "param_groups": [{"lr": 1.0}]}, ValueError, r"the state has groups of \[0\] parameters"),
        (
            {**state, "param_groups": [{**group, "lr": -1.0}]},
            ValueError,
            r"lr must be a number of at least 0, got -1\.0",
        ),
        ({**state, "param_groups": [{**group, "lr": "a"}]}, TypeError, "lr must be a number of at least 0, got 'a'"),
        ({**state, "state": {0: {**first, "exp_avg": [1.0]}}}, TypeError, "exp_avg of parameter 0 must be an array of"),
        ({**state, "state": {0: {**first, "exp_avg": np.zeros((3, 5), int)}}}, TypeError, "of floats, got int64"),
        (
            {**state, "state": {0: {**first, "step": -1}}},
            ValueError,
            "step of parameter 0 must be an integer",
        ),
        (
            {**state, "state": {0: {**first, "step": 1.5}}},
            TypeError,
            "step of parameter 0 must be an integer",
        ),
    ]
    for wrong, error, message in wrongs:
        kept, lr = optimizer.state, optimizer.param_groups[0]["lr"]
        with pytest.raises(error, match=message):
            optimizer.load_state_dict(wrong)
        assert optimizer.state is kept
        assert optimizer.param_groups[0]["lr"] == lr


@pytest.mark.parametrize("make", [AdamW, lambda params: SGD(params, momentum=0.9, dampening=0.5)])
def test_a_gradient_that_is_refused_is_no_step(make: Callable[[Any], Optimizer]) -> None:
    own, other = parameters(), parameters()
    refused, plain = make(own), make(other)
    own[0].grad = np.zeros((3, 5))  # float64
    with pytest.raises(TypeError):
        refused.step()
    assert refused.state == [{}, {}, {}]
    train(refused, own)
    train(plain, other)
    np.testing.assert_array_equal(own[0].data, other[0].data)
    assert refused.state[0].get("step") == plain.state[0].get("step")
    own[0].grad = np.zeros((3, 5))
    with pytest.raises(TypeError):
        refused.step()
    assert refused.state[0].get("step") == plain.state[0].get("step")


def test_settings_are_pythons_numbers() -> None:
    optimizer = AdamW(parameters(), lr=np.float32(0.5), betas=np.array([0.5, 0.75], np.float32), eps=np.float64(1e-8))
    settings = {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}
    assert json.loads(json.dumps(settings)) == {"lr": 0.5, "betas": [0.5, 0.75], "eps": 1e-8, "weight_decay": 0.01}


def test_clip_grad_norm() -> None:
    own = parameters()
    for parameter, gradient in zip(own, gradients(0), strict=True):
        parameter.grad = gradient
    own[2].grad = None
    whole = np.concatenate([gradient.ravel() for gradient in gradients(0)[:2]]).astype(np.float64)
    norm = float(np.sqrt((whole * whole).sum()))
    assert clip_grad_norm(own, 1000.0) == pytest.approx(norm, rel=1e-6)
    np.testing.assert_array_equal(own[0].grad, gradients(0)[0])
    assert clip_grad_norm(own, 0.5) == pytest.approx(norm, rel=1e-6)
    np.testing.assert_allclose(own[0].grad, gradients(0)[0] * (0.5 / norm), rtol=1e-5)
    assert clip_grad_norm(own, math.inf) == pytest.approx(0.5, rel=1e-5)
    assert clip_grad_norm([], 1.0) == 0.0


def test_a_norm_that_is_no_number_clips_nothing() -> None:
    own = parameters()[:1]
    own[0].grad = np.full((3, 5), np.inf, np.float32)
    assert clip_grad_norm(own, 1.0) == math.inf
    own[0].grad[0, 0] = np.nan
    assert math.isnan(clip_grad_norm(own, 1.0))
    assert np.isinf(own[0].grad[1]).all()


@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan])
def test_bad_max_norm(max_norm: float) -> None:
    with pytest.raises(ValueError, match=f"^clip_grad_norm: max_norm must be above 0, got {max_norm}$"):
        clip_grad_norm([], max_norm)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (AdamW, {"lr": 0.02, "weight_decay": 0.3}),
        (Adam, {"lr": 0.02, "weight_decay": 0.3, "betas": (0.8, 0.95)}),
        (SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.1}),
        (SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    ],
)
def test_parity_with_torch(make: Callable[..., Optimizer], options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch")
    own = parameters()
    theirs = [torch.nn.Parameter(torch.from_numpy(parameter.data.copy())) for parameter in own]
    optimizer = make(own, **options)
    other = getattr(torch.optim, make.__name__)(theirs, **options)
    for step in range(STEPS):
        for parameter, tensor, gradient in zip(own, theirs, gradients(step), strict=True):
            parameter.grad = gradient.copy()
            tensor.grad = torch.from_numpy(gradient.copy())
        norm = clip_grad_norm(own, 2.0)
        assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, 2.0)), rel=1e-6)
        optimizer.step()
        other.step()
    for parameter, tensor in zip(own, theirs, strict=True):
        np.testing.assert_allclose(parameter.data, tensor.detach().numpy(), rtol=1e-5, atol=1e-6)
