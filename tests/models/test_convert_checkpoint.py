"""Checkpoints of TensorFlow and PyTorch become folders with the same tensors and the same hidden states."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_bundles import SIZES, WORDS, google_variables, training_of, write_bundle, write_google
from helpers_checkpoints import write_torch, write_torch_legacy
from helpers_marian import MARIAN, marian_tensors

import fastattn
from fastattn import models
from fastattn.formats.hugging_face import read_state_dict, write_checkpoint
from fastattn.models import BertConfig, BertForPreTraining, BertModel, convert_checkpoint
from fastattn.models import convert as module
from fastattn.text import Tokenizer

TIED = ["cls.predictions.decoder.weight", "cls.predictions.decoder.bias"]
IDS = np.array([[2, 5, 9, 30, 7, 3], [2, 6, 11, 3, 0, 0]])


def make(name: str = "BertForPreTraining", **changes: Any) -> Any:
    """A model whose every tensor differs, and its tensors with the encoder's names behind `bert.`"""
    fastattn.manual_seed(1)
    model = getattr(models, name)(BertConfig(**SIZES, **changes))
    rng = np.random.default_rng(0)
    tensors = {key: rng.standard_normal(x.shape, np.float32) for key, x in model.state_dict().items()}
    return type(model)(model.config, tensors, trainable=False), tensors


def assert_same_states(folder: Path, model: Any) -> None:
    found = type(model).from_pretrained(folder, trainable=False, new_head="refuse")
    for got, wanted in zip(
        found(IDS, IDS > 0, output_hidden_states=True).hidden_states,
        model(IDS, IDS > 0, output_hidden_states=True).hidden_states,
        strict=True,
    ):
        assert_same_bits(got, wanted)


def assert_tensors(folder: Path, expected: Mapping[str, np.ndarray]) -> None:
    with read_state_dict(folder) as found:
        assert set(found) == set(expected)
        for name in found:
            assert_same_bits(found[name], expected[name])


class TestTensorFlow:
    @pytest.mark.parametrize(
        ("name", "architecture"),
        [
            ("BertForPreTraining", "BertForPreTraining"),
            ("BertForMaskedLM", "BertForMaskedLM"),
            ("BertForNextSentencePrediction", "BertForNextSentencePrediction"),
            ("BertForQuestionAnswering", "BertForQuestionAnswering"),
            ("BertForSequenceClassification", "BertForSequenceClassification"),
        ],
    )
    def test_every_kind_of_checkpoint(self, tmp_path: Path, name: str, architecture: str) -> None:
        """The pre-trained ones, and what run_squad.py and run_classifier.py write."""
        changes = {"num_labels": 3} if name == "BertForSequenceClassification" else {}
        model, tensors = make(name, **changes)
        variables = google_variables(tensors)
        split = {"bert/embeddings/word_embeddings": (0, 3)}
        write_google(tmp_path / "google", {**variables, **training_of(variables)}, shards=2, split=split)
        done = convert_checkpoint(tmp_path / "google", tmp_path / "new")
        assert done.model is getattr(models, architecture)
        assert done.tensors == len(variables)
        assert sorted(done.skipped) == sorted(training_of(variables))
        assert done.do_lower_case is True
        assert_tensors(tmp_path / "new", tensors)
        assert_same_states(tmp_path / "new", model)
        config = json.loads((tmp_path / "new" / "config.json").read_text())
        assert config["architectures"] == [architecture]
        assert {key: config[key] for key in SIZES} == SIZES
        assert len(config["id2label"]) == changes.get("num_labels", 2)
        assert sorted(os.listdir(tmp_path)) == ["google", "new"]

    def test_an_encoder_alone(self, tmp_path: Path) -> None:
        model, tensors = make("BertModel")
        write_google(tmp_path / "google", google_variables({f"bert.{name}": x for name, x in tensors.items()}))
        assert convert_checkpoint(tmp_path / "google", tmp_path / "new").model is BertModel
        assert_tensors(tmp_path / "new", tensors)
        assert_same_states(tmp_path / "new", model)

    def test_the_path_of_a_checkpoint(self, tmp_path: Path) -> None:
        """A run writes several into one folder."""
        variables = google_variables(make()[1])
        folder = write_google(tmp_path / "run", variables)
        write_bundle(folder / "model.ckpt-20", {name: -x for name, x in variables.items()})
        with pytest.raises(ValueError, match=r"run: several checkpoints; give the path of one of bert_model.ckpt, mod"):
            convert_checkpoint(folder, tmp_path / "new")
        for i, path in enumerate((folder / "model.ckpt-20", folder / "model.ckpt-20.index")):
            convert_checkpoint(path, tmp_path / str(i))
            with read_state_dict(tmp_path / str(i)) as found:
                assert_same_bits(found["cls.predictions.bias"], -variables["cls/predictions/output_bias"])

    @pytest.mark.parametrize(
        ("words", "option", "lower"),
        [
            (WORDS, None, True),
            ([*WORDS[:5], "[unused1]", "A", "##b"], None, False),
            (WORDS, False, False),
            ([*WORDS[:5], "A"], True, True),
        ],
    )
    def test_the_tokenizer(self, tmp_path: Path, words: list[str], option: bool | None, lower: bool) -> None:
        pytest.importorskip("tokenizers", reason="needs the tokenizers library")
        write_google(tmp_path / "google", google_variables(make()[1]), words)
        done = convert_checkpoint(tmp_path / "google", tmp_path / "new", do_lower_case=option)
        assert done.do_lower_case is lower
        assert (tmp_path / "new" / "vocab.txt").read_bytes() == (tmp_path / "google" / "vocab.txt").read_bytes()
        ids = Tokenizer.from_pretrained(tmp_path / "new").encode(["A"]).ids
        wanted = "a" if lower else "A"
        assert [*ids] == [2, words.index(wanted) if wanted in words else 1, 3]

    def test_names_of_another_program(self, tmp_path: Path) -> None:
        folder = write_google(tmp_path / "google", {f"encoder/layer-{i}/kernel": np.zeros(2) for i in range(5)})
        message = "none of its variables is known: encoder/layer-0/kernel, .* and 2 more"
        with pytest.raises(ValueError, match=rf"bert_model\.ckpt\.index: {message}"):
            convert_checkpoint(folder, tmp_path / "new")

    def test_without_a_vocabulary(self, tmp_path: Path) -> None:
        folder = write_google(tmp_path / "google", google_variables(make()[1]))
        (folder / "vocab.txt").unlink()
        assert convert_checkpoint(folder, tmp_path / "new").do_lower_case is None
        assert sorted(os.listdir(tmp_path / "new")) == ["config.json", "model.safetensors"]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"bert/pooler/dense/kernel": None}, "not a BertForPreTraining, bert.pooler.dense.weight are missing"),
            ({"bert/encoder/layer_3/output/dense/bias": None}, "encoder.layer.3.output.dense.bias.* is missing"),
            ({"bert/encoder/layer_11/output/dense/bias": np.zeros(12, np.float32)}, "tensors of 12 layers"),
            (
                {"bert/encoder/adapter/kernel": np.zeros((2, 2), np.float32)},
                "bert/encoder/adapter/kernel' is not known",
            ),
            ({"bert/embeddings/word_embeddings": np.zeros((30, 12), np.float32)}, r"must have shape \(31, 12\), got"),
            ({"cls/predictions/output_bias": np.full(31, np.nan, np.float32)}, "has nan at"),
            ({"bert/pooler/dense/bias": np.full(12, 1e300)}, "has inf at"),
        ],
    )
    def test_a_checkpoint_of_another_model(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        variables = {**google_variables(make()[1]), **change}
        folder = write_google(tmp_path / "google", {name: x for name, x in variables.items() if x is not None})
        with pytest.raises(ValueError, match=rf"^{folder}.*{message}"):
            convert_checkpoint(folder, tmp_path / "new")
        assert os.listdir(tmp_path) == ["google"]

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("bert_config.json", None, r"bert_config\.json: no such file; the checkpoint beside it needs its sizes"),
            ("bert_config.json", b"{}", r"bert_config\.json: vocab_size is missing"),
            ("bert_config.json", b"{", r"bert_config\.json: not valid JSON"),
            ("vocab.txt", b"a\n" * 32, r"vocab\.txt: 32 words, but vocab_size is 31 in bert_config\.json"),
            ("vocab.txt", b"\xff\n", r"vocab\.txt:1: not UTF-8"),
            ("bert_model.ckpt.data-00000-of-00001", None, r"data-00000-of-00001: no such file"),
            ("bert_model.ckpt.data-00000-of-00001", b"1234", r"data-00000-of-00001: cut short"),
            ("bert_model.ckpt.index", b"1234", r"bert_model\.ckpt\.index: cut short"),
        ],
    )
    def test_a_file_that_is_damaged(self, tmp_path: Path, name: str, text: bytes | None, message: str) -> None:
        folder = write_google(tmp_path / "google", google_variables(make()[1]))
        (folder / name).unlink() if text is None else (folder / name).write_bytes(text)
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            convert_checkpoint(folder, tmp_path / "new")
        assert os.listdir(tmp_path) == ["google"]


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    """A folder of transformers with pytorch_model.bin."""
    model, tensors = make()
    folder = tmp_path / "pickled"
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    write_torch(folder / "pytorch_model.bin", tensors)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    return folder


class TestPyTorch:
    @pytest.mark.parametrize("write", [write_torch, write_torch_legacy])
    def test_a_folder(self, tmp_path: Path, pickled: Path, write: Any) -> None:
        model, tensors = make()
        steps = {"bert.embeddings.position_ids": np.arange(20)[None]}
        tied = {TIED[0]: tensors["bert.embeddings.word_embeddings.weight"], TIED[1]: tensors["cls.predictions.bias"]}
        write(pickled / "pytorch_model.bin", {**tensors, **steps, **tied})
        (pickled / "tf_model.h5").touch()
        (pickled / "README.md").write_text("hello")
        (pickled / ".gitattributes").touch()
        done = convert_checkpoint(pickled, tmp_path / "new")
        skipped = ("bert.embeddings.position_ids", "tf_model.h5", *TIED)
        assert done == module.Converted(pickled, BertForPreTraining, len(tensors), skipped)
        assert_tensors(tmp_path / "new", tensors)
        assert_same_states(tmp_path / "new", model)
        assert sorted(os.listdir(tmp_path / "new")) == ["README.md", "config.json", "model.safetensors", "vocab.txt"]
        assert json.loads((tmp_path / "new" / "config.json").read_text()) == json.loads(
            (pickled / "config.json").read_text()
        )

    def test_shards_old_names_and_halves(self, tmp_path: Path, pickled: Path) -> None:
        tensors = make()[1]
        old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): x.astype(np.float16) for name, x in tensors.items()}
        (pickled / "pytorch_model.bin").unlink()
        names = [*old]
        shards = {"pytorch_model-1.bin": names[:70], "pytorch_model-2.bin": names[70:]}
        for shard, some in shards.items():
            write_torch(pickled / shard, {name: old[name] for name in some})
        weight_map = {name: shard for shard, some in shards.items() for name in some}
        (pickled / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
        convert_checkpoint(pickled, tmp_path / "new")
        assert_tensors(tmp_path / "new", {n: x.astype(np.float16).astype(np.float32) for n, x in tensors.items()})

    def test_the_modules_of_a_sentence_encoder(self, tmp_path: Path, pickled: Path) -> None:
        (pickled / "2_Dense").mkdir()
        (pickled / "2_Dense" / "config.json").write_text('{"in_features": 12}')
        weight = {"linear.weight": np.ones((2, 12), np.float32)}
        write_torch(pickled / "2_Dense" / "pytorch_model.bin", weight)
        (pickled / "1_Pooling").mkdir()
        (pickled / "1_Pooling" / "config.json").write_text("{}")
        (pickled / "modules.json").write_text("[]")
        convert_checkpoint(pickled, tmp_path / "new")
        assert_tensors(tmp_path / "new" / "2_Dense", weight)
        assert (tmp_path / "new" / "1_Pooling" / "config.json").read_text() == "{}"
        assert (tmp_path / "new" / "modules.json").read_text() == "[]"

    def test_another_family(self, tmp_path: Path) -> None:
        tensors = marian_tensors(MARIAN)
        write_checkpoint(tmp_path / "marian", {**MARIAN, "architectures": ["MarianMTModel"]}, tensors)
        (tmp_path / "marian" / "model.safetensors").unlink()
        (tmp_path / "marian" / "generation_config.json").write_text('{"max_length": 40}')
        write_torch(tmp_path / "marian" / "pytorch_model.bin", tensors)
        done = convert_checkpoint(tmp_path / "marian", tmp_path / "new")
        assert_tensors(tmp_path / "new", tensors)
        assert done.model is models.Transformer
        assert (tmp_path / "new" / "generation_config.json").read_text() == '{"max_length": 40}'

    def test_a_model_that_fastattn_does_not_have(self, tmp_path: Path) -> None:
        write_checkpoint(tmp_path / "gpt2", {"model_type": "gpt2"}, {})
        (tmp_path / "gpt2" / "model.safetensors").unlink()
        weight = {"wte.weight": np.ones((2, 3), np.float32)}
        write_torch(tmp_path / "gpt2" / "pytorch_model.bin", weight)
        assert convert_checkpoint(tmp_path / "gpt2" / "pytorch_model.bin", tmp_path / "new").model is None
        assert_tensors(tmp_path / "new", weight)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"bert.encoder.layer.3.output.dense.bias": None}, "is missing"),
            ({"bert.pooler.dense.weight": np.zeros((3, 3), np.float32)}, r"must have shape \(12, 12\)"),
            ({"bert.encoder.adapter.weight": np.zeros(3, np.float32)}, "is not known"),
            ({"cls.predictions.bias": None}, "not a BertForPreTraining"),
            ({"bert.embeddings.LayerNorm.gamma": np.zeros(12, np.float32)}, "under its old name and under the current"),
            ({"bert.pooler.dense.weight": np.full((12, 12), np.inf, np.float32)}, "has inf at"),
        ],
    )
    def test_a_file_of_another_model(self, tmp_path: Path, pickled: Path, change: Any, message: str) -> None:
        tensors = {name: x for name, x in {**make()[1], **change}.items() if x is not None}
        write_torch(pickled / "pytorch_model.bin", tensors)
        with pytest.raises(ValueError, match=rf"^{pickled}.*{message}"):
            convert_checkpoint(pickled, tmp_path / "new")
        assert os.listdir(tmp_path) == ["pickled"]

    def test_architectures_that_are_none(self, tmp_path: Path, pickled: Path) -> None:
        config = json.loads((pickled / "config.json").read_text())
        (pickled / "config.json").write_text(json.dumps({**config, "architectures": "BertModel"}))
        with pytest.raises(ValueError, match=rf"^{pickled}/config\.json: architectures must be a list of names"):
            convert_checkpoint(pickled, tmp_path / "new")

    def test_numbers_that_json_does_not_have(self, tmp_path: Path, pickled: Path) -> None:
        config = json.loads((pickled / "config.json").read_text())
        (pickled / "config.json").write_text(json.dumps({**config, "x": float("inf")}))
        with pytest.raises(ValueError, match=rf"^{pickled}/config\.json: Out of range float values"):
            convert_checkpoint(pickled, tmp_path / "new")

    def test_lower_case_is_said_by_the_folder(self, tmp_path: Path, pickled: Path) -> None:
        with pytest.raises(ValueError, match="do_lower_case is for a checkpoint of TensorFlow"):
            convert_checkpoint(pickled, tmp_path / "new", do_lower_case=True)


class TestFolders:
    def test_no_checkpoint(self, tmp_path: Path, pickled: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"nothing: no such folder, and no nothing\.index"):
            convert_checkpoint(tmp_path / "nothing", tmp_path / "new")
        (pickled / "pytorch_model.bin").unlink()
        with pytest.raises(FileNotFoundError, match=r"pickled: no pytorch_model\.bin, and no checkpoint of TensorFlow"):
            convert_checkpoint(pickled, tmp_path / "new")
        make()[0].save_pretrained(pickled)
        with pytest.raises(ValueError, match="pickled: the weights are safetensors already"):
            convert_checkpoint(pickled, tmp_path / "new")

    def test_a_folder_is_not_overwritten(self, tmp_path: Path, pickled: Path) -> None:
        new = tmp_path / "new"
        new.mkdir()
        convert_checkpoint(pickled, new)  # an empty one may be there
        (new / "notes.txt").write_text("mine")
        with pytest.raises(ValueError, match=r"new: exists; .*--overwrite"):
            convert_checkpoint(pickled, new)
        write_torch(pickled / "pytorch_model.bin", {})
        with pytest.raises(ValueError, match="tensors of 0 layers"):
            convert_checkpoint(pickled, new, overwrite=True)
        assert (new / "notes.txt").read_text() == "mine"
        write_torch(pickled / "pytorch_model.bin", make()[1])
        convert_checkpoint(pickled, new, overwrite=True)
        assert sorted(os.listdir(new)) == ["config.json", "model.safetensors", "vocab.txt"]
        assert sorted(os.listdir(tmp_path)) == ["new", "pickled"]

    def test_what_is_no_model_is_not_overwritten(self, tmp_path: Path, pickled: Path) -> None:
        with pytest.raises(ValueError, match="pickled: has the checkpoint in it"):
            convert_checkpoint(pickled, pickled, overwrite=True)
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "letter.txt").touch()
        with pytest.raises(ValueError, match=r"home: is no model's folder \(it has no config\.json\)"):
            convert_checkpoint(pickled, tmp_path / "home", overwrite=True)
        (tmp_path / "file").touch()
        with pytest.raises(ValueError, match="file: exists"):
            convert_checkpoint(pickled, tmp_path / "file")

    def test_a_full_disk_leaves_nothing(self, tmp_path: Path, pickled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(shutil, "copyfileobj", full)
        with pytest.raises(OSError, match="No space left"):
            convert_checkpoint(pickled, tmp_path / "new")
        assert os.listdir(tmp_path) == ["pickled"]


class TestTransformers:
    """transformers has the same hidden states before and after."""

    @pytest.mark.parametrize("kind", ["tensorflow", "torch", "legacy"])
    def test_hidden_states(self, tmp_path: Path, kind: str) -> None:
        torch = pytest.importorskip("torch", reason="needs torch")
        transformers = pytest.importorskip("transformers", reason="needs transformers")
        torch.manual_seed(0)
        config = transformers.BertConfig(**{**SIZES, "initializer_range": 0.5})
        theirs = transformers.BertForPreTraining(config).eval()
        if kind == "tensorflow":
            tensors = {name: x.numpy() for name, x in theirs.state_dict().items()}
            write_google(tmp_path / "old", google_variables(tensors))
        else:
            theirs.config.architectures = ["BertForPreTraining"]
            theirs.config.save_pretrained(tmp_path / "old")
            options = {"_use_new_zipfile_serialization": kind == "torch"}
            torch.save(theirs.state_dict(), tmp_path / "old" / "pytorch_model.bin", **options)
        convert_checkpoint(tmp_path / "old", tmp_path / "new")
        again, info = transformers.BertForPreTraining.from_pretrained(tmp_path / "new", output_loading_info=True)
        assert not any(info.values())
        ours = BertForPreTraining.from_pretrained(tmp_path / "new", trainable=False)(IDS, output_hidden_states=True)
        with torch.no_grad():
            before, after = (
                model.eval()(torch.from_numpy(IDS), output_hidden_states=True) for model in (theirs, again)
            )
        for mine, one, other in zip(ours.hidden_states, before.hidden_states, after.hidden_states, strict=True):
            assert torch.equal(one, other)
            np.testing.assert_allclose(mine, one.numpy(), atol=1e-4)
        assert torch.equal(before.prediction_logits, after.prediction_logits)
        assert torch.equal(before.seq_relationship_logits, after.seq_relationship_logits)
        if kind == "tensorflow":
            tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "new")
            assert tokenizer(["A b"])["input_ids"] == [[2, 5, 6, 3]]
