"""The base class of the configurations of all families."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, TypeVar

from fastattn.checks import shown
from fastattn.nn.attention import MAX_HEAD_DIM

Self = TypeVar("Self", bound="PreTrainedConfig")

# Name of an activation in a config.json -> activation of fastattn.functional.linear
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
    "linear": None,
}


@dataclass(frozen=True, kw_only=True)
class PreTrainedConfig(ABC):
    """The shape of a model: a frozen dataclass. Its fields have the names used in the family's files.

    A family defines `model_types`, its fields with defaults, checks in `__post_init__` with `_check` and
    `fastattn.checks`, and `to_dict`. It also overrides `_read` if the file does not contain the fields as they are.
    """

    model_types: ClassVar[tuple[str, ...]]
    """The `model_type` of the files that this class reads."""
    holds_modules: ClassVar[bool] = False
    """`nn.Module` does not search configs for modules."""

    @classmethod
    def from_dict(cls: type[Self], values: Mapping[str, Any], source: str = "", **changes: Any) -> Self:
        """The configuration from the object of a config.json, with some fields replaced by `changes`.

        Fields that this class does not use are ignored. Raises ValueError for another kind of model, a missing field or
        an impossible value; the message begins with `source`, by default the name of the class, or with the name of the
        class if a change is to blame. Raises TypeError for a change of an unknown field.
        """
        cls.check_changes(cls.__name__, changes)
        try:
            return cls(**{**cls._read(values, changes), **changes})
        except ValueError as error:
            if changes and cls._can_be(values):
                source = ""
            raise ValueError(f"{source or cls.__name__}: {error}") from None

    @classmethod
    def _can_be(cls, values: Mapping[str, Any]) -> bool:
        """Whether a config.json is one, without changes."""
        try:
            cls(**cls._read(values, {}))
        except ValueError:
            return False
        return True

    @abstractmethod
    def to_dict(self, architecture: str = "") -> dict[str, Any]:
        """The object to write to config.json for a model of class `architecture`, by default the family's first."""

    def replace(self: Self, **changes: Any) -> Self:
        """The configuration with some fields changed. Raises as the class does, and TypeError for an unknown field."""
        self.check_changes(type(self).__name__, changes)
        return replace(self, **changes)

    @classmethod
    def check_changes(cls, caller: str, changes: Mapping[str, Any]) -> None:
        """Raise TypeError, naming the `caller`, for a change of an unknown field."""
        known = cls._names()
        for name in changes:
            if name not in known:
                raise TypeError(f"{caller}: {shown(name)} is not a field of {cls.__name__}")

    @classmethod
    def _names(cls) -> set[str]:
        return {field.name for field in fields(cls)}

    @classmethod
    def _read(cls, values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a config.json's object, before `changes`. Raises ValueError for another kind of model."""
        kind, known = values.get("model_type"), cls._names()
        if kind not in cls.model_types:
            raise ValueError(
                f"model_type is {shown(kind)}; {cls.__name__} reads {' and '.join(map(repr, cls.model_types))}"
            )
        return {name: value for name, value in values.items() if name in known}

    def _check(self, check: Callable[..., Any], *names: str, **limits: Any) -> None:
        """Replace fields by the result of `check(name, value, **limits)`. An optional field keeps None."""
        types = {field.name: str(field.type) for field in fields(self)}
        for name in names:
            value = getattr(self, name)
            if value is not None or "None" not in types[name]:
                self._set(name, check(name, value, **limits))

    def _check_heads(self, dim: str, heads: str) -> None:
        """Raise ValueError unless the field `heads` splits `dim` into heads that attention can compute."""
        size, count = getattr(self, dim), getattr(self, heads)
        if size % count:
            raise ValueError(f"{dim} must be a multiple of {heads}, got {size} and {count}")
        if size // count > MAX_HEAD_DIM:
            raise ValueError(f"{heads} must split {dim} into heads of at most {MAX_HEAD_DIM}, got {count} and {size}")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def architectures(values: Mapping[str, Any]) -> list[str]:
    """The classes that a config.json names for its model. Raises ValueError for what is no list of names."""
    found = values.get("architectures") or []
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"architectures must be a list of names, got {shown(found)}")
    return found
