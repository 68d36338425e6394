"""Averages of weights: over a run's last epochs, or over all of its steps.

    average = ExponentialMovingAverage(model, decay=0.999)
    trainer = Trainer(model, ..., average=average)                  # saved and continued with the run
    model.load_state_dict(average.state_dict())                     # at the end

    trainer = Trainer(model, ..., folder="run", keep_epochs=5)       # or this
    model.load_state_dict(average_states("run", last=5))

While the learning rate is above 0, weights move around a point. Their mean is closer to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.checks import PROBABILITY, integer, number
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


class ExponentialMovingAverage:
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
        self.decay = number("ExponentialMovingAverage: decay", decay, **PROBABILITY)
        self._model = model
        self._averages: Arrays = {name: np.array(p.data, order="C") for name, p in model.named_parameters()}

    def update(self, step: int) -> None:
        """Add the model's weights after a step. `step` is the number of earlier steps."""
        share = np.float32(1.0 - min(self.decay, (1 + step) / (10 + step)))
        for name, parameter in self._model.named_parameters():
            average = self._averages[name]
            difference = parameter.data - average
            difference *= share
            average += difference

    def state_dict(self) -> Arrays:
        """The averages by the names of their weights, without copying."""
        return dict(self._averages)

    def load_state_dict(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Copy other averages. Raises ValueError for other names or shapes."""
        there, here = ({name: x.shape for name, x in arrays.items()} for arrays in (state, self._averages))
        if there != here:
            wrong = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
            raise ValueError(f"ExponentialMovingAverage: the state does not fit the model: {', '.join(wrong)}")
        for name, average in self._averages.items():
            average[...] = state[name]

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
