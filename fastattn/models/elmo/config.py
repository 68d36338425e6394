"""The configuration of ELMo: the options.json of bilm-tf and AllenNLP, and fields for the models on the network."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastattn.checks import POSITIVE, PROBABILITY, boolean, choice, config_integer, config_number, shown
from fastattn.models.config import PreTrainedConfig
from fastattn.nn.char_cnn import check_filters

ACTIVATIONS = ("relu", "tanh")
CHARACTERS = 261
"""The number of ids in `fastattn.text.characters`. Options say 262: AllenNLP and bilm-tf count one more for a mask."""

_MOST = 1024
"""Filters, scalar mixes and characters of a word: a file has no tensors to compare these counts with in time."""
_SIZES = {"char_embedding_dim": 1, "max_characters_per_token": 3, "dim": 1, "projection_dim": 1, "n_layers": 1}
_COUNTS = {"n_highway": 0, "num_output_representations": 0}
_REQUIRED = {"dim", "projection_dim", "n_layers", "filters"}
_SECTIONS = {  # of options.json
    "lstm": ("dim", "projection_dim", "n_layers", "cell_clip", "proj_clip", "use_skip_connections"),
    "char_cnn": ("filters", "n_highway", "activation", "max_characters_per_token"),
}
_MIXES = ("num_output_representations", "do_layer_norm", "dropout", "scalar_mix_parameters", "keep_sentence_boundaries")
_LANGUAGE_MODEL = {"vocabulary_size": "vocabulary_size", "num_sampled": "num_sampled", "lstm_dropout": "dropout"}
"""Maps the fields of a language model to their names in the section `language_model` of config.json."""


@dataclass(frozen=True, kw_only=True)
class ElmoConfig(PreTrainedConfig):
    """The shape of an ELMo network, under the names of options.json; the defaults are the original model's.

    - `char_embedding_dim`: the size of a character's embedding
    - `filters`: pairs (width, number) of the convolutions over characters, at most 1024
    - `n_highway`: the number of highway layers above them
    - `activation`: the activation of the convolutions, "relu" or "tanh"
    - `max_characters_per_token`: the characters of a word, including marks and padding, at most 1024
    - `dim`, `projection_dim`, `n_layers`: the LSTMs' memory cells, outputs of each direction, and layers
    - `cell_clip`, `proj_clip`: bounds of memory cells and of projected outputs; None for no bound
    - `use_skip_connections`: whether a layer above the first adds its input to its output

    Two rules come from bilm-tf. The outputs of the convolutions are projected to `projection_dim` unless there are as
    many (`projects_tokens`). The outputs of the LSTMs are projected unless `projection_dim` is `dim`
    (`projects_outputs`). Fields of `Elmo`:

    - `num_output_representations`: the number of scalar mixes, at most 1024
    - `do_layer_norm`: whether each mix first normalises each layer, row by row
    - `dropout`: the dropout of the mixes, while training
    - `scalar_mix_parameters`: weights of the `n_layers + 1` layers before the softmax, the same for all mixes, which
      then do not train; with None, they train and start equal
    - `keep_sentence_boundaries`: keep the vectors of `<S>` and `</S>` in the results

    Fields of `BidirectionalLanguageModel`:

    - `vocabulary_size`: the number of words in the softmax; None if this is not a language model
    - `num_sampled`: the number of wrong words that the softmax compares with the right one while training; None for all
      of them, as always in evaluation mode. Sampling needs a vocabulary sorted by frequency
    - `lstm_dropout`: dropout on the input of each LSTM and on the output of the last one, while training

    Raises ValueError, naming the field and the value, for a value that no ELMo model can have.
    """

    model_types = ("elmo",)

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
    num_output_representations: int = 0
    do_layer_norm: bool = False
    dropout: float = 0.5
    scalar_mix_parameters: tuple[float, ...] | None = None
    keep_sentence_boundaries: bool = False
    vocabulary_size: int | None = None
    num_sampled: int | None = None
    lstm_dropout: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (_SIZES | _COUNTS).items():
            self._check(config_integer, name, low=least)
        for name in ("max_characters_per_token", "num_output_representations"):
            self._check(config_integer, name, low=0, high=_MOST + 1, wanted=f"at most {_MOST}")
        if self.projection_dim > self.dim:
            raise ValueError(f"projection_dim must be at most dim = {self.dim}, got {self.projection_dim}")
        self._check(_clip, "cell_clip", "proj_clip")
        self._check(config_number, "dropout", "lstm_dropout", **PROBABILITY)
        self._check(boolean, "use_skip_connections", "do_layer_norm", "keep_sentence_boundaries")
        self._check(choice, "activation", known=ACTIVATIONS)
        if isinstance(self.filters, Sized) and len(self.filters) > _MOST:
            raise ValueError(f"filters must be at most {_MOST} pairs, got {len(self.filters)}")
        self._check(check_filters, "filters", integer=config_integer)
        width, length = max(self.filters)[0], self.max_characters_per_token
        if width > length:
            raise ValueError(f"filters must not be wider than max_characters_per_token = {length}, got {width}")
        self._check(_weights, "scalar_mix_parameters", layers=self.n_layers + 1)
        self._check(config_integer, "vocabulary_size")
        wanted = f"from 1 to below the vocabulary's {self.vocabulary_size}"
        self._check(config_integer, "num_sampled", high=self.vocabulary_size or 0, wanted=wanted)

    @property
    def n_filters(self) -> int:
        """The number of features of a word after the convolutions."""
        return sum(number for _, number in self.filters)

    @property
    def projects_tokens(self) -> bool:
        """Whether there is a linear layer between the convolutions and the LSTMs."""
        return self.n_filters != self.projection_dim

    @property
    def projects_outputs(self) -> bool:
        """Whether the outputs of the LSTMs are projected."""
        return self.dim != self.projection_dim

    @classmethod
    def _read(cls, values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """The fields from an options.json or a config.json. Fields for bilm-tf's training alone are ignored."""
        super()._read({"model_type": "elmo", **values}, changes)
        if "char_cnn" not in values:
            raise ValueError("char_cnn is missing; models over words instead of characters are not supported")
        if not values.get("bidirectional", True):
            raise ValueError(f"bidirectional is {shown(values['bidirectional'])}; ELMo reads both directions")
        found: dict[str, Any] = {"cell_clip": None, "proj_clip": None, "use_skip_connections": False, "n_highway": 0}
        for section, names in _SECTIONS.items():
            part = values.get(section)
            if not isinstance(part, Mapping):
                raise ValueError(f"{section} must be an object, got {shown(part)}")
            for name in names:
                if name in part:
                    found[name] = part[name]
                elif name in _REQUIRED:
                    raise ValueError(f"{section}.{name} is missing")
        rows, embedding = values["char_cnn"].get("n_characters", CHARACTERS), values["char_cnn"].get("embedding")
        if rows not in (CHARACTERS, CHARACTERS + 1):
            raise ValueError(f"char_cnn.n_characters must be 261 or 262, got {shown(rows)}")
        if not isinstance(embedding, Mapping) or "dim" not in embedding:
            raise ValueError("char_cnn.embedding.dim is missing")
        found["char_embedding_dim"] = embedding["dim"]
        found["n_highway"] = found["n_highway"] or 0  # bilm-tf's null
        found |= {name: values[name] for name in _MIXES if values.get(name) is not None}
        if "language_model" in values:
            settings, wanted = values["language_model"], "vocabulary_size, num_sampled and dropout"
            if not isinstance(settings, Mapping) or set(settings) != set(_LANGUAGE_MODEL.values()):
                raise ValueError(f"language_model must be an object with {wanted}, got {shown(settings)}")
            found |= {name: settings[key] for name, key in _LANGUAGE_MODEL.items()}
        return found

    def to_options(self) -> dict[str, Any]:
        """The object to write to options.json, which AllenNLP and bilm-tf read."""
        options: dict[str, Any] = {
            section: {name: getattr(self, name) for name in names} for section, names in _SECTIONS.items()
        }
        filters, embedding = [list(pair) for pair in self.filters], {"dim": self.char_embedding_dim}
        options["char_cnn"] |= {"filters": filters, "embedding": embedding, "n_characters": CHARACTERS + 1}
        return options

    def to_dict(self, architecture: str = "") -> dict[str, Any]:
        """The object to write to config.json: the options, and the fields of class `architecture` above the network."""
        values = {"model_type": "elmo", **self.to_options()}
        if architecture == "BidirectionalLanguageModel":
            settings = {key: getattr(self, name) for name, key in _LANGUAGE_MODEL.items()}
            return {**values, "language_model": settings}
        mixes = {name: getattr(self, name) for name in _MIXES}
        return {**values, "architectures": [architecture or "Elmo"], **mixes}


def _clip(name: str, value: Any) -> float:
    """A bound. An int stays an int, as in options.json."""
    number = config_number(name, value, **POSITIVE)
    return value if isinstance(value, int) else number


def _weights(name: str, values: Any, layers: int) -> tuple[float, ...]:
    found = np.asarray(values).tolist()
    if not isinstance(found, list) or not all(isinstance(x, int | float) and abs(x) < 2.0**127 for x in found):
        raise ValueError(f"{name} must be finite numbers, got {shown(values)}")
    if len(found) != layers:
        raise ValueError(f"{name} must have one number for each of {layers} layers, got {len(found)}")
    return tuple(found)
