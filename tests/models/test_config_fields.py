"""Every field of every config.json: what no model can have is a ValueError that names the field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_families import ROWS, draw_fields
from helpers_marian import MARIAN

from fastattn.models import (
    AwdLstmConfig,
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    Elmo,
    ElmoConfig,
    SequenceTaggerConfig,
    TransformerConfig,
)
from fastattn.models.config import PreTrainedConfig
from fastattn.models.registry import family, family_of, load_head
from fastattn.tasks import Tagger

VALUES: list[Any] = [
    *(True, False, -1, 0, 1, 3, 2**31, 2**63, 10**400, -(10**400), 0.5, 1e300, float("nan"), float("inf")),
    *("", "x", "3", [], [1], ["x"], [[]], [None], [10**400], {}, {"a": 0}, {"0": "a"}, {"0": None}, {"0": []}),
]
DEFAULTS = Path(__file__).parents[1] / "data" / "config_defaults.json"
TINY = {"vocab_size": 60, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
ELMO = ElmoConfig(filters=((1, 4), (2, 4)), dim=8, projection_dim=4).to_dict()
FILES: list[tuple[type[PreTrainedConfig], dict[str, Any]]] = [
    (BertConfig, {"model_type": "bert", **TINY}),
    (TransformerConfig, MARIAN),
    (TransformerConfig, TransformerConfig(max_timescale=20000.0).to_dict()),
    (ElmoConfig, ELMO),
    (AwdLstmConfig, AwdLstmConfig(vocabulary_size=9, embedding_dim=4, dim=5).to_dict()),
    (SequenceTaggerConfig, {**SequenceTaggerConfig(features="elmo", feature_dim=3).to_dict(), "id2label": {"0": "a"}}),
    *((family(name).config, draw_fields(name, 0, pad_token_id=0)) for name in ROWS),
]
NAMES = ["bert", "marian", "transformer", "elmo", "awd-lstm", "sequence-tagger", *(f"{name} drawn" for name in ROWS)]


def changed(kind: type[PreTrainedConfig], values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    names = {"model_type", "architectures", "is_decoder", "is_encoder_decoder", "language_model", "bidirectional"}
    for name in sorted(names | values.keys() | {field.name for field in fields(kind)}):
        for value in VALUES:
            yield name, {**values, name: value}
            if isinstance(values.get(name), dict):
                yield from ((inner, {**values, name: {**values[name], inner: value}}) for inner in values[name])


@pytest.mark.parametrize(("kind", "values"), FILES, ids=NAMES)
def test_every_field_is_checked(kind: type[PreTrainedConfig], values: dict[str, Any]) -> None:
    errors = []
    for name, file in changed(kind, values):
        try:
            json.dumps(kind.from_dict(file, "config.json").to_dict(), allow_nan=False)
        except ValueError as error:
            errors.append((name, str(error)))
    wrong = [(name, text) for name, text in errors if not text.startswith("config.json: ") or name not in text]
    assert not wrong
    assert max(len(text) for _, text in errors) < 1000
    refused = {name for name, _ in errors}
    not_read = {"architectures", "is_decoder", "language_model", "bidirectional", "is_encoder_decoder"}
    assert {field.name for field in fields(kind) if field.name in values} - refused <= not_read


@pytest.mark.parametrize(("name", "defaults"), json.loads(DEFAULTS.read_text()).items())
def test_what_a_file_means_that_leaves_fields_out(name: str, defaults: dict[str, Any]) -> None:
    """Source: the defaults of transformers, see tests/data/make_config_defaults.py."""
    kind, drawn = family(name).config, draw_fields(name, 0, vocab_size=100_000)
    config = kind.from_dict({field: drawn[field] for field in ("model_type", *kind.sizes)}, "config.json")
    assert {field: getattr(config, field) for field in defaults} == defaults


@pytest.mark.parametrize("field", ["pad_token_id", "id2label", "label2id", "num_labels", "problem_type"])
@pytest.mark.parametrize("value", [-5, 60, "x", [1], {"a": "b"}, {"0": ["x"]}, {"0": "x", "00": "y"}])
def test_what_bert_cannot_have(field: str, value: Any) -> None:
    if (field, value) not in [("num_labels", 60), ("label2id", {"0": "x", "00": "y"})]:
        with pytest.raises(ValueError, match=f"^config.json: {field}"):
            BertConfig.from_dict({"model_type": "bert", **TINY, field: value}, "config.json")


@pytest.mark.parametrize("value", [[], {}, 3, None, True])
def test_a_model_type_of_another_type(tmp_path: Path, value: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": value}))
    with pytest.raises(ValueError, match=r"config\.json: model_type is"):
        family_of(tmp_path)


def test_computed_positions_have_a_limit() -> None:
    assert TransformerConfig(max_position_embeddings=2**24).max_position_embeddings == 2**24
    with pytest.raises(ValueError, match="max_position_embeddings must be from 1 to 16777216, got 16777217"):
        TransformerConfig(max_position_embeddings=2**24 + 1)
    with pytest.raises(ValueError, match=r"config.json: max_position_embeddings .*, got 2147483647"):
        TransformerConfig.from_dict({**MARIAN, "max_position_embeddings": 2**31 - 1}, "config.json")


def test_labels() -> None:
    assert BertConfig(id2label={0: "a", 1: "b", 2: "c"}).num_labels == 3
    assert BertConfig(id2label={np.int64(0): "a"}).label2id == {"a": 0}
    file = {"model_type": "bert", **TINY, "id2label": {"0": "a", "1": "b"}}
    assert BertConfig.from_dict(file).num_labels == 2
    assert BertConfig.from_dict(file, num_labels=2).id2label == {0: "a", 1: "b"}
    assert BertConfig.from_dict(file, num_labels=3).id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert BertConfig.from_dict({**file, "num_labels": 3}, id2label={0: "c"}).num_labels == 1
    for wrong in ({**file, "num_labels": 3}, {**file, "num_labels": 1}):
        with pytest.raises(ValueError, match=r"^x: id2label must name 0 to num_labels - 1 = \d, got names of 0, 1$"):
            BertConfig.from_dict(wrong, "x")


def test_a_change_is_not_blamed_on_the_file(folder: Any) -> None:
    folder.write()
    with pytest.raises(ValueError, match=r"^BertConfig: id2label must be an object of numbered names, got \['a'\]$"):
        BertForTokenClassification.from_pretrained(folder.path, id2label=["a"])
    with pytest.raises(ValueError, match=r"^BertConfig: hidden_act must be one of "):
        BertModel.from_pretrained(folder.path, hidden_act="mish")
    folder.config["hidden_act"] = "mish"
    with pytest.raises(ValueError, match=r"bert/config\.json: hidden_act must be one of "):
        BertForTokenClassification.from_pretrained(folder.write(), num_labels=3)


BAD_LABELS = [
    {"num_labels": -1},
    {"id2label": 3},
    {"id2label": {"0": "a"}, "num_labels": 5},
    {"label2id": [1]},
    {"problem_type": "guessing"},
    {"classifier_dropout": 7},
]


@pytest.mark.parametrize("fields", BAD_LABELS)
def test_fields_of_a_head_do_not_stop_the_encoder(folder: Any, fields: dict[str, Any]) -> None:
    expected = folder.load().config
    folder.config = {name: value for name, value in folder.config.items() if name not in ("id2label", "label2id")}
    folder.config |= fields
    assert folder.load().config == expected
    assert BertForMaskedLM.from_pretrained(folder.path, new_head="draw").config == expected
    with pytest.raises(ValueError, match=f"config.json: .*{'|'.join(fields)}"):
        BertForTokenClassification.from_pretrained(folder.path, new_head="draw")
    folder.config["hidden_act"] = "mish"
    with pytest.raises(ValueError, match=r"config\.json: hidden_act must be one of "):
        folder.load()


def test_the_language_model_does_not_stop_elmo(tmp_path: Path) -> None:
    Elmo(ElmoConfig(filters=((1, 4),), dim=8, projection_dim=4)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "language_model": 3}))
    assert Elmo.from_pretrained(tmp_path).config.vocabulary_size is None


class TestHeads:
    """The weights of a classifier have the same names in three heads."""

    @pytest.fixture
    def sentences(self, tmp_path: Path) -> Path:
        BertForSequenceClassification(BertConfig(**TINY)).save_pretrained(tmp_path)
        return tmp_path

    def test_another_head_is_refused(self, sentences: Path) -> None:
        message = r"config\.json: classifier\.weight belongs to BertForSequenceClassification, not to BertFor"
        for kind in (BertForTokenClassification, BertForMultipleChoice):
            for new_head in ("warn", "refuse"):
                with pytest.raises(ValueError, match=message):
                    kind.from_pretrained(sentences, new_head=new_head)
        with pytest.raises(ValueError, match=message):
            load_head(sentences, "TokenClassification", new_head="refuse")

    def test_a_new_one_can_be_drawn(self, sentences: Path) -> None:
        theirs = BertForSequenceClassification.from_pretrained(sentences)
        for options in ({}, {"num_labels": 7}):
            model = BertForTokenClassification.from_pretrained(sentences, new_head="draw", **options)
            assert model._drawn == ("classifier.weight", "classifier.bias")
            old, new = (some.state_dict()["classifier.weight"] for some in (theirs, model))
            assert old.shape != new.shape or (old != new).all()

    @pytest.mark.parametrize(
        "named",
        [None, [], ["BertModel"], ["BertForSequenceClassification"], ["OurBertForSequenceClassification"]],
    )
    def test_no_reason_to_refuse(self, sentences: Path, named: Any) -> None:
        path = sentences / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": named}))
        BertForSequenceClassification.from_pretrained(sentences, new_head="refuse")
        BertModel.from_pretrained(sentences)
        BertForMaskedLM.from_pretrained(sentences, new_head="draw")

    @pytest.mark.parametrize("named", [3, "BertForTokenClassification", [3], {"a": 1}, True])
    def test_architectures_are_names(self, sentences: Path, named: Any) -> None:
        path = sentences / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": named}))
        BertModel.from_pretrained(sentences)
        (sentences / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\n")
        for load in (BertForSequenceClassification.from_pretrained, Tagger.from_pretrained):
            with pytest.raises(ValueError, match=f"{sentences}.*: architectures must be a list of names, got"):
                load(sentences)
