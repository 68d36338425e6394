"""The configuration of BERT, in Hugging Face's format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fastattn.checks import POSITIVE, PROBABILITY, boolean, choice, config_integer, config_number, listed, shown
from fastattn.models.config import ACTIVATIONS, PreTrainedConfig, architectures

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

MAX_UNNAMED = 2**16
"""Labels that need no names. A file that claims more must name them, so that it has as many bytes."""
LABELS = ("num_labels", "id2label", "label2id", "problem_type", "classifier_dropout")
"""Fields that only a classifier reads."""

_REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


@dataclass(frozen=True, kw_only=True)
class BertConfig(PreTrainedConfig):
    """The shape of a BERT model, field by field as in Hugging Face's config.json; the defaults are BERT-base.

    `num_labels` is the length of `id2label`, or 2 without names. `id2label` defaults to LABEL_0, LABEL_1, ...;
    `label2id` is its inverse. More than 65,536 labels must be named.

    Raises ValueError, naming the field and the value, for a value that no BERT model can have.
    """

    model_types = ("bert",)

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
    problem_type: str | None = None
    num_labels: int = None  # type: ignore[assignment]  # the length of `id2label`
    id2label: dict[int, str] = field(default_factory=dict)
    label2id: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._set("id2label", {} if self.id2label is None else _names(self.id2label))
        if self.num_labels is None:
            self._set("num_labels", len(self.id2label) or 2)
        self._check(config_integer, *_REQUIRED, "max_position_embeddings", "type_vocab_size", "num_labels")
        wanted = f"an id of the vocabulary, below {self.vocab_size}"
        self._check(config_integer, "pad_token_id", low=0, high=self.vocab_size, wanted=wanted)
        self._check_heads("hidden_size", "num_attention_heads")
        self._check(config_number, "layer_norm_eps", high=1.0, above=True)
        dropouts = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
        self._check(config_number, *dropouts, **PROBABILITY)
        self._check(config_number, "initializer_range", **POSITIVE)
        self._check(choice, "hidden_act", known=ACTIVATIONS)
        self._check(choice, "position_embedding_type", known=("absolute",))
        self._check(choice, "problem_type", known=PROBLEM_TYPES)
        self._check(boolean, "tie_word_embeddings")
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
        """The fields of a config.json. Sizes are required, since no default would be right."""
        found = super()._read({"model_type": "bert", **values}, changes)
        named = [] if "model_type" in values else architectures(values)
        if not all(name.startswith("Bert") for name in named):
            raise ValueError(f"architectures is {shown(named)}; BertModel reads Bert models")
        for name in ("is_decoder", "add_cross_attention"):
            if values.get(name):
                raise ValueError(f"{name} is {shown(values[name])}; BertModel is an encoder")
        for name in _REQUIRED:
            if name not in values:
                raise ValueError(f"{name} is missing")
        count = _count(found)
        if "id2label" in changes or changes.get("num_labels", count) != count:  # other labels than in the file
            found = {name: value for name, value in found.items() if name not in ("num_labels", "id2label", "label2id")}
        return {name: value for name, value in found.items() if value is not None or name not in LABELS[:3]}

    def to_dict(self, architecture: str = "") -> dict[str, Any]:
        """The object to write to config.json for a model of class `architecture`."""
        values = asdict(self)
        del values["num_labels"]  # it is the length of id2label
        return {"model_type": "bert", "architectures": [architecture or "BertModel"], **values}


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
