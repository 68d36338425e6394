"""The base class of the configurations of all families."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar

import numpy as np

from fastattn.checks import POSITIVE, PROBABILITY, boolean, choice, config_integer, config_number, listed, shown
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

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

MAX_UNNAMED = 2**16
"""Labels that need no names. A file that claims more must name them, so that it has as many bytes."""
LABELS = ("num_labels", "id2label", "label2id", "problem_type", "classifier_dropout")
"""Fields that only a classifier reads."""


class PreTrainedConfig(ABC):
    """The shape of a model. A subclass is a frozen dataclass. Its fields have the names used in the family's files.

    A family defines `model_types`, its fields with defaults, checks in `__post_init__` with `_check` and
    `fastattn.checks`, and `to_dict`. It also overrides `_read` if the file does not contain the fields as they are.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    model_types: ClassVar[tuple[str, ...]]
    """The `model_type` of the files that this class reads."""
    dropouts: ClassVar[tuple[str, ...]] = ()
    """Fields with the rates of dropout in an encoder."""
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


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)  # its subclasses have these
class LabelsConfig(PreTrainedConfig):
    """The configuration of a model that may classify: its labels.

    `num_labels` is the length of `id2label`, or 2 without names. `id2label` defaults to LABEL_0, LABEL_1, ...;
    `label2id` is its inverse. More than 65,536 labels must be named.
    """

    problem_type: str | None = None
    num_labels: int = None  # type: ignore[assignment]  # the length of `id2label`
    id2label: dict[int, str] = field(default_factory=dict)
    label2id: dict[str, int] = field(default_factory=dict)

    def _count_labels(self) -> None:
        """Set `num_labels` if it is not given, and check it."""
        self._set("id2label", {} if self.id2label is None else _names(self.id2label))
        if self.num_labels is None:
            self._set("num_labels", len(self.id2label) or 2)
        self._check(config_integer, "num_labels")

    def _name_labels(self) -> None:
        """Check the names of the labels, and give them names if they have none."""
        self._check(choice, "problem_type", known=PROBLEM_TYPES)
        if not self.id2label and self.num_labels > MAX_UNNAMED:
            raise ValueError(f"num_labels must be at most {MAX_UNNAMED} without id2label, got {self.num_labels}")
        names = self.id2label or {i: f"LABEL_{i}" for i in range(self.num_labels)}
        if len(names) != self.num_labels or set(names) != set(range(self.num_labels)):
            got = listed(sorted(names))
            raise ValueError(f"id2label must name 0 to num_labels - 1 = {self.num_labels - 1}, got names of {got}")
        self._set("id2label", names)
        self._set("label2id", _numbers(self.label2id or {}) or {name: i for i, name in names.items()})

    @classmethod
    def _read(cls, values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a config.json, without labels that `changes` replace."""
        found = super()._read(values, changes)
        count = _count(found)
        if "id2label" in changes or changes.get("num_labels", count) != count:  # other labels than in the file
            found = {name: value for name, value in found.items() if name not in ("num_labels", "id2label", "label2id")}
        return found


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)  # its subclasses have these
class LabelledConfig(LabelsConfig):
    """The configuration of an encoder that may have a head: what is read and written for all families."""

    sizes: ClassVar[tuple[str, ...]]
    """Fields that every config.json must have, since no default would be right."""
    dropouts = ("hidden_dropout_prob", "attention_probs_dropout_prob")

    def __post_init__(self) -> None:
        self._check(config_integer, *self.sizes)
        self._count_labels()
        self._check_fields()
        self._name_labels()

    @abstractmethod
    def _check_fields(self) -> None:
        """Check the fields of the family."""

    def _check_positions(self) -> None:
        self._check(config_integer, "max_position_embeddings")
        limit = vars(self)["vocab_size"]
        self._check(config_integer, "pad_token_id", low=0, high=limit, wanted=f"an id of the vocabulary, below {limit}")
        if self.max_tokens < 1:
            raise ValueError(
                f"max_position_embeddings must be more than pad_token_id + 1 = {self.first_position}, "
                f"got {self.first_position + self.max_tokens}"
            )

    @property
    def uncounted(self) -> int | None:
        """The id that positions do not count, which begin after it; None if they are the columns."""
        return None

    @property
    def first_position(self) -> int:
        """The position of the first token."""
        return 0 if self.uncounted is None else self.uncounted + 1

    @property
    def max_tokens(self) -> int:
        """The most tokens of a sequence."""
        limit: int = vars(self)["max_position_embeddings"]  # a field of every family
        return limit - self.first_position

    @classmethod
    def _read(cls, values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a config.json. Sizes are required."""
        found = super()._read(values, changes)
        for name in ("is_decoder", "add_cross_attention"):
            if values.get(name):
                raise ValueError(f"{name} is {shown(values[name])}; {cls._model()} is an encoder")
        for name in cls.sizes:
            if name not in values:
                raise ValueError(f"{name} is missing")
        return found

    @classmethod
    def _model(cls) -> str:
        return f"{cls.__name__.removesuffix('Config')}Model"

    def to_dict(self, architecture: str = "") -> dict[str, Any]:
        """The object to write to config.json for a model of class `architecture`."""
        values = asdict(self)
        del values["num_labels"]  # it is the length of id2label
        return {"model_type": self.model_types[0], "architectures": [architecture or self._model()], **values}


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(LabelledConfig):
    """The fields of the families that descend from BERT's code, as in Hugging Face's config.json, for BERT-base.

    Raises ValueError, naming the field and the value, for a value that no such model can have.
    """

    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    fewest_types: ClassVar[int] = 1
    position_types: ClassVar[tuple[str, ...]] = ("absolute",)

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    position_embedding_type: str = "absolute"
    classifier_dropout: float | None = None
    tie_word_embeddings: bool = True

    def _check_fields(self) -> None:
        self._check_positions()
        self._check(config_integer, "type_vocab_size", low=self.fewest_types)
        self._check_heads("hidden_size", "num_attention_heads")
        self._check(config_number, "layer_norm_eps", high=1.0, above=True)
        self._check(config_number, *self.dropouts, "classifier_dropout", **PROBABILITY)
        self._check(config_number, "initializer_range", **POSITIVE)
        self._check(choice, "hidden_act", known=ACTIVATIONS)
        self._check(choice, "position_embedding_type", known=self.position_types)
        self._check(boolean, "tie_word_embeddings")


def code_of_its_own(values: Mapping[str, Any]) -> str:
    """What an error adds for a config.json that asks for code, which is never run; "" for any other."""
    return "; its auto_map asks for code of its own, which is never run" if "auto_map" in values else ""


def architectures(values: Mapping[str, Any], source: str | os.PathLike[str] = "") -> list[str]:
    """The classes that a config.json names for its model. Raises ValueError, naming the `source`, for what is no list
    of names."""
    found = values.get("architectures") or []
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        where = f"{os.fspath(source)}: " if source else ""
        raise ValueError(f"{where}architectures must be a list of names, got {shown(found)}")
    return found


def _count(values: Mapping[str, Any]) -> Any:
    """The number of labels in a config.json."""
    names = values.get("id2label")
    return len(names) if names and isinstance(names, Mapping) else values.get("num_labels", 2)


def _names(id2label: Any) -> dict[int, str]:
    """Names by number. The keys of JSON are strings. Raises ValueError for anything else."""
    found = {}
    if not isinstance(id2label, Mapping):
        raise ValueError(f"id2label must be an object of numbered names, got {shown(id2label)}")
    for i, name in id2label.items():
        number = int(i) if isinstance(i, str) and i.isdecimal() and len(i) < 20 else i
        if not isinstance(number, int | np.integer) or number in found or not isinstance(name, str | int | float):
            raise ValueError(f"id2label must be an object of numbered names, got {shown(i)}: {shown(name)}")
        found[int(number)] = str(name)
    return found


def _numbers(label2id: Any) -> dict[str, int]:
    """Numbers by name. Raises ValueError for anything else."""
    if not isinstance(label2id, Mapping):
        raise ValueError(f"label2id must be an object of numbers by name, got {shown(label2id)}")
    return {str(name): config_integer(f"label2id: {shown(name)}", i, 0) for name, i in label2id.items()}
