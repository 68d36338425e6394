"""What all families share: layers that are left out, heads that are refused, and models in other processes."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import shutil
import sys
import types
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_marian import MarianFolder, random_transformer

import fastattn
from fastattn import models
from fastattn.formats.hugging_face import write_checkpoint
from fastattn.models import (
    BertConfig,
    BertForMaskedLM,
    BertForTokenClassification,
    BertModel,
    BidirectionalLanguageModel,
    Elmo,
    ElmoConfig,
    Transformer,
    origin,
)
from fastattn.models.config import PreTrainedConfig
from fastattn.models.heads import RaggedModel
from fastattn.models.registry import family, family_of, load_encoder, load_head

IDS = np.arange(1, 11).reshape(2, 5)
WORDS = np.arange(3, 11).reshape(2, 4)


class TestFirstLayers:
    def test_of_bert(self, folder: Any) -> None:
        expected = folder.load()(IDS, output_hidden_states=True).hidden_states
        model = BertModel.from_pretrained(folder.path, num_hidden_layers=1)
        assert len(model.layers) == model.config.num_hidden_layers == 1
        assert_same_bits(model(IDS).last_hidden_state, expected[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            head = BertForTokenClassification.from_pretrained(folder.path, num_hidden_layers=1, num_labels=3)
        assert len(head.bert.layers) == 1

    def test_of_a_transformer(self, tmp_path: Path) -> None:
        folder = MarianFolder(tmp_path)
        model = folder.load(decoder_layers=1)
        assert (len(model.encoder.layers), len(model.decoder.layers)) == (2, 1)
        whole = folder.load()
        whole.decoder.layers = whole.decoder.layers[:1]
        assert_same_bits(model(IDS, decoder_input_ids=WORDS).logits, whole(IDS, decoder_input_ids=WORDS).logits)

    @pytest.mark.parametrize("layers", [3, 2**31 - 1])
    def test_there_cannot_be_more(self, folder: Any, layers: int) -> None:
        with pytest.raises(ValueError, match=f"num_hidden_layers is {layers}, but there are tensors of 2 layers"):
            BertModel.from_pretrained(folder.write(), num_hidden_layers=layers)


class TestHeads:
    def test_one_that_is_not_there(self, folder: Any) -> None:
        folder.write()
        with pytest.warns(UserWarning, match="drawn at random"):
            BertForTokenClassification.from_pretrained(folder.path)
        BertForTokenClassification.from_pretrained(folder.path, new_head="draw")
        with pytest.raises(
            ValueError, match=r"model\.safetensors: not a BertForTokenClassification, classifier\.weight"
        ):
            BertForTokenClassification.from_pretrained(folder.path, new_head="refuse")
        with pytest.raises(ValueError, match="new_head must be one of warn, draw, refuse, got 'no'"):
            BertForTokenClassification.from_pretrained(folder.path, new_head="no")

    def test_where_a_name_is_looked_for(self, folder: Any) -> None:
        folder.write()
        assert BertModel.from_pretrained(str(folder.path), revision="main", local_files_only=True).frozen
        with pytest.raises(FileNotFoundError, match="local_files_only is set"):
            BertModel.from_pretrained("no-such-model-of-this-name", local_files_only=True)


def in_cache(folder: Path, cache: Path, repository: str, branch: str = "main") -> None:
    """Put a folder into a Hugging Face cache, as a repository with one commit."""
    entry, commit = cache / f"models--{repository.replace('/', '--')}", "0" * 40
    shutil.copytree(folder, entry / "snapshots" / commit, dirs_exist_ok=True)
    (entry / "refs").mkdir(exist_ok=True)
    (entry / "refs" / branch).write_text(commit)


class TestNames:
    """Every model is found by its name as well as in its folder."""

    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.chdir(tmp_path)
        return tmp_path / "cache"

    @pytest.mark.parametrize("kind", ["BertModel", *(head.__name__ for head in family("bert").heads.values())])
    def test_of_bert(self, folder: Any, cache: Path, kind: str) -> None:
        in_cache(folder.write(), cache, "we/bert", "tagged")
        where = {"revision": "tagged", "token": False, "local_files_only": True}
        model = getattr(models, kind).from_pretrained("we/bert", new_head="draw", num_hidden_layers=1, **where)
        assert len(getattr(model, "bert", model).layers) == 1
        with pytest.raises(FileNotFoundError, match="local_files_only is set"):
            getattr(models, kind).from_pretrained("we/bert", local_files_only=True)
        assert isinstance(load_encoder("we/bert", **where), BertModel)

    def test_of_a_transformer(self, cache: Path, tmp_path: Path) -> None:
        """With the files that are its family's own."""
        random_transformer(position_embedding_type="marian").save_pretrained(tmp_path / "saved")
        path = tmp_path / "saved" / "generation_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "max_length": 5}))
        in_cache(tmp_path / "saved", cache, "we/marian")
        for model in (
            Transformer.from_pretrained("we/marian", local_files_only=True),
            load_head("we/marian", "ConditionalGeneration", local_files_only=True),
        ):
            assert model.config.max_length == 5
        model = Transformer.from_pretrained("we/marian", encoder_layers=1, decoder_layers=1, local_files_only=True)
        assert (len(model.encoder.layers), len(model.decoder.layers)) == (1, 1)

    def test_the_files_that_are_asked_for(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """From the hub comes config.json first, then what the family reads."""
        hub: Any = types.ModuleType("huggingface_hub")
        random_transformer().save_pretrained(tmp_path / "saved")
        asked = []

        def snapshot_download(name: str, *, allow_patterns: list[str], revision: str | None, **options: Any) -> str:
            asked.append((name, revision, options["token"], sorted(allow_patterns)))
            return str(tmp_path / "saved")

        hub.snapshot_download = snapshot_download
        monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
        load_head("we/marian", "ConditionalGeneration", revision="v1", token="secret")
        assert asked == [
            ("we/marian", "v1", "secret", ["config.json"]),
            ("we/marian", "v1", "secret", sorted(Transformer.files.patterns)),
        ]
        assert "generation_config.json" in Transformer.files.patterns

    def test_of_elmo(self, cache: Path, tmp_path: Path) -> None:
        config = ElmoConfig(filters=((1, 4),), dim=8, projection_dim=4, n_layers=2, vocabulary_size=3)
        BidirectionalLanguageModel(config).save_pretrained(tmp_path / "saved")
        in_cache(tmp_path / "saved", cache, "we/elmo")
        for kind in (Elmo, BidirectionalLanguageModel):
            model = kind.from_pretrained("we/elmo", n_layers=1, revision="main", token=False, local_files_only=True)
            assert len(model.network.layers) == 1
            frozen = kind.from_pretrained("we/elmo", trainable=False, local_files_only=True)
            pickled = pickle.dumps(frozen)
            assert len(pickled) < 1000
            again = pickle.loads(pickled)
            for name, array in frozen.state_dict().items():
                np.testing.assert_array_equal(again.state_dict()[name], array)


class TestRegistry:
    def test_a_folder_knows_its_family(self, folder: Any, tmp_path: Path) -> None:
        folder.write()
        assert family_of(folder.path) is family("bert")
        encoder = load_encoder(folder.path)
        assert isinstance(encoder, BertModel)
        assert encoder.pooler is None  # hidden states do not need it
        head = load_head(folder.path, "TokenClassification", new_head="draw", num_labels=4, local_files_only=True)
        assert isinstance(head, BertForTokenClassification)
        assert head.config.num_labels == 4
        random_transformer().save_pretrained(tmp_path / "marian")
        assert isinstance(load_head(tmp_path / "marian", "ConditionalGeneration"), Transformer)
        assert family("marian") is family("fastattn-transformer")

    def test_what_there_is_not(self, folder: Any, tmp_path: Path) -> None:
        random_transformer().save_pretrained(tmp_path / "marian")
        with pytest.raises(ValueError, match="marian: TransformerConfig has no encoder to use alone"):
            load_encoder(tmp_path / "marian")
        with pytest.raises(
            ValueError, match="TransformerConfig: no model for MaskedLM, only for ConditionalGeneration"
        ):
            load_head(tmp_path / "marian", "MaskedLM")
        path = folder.write() / "config.json"
        path.write_text(json.dumps({**folder.config, "model_type": "gpt2"}))
        with pytest.raises(ValueError, match=r"config\.json: model_type is 'gpt2'; known are albert, awd-lstm, bert, "):
            load_encoder(folder.path)


def _encode(model: Any) -> Any:
    return model(IDS).last_hidden_state


class TestPickling:
    def test_a_spawned_process(self, folder: Any) -> None:
        model = folder.load()
        assert len(pickle.dumps(model)) < 1000
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert_same_bits(pool.apply(_encode, (model,)), _encode(model))

    def test_options_are_kept(self, folder: Any, tmp_path: Path) -> None:
        folder.write()
        model = BertModel.from_pretrained(folder.path, add_pooling_layer=False, num_hidden_layers=1)
        again = pickle.loads(pickle.dumps(model))
        assert again.pooler is None
        assert again.config == model.config
        assert pickle.loads(pickle.dumps(again)).config == model.config
        marian = MarianFolder(tmp_path / "marian").load(max_length=7)
        assert pickle.loads(pickle.dumps(marian)).config.max_length == 7
        assert pickle.loads(pickle.dumps(marian)).settings == marian.settings

    def test_attributes_are_kept(self, folder: Any, tmp_path: Path) -> None:
        model = folder.load()
        plain = pickle.dumps(model)
        model.our_name, model.our_labels, model.gradient_checkpointing = "first", {"a": [1, 2]}, True
        model.our_array = np.arange(3)
        for other in (model, copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            pickled = pickle.dumps(other)
            assert len(plain) < len(pickled) < 2000
            again = pickle.loads(pickled)
            assert (again.our_name, again.our_labels, again.gradient_checkpointing) == ("first", {"a": [1, 2]}, True)
            assert again.our_array.tolist() == [0, 1, 2]
        del model.our_name, model.our_labels, model.our_array, model.gradient_checkpointing
        assert pickle.dumps(model) == plain
        marian = MarianFolder(tmp_path / "marian").load()
        marian.our_name = "second"
        assert pickle.loads(pickle.dumps(marian)).our_name == "second"

    @pytest.mark.parametrize("name", ["pooler.dense.bias", "encoder.layer.1.output.dense.weight"])
    def test_a_folder_that_has_changed(self, folder: Any, name: str) -> None:
        pickled = pickle.dumps(folder.load())
        pickle.loads(pickled)
        folder.write()
        pickle.loads(pickled)
        folder.tensors[name] = folder.tensors[name] + 1
        folder.write()
        with pytest.raises(ValueError, match="bert: the files of this model have changed since it was pickled"):
            pickle.loads(pickled)
        shutil.rmtree(folder.path)
        with pytest.raises(FileNotFoundError, match="bert: no such folder"):
            pickle.loads(pickled)

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_a_folder_that_has_changed_before(self, folder: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The pickle has the weights. The files are summed up when somebody pickles, not when they are read."""
        with monkeypatch.context() as patch:
            patch.setattr(origin, "checksum", None)
            model = folder.load()
        small, expected = pickle.dumps(model), _encode(model)
        path = folder.path / name
        path.write_bytes(path.read_bytes())
        os.utime(path, ns=(0, 0))
        for _ in range(2):
            pickled = pickle.dumps(model)
            assert len(pickled) > 10 * len(small)
            model = pickle.loads(pickled)
            assert_same_bits(_encode(model), expected)
        folder.write()
        assert len(pickle.dumps(folder.load())) == len(small)

    def test_a_changed_config(self, folder: Any) -> None:
        pickled = pickle.dumps(folder.load())
        folder.config["layer_norm_eps"] = 1e-6
        folder.write()
        with pytest.raises(ValueError, match="have changed"):
            pickle.loads(pickled)

    def test_a_model_with_other_weights_than_the_folders(self, folder: Any) -> None:
        """It goes with its weights: it was trained, loaded again, or its head was drawn."""
        trained = BertModel.from_pretrained(folder.write(), trainable=True)
        trained.embeddings.word_embeddings.weight.data += 1
        trained.freeze()
        loaded = BertModel.from_pretrained(folder.path)
        loaded.layers[0].load_state_dict(trained.layers[1].state_dict())
        fastattn.manual_seed(0)
        drawn = BertForTokenClassification.from_pretrained(folder.path, trainable=False, new_head="draw")
        shorter = BertModel.from_pretrained(folder.path)
        del shorter.layers[1]
        shutil.rmtree(folder.path)
        for model in (trained, loaded, drawn, shorter):
            again = pickle.loads(pickle.dumps(model))
            for name, array in model.state_dict().items():
                np.testing.assert_array_equal(again.state_dict()[name], array)

    def test_copies_need_no_folder(self, folder: Any) -> None:
        model = folder.load()
        pickled = pickle.dumps(model)
        expected = _encode(model)
        copies = copy.copy(model), copy.deepcopy(model)
        assert [pickle.dumps(other) for other in copies] == [pickled] * 2
        shutil.rmtree(folder.path)
        for other in (*copies, copy.deepcopy(model)):
            assert_same_bits(_encode(other), expected)
        assert copies[1].layers[0] is not model.layers[0]

    def test_a_trainable_model(self, folder: Any) -> None:
        model = BertForMaskedLM.from_pretrained(folder.write(), new_head="draw")
        shutil.rmtree(folder.path)
        again = pickle.loads(pickle.dumps(model))
        assert again.records()
        assert again.predictions.decoder.weight is again.bert.embeddings.word_embeddings.weight


class TestUnknownWeights:
    """In a part that must be whole they are refused, elsewhere they are passed over, in every family."""

    @pytest.mark.parametrize("kind", [BertModel, BertForTokenClassification, BertForMaskedLM])
    @pytest.mark.parametrize("prefix", ["", "bert."])
    def test_of_bert(self, folder: Any, kind: Any, prefix: str) -> None:
        passed = {"pooler.more.weight", "cls.predictions.more", "qa_outputs.weight", "embeddings.position_ids"}
        tensors = {f"{prefix}{name}": tensor for name, tensor in folder.tensors.items()}
        places = {f"{prefix}{name}": np.zeros(3, np.float32) for name in passed}
        folder.tensors = {**tensors, **places}
        expected = kind.from_pretrained(folder.write(), trainable=False, new_head="draw")
        assert not {name for name in expected.state_dict() if "more" in name}
        for name in ("encoder.layer.0.attention.self.query.lora_A.weight", "embeddings.more", "encoder.more.weight"):
            folder.tensors = {**tensors, f"{prefix}{name}": np.zeros(3, np.float32)}
            with pytest.raises(ValueError, match=rf"model\.safetensors: tensor '(bert\.)?{name}' is not known"):
                kind.from_pretrained(folder.write(), new_head="draw")

    def test_of_a_transformer(self, tmp_path: Path) -> None:
        folder = MarianFolder(tmp_path / "marian")
        folder.tensors["classifier.weight"] = folder.tensors["optimizer.step"] = np.zeros(3, np.float32)
        folder.load()
        folder.tensors["lm_head.bias"] = np.zeros(3, np.float32)
        with pytest.raises(ValueError, match=r"model\.safetensors: tensor 'lm_head.bias' is not known"):
            folder.load()

    def test_of_elmo(self, tmp_path: Path) -> None:
        elmo = Elmo(ElmoConfig(filters=((1, 4),), dim=8, projection_dim=4))
        config, tensors = elmo.config.to_dict("Elmo"), dict(elmo.state_dict())
        write_checkpoint(tmp_path, config, {**tensors, "softmax.weight": np.zeros(3, np.float32)})
        Elmo.from_pretrained(tmp_path)
        write_checkpoint(tmp_path, config, {**tensors, "network.more": np.zeros(3, np.float32)})
        with pytest.raises(ValueError, match=r"model\.safetensors: tensor 'network.more' is not known"):
            Elmo.from_pretrained(tmp_path)


def test_what_a_family_must_write_is_abstract() -> None:
    """Nothing half made can be called: it is missed when it is made, not at its first loss or its first save."""

    class Config(PreTrainedConfig):
        model_types = ("half",)

    class Head(RaggedModel):
        def build(self, config: Any) -> None: ...

    with pytest.raises(TypeError, match=r"abstract.* Config .*to_dict"):
        Config()  # type: ignore[abstract]
    with pytest.raises(TypeError, match=r"abstract.* Head .*_finish"):
        Head(BertConfig(vocab_size=5))  # type: ignore[abstract]


class TestTokenizerFiles:
    """Without a tokenizer beside the model, transformers' AutoTokenizer makes one that has no vocabulary."""

    FILES: ClassVar = {"vocab.txt": "[UNK]\n", "tokenizer_config.json": "{}", "special_tokens_map.json": "{}"}

    @pytest.mark.parametrize("kind", [BertModel, BertForTokenClassification])
    @pytest.mark.parametrize("trainable", [True, False])
    def test_a_saved_model_takes_them_along(self, folder: Any, tmp_path: Path, kind: Any, trainable: bool) -> None:
        start = Path(folder.write())
        for name, text in self.FILES.items():
            (start / name).write_text(text)
        (start / "notes.txt").write_text("not ours")
        model = copy.deepcopy(kind.from_pretrained(start, trainable=trainable, new_head="draw"))
        model.save_pretrained(tmp_path / "saved")
        names = {path.name for path in (tmp_path / "saved").iterdir()}
        assert names == {"config.json", "model.safetensors", *self.FILES}
        assert all((tmp_path / "saved" / name).read_text() == text for name, text in self.FILES.items())

    def test_a_tokenizer_that_is_there_stays(self, folder: Any, tmp_path: Path) -> None:
        start = Path(folder.write())
        (start / "vocab.txt").write_text("[UNK]\n")
        (tmp_path / "saved").mkdir()
        (tmp_path / "saved" / "tokenizer.json").write_text("another")
        BertModel.from_pretrained(start).save_pretrained(tmp_path / "saved")
        assert not (tmp_path / "saved" / "vocab.txt").exists()
        assert (tmp_path / "saved" / "tokenizer.json").read_text() == "another"

    def test_of_a_transformer(self, tmp_path: Path) -> None:
        start = MarianFolder(tmp_path / "marian").write()
        for name in ("source.spm", "target.spm", "vocab.json", "tokenizer_config.json"):
            (Path(start) / name).write_bytes(name.encode())
        Transformer.from_pretrained(start).save_pretrained(tmp_path / "saved")
        assert (tmp_path / "saved" / "target.spm").read_bytes() == b"target.spm"

    def test_a_new_model_has_none(self, tmp_path: Path) -> None:
        BertModel(BertConfig(vocab_size=5, hidden_size=4, num_hidden_layers=1, num_attention_heads=1)).save_pretrained(
            tmp_path
        )
        assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
