"""BertModel.from_pretrained and save_pretrained: every folder a BERT can be, and those that are none."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastattn.models import BertModel

Make = Callable[..., BertModel]


class TestFolders:
    ids = np.arange(10).reshape(2, 5)

    def test_names_of_a_model_with_a_head(self, folder: Any) -> None:
        expected = folder.load()(self.ids).last_hidden_state
        folder.tensors = {f"bert.{name}": tensor for name, tensor in folder.tensors.items()}
        folder.tensors["cls.predictions.bias"] = np.zeros(60, np.float32)
        folder.tensors["classifier.weight"] = np.zeros((2, 32), np.float32)
        np.testing.assert_array_equal(folder.load()(self.ids).last_hidden_state, expected)

    def test_old_names_of_layer_norm(self, folder: Any) -> None:
        expected = folder.load()(self.ids).last_hidden_state
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for new, name in old.items():
            folder.tensors = {key.replace(new, name): tensor for key, tensor in folder.tensors.items()}
        np.testing.assert_array_equal(folder.load()(self.ids).last_hidden_state, expected)

    def test_without_a_pooler(self, folder: Any, tmp_path: Path) -> None:
        del folder.tensors["pooler.dense.weight"], folder.tensors["pooler.dense.bias"]
        model = folder.load()
        assert model(self.ids).pooler_output is None
        model.save_pretrained(tmp_path / "saved")
        assert BertModel.from_pretrained(tmp_path / "saved")(self.ids).pooler_output is None

    def test_saved_and_loaded_again(self, folder: Any, tmp_path: Path) -> None:
        model = folder.load()
        model.save_pretrained(tmp_path / "saved")
        again = BertModel.from_pretrained(tmp_path / "saved")
        assert again.config == model.config
        assert list(again.state_dict()) == list(model.state_dict())
        assert set(again.state_dict()) == set(folder.tensors)
        for name, tensor in again.state_dict().items():
            np.testing.assert_array_equal(tensor, folder.tensors[name])
            assert not tensor.flags.writeable
        np.testing.assert_array_equal(again(self.ids).last_hidden_state, model(self.ids).last_hidden_state)

    def test_a_model_keeps_nothing_of_the_arrays_it_was_made_from(self, folder: Any) -> None:
        model = BertModel(folder.load().config, folder.tensors)
        before = model(self.ids).last_hidden_state
        for tensor in folder.tensors.values():
            tensor[...] = 0
        np.testing.assert_array_equal(model(self.ids).last_hidden_state, before)

    def test_fields_that_have_defaults_may_be_missing(self, folder: Any) -> None:
        expected = folder.load()(self.ids).last_hidden_state
        sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        folder.config = {name: folder.config[name] for name in (*sizes, "max_position_embeddings")}
        np.testing.assert_array_equal(folder.load()(self.ids).last_hidden_state, expected)


class TestBadFolders:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"model_type": "roberta"}, "model_type is 'roberta'; BertConfig reads 'bert'"),
            ({"model_type": "distilbert"}, "model_type is 'distilbert'"),
            ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
            ({"model_type": None}, "model_type is None"),
            ({"is_decoder": True}, "is_decoder is True; BertModel is an encoder"),
            ({"add_cross_attention": True}, "add_cross_attention is True"),
            (
                {"position_embedding_type": "relative_key"},
                "position_embedding_type must be .*, got 'relative_key'",
            ),
            ({"hidden_act": "mish"}, "hidden_act must be one of gelu, .*, got 'mish'"),
            ({"hidden_act": ["gelu"]}, r"hidden_act must be one of gelu, .*, got \['gelu'\]"),
            ({"hidden_size": "32"}, "hidden_size must be a positive integer, got '32'"),
            ({"hidden_size": 32.0}, "hidden_size must be a positive integer, got 32.0"),
            ({"hidden_size": -32}, "hidden_size must be a positive integer, got -32"),
            ({"hidden_size": 10**30}, "hidden_size must be below 2147483648, got 1000"),
            ({"num_hidden_layers": 0}, "num_hidden_layers must be a positive integer, got 0"),
            ({"num_hidden_layers": True}, "num_hidden_layers must be a positive integer, got True"),
            ({"num_hidden_layers": None}, "num_hidden_layers must be a positive integer, got None"),
            (
                {"num_attention_heads": 5},
                "hidden_size must be a multiple of num_attention_heads, got 32 and 5",
            ),
            (
                {"hidden_size": 1028, "num_attention_heads": 4},
                "num_attention_heads must split .* heads of at most 256, got 4 and 1028",
            ),
            ({"layer_norm_eps": 0}, "layer_norm_eps must be a number in .0, 1., got 0"),
            ({"layer_norm_eps": float("nan")}, "layer_norm_eps must be a number .*, got nan"),
            ({"layer_norm_eps": "1e-12"}, "layer_norm_eps must be a number .*, got '1e-12'"),
            ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob must be a number in .0, 1., got 1.5"),
            ({"attention_probs_dropout_prob": -1e-10}, "attention_probs_dropout_prob must be a number .*, got -1e-10"),
        ],
    )
    def test_a_config_that_cannot_be(self, folder: Any, changes: dict[str, Any], message: str) -> None:
        path = folder.write()
        (path / "config.json").write_text(json.dumps({**folder.config, **changes}))
        with pytest.raises(ValueError, match=rf"bert/config\.json: {message}"):
            BertModel.from_pretrained(path)

    @pytest.mark.parametrize(
        "name",
        ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"],
    )
    def test_a_size_that_is_missing(self, folder: Any, name: str) -> None:
        del folder.config[name]
        with pytest.raises(ValueError, match=rf"config\.json: {name} is missing"):
            folder.load()

    def test_another_architecture_without_model_type(self, folder: Any) -> None:
        del folder.config["model_type"]
        folder.config["architectures"] = ["RobertaModel"]
        with pytest.raises(ValueError, match=r"config\.json: architectures is \['RobertaModel'\]"):
            folder.load()

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            (
                "vocab_size",
                2**31 - 1,
                r"word_embeddings.weight' must have shape \(2147483647, 32\), got \(60, 32\)",
            ),
            ("hidden_size", 64, r"word_embeddings.weight' must have shape \(60, 64\), got \(60, 32\)"),
            (
                "intermediate_size",
                71,
                r"intermediate.dense.weight' must have shape \(71, 32\), got \(72, 32\)",
            ),
            (
                "max_position_embeddings",
                41,
                r"position_embeddings.weight' must have shape \(41, 32\), got \(40, 32\)",
            ),
            (
                "type_vocab_size",
                3,
                r"token_type_embeddings.weight' must have shape \(3, 32\), got \(2, 32\)",
            ),
            ("num_hidden_layers", 1, "num_hidden_layers is 1, but there are tensors of 2 layers"),
            (
                "num_hidden_layers",
                2**31 - 1,
                "num_hidden_layers is 2147483647, but there are tensors of 2 layers",
            ),
        ],
    )
    def test_a_config_of_another_model(self, folder: Any, field: str, value: int, message: str) -> None:
        folder.config[field] = value  # before 2**31 layers are made
        with pytest.raises(ValueError, match=rf"model\.safetensors: .*{message}"):
            folder.load()

    def test_every_missing_tensor_is_named(self, folder: Any) -> None:
        tensors = dict(folder.tensors)
        for name in tensors:
            folder.tensors = {other: tensor for other, tensor in tensors.items() if other != name}
            if name == "pooler.dense.weight":
                continue  # a model without a pooler
            with pytest.raises(ValueError, match=rf"model\.safetensors: tensor '{name}' is missing"):
                folder.load()

    def test_every_misshapen_tensor_is_named(self, folder: Any) -> None:
        tensors = dict(folder.tensors)
        for name, tensor in tensors.items():
            folder.tensors = {**tensors, name: tensor[..., :-1]}
            with pytest.raises(ValueError, match=rf"model\.safetensors: tensor '{name}' must have shape .*, got"):
                folder.load()

    def test_two_names_for_one_tensor(self, folder: Any) -> None:
        folder.tensors["embeddings.LayerNorm.gamma"] = folder.tensors["embeddings.LayerNorm.weight"]
        with pytest.raises(ValueError, match=r"'embeddings.LayerNorm.gamma' and 'embeddings.LayerNorm.weight'"):
            folder.load()

    def test_a_truncated_file(self, folder: Any) -> None:
        path = folder.write() / "model.safetensors"
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(ValueError, match=r"bert/model\.safetensors: not a valid safetensors file"):
            BertModel.from_pretrained(folder.path)

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no such folder: .*nowhere"):
            BertModel.from_pretrained(tmp_path / "nowhere")

    def test_messages_name_a_few_tensors(self, folder: Any) -> None:
        folder.config["num_hidden_layers"] = 500
        folder.tensors |= {f"encoder.layer.{i}.\x1b[31m": np.zeros(1, np.float32) for i in range(500)}
        with pytest.raises(ValueError, match=r"model\.safetensors: .*; .* and \d+ more") as error:
            folder.load()
        assert len(str(error.value)) < 5000
        assert str(error.value).isprintable()

    @pytest.mark.parametrize("value", ["\x1b[31m" * 10**5, ["\x1b[31m"] * 10**5, {"\x1b" * 10**6: 1}])
    @pytest.mark.parametrize("field", ["model_type", "hidden_act", "is_decoder", "hidden_size", "tie_word_embeddings"])
    def test_messages_are_short_and_print(self, folder: Any, field: str, value: Any) -> None:
        folder.config[field] = value
        with pytest.raises(ValueError, match=f"config.json: {field}") as error:
            folder.load()
        assert len(str(error.value)) < 1000
        assert str(error.value).isprintable()
