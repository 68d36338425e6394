"""ULMFiT's classifier: its reading order, its gradients, its bits, folders, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_gradients import differences

from fastattn import functional as F
from fastattn import no_grad, use_reference
from fastattn.models import AwdLstmConfig, AwdLstmForLanguageModel, AwdLstmForSequenceClassification
from fastattn.random import manual_seed

SIZES: dict[str, Any] = {"vocabulary_size": 11, "embedding_dim": 5, "dim": 7, "n_layers": 2, "pooled_dim": 6}
CONFIG = AwdLstmConfig(**SIZES, num_labels=3)
TEXTS = [[0, 5, 6, 7, 1], [0, 1], [0, 9, 1], [0, 3, 3, 4, 10, 2, 1]]
OFFSETS = np.cumsum([0, *map(len, TEXTS)])
IDS = np.concatenate(TEXTS)


def make(seed: int = 0, **changes: Any) -> AwdLstmForSequenceClassification:
    """A model with weights that are large enough for every word to matter."""
    manual_seed(seed)
    model = AwdLstmForSequenceClassification(CONFIG.replace(**changes)).eval()
    rng = np.random.default_rng(seed)
    for parameter in model.parameters():
        parameter.data[...] = rng.normal(0, 0.5, parameter.shape)
    return model


def logits(model: Any, texts: Any = TEXTS) -> np.ndarray:
    with no_grad():
        found = model.forward_ragged(np.concatenate(texts), np.cumsum([0, *map(len, texts)])).logits
    return np.asarray(found)


def test_what_is_pooled() -> None:
    model = make()
    states = [model.networks[0].states(np.array(text[:-1]), np.int32([0, len(text) - 1]))[0].numpy() for text in TEXTS]
    pooled = np.stack([np.concatenate([x[-1], x.max(axis=0), x.mean(axis=0)]) for x in states])
    head = model.classifiers[0]
    hidden = np.maximum(pooled @ head.dense.weight.data.T + head.dense.bias.data, 0)
    np.testing.assert_allclose(logits(model), hidden @ head.output.weight.data.T + head.output.bias.data, rtol=1e-5)


def test_reading_order() -> None:
    """A backward model reads what a forward one with its weights reads in the texts turned round."""
    turned = [text[::-1] for text in TEXTS]
    forward, backward = make(), make(direction="backward")
    assert_same_bits(logits(backward), logits(forward, turned))
    both = make(direction="both")
    state = both.state_dict()
    for i, (model, direction) in enumerate(((forward, "forward"), (backward, "backward"))):
        own = {name.replace("s.0.", f"s.{i}.", 1): name for name in model.state_dict()}
        model.load_state_dict({name: state[whole] for whole, name in own.items()})
        assert model.config.direction == direction
    np.testing.assert_allclose(logits(both), (logits(forward) + logits(backward)) / 2, rtol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "both"])
@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification"])
def test_gradients(direction: str, kind: str) -> None:
    """Through all dropout: every call draws the same."""
    model = make(direction=direction, problem_type=kind).train()
    model.astype(np.float64)
    rng = np.random.default_rng(1)
    several = kind.startswith("multi")
    labels = rng.integers(0, 2, (4, 3)).astype(np.float32) if several else np.array([0, 2, 1, 1])

    def loss() -> Any:
        manual_seed(5)
        return model.forward_ragged(IDS, OFFSETS, labels=labels).loss

    def value() -> float:
        with no_grad():
            return float(loss().item())

    with use_reference():
        loss().backward()
        for name, parameter in model.named_parameters():
            expected = differences(value, parameter.data, 1.0)
            np.testing.assert_allclose(parameter.grad, expected, atol=1e-7, err_msg=name)


def test_the_loss_is_the_sum_of_both_directions() -> None:
    both = make(direction="both")
    labels = [0, 2, 1, 1]
    forward, backward = make(), make(direction="backward")
    state = both.state_dict()
    for i, model in enumerate((forward, backward)):
        model.load_state_dict({name: state[name.replace("s.0.", f"s.{i}.", 1)] for name in model.state_dict()})
    found = [model.forward_ragged(IDS, OFFSETS, labels=labels).loss.item() for model in (both, forward, backward)]
    assert found[0] == pytest.approx(found[1] + found[2], rel=1e-6)
    assert found[1] == pytest.approx(F.cross_entropy(logits(forward), np.array(labels)).item(), rel=1e-6)


@pytest.mark.parametrize("direction", ["forward", "both"])
@pytest.mark.parametrize("frozen", [False, True])
def test_bits_do_not_depend_on_the_company(direction: str, frozen: bool, threads: int) -> None:
    model = make(direction=direction)
    if frozen:
        model.freeze()
    together = logits(model)
    for i, text in enumerate(TEXTS):
        assert_same_bits(logits(model, [text])[0], together[i])
    assert_same_bits(logits(model, TEXTS[::-1]), together[::-1])


def test_folders(tmp_path: Path) -> None:
    model = make(direction="both", id2label={0: "a", 1: "b", 2: "c"})
    model.save_pretrained(tmp_path / "saved")
    values = json.loads((tmp_path / "saved/config.json").read_text())
    assert values["architectures"] == ["AwdLstmForSequenceClassification"]
    assert values["id2label"] == {"0": "a", "1": "b", "2": "c"}
    again = AwdLstmForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert again.config == model.config
    assert_same_bits(logits(again), logits(model))

    language_model = AwdLstmForLanguageModel(AwdLstmConfig(**SIZES))
    language_model.save_pretrained(tmp_path / "lm")
    assert "id2label" not in json.loads((tmp_path / "lm/config.json").read_text())
    with pytest.warns(UserWarning, match=r"classifiers\.0\.dense\.weight.* are not in"):
        made = AwdLstmForSequenceClassification.from_pretrained(tmp_path / "lm", num_labels=4)
    assert logits(made).shape == (4, 4)
    own, theirs = made.state_dict(), language_model.state_dict()
    for name in own:
        if name.startswith("networks."):
            assert_same_bits(own[name], theirs[name])
    with pytest.raises(ValueError, match=r"not a AwdLstmForSequenceClassification, classifiers.*are missing"):
        AwdLstmForSequenceClassification.from_pretrained(tmp_path / "lm", new_head="refuse")
    other = AwdLstmForSequenceClassification.from_pretrained(tmp_path / "saved", num_labels=2, new_head="draw")
    assert logits(other).shape == (4, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [0, 1, 1, 2]), "cu_seqlens must have no empty sequence, got one at 1"),
        (([0, 1], [0, 3]), "cu_seqlens"),
        (([0, 11, 1], [0, 3]), "11"),
        (([0, 1], [0, 2], [0, 0]), "token_type_ids must be None"),
        (([0, 1], [0, 2], None, [3]), r"labels must be in \[0, 3\)"),
        (([0, 1], [0, 2], None, [[1.0, 2.0, 0.0]]), r"several labels must be in \[0, 1\]"),
    ],
)
def test_bad_input(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().forward_ragged(*arguments)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pooled_dim": 0}, "pooled_dim must be a positive integer, got 0"),
        ({"pooled_dropout": 1.0}, r"pooled_dropout must be a number in \[0, 1\), got 1.0"),
        ({"max_length": "9"}, "max_length must be a positive integer, got '9'"),
        ({"num_labels": 0}, "num_labels must be a positive integer, got 0"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label must name 0 to num_labels - 1 = 1"),
        ({"problem_type": "guess"}, "problem_type must be one of"),
    ],
)
def test_bad_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AwdLstmConfig.from_dict({"model_type": "awd-lstm", **SIZES, **fields})


@pytest.mark.parametrize("direction", ["forward", "both"])
@pytest.mark.parametrize("tied", [True, False])
def test_more_words(direction: str, tied: bool) -> None:
    sizes = {name: value for name, value in SIZES.items() if name != "pooled_dim"}
    model = AwdLstmForLanguageModel(AwdLstmConfig(**sizes, direction=direction, tie_weights=tied))
    grown = model.with_words(3)
    assert grown.config == model.config.replace(vocabulary_size=14)
    before, after = model.state_dict(), grown.state_dict()
    assert before.keys() == after.keys()
    for name, x in after.items():
        assert_same_bits(x[: len(before[name])], before[name])
        if x.shape != before[name].shape:
            assert x.shape[0] == 14
            np.testing.assert_allclose(x[11:], np.broadcast_to(before[name].mean(axis=0), x[11:].shape), atol=1e-6)
    assert_same_bits(
        model.with_words(0).state_dict()["networks.0.embedding.weight"], before["networks.0.embedding.weight"]
    )
