"""The families of models by the `model_type` of a config.json: configuration, encoder and heads.

A new family is a folder whose `__init__` has a `FAMILY`, and a line in `FAMILIES`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fastattn.checks import shown
from fastattn.formats import hugging_face
from fastattn.hub import Files, find_model
from fastattn.models.base import PreTrainedModel
from fastattn.models.config import PreTrainedConfig, code_of_its_own

# model_type -> folder in fastattn/models, imported on request
FAMILIES = {
    "albert": "albert",
    "awd-lstm": "awd_lstm",
    "bert": "bert",
    "camembert": "roberta",
    "distilbert": "distilbert",
    "electra": "electra",
    "elmo": "elmo",
    "fastattn-transformer": "transformer",
    "gte": "gte",
    "marian": "transformer",
    "modernbert": "modernbert",
    "mpnet": "mpnet",
    "nomic_bert": "nomic_bert",
    "roberta": "roberta",
    "sequence-tagger": "sequence_tagger",
    "xlm-roberta": "roberta",
}


class TensorFlowNames(NamedTuple):
    """How the authors' checkpoints of a family, written by TensorFlow, differ from its folders.

    Attributes:
        config: the name of the file that is the config.json.
        names: the tensors by the names of TensorFlow's variables; `{}` stands for the number of a layer. A variable
            called `kernel` is the transpose of a tensor.
        whole: how the names of the variables begin that must all be known.
        heads: the tensors that tell a kind of head, the first that fits; none means an encoder.
        labels: the tensors whose number of rows is `num_labels`.
        vocabulary: the name of the file of the tokenizer.
        tokenizer: what tokenizer_config.json says of it.
    """

    config: str
    names: Mapping[str, str]
    whole: str
    heads: Mapping[str, tuple[str, ...]]
    labels: tuple[str, ...]
    vocabulary: str
    tokenizer: Mapping[str, Any]


class Family(NamedTuple):
    """A family: its configuration, the encoder without a head, and the models with a head, by kind of head.

    A kind is the part of transformers' model name after "For": "TokenClassification" in `BertForTokenClassification`.
    `states_only` are options of the encoder that omit what hidden states do not need, such as a pooler. `tensorflow`
    describes the checkpoints that `convert_checkpoint` reads.
    """

    config: type[PreTrainedConfig]
    encoder: type[PreTrainedModel] | None = None
    heads: Mapping[str, type[PreTrainedModel]] = {}
    states_only: Mapping[str, Any] = {}
    tensorflow: TensorFlowNames | None = None

    @property
    def reads_tokens(self) -> bool:
        """Whether it has an encoder of tokens. ELMo's reads words."""
        return self.encoder is not None and "max_position_embeddings" in self.config.__dataclass_fields__

    def head(self, kind: str) -> type[PreTrainedModel]:
        """The model with a head of this kind. Raises ValueError if the family has none."""
        if kind not in self.heads:
            known = ", ".join(self.heads) or "none"
            raise ValueError(f"{self.config.__name__}: no model for {kind}, only for {known}")
        return self.heads[kind]


def by_kind(*models: type[PreTrainedModel]) -> dict[str, type[PreTrainedModel]]:
    """Models with a head by the kind of head, which is in their names."""
    return {model.__name__.partition("For")[2]: model for model in models}


def family(model_type: str) -> Family:
    """The family of a `model_type`. Raises ValueError for an unknown one.

    >>> family("bert").head("TokenClassification").__name__
    'BertForTokenClassification'
    """
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ValueError(f"model_type is {shown(model_type)}; known are {', '.join(FAMILIES)}")
    found: Family = importlib.import_module(f"fastattn.models.{FAMILIES[model_type]}").FAMILY
    return found


def family_of(folder: str | os.PathLike[str]) -> Family:
    """The family of the model in a folder. A config.json without a `model_type`, as in early files, means BERT.

    Raises FileNotFoundError for a folder without a config.json, and ValueError, naming the file, for another
    architecture.
    """
    values = hugging_face.read_config(folder)
    try:
        return family(values.get("model_type", "bert"))
    except ValueError as error:
        raise ValueError(f"{Path(folder) / hugging_face.CONFIG}: {error}{code_of_its_own(values)}") from None


def load_encoder(name_or_folder: str | os.PathLike[str], **options: Any) -> Any:
    """The encoder of a model of any family, for its hidden states alone: it has no pooler.

    `options` and errors are as in its `from_pretrained`.
    """
    found = encoder_family(_find(name_or_folder, **options))
    encoder: Any = found.encoder
    return encoder.from_pretrained(name_or_folder, **found.states_only, **options)


def encoder_family(folder: str | os.PathLike[str], *, of_tokens: bool = False) -> Family:
    """`family_of` a folder. Raises ValueError too for a family without an encoder, or without one `of_tokens`."""
    found = family_of(folder)
    name = found.config.__name__
    if found.encoder is None:
        raise ValueError(f"{folder}: {name} has no encoder to use alone")
    if of_tokens and not found.reads_tokens:
        raise ValueError(f"{folder}: a model of {name} reads words, not tokens")
    return found


def load_head(name_or_folder: str | os.PathLike[str], kind: str, **options: Any) -> Any:
    """The model of any family with a head of this kind. `options` and errors are as in its `from_pretrained`.

    `new_head="refuse"` raises ValueError, naming the folder, for a folder with another head.
    """
    folder = _find(name_or_folder, **options)
    found = family_of(folder)
    try:
        model = found.head(kind)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    return model.from_pretrained(name_or_folder, **options)


def _find(name_or_folder: str | os.PathLike[str], **options: Any) -> Path:
    """A folder with the config.json of a model. Its family defines which other files to get."""
    place = {name: options[name] for name in ("revision", "token", "local_files_only") if name in options}
    return find_model(name_or_folder, Files((hugging_face.CONFIG,), (hugging_face.CONFIG,)), **place)
