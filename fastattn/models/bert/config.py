"""The configuration of BERT, in Hugging Face's format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fastattn.checks import POSITIVE, PROBABILITY, boolean, choice, config_integer, config_number
from fastattn.models.config import ACTIVATIONS, PreTrainedConfig

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

_REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


@dataclass(frozen=True, kw_only=True)
class BertConfig(PreTrainedConfig):
    """The shape of a BERT model, field by field as in Hugging Face's config.json; the defaults are BERT-base.

    `num_labels` is the length of `id2label`, which defaults to LABEL_0, LABEL_1, ...; `label2id` is its inverse.

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
    num_labels: int = 2
    id2label: dict[int, str] = field(default_factory=dict)
    label2id: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check(config_integer, *_REQUIRED, "max_position_embeddings", "type_vocab_size", "num_labels")
        self._check_heads("hidden_size", "num_attention_heads")
        self._check(config_number, "layer_norm_eps", high=1.0, above=True)
        dropouts = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
        self._check(config_number, *dropouts, **PROBABILITY)
        self._check(config_number, "initializer_range", **POSITIVE)
        self._check(choice, "hidden_act", known=ACTIVATIONS)
        self._check(choice, "position_embedding_type", known=("absolute",))
        self._check(choice, "problem_type", known=PROBLEM_TYPES)
        self._check(boolean, "tie_word_embeddings")
        names = self.id2label or {i: f"LABEL_{i}" for i in range(self.num_labels)}
        if set(names) != set(range(self.num_labels)):
            raise ValueError(f"id2label must name 0 to num_labels - 1 = {self.num_labels - 1}, got {sorted(names)}")
        self._set("id2label", names)
        self._set("label2id", self.label2id or {name: i for i, name in names.items()})

    @classmethod
    def _read(cls, values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a config.json. Sizes are required, since no default would be right."""
        architectures = values.get("architectures") or []
        found = super()._read({"model_type": "bert", **values}, changes)
        if "model_type" not in values and not all(str(name).startswith("Bert") for name in architectures):
            raise ValueError(f"architectures is {architectures!r}; BertModel reads Bert models")
        for name in ("is_decoder", "add_cross_attention"):
            if values.get(name):
                raise ValueError(f"{name} is {values[name]!r}; BertModel is an encoder")
        for name in _REQUIRED:
            if name not in values:
                raise ValueError(f"{name} is missing")
        if found.get("id2label"):
            found["id2label"] = _names(found["id2label"])
        count = len(found.get("id2label") or ())
        if "id2label" in changes or changes.get("num_labels", count) != count:  # other labels than in the file
            found = {name: value for name, value in found.items() if name not in ("id2label", "label2id")}
        if names := changes.get("id2label") or found.get("id2label"):
            found["num_labels"] = len(names)
        return found

    def to_dict(self, architecture: str = "") -> dict[str, Any]:
        """The object to write to config.json for a model of class `architecture`."""
        values = asdict(self)
        del values["num_labels"]  # it is the length of id2label
        return {"model_type": "bert", "architectures": [architecture or "BertModel"], **values}


def _names(id2label: Any) -> dict[int, str]:
    """`id2label` with integer keys, since keys in JSON are strings."""
    try:
        return {int(i): str(name) for i, name in id2label.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"id2label must be an object of numbered names, got {id2label!r}") from None
