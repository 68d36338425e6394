"""The configuration of ELMo, as bilm-tf and AllenNLP write it into options.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ElmoConfig"]

ACTIVATIONS = ("relu", "tanh")
CHARACTERS = 261
"""The ids of `fastattn.text.characters`. Options say 262: AllenNLP and bilm-tf's inference count one for a mask."""

_SIZES = ("char_embedding_dim", "max_characters_per_token", "dim", "projection_dim", "n_layers")
_SECTIONS: dict[str, dict[str, str]] = {  # of options.json: its names, and those of the fields
    "lstm": {name: name for name in ("dim", "projection_dim", "n_layers", "cell_clip", "proj_clip")}
    | {"use_skip_connections": "use_skip_connections"},
    "char_cnn": {name: name for name in ("filters", "n_highway", "activation", "max_characters_per_token")},
}
_REQUIRED = {"dim", "projection_dim", "n_layers", "filters"}


@dataclass(frozen=True, kw_only=True)
class ElmoConfig:
    """The shape of an ELMo network, under the names of options.json; the defaults are the original model's.

    - `char_embedding_dim`: the width of a character's row
    - `filters`: pairs (width, number) of the convolutions over characters
    - `n_highway`: highway layers above them; 0 for none
    - `activation`: theirs, "relu" or "tanh"
    - `max_characters_per_token`: how many characters a word has, marks and padding included
    - `dim`, `projection_dim`, `n_layers`: of the LSTMs: memory cells, outputs of each direction, layers
    - `cell_clip`, `proj_clip`: bounds of memory cells and of projected outputs; None for none
    - `use_skip_connections`: whether a layer above the first adds its input to its output

    Two rules are bilm-tf's: the convolutions' outputs are projected to `projection_dim` unless they are as many
    (`projects_tokens`), and the LSTMs' to `projection_dim` unless it is `dim` (`projects_outputs`).

    Raises ValueError for a value that no ELMo model can have, naming the field and the value.
    """

    char_embedding_dim: int = 16
    filters: tuple[tuple[int, int], ...] = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))
    n_highway: int = 2
    activation: str = "relu"
    max_characters_per_token: int = 50
    dim: int = 4096
    projection_dim: int = 512
    n_layers: int = 2
    cell_clip: float | None = 3.0
    proj_clip: float | None = 3.0
    use_skip_connections: bool = True

    def __post_init__(self) -> None:
        for name in _SIZES:
            check_integer(name, getattr(self, name))
        check_integer("n_highway", self.n_highway, least=0)
        if self.projection_dim > self.dim:
            raise ValueError(f"projection_dim must be at most dim = {self.dim}, got {self.projection_dim}")
        for name in ("cell_clip", "proj_clip"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and 0 < value < math.inf):
                raise ValueError(f"{name} must be a positive number or None, got {value!r}")
        if not isinstance(self.use_skip_connections, bool):
            raise ValueError(f"use_skip_connections must be a bool, got {self.use_skip_connections!r}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        object.__setattr__(self, "filters", _pairs(self.filters))
        for width, _ in self.filters:
            if width > self.max_characters_per_token:
                raise ValueError(
                    f"filters must not be wider than max_characters_per_token = {self.max_characters_per_token}, "
                    f"got {width}"
                )
        if self.max_characters_per_token < 3:
            raise ValueError(f"max_characters_per_token must be at least 3, got {self.max_characters_per_token}")

    @property
    def n_filters(self) -> int:
        """How many numbers the convolutions give for a word."""
        return sum(number for _, number in self.filters)

    @property
    def projects_tokens(self) -> bool:
        """Whether a linear layer leads from the convolutions to the LSTMs."""
        return self.n_filters != self.projection_dim

    @property
    def projects_outputs(self) -> bool:
        """Whether the outputs of the LSTMs are projected."""
        return self.dim != self.projection_dim

    @classmethod
    def from_options(cls, options: Mapping[str, Any], source: str = "options") -> ElmoConfig:
        """The configuration in the object of an options.json; what only training needs is passed over.

        Raises ValueError, its message beginning with `source`, for a model without characters or without a backward
        direction, a missing size, and an impossible value.
        """
        if "char_cnn" not in options:
            raise ValueError(f"{source}: char_cnn is missing; a model of whole words instead of characters is not read")
        if not options.get("bidirectional", True):
            raise ValueError(f"{source}: bidirectional is {options['bidirectional']!r}; ELMo reads both directions")
        values: dict[str, Any] = {"cell_clip": None, "proj_clip": None, "use_skip_connections": False, "n_highway": 0}
        for section, names in _SECTIONS.items():
            part = options.get(section)
            if not isinstance(part, Mapping):
                raise ValueError(f"{source}: {section} must be an object, got {part!r}")
            for name in names:
                if name in part:
                    values[name] = part[name]
                elif name in _REQUIRED:
                    raise ValueError(f"{source}: {section}.{name} is missing")
        characters = options["char_cnn"]
        rows = characters.get("n_characters", CHARACTERS)
        if rows not in (CHARACTERS, CHARACTERS + 1):
            raise ValueError(f"{source}: char_cnn.n_characters must be 261 or 262, got {rows!r}")
        embedding = characters.get("embedding")
        if not isinstance(embedding, Mapping) or "dim" not in embedding:
            raise ValueError(f"{source}: char_cnn.embedding.dim is missing")
        values["char_embedding_dim"] = embedding["dim"]
        if values["n_highway"] is None:  # bilm-tf's null
            values["n_highway"] = 0
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None

    def to_options(self) -> dict[str, Any]:
        """The object of an options.json, which AllenNLP and bilm-tf read."""
        options: dict[str, Any] = {
            section: {name: getattr(self, name) for name in names} for section, names in _SECTIONS.items()
        }
        characters = options["char_cnn"]
        characters["filters"] = [list(pair) for pair in self.filters]
        characters["embedding"] = {"dim": self.char_embedding_dim}
        characters["n_characters"] = CHARACTERS + 1
        return options


def check_integer(name: str, value: Any, least: int = 1) -> None:
    """Raise ValueError, which begins with `name`, for what is no int from `least`, 0 or 1, to 2^31 - 1."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
        raise ValueError(f"{name} must be {'a positive integer' if least else 'an integer from 0 on'}, got {value!r}")


def _pairs(filters: Any) -> tuple[tuple[int, int], ...]:
    try:
        pairs = tuple((width, number) for width, number in filters)
    except (TypeError, ValueError):
        raise ValueError(f"filters must be pairs (width, number), got {filters!r}") from None
    if not pairs:
        raise ValueError("filters must not be empty")
    for pair in pairs:
        for value in pair:
            check_integer("filters: a width or a number", value)
    return pairs
