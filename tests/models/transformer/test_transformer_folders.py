"""Transformer.from_pretrained and save_pretrained: folders of MarianMT, those that are none, and what is saved."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import array
from helpers_marian import MARIAN, MarianFolder, marian_tensors, random_transformer

from fastattn.generation import generate
from fastattn.models import Transformer, TransformerConfig
from fastattn.nn import SinusoidalPositions
from fastattn.training import SGD

IDS = np.arange(1, 11).reshape(2, 5)
WORDS = np.arange(3, 11).reshape(2, 4)

KINDS: dict[str, dict[str, Any]] = {
    "usual": {},
    "two tables": {"share_encoder_decoder_embeddings": False, "vocab_size": 60},
    "untied": {"tie_word_embeddings": False},
    "two tables, untied": {
        "share_encoder_decoder_embeddings": False,
        "vocab_size": 60,
        "tie_word_embeddings": False,
    },
    "pre-norm": {"normalize_before": True},
    "interleaved": {"position_embedding_type": "sinusoidal", "first_position": 1, "max_timescale": 500.0},
    "learned": {"position_embedding_type": "learned"},
}


@pytest.fixture
def folder(tmp_path: Path) -> MarianFolder:
    return MarianFolder(tmp_path / "marian")


def logits(model: Transformer) -> Any:
    return array(model(IDS, decoder_input_ids=WORDS).logits)


class TestFolders:
    @pytest.mark.parametrize(
        "name", ["model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"]
    )
    def test_every_name_of_a_shared_table(self, folder: MarianFolder, name: str) -> None:
        expected = logits(folder.load())
        table = folder.tensors.pop("model.shared.weight")
        folder.tensors[name] = table
        np.testing.assert_array_equal(logits(folder.load()), expected)
        folder.tensors["model.shared.weight"] = table
        np.testing.assert_array_equal(logits(folder.load()), expected)
        folder.tensors[name] = table.copy()
        folder.tensors[name][3, 5] += 0.5
        with pytest.raises(ValueError, match=rf"'{name}' must be 'model\.shared\.weight', to which the config ties it"):
            folder.load()

    def test_names_of_a_model_without_scores(self, folder: MarianFolder) -> None:
        folder.tensors["final_logits_bias"][...] = 0
        expected = logits(folder.load())
        del folder.tensors["final_logits_bias"]
        np.testing.assert_array_equal(logits(folder.load()), expected)
        folder.tensors = {name.removeprefix("model."): tensor for name, tensor in folder.tensors.items()}
        np.testing.assert_array_equal(logits(folder.load()), expected)

    def test_stored_positions(self, folder: MarianFolder, tmp_path: Path) -> None:
        """Those that the model computes are passed over, rounded ones are read, saved and never trained."""
        expected = logits(folder.load())
        table = SinusoidalPositions(24, order="concatenated")(np.arange(40))
        names = [f"model.{side}.embed_positions.weight" for side in ("encoder", "decoder")]
        for stored in (table, table + np.float32(1e-7)):
            folder.tensors |= dict.fromkeys(names, stored)
            model = folder.load()
            assert model.config.position_embedding_type == "marian"
            np.testing.assert_array_equal(logits(model), expected)
        halves = table.astype(np.float16).astype(np.float32)  # as of a folder of halves
        folder.tensors |= dict.fromkeys(names, halves)
        model = folder.load(trainable=True)
        np.testing.assert_array_equal(model.encoder.embed_positions.weight.data, halves)
        assert not model.decoder.embed_positions.weight.requires_grad
        rounded = logits(model)
        assert 0 < np.abs(rounded - expected).max() < 0.01
        model.save_pretrained(tmp_path / "saved")
        again = Transformer.from_pretrained(tmp_path / "saved")
        assert again.config.is_marian
        np.testing.assert_array_equal(logits(again), logits(folder.load()))
        folder.tensors[names[1]] = halves[1:]
        with pytest.raises(ValueError, match=rf"'{names[1]}' must have shape \(40, 24\), got \(39, 24\)"):
            folder.load()

    def test_a_length_without_a_limit(self, folder: MarianFolder) -> None:
        """transformers writes 1e30, an integer. The positions bound it."""
        ids = np.array([[5, 6, 0]])
        folder.config["max_length"] = 10**6
        expected = generate(folder.load(), ids)
        folder.config["max_length"] = int(1e30)
        model = folder.load()
        assert model.config.max_length == int(1e30)
        np.testing.assert_array_equal(generate(model, ids), expected)

    def test_two_tables_of_a_model_that_ties_nothing(self, folder: MarianFolder, tmp_path: Path) -> None:
        """transformers' word for it is share_encoder_decoder_embeddings, all the same."""
        separate = MarianFolder(
            tmp_path / "separate", share_encoder_decoder_embeddings=False, tie_word_embeddings=False
        )
        expected = logits(separate.load())
        folder.config["tie_word_embeddings"] = False
        folder.tensors = {**separate.tensors, "model.shared.weight": np.ones((50, 24), np.float32)}
        model = folder.load()
        assert not model.config.share_encoder_decoder_embeddings
        np.testing.assert_array_equal(logits(model), expected)

    def test_a_table_that_neither_side_reads(self, folder: MarianFolder) -> None:
        folder.config["tie_word_embeddings"] = False
        folder.tensors = marian_tensors(folder.config)
        table = folder.tensors["model.shared.weight"]
        expected = logits(folder.load())
        for side in ("encoder", "decoder"):
            folder.tensors[f"model.{side}.embed_tokens.weight"] = table
        assert folder.load().config.share_encoder_decoder_embeddings
        folder.tensors["model.shared.weight"] = table + 1
        np.testing.assert_array_equal(logits(folder.load()), expected)

    def test_fields_of_the_folders_that_people_have(self, folder: MarianFolder) -> None:
        expected = logits(folder.load())
        folder.config |= {
            "add_bias_logits": False,
            "add_final_layer_norm": False,
            "bad_words_ids": [[49]],
            "bos_token_id": 0,
            "classifier_dropout": 0.0,
            "encoder_layerdrop": 0.1,
            "first_position": 3,
            "layer_norm_eps": 0.1,
            "extra_pos_embeddings": 50,
            "id2label": {"0": "LABEL_0"},
            "max_length": 20,
            "normalize_before": False,
            "normalize_embedding": False,
            "num_beams": 6,
            "num_hidden_layers": 2,
            "static_position_embeddings": True,
            "share_encoder_decoder_embeddings": True,
        }
        model = folder.load()
        np.testing.assert_array_equal(logits(model), expected)
        assert model.config.bad_words_ids == ((49,),)
        assert model.config.max_length == 20

    def test_frozen_or_trainable(self, folder: MarianFolder) -> None:
        frozen, trainable = folder.load(), folder.load(trainable=True)
        assert frozen.frozen
        assert not frozen.training
        assert not any(parameter.requires_grad for parameter in frozen.parameters())
        assert not trainable.training
        assert trainable.records()
        np.testing.assert_array_equal(logits(trainable), logits(frozen))

    def test_changes(self, folder: MarianFolder) -> None:
        model = folder.load(dropout=0.3, max_length=7)
        assert (model.config.dropout, model.config.max_length) == (0.3, 7)
        with pytest.raises(TypeError, match="from_pretrained: 'droput' is not a field of TransformerConfig"):
            folder.load(droput=0.3)
        assert folder.load(layer_norm_eps=0.1).config.layer_norm_eps == 0.1

    def test_layers_are_dropped_in_training_alone(self, folder: MarianFolder) -> None:
        expected = logits(folder.load())
        folder.config["decoder_layerdrop"] = 0.1
        np.testing.assert_array_equal(logits(folder.load()), expected)
        with pytest.raises(
            ValueError, match=r"config\.json: decoder_layerdrop is 0\.1; only 0\.0 is supported in a model"
        ):
            folder.load(trainable=True)

    def test_no_padding(self, folder: MarianFolder) -> None:
        expected = logits(folder.load())
        folder.config["pad_token_id"] = None
        model = folder.load(trainable=True)
        np.testing.assert_array_equal(logits(model), expected)
        model.save_pretrained(folder.path)
        assert Transformer.from_pretrained(folder.path).config == model.config
        with pytest.raises(ValueError, match="decoder_input_ids must be given, for pad_token_id of the config is None"):
            model(IDS, labels=WORDS)
        model.final_logits_bias.data[0, 0] += 30.0
        assert generate(model, IDS).tolist() == [[49, 0]] * 2

    def test_generation_config_comes_first(self, folder: MarianFolder) -> None:
        folder.config |= {"max_length": 9, "bad_words_ids": [[3]]}
        path = folder.write() / "generation_config.json"
        assert folder.load().config.forced_eos_token_id == 0
        path.write_text(json.dumps({"max_length": 11, "eos_token_id": 2, "pad_token_id": 5, "num_beams": 4}))
        config = folder.load().config
        assert (config.max_length, config.bad_words_ids, config.forced_eos_token_id) == (11, None, None)
        assert (config.eos_token_id, config.decoder_start_token_id, config.pad_token_id) == (2, 49, 49)
        assert folder.load(max_length=6).config.max_length == 6
        path.write_text(json.dumps({"eos_token_id": [2], "max_length": 11, "max_new_tokens": 4}))
        assert (folder.load().config.eos_token_id, folder.load().config.max_length) == (2, 5)
        assert folder.load(max_length=6).config.max_length == 6
        path.write_text(json.dumps({"max_new_tokens": 0}))
        with pytest.raises(
            ValueError, match=r"generation_config\.json: max_new_tokens must be a positive integer, got 0"
        ):
            folder.load()
        path.write_text(json.dumps({"bad_words_ids": [3]}))
        with pytest.raises(
            ValueError, match=r"generation_config\.json: bad_words_ids must be lists of ids, .*got \[3\]"
        ):
            folder.load()
        path.write_text(json.dumps({"eos_token_id": [0, 50]}))
        with pytest.raises(ValueError, match=r"generation_config\.json: eos_token_id must be .*, got 50"):
            folder.load()

    def test_several_ends(self, folder: MarianFolder, tmp_path: Path) -> None:
        (folder.write() / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
        model = Transformer.from_pretrained(folder.path)
        assert model.config.eos_token_id == (0, 2)
        model.save_pretrained(tmp_path / "saved")
        for name in ("config.json", "generation_config.json"):
            assert json.loads((tmp_path / "saved" / name).read_text())["eos_token_id"] == [0, 2]
        assert Transformer.from_pretrained(tmp_path / "saved").config == model.config

    @pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
    @pytest.mark.parametrize(
        ("name", "value", "usual"),
        [
            ("encoder_no_repeat_ngram_size", 2, 0),
            ("encoder_repetition_penalty", 1.5, 1.0),
            ("suppress_tokens", [3], None),
            ("sequence_bias", [[[3], 2.0]], None),
            ("min_new_tokens", 4, 0),
        ],
    )
    def test_settings_of_another_greedy_choice(
        self, folder: MarianFolder, tmp_path: Path, file: str, name: str, value: Any, usual: Any
    ) -> None:
        expected = folder.load()
        path = folder.path / file
        before = json.loads(path.read_text()) if path.exists() else {"forced_eos_token_id": 0}
        path.write_text(json.dumps(before | {name: value, "max_new_tokens": 8}))
        model = Transformer.from_pretrained(folder.path)
        np.testing.assert_array_equal(logits(model), logits(expected))
        model.save_pretrained(tmp_path / "saved")
        again = Transformer.from_pretrained(tmp_path / "saved")
        for refusing, source in ((model, path), (again, tmp_path / "saved/generation_config.json")):
            message = re.escape(f"generate: {source}: {name} is {value!r}; only {usual!r} is supported")
            with pytest.raises(ValueError, match=f"^{message}$"):
                generate(refusing, IDS)
        for nothing in (usual, None):
            path.write_text(json.dumps(before | {name: nothing, "max_new_tokens": 8}))
            model = Transformer.from_pretrained(folder.path)
            np.testing.assert_array_equal(generate(model, IDS), generate(expected, IDS, max_new_tokens=8))

    def test_the_padding_of_what_is_generated(self, folder: MarianFolder) -> None:
        ids, phrases = np.arange(1, 49).reshape(6, 8), [[i, i] for i in range(50)]
        folder.tensors["final_logits_bias"][0, 0] += 2.0
        expected = generate(folder.load(), ids, bad_words_ids=phrases)
        path, padding = folder.path / "generation_config.json", (expected == 49) & (np.arange(expected.shape[1]) > 0)
        assert padding.any()
        shared = {"forced_eos_token_id": 0, "max_length": 40}
        for settings, changes, pad in (
            ({"pad_token_id": 5}, {}, 5),
            ({"pad_token_id": 5}, {"pad_token_id": 7}, 7),
            ({}, {}, 0),
        ):
            path.write_text(json.dumps(shared | settings))
            model = Transformer.from_pretrained(folder.path, **changes)
            actual = generate(model, ids, bad_words_ids=phrases)
            np.testing.assert_array_equal(actual, np.where(padding, pad, expected))
            if not changes:
                model.save_pretrained(folder.path / "again")
                again = Transformer.from_pretrained(folder.path / "again")
                np.testing.assert_array_equal(generate(again, ids, bad_words_ids=phrases), actual)
        path.write_text(json.dumps(shared | {"pad_token_id": 50}))
        with pytest.raises(
            ValueError, match=r"generate: .*generation_config\.json: pad_token_id must be an id .*got 50"
        ):
            generate(Transformer.from_pretrained(folder.path), ids)


class TestSaving:
    @pytest.mark.parametrize("trainable", [False, True])
    @pytest.mark.parametrize("kind", KINDS)
    def test_saved_and_loaded_again(self, tmp_path: Path, kind: str, trainable: bool) -> None:
        model = random_transformer(**KINDS[kind], trainable=trainable, max_length=9, bad_words_ids=[[49], [3, 4]])
        model.save_pretrained(tmp_path / "saved")
        assert {path.name for path in (tmp_path / "saved").iterdir()} == {
            "config.json",
            "generation_config.json",
            "model.safetensors",
        }
        again = Transformer.from_pretrained(tmp_path / "saved")
        assert again.config == model.config
        assert list(again.state_dict()) == list(model.state_dict())
        for name, tensor in again.state_dict().items():
            np.testing.assert_array_equal(tensor, model.state_dict()[name], err_msg=name)
            assert not tensor.flags.writeable
        np.testing.assert_array_equal(logits(again), logits(model))
        kind = json.loads((tmp_path / "saved/config.json").read_text())["model_type"]
        assert kind == ("marian" if model.config.is_marian else "fastattn-transformer")

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_trained_model(self, tmp_path: Path, kind: str) -> None:
        model = random_transformer(**KINDS[kind], trainable=True).train()
        optimizer = SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            loss = model(IDS, labels=WORDS, label_smoothing=0.1).loss
            assert loss is not None
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval().save_pretrained(tmp_path)
        for trainable in (False, True):
            again = Transformer.from_pretrained(tmp_path, trainable=trainable)
            np.testing.assert_array_equal(logits(again), logits(model))
        loss, expected = (m(IDS, labels=WORDS).loss for m in (again, model))
        assert loss is not None
        assert expected is not None
        assert loss.item() == expected.item()

    def test_a_folder_is_overwritten(self, folder: MarianFolder) -> None:
        path = folder.write()
        (path / "generation_config.json").write_text('{"max_length": 3}')
        model = random_transformer(1, max_length=17)
        model.save_pretrained(path)
        again = Transformer.from_pretrained(path)
        assert again.config == model.config
        np.testing.assert_array_equal(logits(again), logits(model))

    def test_a_model_keeps_nothing_of_the_arrays_it_was_made_from(self, folder: MarianFolder) -> None:
        for trainable in (False, True):
            model = Transformer(folder.load().config, folder.tensors, trainable=trainable)
            before = logits(model)
            kept = {name: tensor.copy() for name, tensor in folder.tensors.items()}
            for tensor in folder.tensors.values():
                tensor[...] = 0
            np.testing.assert_array_equal(logits(model), before)
            folder.tensors = kept


class TestBadFolders:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"model_type": "bart"},
                "model_type is 'bart'; TransformerConfig reads 'marian' and 'fastattn-transformer'",
            ),
            ({"model_type": None}, "model_type is None; TransformerConfig reads"),
            ({"normalize_before": True}, "normalize_before is True; only False is supported"),
            ({"normalize_embedding": True}, "normalize_embedding is True; only False is supported"),
            ({"add_final_layer_norm": True}, "add_final_layer_norm is True; only False is supported"),
            ({"add_bias_logits": True}, "add_bias_logits is True; only False is supported"),
            ({"static_position_embeddings": False}, "static_position_embeddings is False; only True is supported"),
            ({"is_decoder": True}, "is_decoder is True; only False is supported"),
            ({"activation_function": "mish"}, "activation_function must be one of gelu, .*, got 'mish'"),
            ({"d_model": "24"}, "d_model must be a positive integer, got '24'"),
            ({"decoder_layers": 0}, "decoder_layers must be a positive integer, got 0"),
            (
                {"encoder_attention_heads": 5},
                "d_model must be a multiple of encoder_attention_heads, got 24 and 5",
            ),
            ({"decoder_vocab_size": 60}, "decoder_vocab_size must be vocab_size = 50 with share_encoder_.*, got 60"),
            ({"scale_embedding": 1}, "scale_embedding must be a bool, got 1"),
            ({"dropout": 1.0}, "dropout must be a number in .0, 1., got 1.0"),
            ({"decoder_start_token_id": 50}, "decoder_start_token_id must be an id .*, got 50"),
            ({"decoder_start_token_id": None}, "decoder_start_token_id must be an id .*, got None"),
            ({"eos_token_id": [0, 50]}, "eos_token_id must be an id .*, got 50"),
            ({"eos_token_id": []}, r"eos_token_id must be an id .*, got \[\]"),
            ({"bad_words_ids": [[50]]}, "bad_words_ids must be lists of ids .*, got 50"),
            ({"bad_words_ids": 3}, "bad_words_ids must be lists of ids, none of them empty, got 3"),
        ],
    )
    def test_a_config_that_cannot_be(self, folder: MarianFolder, changes: dict[str, Any], message: str) -> None:
        folder.config |= changes
        with pytest.raises(ValueError, match=rf"marian/config\.json: {message}"):
            folder.load()

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("d_model", 36, r"shared\.weight' must have shape \(50, 36\), got \(50, 24\)"),
            ("encoder_ffn_dim", 41, r"encoder\.layers\.0\.fc1\.weight' must have shape \(41, 24\), got \(40, 24\)"),
            ("share_encoder_decoder_embeddings", False, r"'model\.encoder\.embed_tokens\.weight' is missing"),
            ("encoder_layers", 1, "encoder_layers is 1, but there are tensors of 2 layers"),
            ("decoder_layers", 3, "decoder_layers is 3, but there are tensors of 2 layers"),
            ("decoder_layers", 2**31 - 1, "decoder_layers is 2147483647, but there are tensors of 2 layers"),
            ("tie_word_embeddings", False, r"tensor 'lm_head\.weight' is missing"),
        ],
    )
    def test_a_config_of_another_model(self, folder: MarianFolder, field: str, value: Any, message: str) -> None:
        folder.config[field] = value  # before 2**31 layers are made
        with pytest.raises(ValueError, match=rf"marian/model\.safetensors: .*{message}"):
            folder.load()

    def test_a_large_vocabulary_that_is_not_there(self, folder: MarianFolder) -> None:
        folder.config |= {"vocab_size": 2**31 - 1, "decoder_vocab_size": 2**31 - 1}
        with pytest.raises(ValueError, match=r"shared\.weight' must have shape \(2147483647, 24\)"):
            folder.load()

    def test_every_missing_tensor_is_named(self, folder: MarianFolder) -> None:
        tensors = dict(folder.tensors)
        for name in tensors:
            folder.tensors = {other: tensor for other, tensor in tensors.items() if other != name}
            if name != "final_logits_bias":
                with pytest.raises(ValueError, match=rf"model\.safetensors: tensor '{name}' is missing"):
                    folder.load()

    def test_every_misshapen_tensor_is_named(self, folder: MarianFolder) -> None:
        tensors = dict(folder.tensors)
        for name, tensor in tensors.items():
            folder.tensors = {**tensors, name: tensor[..., :-1]}
            with pytest.raises(ValueError, match=rf"model\.safetensors: tensor '{name}' must have shape .*, got"):
                folder.load()

    @pytest.mark.parametrize(
        "name", ["model.encoder.layer_norm.weight", "lm_head.bias", "model.decoder.project.weight"]
    )
    def test_an_unknown_tensor_is_named(self, folder: MarianFolder, name: str) -> None:
        folder.tensors[name] = np.zeros(24, np.float32)
        with pytest.raises(ValueError, match=rf"model\.safetensors: tensor '{name}' is not known"):
            folder.load()

    def test_missing_and_damaged_files(self, folder: MarianFolder) -> None:
        path = folder.write()
        weights = path / "model.safetensors"
        os.truncate(weights, weights.stat().st_size - 1)
        with pytest.raises(ValueError, match=r"marian/model\.safetensors: not a valid safetensors file"):
            Transformer.from_pretrained(path)
        weights.unlink()
        (path / "pytorch_model.bin").touch()
        with pytest.raises(FileNotFoundError, match=r"marian: no model\.safetensors .*pytorch_model\.bin is not read"):
            Transformer.from_pretrained(path)
        (path / "generation_config.json").write_text("[]")
        with pytest.raises(ValueError, match=r"marian/generation_config\.json: must hold a JSON object, got list"):
            Transformer.from_pretrained(path)
        (path / "config.json").unlink()
        with pytest.raises(FileNotFoundError, match=r"marian: no config\.json in this folder"):
            Transformer.from_pretrained(path)
        with pytest.raises(FileNotFoundError, match=r"no such folder: .*nowhere"):
            Transformer.from_pretrained(path / "nowhere")

    def test_no_config(self) -> None:
        with pytest.raises(TypeError, match="Transformer: config must be a TransformerConfig, got dict"):
            Transformer(MARIAN)  # type: ignore[arg-type]

    def test_a_new_model(self) -> None:
        config = TransformerConfig(**{name: value for name, value in MARIAN.items() if name != "model_type"})
        new, frozen = Transformer(config), Transformer(config, trainable=False)
        assert new.training
        assert new.records()
        assert frozen.frozen
        assert not frozen.training
        assert not new.final_logits_bias.data.any()
