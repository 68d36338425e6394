"""Optimizers with PyTorch's names, arguments and formulas. A step is one pass over each parameter, in place."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from fastattn import kernels
from fastattn.checks import PROBABILITY, integer, number, shown

Array = NDArray[np.float32]
Group = dict[str, Any]


class Trainable(Protocol):
    """What an optimizer needs: an array to update, and its gradient or None."""

    grad: Array | None

    @property
    def data(self) -> Array: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


class Optimizer(ABC):
    """The base class of optimizers: groups of parameters, and their state.

    Args:
        params: parameters, or dicts with `params` and the settings that differ for them.
        defaults: the settings for groups that do not set them.

    Attributes:
        param_groups: one dict for each group, with `params` and settings. You may change them; a schedule changes `lr`.
        state: the optimizer's state for each parameter, in order; empty before its first step.

    Raises, by name, TypeError for `params` that are one parameter, a module or not parameters and for a setting that is
    not a number, and ValueError for no parameters, a parameter given twice, and a setting that is unknown or out of
    range.
    """

    _state_names: ClassVar[tuple[str, ...]]  # of the state of a parameter that has been stepped

    def __init__(self, params: Iterable[Trainable] | Iterable[Group], defaults: Group) -> None:
        self._name = type(self).__name__
        if hasattr(params, "grad") or not isinstance(params, Iterable):
            got = "one parameter" if hasattr(params, "grad") else type(params).__name__
            raise TypeError(f"{self._name}: params must be a list of parameters or of dicts, got {got}")
        groups: list[Any] = list(params)
        if not groups:
            raise ValueError(f"{self._name}: params is empty")
        if not isinstance(groups[0], Mapping):
            groups = [{"params": groups}]
        self.param_groups: list[Group] = []
        for group in groups:
            unknown = sorted(set(group) - set(defaults) - {"params"})
            if "params" not in group or unknown:
                raise ValueError(f"{self._name}: a group has params and {', '.join(defaults)}, got {', '.join(group)}")
            self.param_groups.append({**defaults, **group, "params": _as_list(group["params"])})
            self._check(self.param_groups[-1])
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for parameter in parameters:
            if not hasattr(parameter, "grad"):
                raise TypeError(f"{self._name}: params must hold parameters, got {type(parameter).__name__}")
        if not parameters or len({id(parameter) for parameter in parameters}) < len(parameters):
            reason = "holds a parameter twice" if parameters else "is empty"
            raise ValueError(f"{self._name}: params {reason}")
        self.state: list[dict[str, Any]] = [{} for _ in parameters]

    def step(self) -> None:
        """Update every parameter that has a gradient. The others and their state do not change."""
        for group, parameter, state in self._each():
            if parameter.grad is not None:
                self._update(group, parameter.data, parameter.grad, state)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Remove all gradients, or fill them with zeros."""
        for _, parameter, _ in self._each():
            none = set_to_none or parameter.grad is None
            parameter.grad = None if none else np.zeros_like(parameter.grad)

    def state_dict(self) -> dict[str, Any]:
        """`state` by parameter index, and `param_groups`, as in PyTorch. Arrays are not copied."""
        numbers = iter(range(len(self.state)))
        groups = [{**group, "params": [next(numbers) for _ in group["params"]]} for group in self.param_groups]
        return {
            "state": {number: dict(state) for number, state in enumerate(self.state) if state},
            "param_groups": groups,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy a state and its settings, after checking all of it.

        Raises ValueError for other groups, names or shapes and for settings out of range, TypeError for a value that is
        not a number or a float array.
        """
        for name in ("state", "param_groups"):
            if name not in state_dict:
                raise ValueError(f"{self._name}: the state has no {name}, only {', '.join(state_dict) or 'nothing'}")
        groups = [dict(group) for group in state_dict["param_groups"]]
        sizes = [len(group["params"]) for group in self.param_groups]
        given = [len(group.get("params", ())) for group in groups]
        if given != sizes:
            raise ValueError(f"{self._name}: the state has groups of {given} parameters, the optimizer of {sizes}")
        for index, (own, group) in enumerate(zip(self.param_groups, groups, strict=True)):
            if set(group) != set(own):
                raise ValueError(
                    f"{self._name}: group {index} of the state has {', '.join(sorted(group))}, "
                    f"the optimizer {', '.join(sorted(own))}"
                )
            self._check(group)
        loaded: list[dict[str, Any]] = [{} for _ in self.state]
        for key, state in state_dict["state"].items():
            index = int(key)
            if not 0 <= index < len(loaded):
                raise ValueError(f"{self._name}: the state has a parameter {index}, the optimizer has {len(loaded)}")
            loaded[index] = dict(state)
        for i, ((_, parameter, _), state) in enumerate(zip(self._each(), loaded, strict=True)):
            if state and set(state) != set(self._state_names):
                raise ValueError(
                    f"{self._name}: the state of parameter {i} has {', '.join(sorted(state))}, "
                    f"not {', '.join(self._state_names)}"
                )
            for name, value in state.items():
                state[name] = _checked_state(f"{self._name}: {name} of parameter {i}", name, value, parameter.shape)
        self.state = loaded
        for own, group in zip(self.param_groups, groups, strict=True):
            own.update(_without_params(group))

    def _each(self) -> Iterator[tuple[Group, Trainable, dict[str, Any]]]:
        states = iter(self.state)
        for group in self.param_groups:
            for parameter in group["params"]:
                yield group, parameter, next(states)

    def _check(self, group: Group) -> None:
        """Check the settings, and convert them to Python numbers."""
        for name in ("lr", "eps", "weight_decay", "momentum", "dampening"):
            if name in group:
                group[name] = number(f"{self._name}: {name}", group[name])
        if "betas" in group:
            wanted = "two numbers from 0 to below 1"
            given = group["betas"]
            if not isinstance(given, Iterable) or isinstance(given, str):
                raise TypeError(f"{self._name}: betas must be {wanted}, got {shown(given)}")
            group["betas"] = tuple(number(f"{self._name}: each of betas", beta, **PROBABILITY) for beta in given)
            if len(group["betas"]) != 2:
                raise ValueError(f"{self._name}: betas must be {wanted}, got {shown(given)}")

    @abstractmethod
    def _update(self, group: Group, data: Array, grad: Array, state: dict[str, Any]) -> None:
        """One step of one parameter."""


class Adam(Optimizer):
    """Adam. `weight_decay` is an L2 penalty, added to the gradient.

    Args:
        params: parameters, or dicts with `params` and settings of their own.
        lr: learning rate.
        betas: decay of the averages of the gradient and of its square.
        eps: added to the root of the second average.
        weight_decay: factor of the penalty.

    Raises as `Optimizer` does.

    Source: Kingma and Ba 2015, algorithm 1; torch.optim.Adam.

    >>> from fastattn.nn import Parameter
    >>> parameter = Parameter(np.ones(2, np.float32))
    >>> optimizer = Adam([parameter], lr=0.1)
    >>> parameter.grad = np.array([0.5, -3.0], np.float32)
    >>> optimizer.step()
    >>> print(parameter.data.round(3))
    [0.9 1.1]
    """

    _state_names = ("step", "exp_avg", "exp_avg_sq")
    _decoupled = False

    def __init__(
        self,
        params: Iterable[Trainable] | Iterable[Group],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _update(self, group: Group, data: Array, grad: Array, state: dict[str, Any]) -> None:
        averages = state or {name: np.zeros(data.shape, np.float32) for name in ("exp_avg", "exp_avg_sq")}
        step = state.get("step", 0) + 1
        beta1, beta2 = group["betas"]
        kernels.adamw(
            data,
            grad,
            averages["exp_avg"],
            averages["exp_avg_sq"],
            step=step,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            decoupled=self._decoupled,
        )
        state.update(averages, step=step)  # after the kernel, which may have refused the gradient


class AdamW(Adam):
    """Adam with decoupled weight decay: each step shrinks a parameter by lr * weight_decay times its value.

    `params`, `lr`, `betas` and `eps` are as in `Adam`.

    Source: Loshchilov and Hutter 2019, algorithm 2; torch.optim.AdamW.

    >>> from fastattn.nn import Parameter
    >>> parameter = Parameter(np.ones(1, np.float32))
    >>> optimizer = AdamW([{"params": [parameter], "weight_decay": 0.0}], lr=0.1)
    >>> optimizer.param_groups[0]["weight_decay"]
    0.0
    """

    _decoupled = True

    def __init__(
        self,
        params: Iterable[Trainable] | Iterable[Group],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


class SGD(Optimizer):
    """Gradient descent, optionally with momentum.

    Args:
        params: parameters, or dicts with `params` and settings of their own.
        lr: learning rate.
        momentum: decay of the average of the gradients, which replaces the gradient; 0 for none.
        dampening: the gradient enters the average times 1 - dampening.
        weight_decay: factor of an L2 penalty, added to the gradient.
        nesterov: use Nesterov's momentum, which needs a momentum and no dampening.

    Raises as `Optimizer` does.

    Source: Sutskever et al. 2013, section 2; torch.optim.SGD.

    >>> from fastattn.nn import Parameter
    >>> parameter = Parameter(np.ones(1, np.float32))
    >>> parameter.grad = np.array([2.0], np.float32)
    >>> SGD([parameter], lr=0.25).step()
    >>> parameter.data.tolist()
    [0.5]
    """

    _state_names = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Trainable] | Iterable[Group],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "dampening": dampening}
        super().__init__(params, {**defaults, "weight_decay": weight_decay, "nesterov": nesterov})

    def _check(self, group: Group) -> None:
        super()._check(group)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError(
                f"{self._name}: nesterov needs momentum above 0 and dampening 0, "
                f"got {shown(group['momentum'])} and {shown(group['dampening'])}"
            )

    def _update(self, group: Group, data: Array, grad: Array, state: dict[str, Any]) -> None:
        first, buffer = not state, state.get("momentum_buffer")
        if group["momentum"] and first:
            buffer = np.zeros(data.shape, np.float32)
        kernels.sgd(data, grad, buffer, first=first, **_without_params(group))
        if buffer is not None:
            state["momentum_buffer"] = buffer


def _without_params(group: Group) -> Group:
    return {name: value for name, value in group.items() if name != "params"}


def _checked_state(label: str, name: str, value: Any, shape: tuple[int, ...]) -> Any:
    """A number of steps, or a copy of an array."""
    if name == "step":
        return integer(label, value, 0)
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        raise TypeError(f"{label} must be an array of floats, got {getattr(value, 'dtype', type(value).__name__)}")
    if value.shape != shape:
        raise ValueError(f"{label} must have shape {shape}, got {value.shape}")
    return np.array(value, np.float32, order="C")


def _as_list(params: Any) -> list[Any]:
    return [params] if hasattr(params, "grad") else list(params)


def by_layer(groups: Iterable[Group], layers: Sequence[Sequence[Trainable]], lr: float, decay: float) -> list[Group]:
    """Groups of an optimizer, split by layer: the highest layer learns with `lr`, each other one with the rate of the
    layer above it times `decay`.

    Args:
        groups: dicts with `params` and other settings.
        layers: the parameters of each layer, the lowest first. Other parameters are left out.

    Source: Howard and Ruder 2018, section 3.2, whose `decay` is 1 / 2.6.

    >>> from fastattn.nn import Parameter
    >>> low, high = Parameter(np.ones(2, np.float32)), Parameter(np.ones(2, np.float32))
    >>> [group["lr"] for group in by_layer([{"params": [low, high]}], [[low], [high]], lr=1.0, decay=0.5)]
    [1.0, 0.5]
    """
    found: list[Group] = []
    given = [{**group, "params": _as_list(group["params"])} for group in groups]
    for depth, layer in enumerate(reversed(layers)):
        own = {id(parameter) for parameter in layer}
        for group in given:
            params = [parameter for parameter in group["params"] if id(parameter) in own]
            if params:
                found.append({**group, "params": params, "lr": lr * decay**depth})
    return found


def clip_grad_norm(parameters: Iterable[Trainable], max_norm: float) -> float:
    """Scale all gradients down, in place, if their norm, taken together, is above `max_norm`.

    Args:
        parameters: parameters; those without a gradient are skipped.
        max_norm: the maximum norm, above 0. `math.inf` only measures.

    Returns the norm before scaling. If it is NaN or infinite, nothing is scaled.

    Raises ValueError for a max_norm that is not above 0.

    Source: Pascanu et al. 2013, algorithm 1; `torch.nn.utils.clip_grad_norm_`.

    >>> from fastattn.nn import Parameter
    >>> parameter = Parameter(np.zeros(2, np.float32))
    >>> parameter.grad = np.array([3.0, 4.0], np.float32)
    >>> clip_grad_norm([parameter], 1.0)
    5.0
    >>> print(parameter.grad.round(3))
    [0.6 0.8]
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm: max_norm must be above 0, got {shown(max_norm)}")
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = kernels.gradient_norm(gradients)
    if math.isfinite(norm) and norm > max_norm:
        scale = np.float32(max_norm / (norm + 1e-6))
        for gradient in gradients:
            gradient *= scale
    return norm
