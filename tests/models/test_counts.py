"""A number in a config.json makes nothing of its size until the tensors of the file confirm it."""

from __future__ import annotations

import json
import tracemalloc
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from helpers_families import HEADS, ROWS, new_model
from helpers_marian import random_transformer

from fastattn import models
from fastattn.models import (
    AwdLstmConfig,
    AwdLstmForLanguageModel,
    AwdLstmForSequenceClassification,
    BertConfig,
    BidirectionalLanguageModel,
    Elmo,
    ElmoConfig,
    SequenceTagger,
    SequenceTaggerConfig,
    Transformer,
)
from fastattn.models.config import MAX_UNNAMED
from fastattn.models.registry import family

COUNT = 200_000
"""As objects or as rows this many take more than `ROOM`."""
ROOM = 8 * 2**20
ELMO: dict[str, Any] = {"filters": ((1, 4), (2, 5)), "dim": 10, "projection_dim": 6, "vocabulary_size": 7}


def sizes(kind: Any) -> list[str]:
    return [field.name for field in fields(kind.config_class) if str(field.type).startswith("int")]


SIZES = {kind: sizes(kind) for kind in (models.BertModel, Transformer, Elmo)}
ROTARY = ("gte", "modernbert", "nomic_bert")
LABELLED = ("SequenceClassification", "TokenClassification", "MultipleChoice")


def places(values: Any, name: str) -> Iterator[dict[str, Any]]:
    """The objects of a config.json that have a field of this name."""
    if isinstance(values, dict):
        if name in values:
            yield values
        for value in values.values():
            yield from places(value, name)


def change(folder: Path, name: str, value: int) -> None:
    """Put a number into config.json, wherever it says it: the width of characters is the `dim` of their `embedding`."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if name == "char_embedding_dim":
        config["char_cnn"]["embedding"]["dim"] = value
    elif name in ("vocabulary_size", "num_sampled") and "language_model" in config:
        config["language_model"][name] = value
    elif found := [*places(config, name)]:
        found[0][name] = value
    else:
        config[name] = value
    if name == "num_labels":
        config = {name: value for name, value in config.items() if name not in ("id2label", "label2id")}
    path.write_text(json.dumps(config))


def load(kind: Any, folder: Path) -> tuple[str, int]:
    """The error, and the bytes that loading took at most."""
    message = ""
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind.from_pretrained(folder)
    except ValueError as error:
        message = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return message, peak


@pytest.mark.parametrize("kind", ["BertModel", *(head.__name__ for head in family("bert").heads.values())])
@pytest.mark.parametrize("name", SIZES[models.BertModel])
def test_bert(folder: Any, kind: str, name: str) -> None:
    change(folder.write(), name, COUNT)
    message, peak = load(getattr(models, kind), folder.path)
    assert peak < ROOM
    labelled = kind in ("BertForSequenceClassification", "BertForTokenClassification", "BertForMultipleChoice")
    assert message.startswith(str(folder.path)) or (name == "num_labels" and not labelled)


@pytest.mark.parametrize(("name", "kind"), [*((name, "") for name in ROWS), *HEADS])
def test_every_family(tmp_path: Path, name: str, kind: str) -> None:
    model = new_model(name, kind)
    for field in sizes(type(model)):
        model.save_pretrained(tmp_path)
        change(tmp_path, field, COUNT)
        message, peak = load(type(model), tmp_path)
        assert peak < ROOM, field
        unlimited = field == "num_labels" and kind not in LABELLED
        if name in ROTARY:  # nothing of these sizes exists
            unlimited |= field in ("max_position_embeddings", "global_attn_every_n_layers", "local_attention")
        assert message.startswith(str(tmp_path)) or unlimited, field


@pytest.mark.parametrize("name", SIZES[Transformer])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_a_transformer(tmp_path: Path, name: str, positions: str) -> None:
    random_transformer(position_embedding_type=positions).save_pretrained(tmp_path)
    change(tmp_path, name, COUNT)
    message, peak = load(Transformer, tmp_path)
    assert peak < ROOM
    unlimited = {"sinusoidal": ("max_position_embeddings", "first_position"), "learned": ("first_position",)}
    assert message.startswith(str(tmp_path)) or name in (*unlimited[positions], "bos_token_id", "max_length")


@pytest.mark.parametrize("name", SIZES[Elmo])
@pytest.mark.parametrize("kind", [Elmo, BidirectionalLanguageModel])
def test_elmo(tmp_path: Path, name: str, kind: Any) -> None:
    model = Elmo(ElmoConfig(**{**ELMO, "vocabulary_size": None}, num_output_representations=1))
    (model if kind is Elmo else BidirectionalLanguageModel(ElmoConfig(**ELMO))).save_pretrained(tmp_path)
    if kind is Elmo and name in ("vocabulary_size", "num_sampled"):
        return  # of a language model alone
    change(tmp_path, name, COUNT)
    message, peak = load(kind, tmp_path)
    assert peak < ROOM
    assert message.startswith(str(tmp_path))


@pytest.mark.parametrize("name", sizes(AwdLstmForLanguageModel))
@pytest.mark.parametrize("kind", [AwdLstmForLanguageModel, AwdLstmForSequenceClassification])
def test_an_awd_lstm(tmp_path: Path, name: str, kind: Any) -> None:
    kind(AwdLstmConfig(vocabulary_size=7, embedding_dim=4, dim=5)).save_pretrained(tmp_path)
    change(tmp_path, name, COUNT)
    message, peak = load(kind, tmp_path)
    assert peak < ROOM
    of_classifiers = {"pooled_dim"} if kind is AwdLstmForLanguageModel else set()
    assert message.startswith(str(tmp_path)) or name in {"max_length", *of_classifiers}


@pytest.mark.parametrize("name", [*sizes(SequenceTagger), "char_filters"])
@pytest.mark.parametrize("characters", ["cnn", "lstm"])
def test_a_sequence_tagger(tmp_path: Path, name: str, characters: str) -> None:
    fields: dict[str, Any] = {"characters": characters, "features": "elmo", "feature_layers": 2, "feature_dim": 3}
    config = SequenceTaggerConfig(vocab_size=7, word_dim=4, hidden_size=5, crf=True, **fields)
    SequenceTagger(config).save_pretrained(tmp_path)
    change(tmp_path, name, [[COUNT, COUNT]] if name == "char_filters" else COUNT)
    message, peak = load(SequenceTagger, tmp_path)
    assert peak < ROOM
    unlimited = "char_hidden_size" if characters == "cnn" else "none"
    assert message.startswith(str(tmp_path)) or name == unlimited


@pytest.mark.parametrize("count", [1, 3])
def test_highway_layers_are_as_many_as_the_file_has(tmp_path: Path, count: int) -> None:
    Elmo(ElmoConfig(**{**ELMO, "vocabulary_size": None})).save_pretrained(tmp_path)
    change(tmp_path, "n_highway", count)
    with pytest.raises(ValueError, match=rf"safetensors: n_highway is {count}, but there are tensors of 2 layers"):
        Elmo.from_pretrained(tmp_path)
    if count == 1:
        change(tmp_path, "n_highway", 2)
        assert len(Elmo.from_pretrained(tmp_path, n_highway=1).network.token_encoder.highway.layers) == 1


def test_labels_without_names() -> None:
    assert len(BertConfig(num_labels=MAX_UNNAMED).id2label) == MAX_UNNAMED
    named = {i: f"class {i}" for i in range(MAX_UNNAMED + 1)}
    assert len(BertConfig(num_labels=MAX_UNNAMED + 1, id2label=named).label2id) == MAX_UNNAMED + 1
    with pytest.raises(ValueError, match=r"num_labels must be at most 65536 without id2label, got 65537"):
        BertConfig(num_labels=MAX_UNNAMED + 1)


def test_names_of_other_labels_make_no_list_of_all() -> None:
    tracemalloc.start()
    with pytest.raises(ValueError, match="id2label must name 0 to num_labels - 1 = 1999999, got"):
        BertConfig(num_labels=2_000_000, id2label={0: "a"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < ROOM
