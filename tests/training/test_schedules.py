"""Schedules against the numbers of transformers, and their state."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastattn.autograd import Tensor
from fastattn.training import (
    SGD,
    Optimizer,
    Schedule,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_inverse_sqrt_schedule,
    get_linear_schedule_with_warmup,
    get_noam_schedule,
    get_scheduler,
    get_slanted_triangular_schedule,
)

# What transformers 5.23 gives for 10 steps from a rate of 10 on.
EXPECTED: dict[str, tuple[Callable[..., Schedule], tuple[Any, ...], list[float]]] = {
    "constant": (get_constant_schedule_with_warmup, (4,), [0.0, 2.5, 5.0, 7.5, *[10.0] * 6]),
    "linear": (get_linear_schedule_with_warmup, (2, 10), [0.0, 5.0, 10.0, 8.75, 7.5, 6.25, 5.0, 3.75, 2.5, 1.25]),
    "linear, no warmup": (get_linear_schedule_with_warmup, (0, 4), [10.0, 7.5, 5.0, 2.5, *[0.0] * 6]),
    "cosine": (
        get_cosine_schedule_with_warmup,
        (2, 10),
        [0.0, 5.0, *(5 * (1 + math.cos(math.pi * i / 8)) for i in range(8))],
    ),
    "cosine, two waves": (
        get_cosine_schedule_with_warmup,
        (2, 10, 2.0),
        [0.0, 5.0, *(5 * (1 + math.cos(math.pi * i / 2)) for i in range(8))],
    ),
    "inverse sqrt": (get_inverse_sqrt_schedule, (2,), [0.0, 5.0, *(10 / math.sqrt(1 + i / 2) for i in range(8))]),
    "inverse sqrt, timescale": (
        get_inverse_sqrt_schedule,
        (2, 5),
        [0.0, 5.0, *(10 / math.sqrt(1 + i / 5) for i in range(8))],
    ),
}


def optimizer(*rates: float) -> Optimizer:
    return SGD([{"params": [Tensor(np.zeros(1, np.float32))], "lr": rate} for rate in rates or (10.0,)])


@pytest.mark.parametrize("case", EXPECTED)
def test_rates(case: str) -> None:
    make, arguments, expected = EXPECTED[case]
    own = optimizer()
    schedule = make(own, *arguments)
    rates = []
    for _ in expected:
        rates += schedule.get_last_lr()
        assert own.param_groups[0]["lr"] == rates[-1]
        schedule.step()
    assert rates == pytest.approx(expected, rel=1e-12)


def test_parity_with_transformers() -> None:
    torch = pytest.importorskip("torch", reason="compares with torch and transformers")
    transformers = pytest.importorskip("transformers", reason="compares with torch and transformers")
    for make, arguments, expected in EXPECTED.values():
        theirs = torch.optim.SGD([torch.zeros(1)], lr=10.0)
        schedule = getattr(transformers, make.__name__)(theirs, *arguments)
        rates = []
        for _ in expected:
            rates.append(theirs.param_groups[0]["lr"])
            theirs.step()
            schedule.step()
        assert rates == pytest.approx(expected, rel=1e-12)


def test_the_rate_of_the_paper() -> None:
    schedule = get_noam_schedule(optimizer(1.0), num_warmup_steps=4, model_size=16)
    rates = []
    for _ in range(10):
        rates += schedule.get_last_lr()
        schedule.step()
    assert rates == pytest.approx([0.25 * min(s**-0.5, s * 4**-1.5) for s in range(1, 11)], rel=1e-12)
    assert max(rates) == rates[3] == pytest.approx((16 * 4) ** -0.5)
    again = get_noam_schedule(optimizer(1.0), 4, 16)
    again.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    assert again.get_last_lr() == schedule.get_last_lr()


def test_every_group_has_its_rate() -> None:
    schedule = get_linear_schedule_with_warmup(optimizer(1.0, 0.1), 0, 2)
    schedule.step()
    assert schedule.get_last_lr() == [0.5, 0.05]


def rates_of(schedule: Schedule, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates += schedule.get_last_lr()
        schedule.step()
    return rates


def test_slanted_triangular() -> None:
    """The paper's equation 3."""
    steps, share, ratio, highest = 40, 0.1, 32, 0.01
    cut = math.floor(steps * share)
    wanted = []
    for t in range(steps):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / share - 1))
        wanted.append(highest * (1 + p * (ratio - 1)) / ratio)
    found = rates_of(get_slanted_triangular_schedule(optimizer(highest), cut, steps), steps)
    assert found == pytest.approx(wanted, rel=1e-12)
    (half, *_) = rates_of(get_slanted_triangular_schedule(optimizer(1.0), 2, 4, ratio=2), 1)
    assert half == 0.5


def test_by_name() -> None:
    for name, make in (
        ("linear", get_linear_schedule_with_warmup),
        ("cosine", get_cosine_schedule_with_warmup),
        ("slanted-triangular", get_slanted_triangular_schedule),
    ):
        assert rates_of(get_scheduler(name, optimizer(), 3, 10), 10) == rates_of(make(optimizer(), 3, 10), 10)
    constant = get_constant_schedule_with_warmup(optimizer(), 3)
    assert rates_of(get_scheduler("constant", optimizer(), 3, 10), 10) == rates_of(constant, 10)
    with pytest.raises(ValueError, match="name must be one of linear, cosine, slanted-triangular, constant, got 'up'"):
        get_scheduler("up", optimizer(), 3, 10)


def test_state() -> None:
    first = get_cosine_schedule_with_warmup(optimizer(), 3, 10)
    for _ in range(5):
        first.step()
    second = get_cosine_schedule_with_warmup(optimizer(), 3, 10)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.get_last_lr() == first.get_last_lr()
    second.step()
    first.step()
    assert second.get_last_lr() == first.get_last_lr()


def test_a_state_of_another_schedule_is_refused() -> None:
    state = get_linear_schedule_with_warmup(optimizer(), 3, 10).state_dict()
    with pytest.raises(ValueError, match=r"settings of the state are .*'num_training_steps': 10.*, here .*: 11"):
        get_linear_schedule_with_warmup(optimizer(), 3, 11).load_state_dict(state)
    with pytest.raises(ValueError, match=r"base_lrs of the state are \[10.0\], here \[2.0\]"):
        get_linear_schedule_with_warmup(optimizer(2.0), 3, 10).load_state_dict(state)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (get_constant_schedule_with_warmup, (-1,), "num_warmup_steps must be an integer of at least 0, got -1"),
        (get_constant_schedule_with_warmup, (0.1,), "num_warmup_steps must be an integer of at least 0, got 0.1"),
        (get_linear_schedule_with_warmup, (0, -1), "num_training_steps must be an integer of at least 0, got -1"),
        (get_linear_schedule_with_warmup, (3, 2), "num_warmup_steps 3 is more than num_training_steps 2"),
        (get_cosine_schedule_with_warmup, (3, 2), "num_warmup_steps 3 is more than num_training_steps 2"),
        (get_slanted_triangular_schedule, (3, 2), "num_warmup_steps 3 is more than num_training_steps 2"),
        (get_slanted_triangular_schedule, (2, 3, 0.5), "ratio must be a number of at least 1, got 0.5"),
        (get_noam_schedule, (0, 512), "num_warmup_steps must be a positive integer, got 0"),
        (get_noam_schedule, (4000, 0), "model_size must be a positive integer, got 0"),
        (get_noam_schedule, (4000, 0.1), "model_size must be a positive integer, got 0.1"),
        (get_inverse_sqrt_schedule, (3, 0), "timescale must be a positive integer, got 0"),
    ],
)
def test_bad_input(make: Callable[..., Schedule], arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(TypeError if 0.1 in arguments else ValueError, match=message):
        make(optimizer(), *arguments)


def test_numpy_numbers_are_as_good_as_pythons() -> None:
    made = get_cosine_schedule_with_warmup(optimizer(np.float32(0.5)), np.int64(3), np.int32(10), np.float32(0.5))
    made.step()
    assert json.loads(json.dumps(made.state_dict())) == made.state_dict()
    assert type(made.get_last_lr()[0]) is float
