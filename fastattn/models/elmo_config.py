"""The configuration of ELMo, as bilm-tf and AllenNLP write it into options.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastattn.checks import POSITIVE, boolean, choice, config_integer, config_number

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
            self._set(name, config_integer(name, getattr(self, name)))
        self._set("n_highway", config_integer("n_highway", self.n_highway, 0))
        if self.projection_dim > self.dim:
            raise ValueError(f"projection_dim must be at most dim = {self.dim}, got {self.projection_dim}")
        for name in ("cell_clip", "proj_clip"):
            if getattr(self, name) is not None:
                self._set(name, config_number(name, getattr(self, name), **POSITIVE))
        self._set("use_skip_connections", boolean("use_skip_connections", self.use_skip_connections))
        choice("activation", self.activation, ACTIVATIONS)
        self._set("filters", _pairs(self.filters))
        for width, _ in self.filters:
            if width > self.max_characters_per_token:
                raise ValueError(
                    f"filters must not be wider than max_characters_per_token = {self.max_characters_per_token}, "
                    f"got {width}"
                )
        if self.max_characters_per_token < 3:
            raise ValueError(f"max_characters_per_token must be at least 3, got {self.max_characters_per_token}")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

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


def _pairs(filters: Any) -> tuple[tuple[int, int], ...]:
    try:
        pairs = tuple((width, number) for width, number in filters)
    except (TypeError, ValueError):
        raise ValueError(f"filters must be pairs (width, number), got {filters!r}") from None
    if not pairs:
        raise ValueError("filters must not be empty")
    width, number = (f"filters: a {part}" for part in ("width", "number"))
    return tuple((config_integer(width, pair[0]), config_integer(number, pair[1])) for pair in pairs)
