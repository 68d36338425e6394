"""Where a frozen model was loaded from, so that its pickle names the folder and holds no weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from fastattn import nn
from fastattn.files import checksum, read_regular, states_of


@dataclass(eq=False, repr=False)
class Origin:
    """The folder that a frozen model was loaded from, and what was read."""

    holds_modules: ClassVar[bool] = False  # nn.Module does not search what was read

    kind: Any
    folder: Path
    changes: Mapping[str, Any]
    files: Mapping[Path, tuple[int, ...]]
    config: Any
    values: list[Any]
    attributes: Mapping[str, Any]

    def is_of(self, model: Any) -> bool:
        """Whether `model` still has the weights, submodules and config that were read, and the files are those."""
        now = [parameter.held for parameter in model._arrays()]
        same = len(now) == len(self.values) and all(a is b for a, b in zip(now, self.values, strict=True))
        return same and bool(model.config == self.config) and states_of(self.files) == self.files

    @cached_property
    def fingerprint(self) -> str:
        """`fingerprint_of` the files, which few ever ask for."""
        fields = {name: value for name, value in self.changes.items() if name not in (*self.kind.options, "weights")}
        with self.kind._opened(self.folder, fields, "refuse") as (_, tensors):
            return fingerprint_of(self.kind, self.folder, tensors)

    def since(self, model: Any) -> dict[str, Any]:
        """The attributes of `model` that were set since it was read."""
        missing, now = object(), attributes_of(model)
        return {name: getattr(model, name) for name in now if now[name] != self.attributes.get(name, missing)}

    def __deepcopy__(self, memo: dict[int, Any]) -> Origin:
        return self  # a copy of a frozen model shares its values


def attributes_of(model: Any) -> dict[str, Any]:
    """The attributes of a model by name, with the values of those that are no objects."""
    values = {name: value for name, value in vars(model).items() if name != "_origin"}
    return {name: value if isinstance(value, bool | int | float | str) else None for name, value in values.items()}


def from_origin(cls: Any, folder: str, changes: Mapping[str, Any], fingerprint: str) -> Any:
    """The model of a pickle. Raises ValueError if its folder has changed since."""
    fields = {name: value for name, value in changes.items() if name != "weights"}
    weights = changes.get("weights")
    model = cls._load(Path(folder), fields, trainable=False, weights=weights, new_head="refuse")
    if model._origin is None or model._origin.fingerprint != fingerprint:
        raise ValueError(f"{folder}: the files of this model have changed since it was pickled")
    return model


def states_of_files(cls: Any, folder: Path, tensors: Any) -> dict[Path, tuple[int, ...]]:
    """The states of the files that `fingerprint_of` is of."""
    return states_of([*(folder.absolute() / name for name in _json_files(cls)), *tensors.paths()])


def _json_files(cls: Any) -> list[str]:
    return [name for name in cls.files.patterns if name.endswith(".json") and name not in cls.tokenizer_files]


def fingerprint_of(cls: Any, folder: Path, tensors: Any) -> str:
    """A checksum of a model's files: its JSON files, and the name, the shape and some bytes of every tensor."""

    def pieces() -> Iterator[bytes]:
        for name in _json_files(cls):
            if (folder / name).is_file():
                yield f"{name}\0".encode() + read_regular(folder / name) + b"\0"
        for name in sorted(tensors):
            yield f"{name}\0{nn.module.shape_of(tensors, name)}\0".encode() + tensors.sample(name)

    return checksum(pieces())
