"""BertModel against transformers on random configurations, and folders exchanged both ways."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastattn.models import BertModel
from fastattn.models.config import ACTIVATIONS

torch = pytest.importorskip("torch", reason="torch, the other side of the parity tests, is not installed")
transformers = pytest.importorskip(
    "transformers", reason="transformers, the other side of the parity tests, is not installed"
)

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not our errors

PARITY = 2e-5
SHAPES = [  # hidden_size, num_attention_heads, intermediate_size, num_hidden_layers, batch, seq
    (8, 1, 8, 1, 1, 1),
    (12, 3, 7, 2, 2, 2),
    (30, 2, 65, 1, 3, 17),
    (33, 11, 129, 3, 5, 9),
    (64, 4, 256, 2, 4, 33),
    (65, 1, 31, 2, 2, 64),
    (96, 12, 384, 2, 7, 31),
    (256, 1, 48, 1, 2, 15),
    (128, 2, 512, 2, 3, 100),
]


def random_model(
    seed: int, shape: tuple[int, ...], act: str = "gelu", kind: str = "BertModel", eps: float = 1e-12
) -> Any:
    """A transformers model with weights large enough for attention to choose."""
    dim, heads, hidden, layers, _, seq = shape
    config = transformers.BertConfig(
        vocab_size=97,
        hidden_size=dim,
        num_attention_heads=heads,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        max_position_embeddings=seq + 3,
        type_vocab_size=3,
        hidden_act=act,
        layer_norm_eps=eps,
        attn_implementation="eager",
    )
    model = getattr(transformers, kind)(config).eval()
    generator = torch.Generator().manual_seed(seed)
    spread = dim**-0.5
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "LayerNorm.weight" in name else 0.0, spread, generator=generator)
    return model


def masks(rng: np.random.Generator, batch: int, seq: int) -> dict[str, Any]:
    """Right and left padding and holes; every row keeps a token, as transformers needs."""
    sizes = rng.integers(1, seq + 1, batch)[:, None]
    right = np.arange(seq) < sizes
    holes = rng.random((batch, seq)) < 0.7
    holes[np.arange(batch), rng.integers(0, seq, batch)] = True
    return {"none": None, "right": right, "left": right[:, ::-1].copy(), "holes": holes}


def compare(ours: BertModel, theirs: Any, seed: int, batch: int, seq: int) -> None:
    rng = np.random.default_rng(seed)
    ids, types = rng.integers(0, 97, (batch, seq)), rng.integers(0, 3, (batch, seq))
    for name, mask in masks(rng, batch, seq).items():
        actual = ours(ids, mask, types, output_hidden_states=True, output_attentions=True)
        with torch.no_grad():
            expected = theirs(
                torch.tensor(ids),
                attention_mask=None if mask is None else torch.tensor(mask, dtype=torch.long),
                token_type_ids=torch.tensor(types),
                output_hidden_states=True,
                output_attentions=True,
            )
        seen = np.ones((batch, seq), bool) if mask is None else mask
        assert actual.hidden_states is not None
        assert actual.attentions is not None
        pairs = [(actual.last_hidden_state, expected.last_hidden_state, seen[..., None])]
        pairs += zip(actual.hidden_states, expected.hidden_states, itertools.repeat(seen[..., None]), strict=False)
        pairs += zip(actual.attentions, expected.attentions, itertools.repeat(seen[:, None, :, None]), strict=False)
        assert len(actual.hidden_states) == len(expected.hidden_states)
        assert len(actual.attentions) == len(expected.attentions)
        for a, b, kept in pairs:
            np.testing.assert_allclose(a, b.numpy() * kept, rtol=0, atol=PARITY, err_msg=name)
        if expected.pooler_output is None:
            assert actual.pooler_output is None
            continue
        assert actual.pooler_output is not None
        first = seen[:, 0]  # transformers pools column 0 even where it is padding
        a, b = actual.pooler_output[first], expected.pooler_output.numpy()[first]
        np.testing.assert_allclose(a, b, rtol=0, atol=PARITY, err_msg=name)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
def test_random_configurations(tmp_path: Path, shape: tuple[int, ...]) -> None:
    theirs = random_model(1, shape)
    theirs.save_pretrained(tmp_path)
    compare(BertModel.from_pretrained(tmp_path), theirs, 2, *shape[-2:])


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_every_activation(tmp_path: Path, act: str) -> None:
    shape = (48, 4, 100, 2, 3, 12)
    theirs = random_model(3, shape, act, eps=1e-5)
    theirs.save_pretrained(tmp_path)
    compare(BertModel.from_pretrained(tmp_path), theirs, 4, *shape[-2:])


@pytest.mark.parametrize(
    "kind",
    ["BertForMaskedLM", "BertForPreTraining", "BertForSequenceClassification", "BertForTokenClassification"],
)
def test_models_with_a_head(tmp_path: Path, kind: str) -> None:
    shape = (48, 4, 100, 2, 3, 12)
    theirs = random_model(5, shape, kind=kind)
    theirs.save_pretrained(tmp_path)
    compare(BertModel.from_pretrained(tmp_path), theirs.bert, 6, *shape[-2:])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shard", ["1GB", "40KB"])
def test_dtypes_and_shards(tmp_path: Path, dtype: str, shard: str) -> None:
    shape = (48, 4, 100, 2, 3, 12)
    random_model(7, shape).to(getattr(torch, dtype)).save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "40KB")
    theirs = transformers.BertModel.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    compare(BertModel.from_pretrained(tmp_path), theirs, 8, *shape[-2:])


def test_transformers_reads_what_is_saved(tmp_path: Path) -> None:
    shape = (48, 4, 100, 2, 3, 12)
    theirs = random_model(9, shape, "gelu_new", eps=1e-6)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = BertModel.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    again, report = transformers.BertModel.from_pretrained(
        tmp_path / "ours", output_loading_info=True, attn_implementation="eager"
    )
    assert not any(report.values()), report
    for (name, a), (other, b) in zip(theirs.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b), name
    for field, value in ours.config.to_dict().items():
        if field not in ("architectures", "position_embedding_type"):
            assert getattr(again.config, field) == value
    compare(ours, again, 10, *shape[-2:])


def test_minilm(minilm: Path) -> None:
    theirs = transformers.BertModel.from_pretrained(minilm, attn_implementation="eager").eval()
    ours = BertModel.from_pretrained(minilm)
    rng = np.random.default_rng(0)
    for batch, seq in ((1, 8), (3, 50), (1, 512)):
        ids = rng.integers(1000, 30000, (batch, seq))
        mask = np.arange(seq) < rng.integers(1, seq + 1, (batch, 1))
        actual = ours(ids, mask, output_hidden_states=True, output_attentions=True)
        with torch.no_grad():
            expected = theirs(
                torch.tensor(ids),
                attention_mask=torch.tensor(mask, dtype=torch.long),
                output_hidden_states=True,
                output_attentions=True,
            )
        for a, b in zip(actual.hidden_states or (), expected.hidden_states, strict=True):
            np.testing.assert_allclose(a, b.numpy() * mask[..., None], rtol=0, atol=PARITY)
        for a, b in zip(actual.attentions or (), expected.attentions, strict=True):
            np.testing.assert_allclose(a, b.numpy() * mask[:, None, :, None], rtol=0, atol=PARITY)
        np.testing.assert_allclose(actual.pooler_output, expected.pooler_output.numpy(), rtol=0, atol=PARITY)
