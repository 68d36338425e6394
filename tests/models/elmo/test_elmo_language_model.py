"""The bidirectional language model: what it predicts from what, its losses, and the state between steps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_gradients import differences

from fastattn import Tensor, no_grad, use_reference
from fastattn.models import BidirectionalLanguageModel, Elmo, ElmoConfig, StreamLoss
from fastattn.random import manual_seed
from fastattn.tasks import WordEncoder
from fastattn.text import Sentences, Vocabulary, character_ids, sentence_batches

CONFIG = ElmoConfig(
    char_embedding_dim=4,
    filters=((1, 3), (2, 5)),
    n_highway=1,
    max_characters_per_token=8,
    dim=6,
    projection_dim=4,
    cell_clip=0.8,
    proj_clip=0.5,
)
SENTENCES = [["the", "cat", "sat", "on", "it"], ["so", "it", "is"], ["the", "cat", "is", "so", "so"], ["a"]]
TEXT = Sentences.from_words(SENTENCES)
VOCABULARY = Vocabulary.build(TEXT, min_count=2)


def characters(words: Any) -> Any:
    return character_ids(words, CONFIG.max_characters_per_token)


def make(seed: int = 0, config: ElmoConfig = CONFIG, **options: Any) -> BidirectionalLanguageModel:
    """A model with weights that are large enough for every word to matter."""
    manual_seed(seed)
    model = BidirectionalLanguageModel(
        config.replace(**{"vocabulary_size": len(VOCABULARY), "lstm_dropout": 0.0, **options})
    )
    rng = np.random.default_rng(seed)
    for parameter in model.parameters():
        parameter.data[...] = rng.normal(0, 0.4, parameter.shape)
    return model


def batch_of(sentences: list[list[str]], budget: int = 1000) -> dict[str, Any]:
    (batch,) = sentence_batches(Sentences.from_words(sentences), VOCABULARY, characters, budget)
    return batch


def losses(model: BidirectionalLanguageModel, batch: dict[str, Any], state: Any = None) -> list[float]:
    with no_grad():
        output = model(**batch, state=state)
    return [output.loss.item(), output.forward_loss.item(), output.backward_loss.item()]


# Losses


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


def halves(batch: dict[str, Any], cut: int, length: int, streams: int) -> list[dict[str, Any]]:
    """The streams of a batch, cut in two."""
    pieces = []
    for window in (slice(0, cut), slice(cut, length)):
        count = window.stop - window.start
        rows = {
            name: batch[name].reshape(2, streams, length)[..., window].reshape(2, -1) for name in ("inputs", "targets")
        }
        pieces.append({**batch, **rows, "cu_seqlens": np.arange(streams + 1, dtype=np.int32) * np.int32(count)})
    return pieces


def streams() -> dict[str, Any]:
    return batch_of([SENTENCES[0], SENTENCES[2]])  # of six tokens each


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


def test_a_stream_goes_on_from_step_to_step() -> None:
    model = make()
    first, second = halves(streams(), 3, 6, 2)
    loss = StreamLoss(model)
    assert loss.state_dict() == {}
    values = [loss(first).item(), loss(second).item()]
    state = model(**first).state
    assert values == [model(**first).loss.item(), model(**second, state=state).loss.item()]
    model.zero_grad()
    loss.load_state_dict({})
    one = loss(first)
    saved = loss.state_dict()
    assert {name: array.shape for name, array in saved.items()} == {
        "0.h": (2, 2, 4), "0.c": (2, 2, 6), "1.h": (2, 2, 4), "1.c": (2, 2, 6),
    }  # fmt: skip
    two = loss(second)
    two.backward()  # which does not reach the step before
    one.backward()
    again = StreamLoss(model)
    again.load_state_dict(saved)
    assert again(second).item() == values[1]


def test_a_stream_may_begin_anew() -> None:
    """With the probability `reset`, each direction by itself; with 1 it always does."""
    model = make()
    first, second = halves(streams(), 3, 6, 2)
    carried = model(**first).state
    always, never, sometimes = (StreamLoss(model, reset) for reset in (1.0, 0.0, 0.5))
    for loss in (always, never, sometimes):
        loss(first)
    assert always(second).item() == model(**second).loss.item()
    assert never(second).item() == model(**second, state=carried).loss.item()
    possible = set()
    for kept in np.ndindex(2, 2, 2, 2):
        keep = np.array(kept, np.float32).reshape(2, 2, 1)
        possible.add(model(**second, state=[(h * keep, c * keep) for h, c in carried]).loss.item())
    saved, seen = sometimes.state_dict(), []
    for seed in (*range(12), 11):
        manual_seed(seed)
        sometimes.load_state_dict(saved)
        seen.append(sometimes(second).item())
    assert possible >= set(seen)
    assert len(set(seen)) > 4
    assert seen[-1] == seen[-2]
    with pytest.raises(ValueError, match=r"StreamLoss: reset must be a number in \[0, 1\], got 1\.5"):
        StreamLoss(model, 1.5)


# Perplexity


def test_perplexities_do_not_depend_on_the_batches() -> None:
    model = make(lstm_dropout=0.5, num_sampled=2)
    results = []
    for budget in (1, 9, 1000):
        results.append(model.perplexities(sentence_batches(TEXT, VOCABULARY, characters, budget)))
        assert model.training
        assert model.network.dropout.training
    for result in results[1:]:
        assert result == pytest.approx(results[0], rel=1e-6)
    model.eval()
    both, forward, backward = losses(model, batch_of(SENTENCES))
    assert results[0] == pytest.approx(
        {
            "perplexity": math.exp(both),
            "forward_perplexity": math.exp(forward),
            "backward_perplexity": math.exp(backward),
        },
        rel=1e-5,
    )
    model.perplexities([batch_of(SENTENCES)])
    assert not model.training


def test_a_model_that_knows_nothing() -> None:
    model = make()
    model.softmax.weight.data[...] = model.softmax.bias.data[...] = 0
    values = model.perplexities([batch_of(SENTENCES)])
    assert list(values.values()) == pytest.approx([len(VOCABULARY)] * 3, rel=1e-5)


def test_perplexities_of_nothing() -> None:
    with pytest.raises(ValueError, match="perplexities: there are no tokens"):
        make().perplexities([])


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


@pytest.mark.parametrize(("name", "value"), [("inputs", 99), ("targets", len(VOCABULARY)), ("char_ids", 261)])
def test_numbers_out_of_range(name: str, value: int) -> None:
    batch = batch_of(SENTENCES)
    batch[name][0, 1] = value
    with pytest.raises(ValueError, match=str(value)):
        make()(**batch)
