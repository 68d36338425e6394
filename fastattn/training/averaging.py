"""Averages of weights: over a run's last epochs, over all of its steps, or over those since it stopped improving.

    average = ExponentialMovingAverage(model, decay=0.999)
    trainer = Trainer(model, ..., average=average)                  # saved and continued with the run
    model.load_state_dict(average.state_dict())                     # at the end

    trainer = Trainer(model, ..., folder="run", keep_epochs=5)       # or this
    model.load_state_dict(average_states("run", last=5))

While the learning rate is above 0, weights move around a point. Their mean is closer to it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastattn.checks import PROBABILITY, integer, number
from fastattn.training.evaluations import Evaluations
from fastattn.training.run_state import MALFORMED, STATES, read_state, saved_states, state_path, weights

Arrays = dict[str, NDArray[np.float32]]


def average_states(folder: str | os.PathLike[str], last: int, step: int | None = None) -> Arrays:
    """The mean of a run's weights at the ends of its last epochs, by name. States saved within an epoch do not count.

    Args:
        folder: the folder of a `Trainer`; `keep_epochs=last` keeps the states that are needed.
        last: how many epochs, or fewer if the run has not finished as many.
        step: ignore states of later steps; None ignores none.

    Raises ValueError for a `last` below 1, no states, a damaged state and states of different models. Raises OSError,
    also for a state that was not kept.

    Source: Vaswani et al. 2017, section 6.1.
    """
    last = integer("average_states: last", last, 1)
    states = Path(folder) / STATES
    newest = next((path for number, path in saved_states(states) if step is None or number <= step), None)
    ends = [] if newest is None else _epoch_ends(newest)[-last:]
    if not ends:
        raise ValueError(f"average_states: no saved state at the end of an epoch in {states}")
    paths = [state_path(states, end) for end in ends]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"average_states: {path} was not kept; a Trainer(keep_epochs={last}) keeps it")
    sums: dict[str, NDArray[np.float64]] = {}
    for path in paths:
        tensors = weights(read_state(path)[0])
        if sums and {name: x.shape for name, x in tensors.items()} != {name: x.shape for name, x in sums.items()}:
            raise ValueError(f"average_states: {path} and {paths[0]} are states of different models")
        for name, tensor in tensors.items():
            sums[name] = sums.get(name, 0.0) + tensor.astype(np.float64)
    return {name: (total / len(ends)).astype(np.float32) for name, total in sums.items()}


def _epoch_ends(path: Path) -> list[int]:
    """The steps at which the epochs of a saved run ended. Raises ValueError for a state that does not say it."""
    values = read_state(path)[1]
    try:
        return [integer("epoch_ends", end, 0) for end in values["epoch_ends"]]
    except MALFORMED as error:
        raise ValueError(f"{path}: not a saved state of a run: {error}") from None


class WeightAverage(ABC):
    """Averages of a model's weights, which a `Trainer` updates after each step. There may be none yet.

    Args:
        model: the model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._averages: Arrays = {}

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Values for JSON that must be equal for a run to go on."""

    @abstractmethod
    def __str__(self) -> str:
        """What the averages are, for the model card."""

    @abstractmethod
    def update(self, step: int) -> None:
        """Add the model's weights after a step. `step` is the number of earlier steps."""

    needs_evaluations: ClassVar[bool] = False
    """Whether the averages depend on the results of a run."""

    def measured(self, evaluations: Evaluations) -> None:  # noqa: B027 - most averages do not depend on them
        """Learn the results of a run so far: after each evaluation, and when the run goes on."""

    def _begin(self) -> None:
        """Start from the model's present weights."""
        self._averages = {name: np.array(p.data, order="C") for name, p in self._model.named_parameters()}

    def _move(self, share: float) -> None:
        """Move each average this part of the way to the weight."""
        for name, parameter in self._model.named_parameters():
            average = self._averages[name]
            difference = parameter.data - average
            difference *= np.float32(share)
            average += difference

    def state_dict(self) -> Arrays:
        """The averages by the names of their weights, without copying; empty if there are none yet."""
        return dict(self._averages)

    def load_state_dict(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Copy other averages. Raises ValueError for other names or shapes."""
        there = {name: x.shape for name, x in state.items()}
        here = {name: parameter.shape for name, parameter in self._model.named_parameters()}
        if there != here:
            wrong = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
            raise ValueError(f"{type(self).__name__}: the state does not fit the model: {', '.join(wrong)}")
        self._averages = {name: np.array(state[name], np.float32, order="C") for name in here}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the averages as the model's weights inside the `with` block, and its own weights after it."""
        own = {name: parameter.data.copy() for name, parameter in self._model.named_parameters()}
        try:
            self._fill(self._averages)
            yield
        finally:
            self._fill(own)

    def _fill(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        for name, parameter in self._model.named_parameters():
            parameter.data[...] = arrays[name]


class ExponentialMovingAverage(WeightAverage):
    """Averages of a model's weights, in which weights from n steps ago count with a factor of decay^n.

    After step t, counted from 0, an average moves 1 - d of the way to the weight. d is the smaller of `decay` and
    (1 + t) / (10 + t), so the first weights are soon forgotten.

    Args:
        model: the model; the averages start from its current weights.
        decay: a number in [0, 1); 0 does not average.

    Raises TypeError for a decay that is not a number, ValueError for a decay out of range.

    Source: Polyak and Juditsky 1992; (1 + t) / (10 + t) as in TensorFlow's ExponentialMovingAverage.

    >>> from fastattn import nn
    >>> model = nn.LayerNorm(2)
    >>> average = ExponentialMovingAverage(model, decay=0.5)
    >>> model.weight.data[...] = 3.0
    >>> average.update(100)
    >>> print(average.state_dict()["weight"])
    [2. 2.]
    """

    def __init__(self, model: Any, decay: float) -> None:
        super().__init__(model)
        self.decay = number("ExponentialMovingAverage: decay", decay, **PROBABILITY)
        self._begin()

    @property
    def settings(self) -> dict[str, Any]:
        return {"decay": self.decay}

    def __str__(self) -> str:
        return f"the moving averages of all steps, with a decay of {self.decay}"

    def update(self, step: int) -> None:
        """Add the model's weights after a step. `step` is the number of earlier steps."""
        self._move(1.0 - min(self.decay, (1 + step) / (10 + step)))


class TriggeredAverage(WeightAverage):
    """The mean of a model's weights after all steps since an evaluation that showed no progress.

    That is the first one that is worse than the best of those more than `window` evaluations before it. Until then
    there are no averages. With `SGD`, a run becomes averaged SGD when a constant rate takes it no further.

    Args:
        model: the model.
        window: how many evaluations in a row may be worse than an earlier one.

    Attributes:
        since: the steps done at that evaluation; None before it.

    Raises TypeError for a `window` that is not an integer, ValueError for one below 1.

    Source: NT-ASGD, Merity et al. 2018 (arXiv 1708.02182), algorithm 1.
    """

    needs_evaluations = True

    def __init__(self, model: Any, window: int = 5) -> None:
        super().__init__(model)
        self.window = integer("TriggeredAverage: window", window, 1)
        self.since: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        return {"window": self.window}

    def __str__(self) -> str:
        if self.since is None:
            return "those of the last step"
        return f"the mean of those after each step from {self.since:,} on"

    def measured(self, evaluations: Evaluations) -> None:
        """Look for the evaluation without progress."""
        self.since = evaluations.stalled(self.window)
        if self.since is not None and not self._averages:
            self._begin()

    def update(self, step: int) -> None:
        """Add the model's weights after a step. `step` is the number of earlier steps."""
        if self.since is not None:
            self._move(1 / (step + 2 - self.since))

    def load_state_dict(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Copy other averages, or none. Raises ValueError for other names or shapes."""
        if state:
            super().load_state_dict(state)
        else:
            self._averages = {}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the averages, if there are any, as the model's weights inside the `with` block."""
        with super().applied() if self._averages else nullcontext():
            yield
