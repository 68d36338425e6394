"""The parameters of a model by layer, for rates by layer and gradual unfreezing."""

from __future__ import annotations

from typing import Any

import helpers_language_model
import numpy as np
import pytest
from helpers_families import HEADS, ROWS, make_call, new_model
from helpers_transformer import small_transformer

from fastattn.models import AwdLstmConfig, AwdLstmForLanguageModel, Transformer

SIZES = {"vocabulary_size": 9, "embedding_dim": 4, "dim": 6, "n_layers": 2}


def groups_of(model: Any) -> list[set[str]]:
    """The first names of the parameters in each group. Every parameter is in one."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [[names.pop(id(parameter)) for parameter in group] for group in model.layer_groups()]
    assert not names
    return [{*group} for group in groups]


@pytest.mark.parametrize(("name", "kind"), [(name, "") for name in ROWS] + HEADS)
def test_encoders(name: str, kind: str) -> None:
    fields = {"num_hidden_groups": 3, "num_hidden_layers": 3} if name == "albert" else {}
    tied = {} if name in ("albert", "distilbert") else {"tie_word_embeddings": False}
    model = new_model(name, kind, **fields, **tied)
    groups = groups_of(model)
    field = next(iter(model.layer_names))
    begin = model.layer_names[field]
    layers = getattr(model.config, field)
    for i in range(layers):
        assert any(begin.format(i) in group_name for group_name in groups[i + 1])
        assert all(other.startswith(begin.format(i)) for other in groups[i + 1])
    if kind not in ("MaskedLM", "PreTraining"):  # whose tables may be those of the embeddings
        assert any("embedding" in own for own in groups[0])
    assert len(groups) - layers in (1, 2)
    if kind:
        assert len(groups) == layers + 2


def test_what_is_below_the_trained_layers_is_not_recorded() -> None:
    model = new_model("bert", "SequenceClassification", num_hidden_layers=3)
    *low, _, _ = model.layer_groups()
    for group in low:
        for parameter in group:
            parameter.requires_grad = False
    call = make_call("SequenceClassification", model.config, "", np.random.default_rng(0))
    output = model(**call, output_hidden_states=True)
    recorded = [x.requires_grad for x in output.hidden_states]
    assert recorded == [False, False, False, True]
    output.loss.backward()
    assert {id(p) for p in model.parameters() if p.grad is None} == {id(p) for group in low for p in group}


@pytest.mark.parametrize("direction", ["forward", "both"])
def test_an_awd_lstm(direction: str) -> None:
    model = AwdLstmForLanguageModel(AwdLstmConfig(**SIZES, direction=direction, tie_weights=False))
    groups = groups_of(model)
    count = len(model.networks)
    assert groups[0] == {f"networks.{i}.embedding.weight" for i in range(count)}
    for number in range(2):
        assert len(groups[number + 1]) == 4 * count
        assert all(f".layers.{number}." in name for name in groups[number + 1])
    assert groups[3] == {f"decoders.{i}.{name}" for i in range(count) for name in ("weight", "bias")}
    tied = groups_of(AwdLstmForLanguageModel(AwdLstmConfig(**SIZES, direction=direction)))
    assert tied[:2] == groups[1:3]
    assert "networks.0.embedding.weight" in tied[2]


def test_a_bidirectional_language_model() -> None:
    groups = groups_of(helpers_language_model.make())
    assert len(groups) == 4
    assert all(name.startswith("network.token_encoder.") for name in groups[0])
    for number in range(2):
        assert all(name.startswith(f"network.layers.{number}.") for name in groups[number + 1])


def test_a_transformer() -> None:
    model = Transformer(small_transformer().config)
    groups = groups_of(model)
    sides = [[name for name in ("encoder", "decoder") if any(f"{name}.layers" in x for x in group)] for group in groups]
    assert [side for found in sides for side in found] == ["encoder"] * 3 + ["decoder"] * 3
