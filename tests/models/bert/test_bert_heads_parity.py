"""BERT's heads against transformers: loss, logits, every gradient, and folders exchanged both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import array
from helpers_heads import CASES, Case, assert_gradients, make_case, weights

from fastattn import models

torch = pytest.importorskip("torch", reason="torch, the other side of the parity tests, is not installed")
transformers = pytest.importorskip(
    "transformers", reason="transformers, the other side of the parity tests, is not installed"
)

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not our errors

LARGER = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 100}


def random_model(case: Case) -> Any:
    """A transformers model with weights large enough for attention to choose."""
    config = transformers.BertConfig(**{**case.config, **LARGER}, attn_implementation="eager")
    model = getattr(transformers, case.kind)(config).eval()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, array in weights({name: tuple(p.shape) for name, p in parameters.items()}, 0.15).items():
            parameters[name].copy_(torch.tensor(array))
    return model


def theirs_of(model: Any, call: dict[str, Any]) -> Any:
    arguments = {name: torch.tensor(value) for name, value in call.items()}
    return model(**{name: x.to(model.dtype) if x.is_floating_point() else x for name, x in arguments.items()})


def compare_logits(ours: Any, expected: Any, mask: Any) -> None:
    for name in ("logits", "start_logits", "end_logits", "prediction_logits", "seq_relationship_logits"):
        if not hasattr(expected, name):
            assert not hasattr(ours, name)
            continue
        actual, wanted = array(getattr(ours, name)), getattr(expected, name).detach().numpy()
        assert actual.shape == wanted.shape
        if wanted.shape[:2] == mask.shape:  # of tokens
            np.testing.assert_array_equal(actual[mask == 0], 0)
            actual, wanted = actual[mask == 1], wanted[mask == 1]
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("name", CASES)
def test_loss_logits_and_gradients(tmp_path: Path, name: str) -> None:
    """Theirs are computed in float64: some gradients are sums that cancel to 0, and rounding would be all of them."""
    case = make_case(name)
    kind, call = case.kind, case.call
    theirs = random_model(case)
    theirs.save_pretrained(tmp_path)
    ours = getattr(models, kind).from_pretrained(tmp_path)
    theirs = theirs.double()

    expected, actual = theirs_of(theirs, call), ours(**call)
    compare_logits(actual, expected, call["attention_mask"])
    expected.loss.backward()
    actual.loss.backward()
    assert actual.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)

    wanted = {name: p.grad.numpy() for name, p in theirs.named_parameters() if p.grad is not None}
    got = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    assert {name for name, _ in ours.named_parameters()} == {name for name, _ in theirs.named_parameters()}
    assert_gradients(got, wanted)


@pytest.mark.parametrize("name", CASES)
def test_transformers_reads_what_is_saved(tmp_path: Path, name: str) -> None:
    case = make_case(name)
    kind, call = case.kind, case.call
    theirs = random_model(case)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = getattr(models, kind).from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    again, report = getattr(transformers, kind).from_pretrained(
        tmp_path / "ours", output_loading_info=True, attn_implementation="eager"
    )
    assert not any(report.values()), report
    states = theirs.state_dict(), again.state_dict()
    assert list(states[0]) == list(states[1])
    for name in states[0]:
        assert torch.equal(states[0][name], states[1][name]), name
    for field in ("num_labels", "id2label", "label2id", "problem_type", "tie_word_embeddings", "classifier_dropout"):
        assert getattr(again.config, field) == getattr(theirs.config, field)
    assert again.config.architectures == [kind]
    assert theirs_of(again.eval(), call).loss.item() == theirs_of(theirs, call).loss.item()


@pytest.mark.parametrize("name", CASES)
def test_a_head_over_an_encoder_alone(tmp_path: Path, name: str) -> None:
    """What transformers would draw at random is drawn and named; its own state dict then fits."""
    case = make_case(name)
    kind, call = case.kind, case.call
    theirs = random_model(case)
    encoder = transformers.BertModel(theirs.config, add_pooling_layer=theirs.bert.pooler is not None)
    encoder.load_state_dict(theirs.bert.state_dict())
    encoder.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=rf"{kind}: .* drawn at random") as caught:
        ours = getattr(models, kind).from_pretrained(tmp_path, **{**case.config, **LARGER})
    text = str(caught[0].message)
    for name, _ in theirs.named_parameters():
        assert (name in text) == (not name.startswith("bert."))
    ours.load_state_dict({name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    assert ours(**call).loss.item() == pytest.approx(theirs_of(theirs, call).loss.item(), rel=1e-5)


def test_first_values_are_distributed_as_theirs() -> None:
    config = {
        **make_case("BertForPreTraining").config,
        "vocab_size": 2000,
        "hidden_size": 60,
        "initializer_range": 0.05,
    }
    theirs = transformers.BertForPreTraining(transformers.BertConfig(**config))
    ours = models.BertForPreTraining(models.BertConfig(**config))
    mine = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        array, wanted = mine[name].data, parameter.detach().numpy()
        spread = wanted.std()
        if spread == 0:  # biases, and LayerNorm's weights
            np.testing.assert_array_equal(array, wanted)
            continue
        error = 5 / np.sqrt(array.size)
        assert abs(array.mean()) < spread * error, name
        assert array.std() == pytest.approx(0.05, rel=error), name
        np.testing.assert_array_equal(np.flatnonzero(~array.any(-1)), np.flatnonzero(~wanted.any(-1)), name)
