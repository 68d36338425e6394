"""ModernBERT, NomicBERT and GTE: what is refused, files of other code, long texts, and windows."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_families import draw_fields, new_model

import fastattn
from fastattn import nn
from fastattn.formats.hugging_face import write_checkpoint
from fastattn.models import GteModel, ModernBertConfig, NomicBertModel
from fastattn.models.registry import family, load_encoder, load_head

ROTARY = ("gte", "modernbert", "nomic_bert")
SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
AUTHORS: dict[str, Any] = {
    "model_type": "nomic_bert",
    "architectures": ["NomicBertModel"],
    "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
    "vocab_size": 40,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_inner": 24,
    "n_positions": 64,
    "activation_function": "swiglu",
    "layer_norm_epsilon": 1e-12,
    "rotary_emb_base": 50,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "type_vocab_size": 2,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "prenorm": False,
    "parallel_block": False,
    "use_rms_norm": False,
    "resid_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
"""A config.json of the authors of NomicBERT. `auto_map` names code, which never runs."""


def small(name: str, **changes: Any) -> Any:
    """A frozen encoder with two layers, the second one with a window if the family has windows."""
    fields = {"max_position_embeddings": 8192, "pad_token_id": 0, "local_attention": 8, "initializer_range": 0.3}
    known = family(name).config.__dataclass_fields__
    sizes = {field: value for field, value in {**SIZES, **fields, **changes}.items() if field in known}
    fastattn.manual_seed(1)
    model: Any = family(name).encoder
    return model(family(name).config(**sizes)).eval().freeze()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gte", {"rope_scaling": {"type": "ntk", "factor": 8.0}}, "rope_scaling: rope_type is 'ntk'; only 'default'"),
        ("gte", {"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters: rope_type is 'yarn'; only 'default'"),
        ("gte", {"rope_parameters": {"rope_theta": 0}}, "rope_parameters: rope_theta must be a number above 0, got 0"),
        ("gte", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5; only 1.0"),
        ("gte", {"rope_parameters": 3}, "rope_parameters must be an object, got 3"),
        ("gte", {"hidden_act": "linear"}, "hidden_act must be one of gelu, .*, got 'linear'"),
        ("gte", {"position_embedding_type": "alibi"}, "position_embedding_type must be .*rope, got 'alibi'"),
        ("gte", {"hidden_size": 15, "num_attention_heads": 3}, "into heads of an even size, got 3 and 15"),
        ("gte", {"type_vocab_size": -1}, "type_vocab_size must be .*, got -1"),
        ("nomic_bert", {"head_dim": 4, "hidden_size": 16, "num_attention_heads": 2}, "head_dim must be .*, got 4"),
        ("nomic_bert", {"hidden_act": "xielu"}, "hidden_act must be one of .*, got 'xielu'"),
        ("nomic_bert", {"type_vocab_size": 0}, "type_vocab_size must be a positive integer, got 0"),
        ("modernbert", {"hidden_activation": "mish"}, "hidden_activation must be one of .*, got 'mish'"),
        ("modernbert", {"rope_scaling": {"rope_type": "linear"}}, "rope_scaling: rope_type is 'linear'"),
        (
            "modernbert",
            {"rope_parameters": {"sliding_attention": {"rope_type": "dynamic"}}},
            "rope_parameters: sliding_attention: rope_type is 'dynamic'",
        ),
        ("modernbert", {"rope_parameters": "x"}, "rope_parameters must be an object, got 'x'"),
        ("modernbert", {"layer_types": ["full_attention"], "num_hidden_layers": 2}, "the kind of 2 layers, got"),
        ("modernbert", {"layer_types": ["chunked"] * 9}, "layer_types must be .*, got 'chunked'"),
        ("modernbert", {"layer_types": 3}, "layer_types must name the kind of . layers, got 3"),
        ("modernbert", {"local_attention": 0}, "local_attention must be a positive integer, got 0"),
        ("modernbert", {"classifier_pooling": "max"}, "classifier_pooling must be one of cls, mean, got 'max'"),
        ("modernbert", {"global_rope_theta": -1.0, "rope_parameters": None}, "global_rope_theta.* got -1.0"),
        ("modernbert", {"norm_bias": "no"}, "norm_bias must be a bool, got 'no'"),
    ],
)
def test_what_is_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        family(name).config.from_dict({**draw_fields(name, 1), **changes})


def test_fields_of_old_files() -> None:
    """The thetas and the kinds of layers, as they are in the files of 2024."""
    old = {"model_type": "modernbert", **SIZES, "pad_token_id": 0, "global_rope_theta": 7.0, "local_rope_theta": 8.0}
    config = ModernBertConfig.from_dict({**old, "global_attn_every_n_layers": 2, "num_hidden_layers": 3})
    assert config.layer_types == ("full_attention", "sliding_attention", "full_attention")
    assert (config.global_rope_theta, config.local_rope_theta) == (7.0, 8.0)
    again = ModernBertConfig.from_dict(config.to_dict())
    assert again == config
    assert config.replace(num_hidden_layers=2).layer_types == ("full_attention", "sliding_attention")
    gte = family("gte").config.from_dict({"model_type": "gte", **SIZES, "rope_theta": 9.0})
    assert gte.to_dict()["rope_parameters"] == {"rope_type": "default", "rope_theta": 9.0}
    assert family("gte").config.from_dict(gte.to_dict()) == gte


def test_a_folder_of_the_authors_of_nomic_bert(tmp_path: Path) -> None:
    """Their names of fields and tensors; three tensors are stacked in one."""
    config = family("nomic_bert").config.from_dict(AUTHORS)
    assert (config.hidden_size, config.num_hidden_layers, config.max_position_embeddings) == (16, 2, 64)
    assert (config.hidden_act, config.rope_theta) == ("silu", 50.0)
    model: Any = family("nomic_bert").head("MaskedLM")(config)
    state, theirs = model.state_dict(), {}
    for name, array in state.items():
        for old, new in NomicBertModel.other_names.items():
            name = name.replace(new, old)
        theirs[name.replace("nomic_bert.", "bert.").replace("bert.layers.", "bert.encoder.layers.")] = array
    for i in range(2):
        begin = f"bert.encoder.layers.{i}."
        parts = [theirs.pop(f"{begin}self_attn.{part}_proj.weight") for part in "qkv"]
        theirs[f"{begin}attn.Wqkv.weight"] = np.concatenate(parts)
    assert not any("self_attn" in name or "mlp.up" in name or "post_" in name for name in theirs)
    write_checkpoint(tmp_path, {**AUTHORS, "architectures": ["NomicBertForPreTraining"]}, theirs)
    loaded = load_head(tmp_path, "MaskedLM", new_head="refuse")
    for name, array in loaded.state_dict().items():
        assert_same_bits(array, state[name])
    encoder = load_encoder(tmp_path)
    ids = np.array([[1, 2, 3]])
    assert_same_bits(encoder(ids).last_hidden_state, model.eval().freeze().nomic_bert(ids).last_hidden_state)


def test_names_of_the_authors_of_gte(tmp_path: Path) -> None:
    """Of tensors, two kinds of them stacked, in a folder of the `model_type` "gte": transformers reads it too."""
    model = new_model("gte", "MaskedLM", num_hidden_layers=2)
    state, theirs = model.state_dict(), {}
    for name, array in state.items():
        for old, new in GteModel.other_names.items():
            name = name.replace(new, old)
        theirs[f"new.{name.removeprefix('gte.')}" if name.startswith("gte.") else name] = array
    for i in range(2):
        begin = f"new.encoder.layer.{i}."
        for stacked, parts in GteModel.stacked.items():
            ends = [end for end in ("weight", "bias") if f"{begin}{parts[0]}{end}" in theirs]
            for end in ends:
                rows = [theirs.pop(f"{begin}{part}{end}") for part in parts]
                theirs[f"{begin}{stacked}{end}"] = np.concatenate(rows)
    assert not any(name.startswith("gte.") or "q_proj" in name or ".gate_proj" in name for name in theirs)
    write_checkpoint(tmp_path, model.config.to_dict("GteForMaskedLM"), theirs)
    loaded = load_head(tmp_path, "MaskedLM", new_head="refuse")
    for name, array in loaded.state_dict().items():
        assert_same_bits(array, state[name])
    pytest.importorskip("torch", reason="torch, the other side of the comparison, is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers, the other side, is not installed")
    found, report = transformers.GteForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    for name, tensor in found.state_dict().items():
        assert_same_bits(tensor.numpy(), state[name])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rotary_emb_fraction", 0.0),
        ("rotary_emb_interleaved", True),
        ("rotary_emb_scale_base", 512),
        ("rotary_scaling_factor", 2),
        ("prenorm", True),
        ("parallel_block", True),
        ("use_rms_norm", True),
        ("qkv_proj_bias", True),
        ("mlp_fc1_bias", True),
        ("mlp_fc2_bias", True),
        ("moe_every_n_layers", 2),
        ("causal", True),
        ("scale_attn_weights", False),
        ("scale_attn_by_inverse_layer_idx", True),
    ],
)
def test_options_of_the_authors_of_nomic_bert(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{field} is {value}; NomicBertModel supports only"):
        family("nomic_bert").config.from_dict({**AUTHORS, field: value})
    with pytest.raises(ValueError, match="activation_function must be one of 'swiglu', 'geglu', got 'gelu'"):
        family("nomic_bert").config.from_dict({**AUTHORS, "activation_function": "gelu"})


@pytest.mark.parametrize(
    ("field", "value"),
    [("rotary_emb_fraction", 0.0), ("qkv_proj_bias", True), ("mlp_fc1_bias", True), ("mlp_fc2_bias", True)],
)
def test_options_that_the_authors_of_nomic_bert_leave_out(field: str, value: Any) -> None:
    values = {name: value for name, value in AUTHORS.items() if name != field}
    with pytest.raises(ValueError, match=rf"{field} is {value}, as it is where the field is missing; NomicBertModel"):
        family("nomic_bert").config.from_dict(values)


@pytest.mark.parametrize("given", [{"rope_type": "yarn", "factor": 4.0}, {"rope_type": "default", "rope_theta": 77.0}])
def test_modern_bert_has_positions_of_each_kind_of_layer(given: dict[str, Any]) -> None:
    values = {**draw_fields("modernbert", 0), "rope_parameters": given}
    with pytest.raises(ValueError, match=r"rope_parameters must have 'full_attention' and .*, got 'rope_"):
        family("modernbert").config.from_dict(values)


def test_stacked_tensors_that_cannot_be_shared(tmp_path: Path) -> None:
    state = dict(new_model("nomic_bert", num_hidden_layers=1).state_dict())
    for part in "qkv":
        del state[f"layers.0.self_attn.{part}_proj.weight"]
    state["encoder.layers.0.attn.Wqkv.weight"] = np.zeros((7, 8), np.float32)
    write_checkpoint(tmp_path, draw_fields("nomic_bert", 0, num_hidden_layers=1), state)
    with pytest.raises(ValueError, match=r"Wqkv.weight' must have rows for 3 tensors, got shape \(7, 8\)"):
        load_encoder(tmp_path)


def test_the_first_block_of_modernbert_has_no_norm() -> None:
    """Source: `ModernBertEncoderLayer` of transformers. The norm of the embeddings is in its place."""
    assert [name for name in small("modernbert").state_dict() if "attn_norm" in name] == ["layers.1.attn_norm.weight"]


@pytest.mark.parametrize("name", ROTARY)
def test_memory_grows_linearly(name: str) -> None:
    """Of 8,192 tokens, and of a training step: eight times the tokens take eight times the bytes, not 64 times."""
    frozen, trainable = small(name), family(name).encoder(small(name).config)  # type: ignore[misc]
    for call, lengths in (
        (lambda ids: frozen(ids), (1024, 8192)),
        (lambda ids: trainable(ids).last_hidden_state.sum().backward(), (256, 2048)),
    ):
        peaks = []
        for tokens in lengths:
            ids = np.arange(tokens)[None] % 40
            call(ids)
            tracemalloc.start()
            call(ids)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < 12 * peaks[0]
        assert peaks[1] < lengths[1] * 4 * 40 * SIZES["hidden_size"]


@pytest.mark.parametrize("name", ROTARY)
def test_positions(name: str) -> None:
    """Beyond the config's they are refused; only their differences count, except at the window's edges."""
    model = small(name, max_position_embeddings=30)
    ids = np.arange(12)[None]
    with pytest.raises(ValueError, match="max_position_embeddings is 30"):
        model(np.zeros((1, 31), np.int64))
    first = model.forward_ragged(ids[0], [0, 12]).last_hidden_state
    later = model.forward_ragged(ids[0], [0, 12], position_ids=np.arange(18, 30)).last_hidden_state
    np.testing.assert_allclose(later, first, atol=1e-4)
    other = model.forward_ragged(ids[0], [0, 12], position_ids=np.arange(12)[::-1] * 2).last_hidden_state
    assert np.abs(other - first).max() > 1e-2


def test_a_window_sees_near_tokens_alone() -> None:
    """With local layers only, a change reaches so far in each layer."""
    model = small("modernbert", layer_types=["sliding_attention"] * 2, num_hidden_layers=2, local_attention=6)
    ids = np.arange(30)[None] % 40
    other = ids.copy()
    other[0, 10] = 39
    a, b = model(ids).last_hidden_state[0], model(other).last_hidden_state[0]
    changed = np.flatnonzero((a != b).any(axis=1))
    assert changed.tolist() == list(range(10 - 6, 10 + 7))


def test_a_gap_changes_distances() -> None:
    model, ids = small("modernbert"), np.arange(8).reshape(2, 4)
    with pytest.raises(ValueError, match="attention_mask must keep neighbouring tokens, got a gap in row 1"):
        model(ids, [[0, 1, 1, 0], [1, 0, 1, 1]])


def test_layers_of_modern_bert() -> None:
    model = small("modernbert", num_hidden_layers=4)
    blocks: list[nn.EncoderBlock] = model.layers
    assert [block.self_attn.window for block in blocks] == [None, (4, 4), (4, 4), None]
    thetas = [block.self_attn.rotary.max_timescale for block in blocks]
    assert thetas == [160000.0, 10000.0, 10000.0, 160000.0]
    assert [block.self_attn_layer_norm is None for block in blocks] == [True, False, False, False]
