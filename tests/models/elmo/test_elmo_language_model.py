"""The bidirectional language model: what it predicts from what, its losses, and the state between steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_gradients import differences
from helpers_language_model import (
    CONFIG,
    SENTENCES,
    VOCABULARY,
    batch_of,
    halves,
    losses,
    make,
    streams,
)

from fastattn import Tensor, no_grad, use_reference
from fastattn.models import BidirectionalLanguageModel, Elmo, ElmoConfig, language_model
from fastattn.random import manual_seed
from fastattn.tasks import WordEncoder

# Losses


def test_scores_of_a_few_tokens_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make().freeze().eval(), batch_of(SENTENCES)
    whole, rows = model(**batch), []
    size = model.softmax.out_features
    monkeypatch.setattr(language_model, "LOGITS", 3 * size + 1, raising=False)
    score = model.softmax.forward
    monkeypatch.setattr(model.softmax, "forward", lambda x, out: rows.append(len(x)) or score(x, out=out))
    found = model(**batch)
    tokens = batch["targets"].shape[1]
    assert max(rows) == 3
    assert sum(rows) == 2 * tokens
    for name in ("forward_loss", "backward_loss"):
        assert_same_bits(getattr(found, name).data, getattr(whole, name).data)


def test_the_losses_by_hand() -> None:
    model, batch = make().eval(), batch_of(SENTENCES)
    with no_grad():
        vectors = model.network.tokens(batch["char_ids"])
        x = [vectors.numpy()[rows] for rows in batch["inputs"]]
        top = model.network.lstm(*x, batch["cu_seqlens"], None, (False, False))[0][-1].numpy().astype(np.float64)
    weight, bias = (p.data.astype(np.float64) for p in (model.softmax.weight, model.softmax.bias))
    wanted = []
    for half, targets in zip(np.split(top, 2, axis=1), batch["targets"], strict=True):
        p = np.exp(half @ weight.T + bias)
        p /= p.sum(axis=1, keepdims=True)
        wanted.append(-np.log(p[np.arange(len(targets)), targets]).mean())
    np.testing.assert_allclose(losses(model, batch), [np.mean(wanted), *wanted], rtol=1e-5)


@pytest.mark.parametrize("skip", [True, False])
def test_gradients(skip: bool) -> None:
    config = ElmoConfig(**{**vars(CONFIG), "use_skip_connections": skip, "activation": "tanh" if skip else "relu"})
    model, batch = make(config=config), batch_of(SENTENCES[:2])
    model.astype(np.float64)
    rng = np.random.default_rng(1)
    state = [(rng.normal(0, 0.1, (2, 2, 4)), rng.normal(0, 0.1, (2, 2, 6))) for _ in range(2)]
    with use_reference():
        model(**batch, state=state).loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            rows = rng.choice(parameter.shape[0], min(3, parameter.shape[0]), replace=False)
            part = parameter.data[rows]

            def loss(parameter: Any = parameter, rows: Any = rows, part: Any = part) -> float:
                parameter.data[rows] = part
                with no_grad():
                    return model(**batch, state=state).loss.item()

            wanted = differences(loss, part, 1.0)
            parameter.data[rows] = part
            np.testing.assert_allclose(parameter.grad[rows], wanted, atol=1e-7, err_msg=name)


def test_no_direction_sees_what_it_predicts() -> None:
    """The loss of a word depends on what was read before it, in its direction alone."""
    model = make().eval()
    sentence = ["the", "cat", "sat", "on", "it"]
    for direction in (0, 1):
        before = batch_of([sentence])
        changed = {**before, "inputs": before["inputs"].copy()}
        changed["inputs"][direction, 3] = before["inputs"][direction, 1]
        whole = [losses(model, batch)[1 + direction] for batch in (before, changed)]
        assert whole[0] != whole[1]
        assert losses(model, before)[2 - direction] == losses(model, changed)[2 - direction]
        for batch in (before, changed):
            batch["inputs"], batch["targets"] = batch["inputs"][:, :3], batch["targets"][:, :3]
            batch["cu_seqlens"] = np.array([0, 3], np.int32)
        assert losses(model, before) == losses(model, changed)


def test_the_directions_have_weights_of_their_own() -> None:
    model, batch = make(), batch_of(SENTENCES)
    output = model(**batch)
    output.forward_loss.backward()
    seen = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert not any(".backward." in name for name in seen)
    assert seen | {name for name, _ in model.named_parameters() if ".backward." in name} == {
        name for name, _ in model.named_parameters()
    }


def test_dropout_is_for_training() -> None:
    model, batch = make(lstm_dropout=0.5), batch_of(SENTENCES)
    manual_seed(1)
    values = [losses(model, batch)[0] for _ in range(2)]
    manual_seed(1)
    assert [losses(model, batch)[0] for _ in range(2)] == values
    assert values[0] != values[1]
    assert losses(model.eval(), batch) == losses(make(), batch)


def test_the_last_output_is_dropped_too() -> None:
    model, batch = make(lstm_dropout=0.5), batch_of(SENTENCES)
    model.network.train(False)
    assert losses(model, batch)[0] != losses(model, batch)[0]


# The sampled softmax


def test_a_sampled_softmax_is_for_training() -> None:
    sampled, full, batch = make(num_sampled=2), make(), batch_of(SENTENCES)
    manual_seed(1)
    first, second = losses(sampled, batch), losses(sampled, batch)
    assert first != second  # other words
    assert losses(sampled.eval(), batch) == losses(full, batch)
    sampled.train()
    sampled(**batch).loss.backward()
    grad = sampled.softmax.weight.grad
    assert grad is not None
    assert np.isfinite(grad).all()
    assert grad.any()


# The state


@pytest.mark.parametrize("cut", [1, 4])
def test_two_halves_are_the_whole(cut: int) -> None:
    model = make().eval()
    whole = losses(model, streams())
    first, second = halves(streams(), cut, 6, 2)
    with no_grad():
        state = model(**first).state
    assert all(isinstance(array, np.ndarray) for pair in state for array in pair)
    assert [array.shape for array in state[0]] == [(2, 2, 4), (2, 2, 6)]
    parts = [np.array(losses(model, first)) * cut, np.array(losses(model, second, state)) * (6 - cut)]
    np.testing.assert_allclose(np.sum(parts, axis=0) / 6, whole, rtol=1e-5)
    assert losses(model, second) != losses(model, second, state)


# Making, saving, loading


def test_first_values_are_those_of_bilm_tf() -> None:
    manual_seed(0)
    config = ElmoConfig(
        char_embedding_dim=16, filters=((1, 32), (3, 64)), dim=128, projection_dim=32, vocabulary_size=1000
    )
    model = BidirectionalLanguageModel(config)
    assert model.training
    weight = model.softmax.weight.data
    assert weight.std() == pytest.approx(32**-0.5, rel=0.05)
    assert not model.softmax.bias.data.any()
    bias = model.network.layers[1].backwards.bias.data.reshape(4, -1)
    assert [set(row.tolist()) for row in bias] == [{0.0}, {1.0}, {0.0}, {0.0}]
    for _ in range(2):
        manual_seed(0)
        other = BidirectionalLanguageModel(config)
        assert_same_bits(other.softmax.weight.data, weight)


def test_a_folder_is_read_back(tmp_path: Path) -> None:
    model = make(num_sampled=3, lstm_dropout=0.25)
    model.save_pretrained(tmp_path)
    again = BidirectionalLanguageModel.from_pretrained(tmp_path)
    assert again.config == model.config
    assert (again.config.num_sampled, again.dropout.p, again.network.dropout.p) == (3, 0.25, 0.25)
    assert not again.training
    for (name, ours), (other, theirs) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other
        assert_same_bits(ours, theirs)
    frozen = BidirectionalLanguageModel.from_pretrained(tmp_path, trainable=False)
    assert not frozen.records()
    batch = batch_of(SENTENCES)
    assert losses(frozen, batch) == pytest.approx(losses(again, batch), rel=1e-6)
    assert isinstance(frozen(**batch).loss, Tensor)


def test_elmo_reads_the_folder(tmp_path: Path) -> None:
    """A word's vectors are what the forward model remembers after it, and the backward model before it."""
    model = make().eval()
    model.save_pretrained(tmp_path)
    elmo = WordEncoder.from_pretrained(tmp_path)
    sentence = SENTENCES[0]
    (layers,) = elmo([sentence])
    assert layers.shape == (3, 5, 8)
    batch = batch_of([sentence])
    with no_grad():
        vectors = model.network.tokens(batch["char_ids"])
        x = [vectors.numpy()[rows] for rows in batch["inputs"]]
        outputs, _ = model.network.lstm(*x, batch["cu_seqlens"], None, (False, False))
    for layer, output in zip(layers[1:], outputs, strict=True):
        np.testing.assert_allclose(layer[:, :4], output[1:, :4], atol=1e-6)
        np.testing.assert_allclose(layer[:, 4:], output[1:, 4:][::-1], atol=1e-6)
    np.testing.assert_allclose(layers[0, :, :4], x[0][1:], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (None, "language_model must be an object with vocabulary_size, num_sampled and dropout, got None"),
        ({"vocabulary_size": 5}, "language_model must be an object with"),
        (
            {"vocabulary_size": 0, "num_sampled": None, "dropout": 0},
            "vocabulary_size must be a positive integer, got 0",
        ),
        ({"vocabulary_size": "5", "num_sampled": None, "dropout": 0}, "vocabulary_size must be a positive integer"),
        ({"vocabulary_size": 90, "num_sampled": None, "dropout": 0}, r"tensor 'softmax\.weight' must have shape \(90"),
    ],
)
def test_a_folder_of_something_else(tmp_path: Path, settings: Any, message: str) -> None:
    make().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "language_model": settings}), encoding="utf-8")
    with pytest.raises(ValueError, match=f"^{tmp_path}/.*{message}"):
        BidirectionalLanguageModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocabulary_size": 0}, "vocabulary_size must be a positive integer, got 0"),
        ({"num_sampled": 50}, "num_sampled must be from 1 to below the vocabulary's 50, got 50"),
        ({"num_sampled": 0}, "num_sampled must be from 1 to below the vocabulary's 50, got 0"),
        ({"num_sampled": 2.5}, r"num_sampled must be from 1 to below the vocabulary's 50, got 2\.5"),
        ({"vocabulary_size": "50"}, "vocabulary_size must be a positive integer, got '50'"),
        ({"lstm_dropout": "0.1"}, "dropout must be a number in .0, 1., got '0.1'"),
        ({"lstm_dropout": 1.0}, r"dropout must be a number in .0, 1., got 1\.0"),
    ],
)
def test_models_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BidirectionalLanguageModel(CONFIG.replace(**{"vocabulary_size": 50, **options}))


def test_no_model_without_a_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="BidirectionalLanguageModel: vocabulary_size must be a positive integer"):
        BidirectionalLanguageModel(CONFIG)
    Elmo(CONFIG).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"^{tmp_path}/config.json: language_model is missing"):
        BidirectionalLanguageModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["inputs", "targets"])
def test_shapes_that_do_not_fit(name: str) -> None:
    batch = batch_of(SENTENCES)
    for wrong in (batch[name][:, :-1], batch[name][0], batch[name][:1]):
        with pytest.raises(ValueError, match=rf"BidirectionalLanguageModel: {name} must have shape \(2, 18\), got "):
            make()(**{**batch, name: wrong})


def test_any_integers_do() -> None:
    model, batch = make().eval(), batch_of(SENTENCES)
    loss = model(**batch).loss.data
    for name, array in batch.items():
        for same in (array.tolist(), array.astype(np.uint16), array.astype(np.int64)):
            assert model(**{**batch, name: same}).loss.data == loss
        for wrong, got in ((array * 1.0, "float64"), (None, "NoneType")):
            with pytest.raises(
                TypeError, match=f"^BidirectionalLanguageModel: {name} must be an integer array, got {got}$"
            ):
                model(**{**batch, name: wrong})
    with pytest.raises(ValueError, match=r"^BidirectionalLanguageModel: cu_seqlens must have shape \(batch \+ 1,\)"):
        model(**{**batch, "cu_seqlens": np.zeros(0, np.int32)})
    with pytest.raises(TypeError, match="BidirectionalLanguageModel: config must be an ElmoConfig, got dict"):
        BidirectionalLanguageModel(vars(CONFIG))


def test_a_state_of_other_layers() -> None:
    model, batch = make(), batch_of(SENTENCES)
    state = model(**batch).state
    for wrong in (state[:1], state + state[:1]):
        message = rf"ElmoNetwork: state must have \(h, c\) for each of 2 layers, got {len(wrong)}"
        with pytest.raises(ValueError, match=message):
            model(**batch, state=wrong)
    with pytest.raises(TypeError, match=r"ElmoNetwork: state must be a sequence of \(h, c\), got int"):
        model(**batch, state=5)


@pytest.mark.parametrize(("name", "value"), [("inputs", 99), ("targets", len(VOCABULARY)), ("char_ids", 261)])
def test_numbers_out_of_range(name: str, value: int) -> None:
    batch = batch_of(SENTENCES)
    batch[name][0, 1] = value
    with pytest.raises(ValueError, match=str(value)):
        make()(**batch)
