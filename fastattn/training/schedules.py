"""Learning-rate schedules with transformers' names. Each defines a step's rate as a fraction of the optimizer's rate.

    optimizer = AdamW(model.parameters(), lr=5e-5)
    schedule = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=100, num_training_steps=1000)

In each step, call `schedule.step()` after `optimizer.step()`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from fastattn import checks
from fastattn.checks import integer, number
from fastattn.training.optimizers import Optimizer


class Schedule:
    """Sets the `lr` of each group of the optimizer, before every step, to its initial value times `factor(step)`.

    Args:
        optimizer: the `lr` of its groups are the peak rates.
        factor: a function of the number of steps done, 0 at first.
        settings: values for JSON that identify this schedule. A saved run continues only with equal settings.

    >>> from fastattn.nn import Parameter
    >>> from fastattn.training import SGD
    >>> import numpy as np
    >>> optimizer = SGD([Parameter(np.zeros(1, np.float32))], lr=0.5)
    >>> schedule = Schedule(optimizer, lambda step: 1 / (1 + step))
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.25]
    """

    def __init__(
        self, optimizer: Optimizer, factor: Callable[[int], float], settings: Mapping[str, Any] | None = None
    ) -> None:
        self.settings = dict(settings or {})
        self._optimizer = optimizer
        self._factor = factor
        self._base_lrs = [float(group["lr"]) for group in optimizer.param_groups]
        self._set(0)

    def step(self) -> None:
        """Advance to the next step. Call this after the optimizer's `step`."""
        self._set(self._steps + 1)

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group in the next step of the optimizer."""
        return [group["lr"] for group in self._optimizer.param_groups]

    def changed(self, change: Callable[[int, float], float]) -> Schedule:
        """This schedule, whose factor is `change(step, factor)` from now on."""
        factor = self._factor
        self._factor = lambda step: change(step, factor(step))
        self._set(self._steps)
        return self

    def state_dict(self) -> dict[str, Any]:
        """Steps done, peak rates and settings, for JSON."""
        return {"steps": self._steps, "base_lrs": self._base_lrs, "settings": self.settings}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where another schedule was. Raises ValueError if it had other rates or settings."""
        for name, own in (("base_lrs", self._base_lrs), ("settings", self.settings)):
            if state_dict[name] != own:
                raise ValueError(f"Schedule: {name} of the state are {state_dict[name]}, here {own}")
        self._set(integer("Schedule: steps", state_dict["steps"], 0))

    def _set(self, steps: int) -> None:
        self._steps = steps
        factor = self._factor(steps)
        for group, base in zip(self._optimizer.param_groups, self._base_lrs, strict=True):
            group["lr"] = float(base * factor)


def get_constant_schedule_with_warmup(optimizer: Optimizer, num_warmup_steps: int) -> Schedule:
    """Up from 0 to the optimizer's rate during `num_warmup_steps`, then constant.

    Raises ValueError for a negative number of steps, TypeError for one that is not an integer.
    """
    return _after_warmup(optimizer, "constant", lambda step: 1.0, num_warmup_steps=num_warmup_steps)


def get_linear_schedule_with_warmup(optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int) -> Schedule:
    """Up from 0 to the optimizer's rate during `num_warmup_steps`, then down to 0 at `num_training_steps`.

    Raises as `get_constant_schedule_with_warmup`, and ValueError for a warmup longer than the training.
    """

    def factor(step: int) -> float:
        return max(0.0, (num_training_steps - step) / max(1, num_training_steps - num_warmup_steps))

    return _after_warmup(
        optimizer, "linear", factor, num_warmup_steps=num_warmup_steps, num_training_steps=num_training_steps
    )


def get_slanted_triangular_schedule(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, ratio: float = 32.0
) -> Schedule:
    """Up from 1 / ratio of the optimizer's rate during `num_warmup_steps`, then down to it at `num_training_steps`.

    Raises as `get_linear_schedule_with_warmup`, and ValueError for a `ratio` below 1.

    Source: Howard and Ruder 2018, equation 3; its `cut_frac` is the share of the steps that are `num_warmup_steps`.

    >>> from fastattn.nn import Parameter
    >>> from fastattn.training import SGD
    >>> import numpy as np
    >>> optimizer = SGD([Parameter(np.zeros(1, np.float32))], lr=32.0)
    >>> schedule = get_slanted_triangular_schedule(optimizer, 1, 4)
    >>> rates = []
    >>> for step in range(4):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> print(np.round(rates, 2))
    [ 1.   32.   21.67 11.33]
    """
    lowest = 1.0 / number("slanted triangular schedule: ratio", ratio, 1.0)
    shape = get_linear_schedule_with_warmup(optimizer, num_warmup_steps, num_training_steps)
    shape.settings |= {"schedule": "slanted_triangular", "ratio": float(ratio)}
    return shape.changed(lambda step, share: lowest + (1.0 - lowest) * share)


def get_cosine_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, num_cycles: float = 0.5
) -> Schedule:
    """Up from 0 to the optimizer's rate during `num_warmup_steps`, then along `num_cycles` waves of a cosine.

    The default, half a wave, ends at 0 after `num_training_steps`. Raises as `get_linear_schedule_with_warmup`.
    """

    def factor(step: int) -> float:
        progress = (step - num_warmup_steps) / max(1, num_training_steps - num_warmup_steps)
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * num_cycles * 2.0 * progress)))

    return _after_warmup(
        optimizer,
        "cosine",
        factor,
        num_warmup_steps=num_warmup_steps,
        num_training_steps=num_training_steps,
        num_cycles=float(num_cycles),
    )


def get_inverse_sqrt_schedule(optimizer: Optimizer, num_warmup_steps: int, timescale: int | None = None) -> Schedule:
    """Up from 0 to the optimizer's rate during `num_warmup_steps`, then down with 1 / sqrt(step).

    `timescale` steps after the peak, the rate is 1 / sqrt(2) of the peak. It is `num_warmup_steps` by default, or
    10,000 if that is 0. Raises as `get_constant_schedule_with_warmup`.

    Source: Vaswani et al. 2017, equation 3, whose peak is d_model^-0.5 * num_warmup_steps^-0.5.
    """
    scale = num_warmup_steps or 10_000 if timescale is None else timescale

    def factor(step: int) -> float:
        return 1.0 / math.sqrt((step + scale - num_warmup_steps) / scale)

    return _after_warmup(optimizer, "inverse_sqrt", factor, num_warmup_steps=num_warmup_steps, timescale=scale)


def get_noam_schedule(optimizer: Optimizer, num_warmup_steps: int, model_size: int) -> Schedule:
    """The paper's rate of step s, counted from 1: model_size^-0.5 * min(s^-0.5, s * num_warmup_steps^-1.5).

    It is multiplied by the optimizer's own rate, which is therefore about 1. The peak, at step `num_warmup_steps`, is
    (model_size * num_warmup_steps)^-0.5: 7e-4 for 512 and 4000.

    Raises ValueError for numbers below 1, TypeError for numbers that are not integers.

    Source: Vaswani et al. 2017, equation 3. `get_inverse_sqrt_schedule` has the same form around a given peak.

    >>> from fastattn.nn import Parameter
    >>> from fastattn.training import Adam
    >>> import numpy as np
    >>> optimizer = Adam([Parameter(np.zeros(1, np.float32))], lr=1.0, betas=(0.9, 0.98), eps=1e-9)
    >>> schedule = get_noam_schedule(optimizer, num_warmup_steps=4000, model_size=512)
    >>> f"{schedule.get_last_lr()[0]:.4g}"
    '1.747e-07'
    """
    warmup = integer("noam schedule: num_warmup_steps", num_warmup_steps, 1)
    size = integer("noam schedule: model_size", model_size, 1)

    def factor(done: int) -> float:
        step = done + 1
        return float(min(step**-0.5, step * warmup**-1.5) / math.sqrt(size))

    return Schedule(optimizer, factor, {"schedule": "noam", "num_warmup_steps": warmup, "model_size": size})


def get_scheduler(name: str, optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int) -> Schedule:
    """The schedule of a `name`: "linear", "cosine", "slanted-triangular" or "constant".

    `optimizer`, `num_warmup_steps` and `num_training_steps` are as for the schedules; a constant one has no end.
    Raises as the schedule does, and ValueError for another name.
    """
    if checks.choice("get_scheduler: name", name, (*_ENDING, "constant")) == "constant":
        return get_constant_schedule_with_warmup(optimizer, num_warmup_steps)
    return _ENDING[name](optimizer, num_warmup_steps, num_training_steps)


_ENDING: dict[str, Callable[[Optimizer, int, int], Schedule]] = {
    "linear": get_linear_schedule_with_warmup,
    "cosine": get_cosine_schedule_with_warmup,
    "slanted-triangular": get_slanted_triangular_schedule,
}


def _after_warmup(optimizer: Optimizer, name: str, factor: Callable[[int], float], **settings: Any) -> Schedule:
    for argument, value in settings.items():
        if argument != "num_cycles":
            lowest = 1 if argument == "timescale" else 0
            settings[argument] = integer(f"{name} schedule: {argument}", value, lowest)
    warmup = settings["num_warmup_steps"]
    total = settings.get("num_training_steps", warmup)
    if warmup > total:
        raise ValueError(f"{name} schedule: num_warmup_steps {warmup} is more than num_training_steps {total}")
    return Schedule(
        optimizer, lambda step: step / warmup if step < warmup else factor(step), {"schedule": name, **settings}
    )
