"""Modules: a plain tree of layers, and the parameters in it under the names of their checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from fastattn.autograd import Tensor, is_grad_enabled
from fastattn.nn.parameter import Array, Parameter, ParameterRows

AnyParameter = Parameter | ParameterRows
Values = Array | Tensor
Self = TypeVar("Self", bound="Module")


class Module:
    """A layer or a model: its attributes are its parameters and its child modules, or lists of these.

    A module whose checkpoint has other names for its parts overrides `children`, which is about names alone. Modules
    hold parameters and settings, never an activation, so one of them can be called from many threads at once. They
    take Tensors or arrays; dropout applies to both, and only while `training`.
    """

    training = True
    frozen = False

    def children(self) -> Iterator[tuple[str, Module]]:
        """The child modules by name; those of a list are numbered."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, list):
                yield from ((f"{name}.{i}", child) for i, child in enumerate(value))

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        yield self
        for value in vars(self).values():
            for child in value if isinstance(value, list) else (value,):
                if isinstance(child, Module):
                    yield from child.modules()

    def own_parameters(self) -> Iterator[tuple[str, AnyParameter]]:
        """The parameters of this module without those of its children."""
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield name, value

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, AnyParameter]]:
        """All parameters of the tree with their full names, each beginning with `prefix`.

        One that is used in several places comes once, under its first name.
        """
        seen = set()
        for name, parameter in self._names(prefix):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def parameters(self) -> Iterator[AnyParameter]:
        """All parameters of the tree, each once."""
        for _, parameter in self.named_parameters():
            yield parameter

    def state_dict(self) -> dict[str, Array]:
        """All parameters of the tree as read-only arrays by name: views, where they train, so copy what is to stay."""
        state = {}
        for name, parameter in self.named_parameters():
            state[name] = parameter.data.view()
            state[name].flags.writeable = False
        return state

    def load_state_dict(self, state: Mapping[str, Array], strict: bool = True) -> None:
        """Load every parameter of the tree from the array of its name.

        Raises ValueError that lists what has another shape and, unless `strict` is False, what is missing or not
        known, and TypeError for another dtype than the parameter's. Nothing is changed then.
        """
        if not hasattr(state, "shape"):  # the tensors of files are float32 arrays
            for name, array in state.items():
                if not isinstance(array, np.ndarray):
                    raise TypeError(f"load_state_dict: tensor {name!r} must be an array, got {type(array).__name__}")
        found = self.problems(state)
        problems = [f"tensor {name!r} {text}" for name, text in found if strict or text != "is missing"]
        if strict:
            known = {name for name, _ in self._names()}
            problems += [f"tensor {name!r} is not known" for name in state if name not in known]
        if problems:
            raise ValueError(f"load_state_dict: {'; '.join(problems)}")
        if not hasattr(state, "shape"):
            for name, parameter in self.named_parameters():
                if name in state and state[name].dtype != parameter.dtype:
                    wanted, got = parameter.dtype, state[name].dtype
                    raise TypeError(f"load_state_dict: tensor {name!r} must be {wanted}, got {got}")
        self.load(state)

    def load(self, state: Mapping[str, Array], *, freeze: bool = False) -> None:
        """Load what `state` has, unchecked, layer by layer, and freeze each at once, or draw what is missing.

        So one layer at a time is held twice while it is packed. The arrays are kept where a parameter has no values.
        """
        self._load(state, set(), "", freeze)
        self.initialize()
        if freeze:
            self.freeze()

    def problems(self, state: Mapping[str, Array]) -> list[tuple[str, str]]:
        """The names of parameters that `state` does not have ("is missing") or in another shape; reads no tensor."""
        problems = []
        names: dict[int, list[str]] = {}
        for name, parameter in self._names():
            names.setdefault(id(parameter), []).append(name)
            if name in state and (shape := shape_of(state, name)) != parameter.shape:
                problems.append((name, f"must have shape {parameter.shape}, got {shape}"))
        missing = [(known[0], "is missing") for known in names.values() if not any(name in state for name in known)]
        return missing + problems

    def train(self: Self, mode: bool = True) -> Self:
        """Switch dropout on, or off, in the whole tree, but for frozen modules. Returns the module."""
        for module in self.modules():
            module.training = mode and not module.frozen
        return self

    def eval(self: Self) -> Self:
        """Switch dropout off. Returns the module."""
        return self.train(False)

    def freeze(self: Self) -> Self:
        """Pack the matrices and freeze all parameters of the tree, for good. Returns the module."""
        for module in self.modules():
            module._freeze_own()
        return self

    def initialize(self) -> None:
        """First values for the parameters of the tree that have none."""
        for parameter in self._arrays():
            parameter.initialize()

    def zero_grad(self) -> None:
        """Take the gradients away."""
        for parameter in self._arrays():
            parameter.grad = None

    def astype(self, dtype: Any) -> None:
        """Turn the arrays of a trainable model into another float dtype, for `fastattn.use_reference()`.

        Raises ValueError when some are frozen.
        """
        for parameter in self._arrays():
            parameter.data = parameter.data.astype(dtype)
            parameter.grad = None

    def records(self) -> bool:
        """Whether a call would be recorded now for the sake of a parameter."""
        return not self.frozen and is_grad_enabled() and any(p.requires_grad for p in self._arrays())

    def dropout_rate(self, p: float) -> float:
        """`p` while training, else 0."""
        return p if self.training else 0.0

    def _names(self, prefix: str = "") -> Iterator[tuple[str, AnyParameter]]:
        """All parameters of the tree under all of their names."""
        for name, parameter in self.own_parameters():
            yield prefix + name, parameter
        for name, child in self.children():
            yield from child._names(f"{prefix}{name}.")

    def _arrays(self) -> Iterator[Parameter]:
        """The parameters of the tree as they are held: stacked ones whole, shared ones more than once."""
        for module in self.modules():
            for value in vars(module).values():
                if isinstance(value, Parameter):
                    yield value

    def _freeze_own(self) -> None:
        self.frozen, self.training = True, False
        for value in vars(self).values():
            if isinstance(value, Parameter):
                value.freeze()

    def _load(self, state: Mapping[str, Array], done: set[int], prefix: str, freeze: bool) -> None:
        """`load`; of a shared parameter's names the first that `state` has counts; `done` has the ids of the loaded."""
        for name, parameter in self.own_parameters():
            if prefix + name in state and id(parameter) not in done:
                done.add(id(parameter))
                parameter.load(state[prefix + name])
        if freeze:
            self._freeze_own()
        for name, child in self.children():
            child._load(state, done, f"{prefix}{name}.", freeze)


def shape_of(state: Mapping[str, Array], name: str) -> tuple[int, ...]:
    """The shape of a tensor; of one in a file without reading it."""
    shape = getattr(state, "shape", None)
    return np.shape(state[name]) if shape is None else tuple(shape(name))
