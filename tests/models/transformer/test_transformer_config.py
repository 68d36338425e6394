"""TransformerConfig: what it refuses, and the config.json of Marian and of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastattn.models import TransformerConfig
from fastattn.models.generation_config import GenerationSettings

BASE = {"vocab_size": 100, "pad_token_id": 99, "eos_token_id": 0, "decoder_start_token_id": 99}


def test_the_papers_base_model() -> None:
    config = TransformerConfig()
    assert (config.d_model, config.encoder_layers, config.decoder_layers, config.encoder_ffn_dim) == (512, 6, 6, 2048)
    assert not config.normalize_before
    assert config.decoder_vocab_size == config.vocab_size == 37000
    assert not config.is_marian
    assert TransformerConfig(position_embedding_type="marian").is_marian


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be a positive integer, got 0"),
        ({"d_model": 8.0}, "d_model must be a positive integer, got 8.0"),
        ({"encoder_layers": True}, "encoder_layers must be a positive integer, got True"),
        ({"max_length": 0}, "max_length must be a positive integer, got 0"),
        ({"encoder_attention_heads": 7}, "d_model must be a multiple of encoder_attention_heads, got 512 and 7"),
        ({"decoder_attention_heads": 1}, "decoder_attention_heads must split d_model into heads of at most 256"),
        ({"dropout": 1.0}, "dropout must be a number in .0, 1., got 1.0"),
        ({"attention_dropout": "0.1"}, "attention_dropout must be a number in .0, 1., got '0.1'"),
        ({"activation_dropout": -1e-10}, "activation_dropout must be a number in .0, 1., got -1e-10"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps must be a number in .0, 1., got 0.0"),
        ({"init_std": 0.0}, "init_std must be a number above 0"),
        ({"max_timescale": 1.0}, "max_timescale must be a number above 1"),
        ({"first_position": -1}, "first_position must be an integer of at least 0, got -1"),
        ({"activation_function": "mish"}, "activation_function must be one of gelu, .*, got 'mish'"),
        (
            {"position_embedding_type": "rotary"},
            "position_embedding_type must be one of sinusoidal, marian, ",
        ),
        ({"normalize_before": 1}, "normalize_before must be a bool, got 1"),
        ({"decoder_vocab_size": 50}, "decoder_vocab_size must be vocab_size = 37000 with share_encoder_decoder_emb"),
        ({"pad_token_id": 37000}, "pad_token_id must be an id of both vocabularies, below 37000, got 37000"),
        ({"eos_token_id": None}, "eos_token_id must be an id of the target vocabulary, below 37000, got None"),
        ({"eos_token_id": [1, 37000]}, "eos_token_id must be an id of the target vocabulary, below 37000, got 37000"),
        ({"decoder_start_token_id": -1}, "decoder_start_token_id must be an id"),
        ({"forced_eos_token_id": 37000}, "forced_eos_token_id must be an id"),
        ({"bos_token_id": -1}, "bos_token_id must be an id, got -1"),
        (
            {"bad_words_ids": ((1,), (37000,))},
            "bad_words_ids must be lists of ids of the target vocabulary, below 37000, got 37000",
        ),
        ({"bad_words_ids": 3}, "bad_words_ids must be lists of ids, none of them empty, got 3"),
        ({"bad_words_ids": [3]}, r"bad_words_ids must be lists of ids, none of them empty, got \[3\]"),
        ({"bad_words_ids": [[3], []]}, r"bad_words_ids must be lists of ids, none of them empty, got \[\[3\], \[\]\]"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**changes)
    with pytest.raises(ValueError, match=f"somewhere: {message}"):
        TransformerConfig.from_dict({"model_type": "fastattn-transformer", **changes}, "somewhere")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"position_embedding_type": "marian"},
        {"position_embedding_type": "marian", "normalize_before": True},
        {"position_embedding_type": "marian", "bos_token_id": None, "forced_eos_token_id": None},
        {
            "position_embedding_type": "marian",
            "forced_eos_token_id": 3,
            "bad_words_ids": ((1,), (2, 3)),
            "max_length": 9,
        },
        {"position_embedding_type": "learned", "init_std": None, "max_timescale": 20.0, "first_position": 2},
        {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 50, "bad_words_ids": [[4]]},
        {"position_embedding_type": "marian", "pad_token_id": None, "bos_token_id": 40000},
        {
            "vocab_size": np.int64(50),
            "dropout": np.float32(0.25),
            "eos_token_id": np.int16(3),
            "max_length": np.int8(9),
        },
    ],
)
def test_it_comes_back_from_json(changes: dict[str, Any]) -> None:
    config = TransformerConfig(**changes)
    values = json.loads(json.dumps(config.to_dict()))
    assert TransformerConfig.from_dict(values) == config
    assert (values["model_type"] == "marian") == config.is_marian
    assert values["architectures"] == ["MarianMTModel" if config.is_marian else "Transformer"]


def test_marian_needs_no_word_about_first_values() -> None:
    config = TransformerConfig(position_embedding_type="marian", init_std=None)
    assert config.is_marian
    assert "init_std" not in config.to_dict()


@pytest.mark.parametrize("name", ["eos_token_id", "forced_eos_token_id"])
def test_a_list_of_one_end(name: str) -> None:
    assert getattr(TransformerConfig(**{name: [3]}), name) == 3


def test_marian_has_no_fields_of_ours() -> None:
    """transformers keeps what it does not know in a config.json, and computes as ever."""
    own = {"layer_norm_eps": 1e-2, "first_position": 3, "max_timescale": 50.0, "position_embedding_type": "learned"}
    plain = TransformerConfig.from_dict({"model_type": "marian", **BASE})
    assert TransformerConfig.from_dict({"model_type": "marian", **BASE, **own}) == plain
    changed = TransformerConfig.from_dict({"model_type": "marian", **BASE}, "somewhere", layer_norm_eps=1e-2)
    assert changed.layer_norm_eps == 1e-2


@pytest.mark.parametrize(
    "changes", [{"normalize_before": True}, {"first_position": 1}, {"max_timescale": 50.0}, {"layer_norm_eps": 1e-6}]
)
def test_what_marian_does_not_compute_is_not_called_so(changes: dict[str, Any]) -> None:
    assert not TransformerConfig(position_embedding_type="marian", **changes).is_marian


def test_marians_defaults() -> None:
    config = TransformerConfig.from_dict({"model_type": "marian"})
    assert (config.d_model, config.encoder_layers, config.decoder_ffn_dim) == (1024, 12, 4096)
    assert (config.vocab_size, config.pad_token_id, config.decoder_start_token_id) == (58101, 58100, 58100)
    assert (config.eos_token_id, config.forced_eos_token_id, config.bos_token_id) == (0, 0, None)
    assert config.position_embedding_type == "marian"
    assert config.activation_function == "gelu"
    assert not config.scale_embedding


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"normalize_embedding": True}, "somewhere: normalize_embedding is True; only False is supported"),
        ({"normalize_before": True}, "normalize_before is True"),
        ({"add_final_layer_norm": True}, "add_final_layer_norm is True"),
        ({"add_bias_logits": True}, "add_bias_logits is True"),
        ({"static_position_embeddings": False}, "static_position_embeddings is False; only True"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"model_type": "bart"}, "model_type is 'bart'; TransformerConfig reads 'marian' and 'fastattn-transformer'"),
        ({"model_type": None}, "model_type is None"),
    ],
)
def test_options_that_are_not_supported(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformerConfig.from_dict({"model_type": "marian", **BASE, **option}, "somewhere")


def test_real_folders_have_fields_that_say_nothing() -> None:
    """Of opus-mt's config.json."""
    values = {"static_position_embeddings": True, "normalize_embedding": False, "extra_pos_embeddings": 100}
    values |= {"num_hidden_layers": 6, "classif_dropout": 0.0, "id2label": {"0": "LABEL_0"}, "num_beams": 6}
    assert TransformerConfig.from_dict({"model_type": "marian", **BASE, **values}).vocab_size == 100


def test_a_generation_config_that_is_no_file_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match=r"generation_config\.json"):
        GenerationSettings.read(tmp_path, {})
