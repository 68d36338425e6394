"""What the configurations of all families share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

Self = TypeVar("Self", bound="PreTrainedConfig")


@dataclass(frozen=True, kw_only=True)
class PreTrainedConfig:
    """The shape of a model: a frozen dataclass, whose fields have the names that the family's files have for them.

    A family writes its fields with defaults, checks in `__post_init__` (see `fastattn.checks`; `_set` replaces a value
    by the checked one), `_read`, where a file needs more than that its fields are taken, and `to_dict`.
    """

    @classmethod
    def from_dict(cls: type[Self], values: Mapping[str, Any], source: str = "", **changes: Any) -> Self:
        """The configuration in the object of a config.json, with some fields replaced by `changes`.

        Fields of other purposes are passed over. Raises ValueError for another kind of model, a missing field and an
        impossible value; its message begins with `source`, by default the name of the class. Raises TypeError for a
        change of a field that there is not.
        """
        cls.check_changes(cls.__name__, changes)
        source = source or cls.__name__
        try:
            return cls(**{**cls._read(values, changes), **changes})
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None

    def to_dict(self, architecture: str = "") -> dict[str, Any]:
        """The object of a config.json for a model of the class `architecture`, by default the family's first."""
        raise NotImplementedError

    def replace(self: Self, **changes: Any) -> Self:
        """The configuration with some fields changed. Raises as the class does, and TypeError for no field."""
        self.check_changes(type(self).__name__, changes)
        return replace(self, **changes)

    @classmethod
    def check_changes(cls, caller: str, changes: Mapping[str, Any]) -> None:
        """Raise TypeError, which names the `caller`, for a change of a field that there is not."""
        known = cls._names()
        for name in changes:
            if name not in known:
                raise TypeError(f"{caller}: {name!r} is not a field of {cls.__name__}")

    @classmethod
    def _names(cls) -> set[str]:
        return {field.name for field in fields(cls)}

    @classmethod
    def _read(cls, values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """The fields in the object of a config.json, before `changes`. Raises ValueError for another kind of model."""
        known = cls._names()
        return {name: value for name, value in values.items() if name in known}

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
