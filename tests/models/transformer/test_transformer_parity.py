"""Transformer against transformers' MarianMTModel on random configurations, and folders exchanged both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import array
from safetensors.numpy import load_file, save_file

from fastattn.generation import generate
from fastattn.models import Transformer

torch = pytest.importorskip("torch", reason="torch, the other side of the parity tests, is not installed")
transformers = pytest.importorskip(
    "transformers", reason="transformers, the other side of the parity tests, is not installed"
)

safetensors_torch = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not our errors

PARITY = 2e-5
SIZES = {
    "vocab_size": 61,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 72,
    "max_position_embeddings": 48,
    "pad_token_id": 60,
    "decoder_start_token_id": 60,
}
CASES: dict[str, dict[str, Any]] = {
    "usual": {"activation_function": "swish", "scale_embedding": True},
    "their defaults": {},
    "sizes": {"encoder_layers": 3, "decoder_layers": 1, "encoder_attention_heads": 8, "decoder_attention_heads": 2},
    "odd sizes": {"d_model": 33, "encoder_attention_heads": 3, "decoder_attention_heads": 11, "encoder_ffn_dim": 65},
    "wide": {"d_model": 256, "encoder_attention_heads": 1, "decoder_layers": 3, "scale_embedding": True},
    "relu": {"activation_function": "relu"},
    "gelu_new": {"activation_function": "gelu_new"},
    "two vocabularies": {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 83},
    "untied": {"tie_word_embeddings": False},
    "two vocabularies, untied": {
        "share_encoder_decoder_embeddings": False,
        "decoder_vocab_size": 83,
        "tie_word_embeddings": False,
    },
    "other ids": {"pad_token_id": 1, "decoder_start_token_id": 2, "bos_token_id": 2, "eos_token_id": 3},
    "no end is forced": {"forced_eos_token_id": None},
    "another end is forced": {"eos_token_id": 2, "forced_eos_token_id": 9},
    "several ends": {"eos_token_id": [0, 7], "forced_eos_token_id": None},
}


def random_model(seed: int, ends: float = 0.0, **changes: Any) -> Any:
    """A transformers model with weights large enough for attention to choose; `ends` makes the end more probable."""
    config = transformers.MarianConfig(**SIZES | changes, attn_implementation="eager")
    model = transformers.MarianMTModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" in name:
                continue
            mean = 1.0 if "layer_norm.weight" in name else 0.0
            parameter.normal_(mean, config.d_model**-0.5, generator=generator)
        model.final_logits_bias.normal_(0.0, 0.3, generator=generator)
        model.final_logits_bias[0, config.eos_token_id] += ends
    return model


def batch(seed: int, config: Any) -> dict[str, Any]:
    """Right and left padding and holes on the source's side, right padding on the target's."""
    rng = np.random.default_rng(seed)
    source, target = (6, 17), (6, 11)
    mask = np.arange(17) < rng.integers(1, 18, (6, 1))
    mask[1] = mask[1, ::-1]
    mask[2] = rng.random(17) < 0.6
    mask[2, 3] = True
    return {
        "input_ids": rng.integers(0, config.vocab_size, source),
        "attention_mask": mask,
        "decoder_input_ids": rng.integers(0, config.decoder_vocab_size, target),
        "decoder_attention_mask": np.arange(11) < rng.integers(1, 12, (6, 1)),
    }


def compare(ours: Transformer, theirs: Any, seed: int = 0) -> None:
    arrays = batch(seed, theirs.config)
    with torch.no_grad():
        expected = theirs(**{name: torch.tensor(ids, dtype=torch.long) for name, ids in arrays.items()})
    actual = ours(**arrays)
    for a, b, kept in (
        (actual.logits, expected.logits, arrays["decoder_attention_mask"]),
        (actual.encoder_last_hidden_state, expected.encoder_last_hidden_state, arrays["attention_mask"]),
    ):
        a, b = array(a), b.numpy()
        assert np.abs(b[kept]).max() > 0.5
        assert np.abs(a - b)[kept].max() <= PARITY * np.abs(b[kept]).max()
        assert not a[~kept].any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rounded_positions(tmp_path: Path, dtype: Any) -> None:
    theirs = random_model(3)
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for side in (theirs.model.encoder, theirs.model.decoder):
        table = side.embed_positions.weight.detach().numpy().round(2)  # far enough from the computed ones to matter
        name = "encoder" if side is theirs.model.encoder else "decoder"
        tensors[f"model.{name}.embed_positions.weight"] = table.astype(dtype)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    theirs = transformers.MarianMTModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    compare(Transformer.from_pretrained(tmp_path), theirs)


@pytest.mark.parametrize("name", CASES)
def test_random_configurations(tmp_path: Path, name: str) -> None:
    theirs = random_model(1, **CASES[name])
    theirs.save_pretrained(tmp_path)
    compare(Transformer.from_pretrained(tmp_path), theirs)
    compare(Transformer.from_pretrained(tmp_path, trainable=True).eval(), theirs)


@pytest.mark.parametrize("seed", range(8))
def test_a_configuration_drawn_at_random(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    heads = rng.choice([1, 2, 3, 5, 8], 2).tolist()
    shared, pad = bool(rng.integers(2)), int(rng.integers(20))
    changes = {
        "vocab_size": int(rng.integers(20, 200)),
        "d_model": int(np.lcm(*heads) * rng.integers(1, 9)),
        "encoder_layers": int(rng.integers(1, 5)),
        "decoder_layers": int(rng.integers(1, 5)),
        "encoder_attention_heads": heads[0],
        "decoder_attention_heads": heads[1],
        "encoder_ffn_dim": int(rng.integers(1, 200)),
        "decoder_ffn_dim": int(rng.integers(1, 200)),
        "activation_function": str(rng.choice(["swish", "silu", "relu", "gelu", "gelu_new"])),
        "scale_embedding": bool(rng.integers(2)),
        "share_encoder_decoder_embeddings": shared,
        "decoder_vocab_size": None if shared else int(rng.integers(20, 200)),
        "tie_word_embeddings": bool(rng.integers(2)),
        "pad_token_id": pad,
        "decoder_start_token_id": pad,
    }
    theirs = random_model(seed, **changes)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = Transformer.from_pretrained(tmp_path / "theirs")
    compare(ours, theirs, seed)
    ours.save_pretrained(tmp_path / "ours")
    compare(ours, transformers.MarianMTModel.from_pretrained(tmp_path / "ours", attn_implementation="eager"), seed)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_dtypes_and_shards(tmp_path: Path, dtype: str, shard: str) -> None:
    random_model(3).to(getattr(torch, dtype)).save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "20KB")
    theirs = transformers.MarianMTModel.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")
    compare(Transformer.from_pretrained(tmp_path), theirs.eval())


def test_a_model_without_scores(tmp_path: Path) -> None:
    theirs = random_model(4, tie_word_embeddings=False)
    theirs.save_pretrained(tmp_path / "whole")
    theirs.model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"tensor 'lm_head\.weight' is missing"):
        Transformer.from_pretrained(tmp_path / "model")
    tied = random_model(4)
    tied.model.save_pretrained(tmp_path / "tied")
    tied.final_logits_bias.zero_()
    compare(Transformer.from_pretrained(tmp_path / "tied"), tied)


FIELDS: dict[str, dict[str, Any]] = {
    "ours": {"layer_norm_eps": 1e-2, "first_position": 3, "max_timescale": 50.0},
    "dropped layers": {"encoder_layerdrop": 0.5, "decoder_layerdrop": 0.5},
    "no padding": {"pad_token_id": None},
    "no such token": {"bos_token_id": 1000},
    "lists": {"eos_token_id": [0], "forced_eos_token_id": [0]},
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_that_change_nothing(tmp_path: Path, name: str) -> None:
    random_model(4).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | FIELDS[name]))
    theirs = transformers.MarianMTModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    compare(Transformer.from_pretrained(tmp_path), theirs)


def test_stored_positions(tmp_path: Path) -> None:
    """Theirs are read from the file, ours must be what is there."""
    theirs = random_model(4)
    tensors = {name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}
    for name in ("lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"):
        del tensors[name]
    theirs.save_pretrained(tmp_path)
    safetensors_torch.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    compare(Transformer.from_pretrained(tmp_path), theirs)


def test_a_tie_that_holds_no_longer(tmp_path: Path) -> None:
    """transformers writes and reads such a folder without its tie."""
    theirs = random_model(4)
    theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.detach() + 0.5)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"'lm_head\.weight' must be 'model\.shared\.weight', to which the config ties it"
    ):
        Transformer.from_pretrained(tmp_path)
    compare(Transformer.from_pretrained(tmp_path, tie_word_embeddings=False), theirs)


@pytest.mark.parametrize("name", CASES)
def test_transformers_reads_what_is_saved(tmp_path: Path, name: str) -> None:
    theirs = random_model(5, **CASES[name])
    theirs.save_pretrained(tmp_path / "theirs")
    ours = Transformer.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    again, report = transformers.MarianMTModel.from_pretrained(
        tmp_path / "ours", output_loading_info=True, attn_implementation="eager"
    )
    assert not any(report.values()), report
    before, after = theirs.state_dict(), again.state_dict()
    assert set(before) - set(after) <= {"model.shared.weight"}  # without ties nothing of theirs uses it
    for key, tensor in after.items():
        assert torch.equal(tensor, before[key]), key
    for field in (*SIZES, "activation_function", "scale_embedding", "eos_token_id", "forced_eos_token_id", "dropout"):
        assert getattr(again.config, field) == getattr(theirs.config, field), field
        if hasattr(theirs.generation_config, field):
            assert getattr(again.generation_config, field) == getattr(theirs.generation_config, field), field
    compare(ours, again)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_reads_a_new_model(tmp_path: Path, shared: bool, tied: bool) -> None:
    from fastattn.models import TransformerConfig

    names = {"share_encoder_decoder_embeddings": shared, "tie_word_embeddings": tied}
    config = TransformerConfig(**SIZES | names, position_embedding_type="marian", eos_token_id=0)
    assert config.is_marian
    ours = Transformer(config, trainable=False)
    ours.save_pretrained(tmp_path)
    theirs, report = transformers.MarianMTModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    arrays = batch(0, theirs.config)
    with torch.no_grad():
        expected = theirs(**{name: torch.tensor(ids, dtype=torch.long) for name, ids in arrays.items()}).logits
    kept = arrays["decoder_attention_mask"]
    a, b = array(ours(**arrays).logits)[kept], expected.numpy()[kept]
    assert np.abs(a - b).max() <= PARITY * np.abs(b).max()


def theirs_greedy(model: Any, ids: Any, mask: Any, **options: Any) -> Any:
    arrays = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask, dtype=torch.long)}
    return model.generate(**arrays, num_beams=1, do_sample=False, **options).numpy()


@pytest.mark.parametrize("ends", [0.0, 2.0])
@pytest.mark.parametrize("name", CASES)
def test_greedy_decoding(tmp_path: Path, name: str, ends: float) -> None:
    theirs = random_model(6, ends, **CASES[name])
    theirs.save_pretrained(tmp_path)
    ours = Transformer.from_pretrained(tmp_path)
    arrays = batch(7, theirs.config)
    no_repetition = [[i, i] for i in range(theirs.config.decoder_vocab_size)]
    ids, mask = arrays["input_ids"], arrays["attention_mask"]
    for options in (
        {"max_length": 2},
        {"max_length": 40},
        {"max_new_tokens": 13},
        {"max_length": 30, "bad_words_ids": [[theirs.config.pad_token_id]]},
        {"max_length": 40, "bad_words_ids": no_repetition},
    ):
        np.testing.assert_array_equal(generate(ours, ids, mask, **options), theirs_greedy(theirs, ids, mask, **options))
    words = generate(ours, ids, mask, max_length=40, bad_words_ids=no_repetition)[0].tolist()
    end = theirs.config.eos_token_id
    phrases = [
        *no_repetition,
        words[1:2],
        words[2:4],
        words[3:6],
        *([i] for i in (end if type(end) is list else [end])),
    ]
    options = {"max_length": 25, "bad_words_ids": [phrase for phrase in phrases if phrase]}
    np.testing.assert_array_equal(generate(ours, ids, mask, **options), theirs_greedy(theirs, ids, mask, **options))


def test_settings_of_generation_config(tmp_path: Path) -> None:
    theirs = random_model(8, ends=1.0)
    ids = np.random.default_rng(1).integers(1, 60, (3, 9))
    first = theirs_greedy(theirs, ids, np.ones_like(ids), max_length=12)[0, 1:3].tolist()
    theirs.generation_config.max_length = 12
    theirs.generation_config.forced_eos_token_id = 5
    theirs.generation_config.bad_words_ids = [[first[0]], first]
    theirs.save_pretrained(tmp_path)
    ours = Transformer.from_pretrained(tmp_path)
    expected = theirs_greedy(theirs, ids, np.ones_like(ids))
    np.testing.assert_array_equal(generate(ours, ids), expected)
    ours.save_pretrained(tmp_path / "again")
    again = transformers.MarianMTModel.from_pretrained(tmp_path / "again")
    np.testing.assert_array_equal(theirs_greedy(again, ids, np.ones_like(ids)), expected)
    settings = json.loads((tmp_path / "generation_config.json").read_text())
    phrases = [[i, i] for i in range(61)]
    for changes in ({"max_new_tokens": 5}, {"pad_token_id": 7}, {"pad_token_id": None}, {"eos_token_id": [0]}):
        changed = {name: value for name, value in (settings | changes).items() if value is not None}
        (tmp_path / "generation_config.json").write_text(json.dumps(changed))
        theirs = transformers.MarianMTModel.from_pretrained(tmp_path)
        wanted = theirs_greedy(theirs, ids, np.ones_like(ids), bad_words_ids=phrases)
        np.testing.assert_array_equal(
            generate(Transformer.from_pretrained(tmp_path), ids, bad_words_ids=phrases), wanted, err_msg=str(changes)
        )
    # the folders of opus-mt have them in config.json, and no generation_config.json at first
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"max_length": 12, "forced_eos_token_id": 5, "bad_words_ids": [[first[0]], first]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").unlink()
    np.testing.assert_array_equal(generate(Transformer.from_pretrained(tmp_path), ids), expected)
