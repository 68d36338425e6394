"""What the steps of a run change: model, optimizer, schedule, averages, what is carried, the random state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastattn.autograd import no_grad
from fastattn.random import checked_rng_state, get_rng_state, set_rng_state
from fastattn.training.averaging import WeightAverage
from fastattn.training.evaluations import Evaluations
from fastattn.training.optimizers import Optimizer
from fastattn.training.run_state import AVERAGE, CARRIED, MODEL, OPTIMIZER, Carried, NothingCarried, Tensors, part
from fastattn.training.schedules import Schedule


class Trained:
    """The objects of a run, which are updated, evaluated, saved and restored together. Arguments are as in `Trainer`.

    Raises ValueError for an optimizer without a trainable parameter.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Optimizer,
        schedule: Schedule | None,
        carried: Carried | None,
        average: WeightAverage | None,
        layers: Sequence[Sequence[Any]] = (),
    ) -> None:
        self._layers = [[each for each in layer if each.requires_grad] for layer in reversed(layers)]
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self._carried, self._average = carried or NothingCarried(), average
        if not any(parameter.requires_grad for parameter in self.parameters):
            raise ValueError("Trainer: no parameter of the optimizer is trainable; load the model with trainable=True")
        self.mark()

    @property
    def parameters(self) -> list[Any]:
        """The parameters of the optimizer."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def settings(self) -> dict[str, Any]:
        """Values for JSON that must be equal for a run to go on."""
        groups = self.optimizer.state_dict()["param_groups"]
        return {
            "parameters": {name: list(p.shape) for name, p in self.model.named_parameters()},
            "optimizer": type(self.optimizer).__name__,
            "param_groups": [{k: v for k, v in group.items() if k != "lr"} for group in groups],
            "schedule": None if self.schedule is None else self.schedule.settings,
            "average": None if self._average is None else self._average.settings,
            "unfrozen": [len(layer) for layer in self._layers] or None,
        }

    def unfreeze(self, epoch: int | None = None) -> None:
        """Train the layers that an epoch, counted from 0, trains: the highest one and `epoch` others. None trains all.

        The others get no gradient, and what they compute is not recorded.
        """
        for i, layer in enumerate(self._layers):
            for parameter in layer:
                parameter.requires_grad = epoch is None or i <= epoch

    def mark(self) -> None:
        """Remember what a step leaves to the next one: a state is that after a whole step."""
        self._left, self._random = self._carried.state_dict(), get_rng_state()

    def to_mark(self, new: bool = False) -> None:
        """Go back to what the last step left. A `new` run begins with the present random state."""
        if new:
            self._random = get_rng_state()
        set_rng_state(self._random)
        self._carried.load_state_dict(self._left)

    def to_training(self) -> None:
        """Undo what an evaluation, or somebody's function, did to the random state and the mode of the model."""
        self.model.train()
        set_rng_state(self._random)

    def update(self, step: int) -> float:
        """Step optimizer, schedule and averages. `step` is the number of earlier steps. Returns the learning rate."""
        rate = float(self.optimizer.param_groups[0]["lr"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.schedule is not None:
            self.schedule.step()
        if self._average is not None:
            self._average.update(step)
        return rate

    @contextlib.contextmanager
    def evaluated(self) -> Iterator[None]:
        """The model evaluates, with the averages as its weights if there are any. Nothing is recorded."""
        self.model.eval()
        with no_grad(), contextlib.nullcontext() if self._average is None else self._average.applied():
            yield
        self.to_training()

    def measured(self, evaluations: Evaluations) -> None:
        """Tell the averages the results so far."""
        if self._average is not None:
            self._average.measured(evaluations)

    def weights(self) -> Mapping[str, Any]:
        """What is evaluated: the weights, or their averages if there are any."""
        averages = {} if self._average is None else self._average.state_dict()
        state: Mapping[str, Any] = averages or self.model.state_dict()
        return state

    def collect(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Tensors and values of a state, not copied."""
        average = {} if self._average is None else self._average.state_dict()
        tensors = {MODEL + name: value for name, value in self.model.state_dict().items()}
        tensors |= {CARRIED + name: value for name, value in self._left.items()}
        tensors |= {AVERAGE + name: value for name, value in average.items()}
        state_dict = self.optimizer.state_dict()
        state: dict[str, dict[str, Any]] = {}
        for number, entries in state_dict["state"].items():
            arrays = {name: value for name, value in entries.items() if isinstance(value, np.ndarray)}
            tensors |= {f"{OPTIMIZER}{number}.{name}": value for name, value in arrays.items()}
            state[str(number)] = {name: value for name, value in entries.items() if name not in arrays}
        return tensors, {
            "optimizer": {"state": state, "param_groups": state_dict["param_groups"]},
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "random": self._random,
        }

    def restore(self, tensors: Tensors, values: Mapping[str, Any]) -> None:
        """Load what `collect` returned. The settings were compared before; so the schedule may have another length.

        Raises an error of `MALFORMED`, as the objects do, for what does not fit.
        """
        state = {number: dict(entries) for number, entries in values["optimizer"]["state"].items()}
        for name, tensor in part(tensors, OPTIMIZER).items():
            number, key = name.split(".", 1)
            state[number][key] = tensor
        self.model.load_state_dict(part(tensors, MODEL))
        self.optimizer.load_state_dict({**values["optimizer"], "state": state})
        if self.schedule is not None:
            self.schedule.load_state_dict({**values["schedule"], "settings": self.schedule.settings})
        if self._average is not None:
            self._average.load_state_dict(part(tensors, AVERAGE))
        self._left, self._random = part(tensors, CARRIED), checked_rng_state(values["random"])
