"""What BERT and the Transformer share: making a model of new weights, or of those of a checkpoint."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np

from fastattn import nn
from fastattn.formats.hugging_face import StateDict
from fastattn.nn.parameter import Array


class PreTrainedModel(nn.Module, ABC):
    """A model with a `config`, made as its subclass says."""

    loads_trainable = False
    """Whether a loaded model is trainable where nobody says."""

    required: tuple[str, ...] = ()
    """How the names begin without which no model is loaded."""

    layer_names: ClassVar[Mapping[str, str]]
    """Fields of the config that count layers, each with how the names of their tensors begin, the number as a group."""

    def __init__(self, config: Any, tensors: Mapping[str, Array] | None = None, *, trainable: bool | None = None):
        source = str(tensors.source) if isinstance(tensors, StateDict) else type(self).__name__
        if tensors is not None:
            self._check_layers(config, tensors, source)
        self.config = config
        with nn.init.uninitialized():
            self.build(config)
        if tensors is not None:
            self._fill(tensors, source, freeze=not (self.loads_trainable if trainable is None else trainable))
            return
        self.initialize()
        if trainable is False:
            self.freeze()

    @abstractmethod
    def build(self, config: Any) -> None:
        """Make the parts, under the names that the checkpoint has for them."""

    def refusals(self, tensors: Mapping[str, Array]) -> list[tuple[str, str]]:
        """The names of tensors that cannot be loaded, or are not there, and why."""
        found = [(name, text) for name, text in self.problems(tensors) if not self._optional(name, text)]
        return found or self._untied(tensors)

    def _optional(self, name: str, text: str) -> bool:
        return text == "is missing" and not name.startswith(self.required)

    def _untied(self, tensors: Mapping[str, Array]) -> list[tuple[str, str]]:
        """The names under which a shared parameter is there with other values than under its first one."""
        names: dict[int, list[str]] = {}
        for name, parameter in self._names():
            if name in tensors:
                names.setdefault(id(parameter), []).append(name)
        return [
            (name, f"must be {first!r}, to which the config ties it, but has other values")
            for first, *others in names.values()
            for name in others
            if not np.array_equal(tensors[name], tensors[first], equal_nan=True)
        ]

    def _fill(self, tensors: Mapping[str, Array], source: str, *, freeze: bool) -> None:
        problems = [f"tensor {name!r} {text}" for name, text in self.refusals(tensors)]
        if problems:
            raise ValueError(f"{source}: {'; '.join(problems)}")
        if not isinstance(tensors, StateDict):  # which gives new arrays, ours to keep
            tensors = {name: np.array(tensor) for name, tensor in tensors.items()}
        self.load(tensors, freeze=freeze)
        self.eval()

    def _check_layers(self, config: Any, tensors: Mapping[str, Array], source: str) -> None:
        """Raise ValueError when there are not as many layers as `config` says, before any is made."""
        for field, begin in self.layer_names.items():
            matches = (re.match(begin, name) for name in tensors)
            numbers = {int(match[1]) for match in matches if match}
            layers = getattr(config, field)
            if numbers != set(range(len(numbers))) or len(numbers) != layers:
                raise ValueError(
                    f"{source}: {field} is {layers}, but there are tensors of {len(numbers)} layers"
                    f"{f', the last one numbered {max(numbers)}' if numbers else ''}"
                )


def check_changes(config: type, changes: Mapping[str, Any]) -> None:
    """Raise TypeError for a change of a field that the config does not have."""
    known = {field.name for field in fields(config)}
    for name in changes:
        if name not in known:
            raise TypeError(f"from_pretrained: {name!r} is not a field of {config.__name__}")
