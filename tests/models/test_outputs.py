"""Outputs of models: what they give does not depend on when it is read, nor on which layers are frozen."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from fastattn import Tensor, no_grad
from fastattn.models import BertConfig, BertForMaskedLM, BertForTokenClassification

SIZES: dict[str, Any] = {
    "vocab_size": 30,
    "hidden_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}
IDS = np.array([[2, 5, 7], [3, 4, 9]])


def test_logits_that_are_read_in_no_grad_stay_on_the_tape() -> None:
    model = BertForMaskedLM(BertConfig(**SIZES)).eval()
    output = model(IDS)
    with no_grad():
        assert output.logits.requires_grad
    output.logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_logits_of_a_call_in_no_grad_are_not_recorded() -> None:
    model = BertForMaskedLM(BertConfig(**SIZES)).eval()
    with no_grad():
        output = model(IDS)
    assert isinstance(output.logits, Tensor)
    assert not output.logits.requires_grad


def test_an_output_of_a_frozen_model_is_pickled() -> None:
    model = BertForMaskedLM(BertConfig(**SIZES), trainable=False)
    output = model(IDS, output_hidden_states=True)
    again = pickle.loads(pickle.dumps(output))
    np.testing.assert_array_equal(again.logits, output.logits)
    assert again.keys() == output.keys()


@pytest.mark.parametrize("frozen", ["one layer", "encoder"])
def test_a_partly_frozen_model_gives_tensors(frozen: str) -> None:
    model = BertForTokenClassification(BertConfig(**SIZES, num_labels=3)).eval()
    if frozen == "encoder":
        model.bert.freeze()
    else:
        model.bert.embeddings.freeze()
        model.bert.layers[0].freeze()
    output = model(IDS, output_hidden_states=True, output_attentions=True)
    assert all(isinstance(x, Tensor) for x in (output.logits, *output.hidden_states, *output.attentions))
    output.logits.sum().backward()
    assert model.classifier.weight.grad is not None
