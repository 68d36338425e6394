"""Where a frozen model was loaded from, so that its pickle names the folder and holds no weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fastattn import nn
from fastattn.files import checksum, read_regular


@dataclass(eq=False, repr=False)
class Origin:
    """The folder that a frozen model was loaded from, and what was read."""

    holds_modules: ClassVar[bool] = False  # nn.Module does not search what was read

    folder: Path
    changes: Mapping[str, Any]
    fingerprint: str
    config: Any
    values: list[Any]
    attributes: Mapping[str, Any]

    def is_of(self, model: Any) -> bool:
        """Whether `model` still has the weights, submodules and config that were read."""
        now = [parameter.held for parameter in model._arrays()]
        same = len(now) == len(self.values) and all(a is b for a, b in zip(now, self.values, strict=True))
        return same and bool(model.config == self.config)

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
    model = cls._load(Path(folder), changes, trainable=False, new_head="refuse")
    if model._origin is None or model._origin.fingerprint != fingerprint:
        raise ValueError(f"{folder}: the files of this model have changed since it was pickled")
    return model


def fingerprint_of(cls: Any, folder: Path, tensors: Any) -> str:
    """A checksum of a model's files: its JSON files, and the name, the shape and some bytes of every tensor."""

    def pieces() -> Iterator[bytes]:
        for pattern in cls.files.patterns:
            if pattern.endswith(".json") and pattern not in cls.tokenizer_files and (folder / pattern).is_file():
                yield f"{pattern}\0".encode() + read_regular(folder / pattern) + b"\0"
        for name in sorted(tensors):
            yield f"{name}\0{nn.module.shape_of(tensors, name)}\0".encode() + tensors.sample(name)

    return checksum(pieces())
