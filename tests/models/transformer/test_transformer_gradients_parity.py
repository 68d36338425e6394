"""Loss, logits and every gradient of the Transformer against torch, and against transformers' MarianMTModel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers_heads import assert_gradients
from helpers_transformer import CASES, OTHER, SIZES, call, config_of, make_model

from fastattn.models import Transformer

torch = pytest.importorskip("torch", reason="torch, the other side of the parity tests, is not installed")

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not our errors

LARGER = {"d_model": 48, "encoder_attention_heads": 4, "decoder_attention_heads": 6, "decoder_layers": 3}


def gradients(model: Transformer) -> dict[str, Any]:
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", CASES)
def test_against_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs are computed in float64: some gradients are sums that cancel to 0, and rounding would be all of them."""
    from helpers_transformer_torch import TorchTransformer

    for size, value in LARGER.items():
        monkeypatch.setitem(SIZES, size, value)
    theirs, arguments = TorchTransformer(name), call(name)
    expected, logits = theirs(**arguments)
    expected.backward()
    ours = make_model(name)
    output = ours(**arguments)
    assert output.loss is not None
    output.loss.backward()
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    counted, wanted = arguments["labels"] != -100, logits.detach().numpy()
    np.testing.assert_allclose(output.logits.data[counted], wanted[counted], rtol=0, atol=2e-5 * np.abs(wanted).max())
    assert_gradients(
        gradients(ours), {key: tensor.grad.numpy() for key, tensor in theirs.state.items() if tensor.requires_grad}
    )


@pytest.mark.parametrize("changes", [{}, {**OTHER, "pad_token_id": 16}])
@pytest.mark.parametrize("tied", [True, False])
def test_against_marian(changes: dict[str, Any], tied: bool) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers, the other side, is not installed")
    if not tied and not changes:  # then transformers shares nothing
        changes = {"share_encoder_decoder_embeddings": False}
    ours = make_model("marian", **LARGER, **changes, tie_word_embeddings=tied)
    config = transformers.MarianConfig(**ours.config.to_dict(), attn_implementation="eager")
    theirs = transformers.MarianMTModel(config)
    state = {name: torch.tensor(np.array(array)) for name, array in ours.state_dict().items()}
    missing, unknown = theirs.load_state_dict(state, strict=False)
    assert not unknown
    assert all(name.endswith(("embed_positions.weight", "embed_tokens.weight", "lm_head.weight")) for name in missing)
    theirs = theirs.double().eval()
    arguments = {**call("marian"), "label_smoothing": 0.0}
    labels = arguments["labels"]
    arguments["labels"] = np.where(labels < 0, labels, labels % ours.config.decoder_vocab_size)
    expected = theirs(
        **{key: torch.tensor(arguments[key]) for key in ("input_ids", "attention_mask", "labels")},
        output_attentions=True,
    )
    output = ours(**arguments, output_attentions=True)
    assert output.loss is not None
    assert output.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    seen, counted = arguments["attention_mask"] == 1, arguments["labels"] != -100
    memory = expected.encoder_last_hidden_state.detach().numpy()
    np.testing.assert_allclose(output.encoder_last_hidden_state.data[seen], memory[seen], rtol=0, atol=2e-5)
    for kind, rows in (("encoder_attentions", seen), ("decoder_attentions", counted), ("cross_attentions", counted)):
        for a, b in zip(getattr(output, kind), getattr(expected, kind), strict=True):
            kept = np.broadcast_to(rows[:, None], a.shape[:3])
            np.testing.assert_allclose(a.data[kept], b.detach().numpy()[kept], rtol=0, atol=2e-5)
    output.loss.backward()
    expected.loss.backward()
    wanted = {name: p.grad.numpy() for name, p in theirs.named_parameters() if p.grad is not None}
    assert_gradients(gradients(ours), wanted)


def test_their_first_values() -> None:
    """The padding's row is 0 in both, and what is drawn has the same spread."""
    transformers = pytest.importorskip("transformers", reason="transformers, the other side, is not installed")
    sizes = {"vocab_size": 800, "decoder_vocab_size": 800, "d_model": 64, "encoder_layers": 1, "decoder_layers": 1}
    config = config_of("marian", **{**sizes, "encoder_attention_heads": 4, "init_std": 0.05, "pad_token_id": 799})
    theirs = transformers.MarianMTModel(transformers.MarianConfig(**config.to_dict()))
    mine = dict(Transformer(config).named_parameters())
    wanted = {name: p.detach().numpy() for name, p in theirs.named_parameters() if "embed_positions" not in name}
    assert {*wanted} == {*mine} - {"final_logits_bias"}
    for name, array in wanted.items():
        assert mine[name].shape == array.shape
        assert mine[name].data.std() == pytest.approx(array.std(), rel=5 / array.size**0.5, abs=0.0), name
    np.testing.assert_array_equal(mine["model.shared.weight"].data[799], wanted["model.shared.weight"][799])
