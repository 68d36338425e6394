"""AWD-LSTM: its loss by hand and by differences, what is dropped, the state between calls, folders, and bad input."""

from __future__ import annotations

import json
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_gradients import differences

from fastattn import Tensor, kernels, no_grad, use_reference
from fastattn.models import AwdLstmConfig, AwdLstmForLanguageModel, language_model
from fastattn.models.awd_lstm.model import AwdLstm
from fastattn.nn.dropout import locked_dropout
from fastattn.random import manual_seed, next_seed

RATES = ("embedding_dropout", "input_dropout", "hidden_dropout", "output_dropout", "weight_dropout")
DRY: dict[str, Any] = dict.fromkeys(RATES, 0.0)
CONFIG = AwdLstmConfig(vocabulary_size=11, embedding_dim=5, dim=7, n_layers=3)
OFFSETS = np.array([0, 6, 6, 7, 11], np.int32)


def make(seed: int = 0, **changes: Any) -> AwdLstmForLanguageModel:
    """A model with weights that are large enough for every word to matter."""
    manual_seed(seed)
    model = AwdLstmForLanguageModel(CONFIG.replace(**changes))
    rng = np.random.default_rng(seed)
    for parameter in model.parameters():
        parameter.data[...] = rng.normal(0, 0.5, parameter.shape)
    return model


def batch_of(directions: int = 1, offsets: Any = OFFSETS, seed: int = 0) -> dict[str, Any]:
    words = np.random.default_rng(seed).integers(0, 11, (2, directions, int(offsets[-1])))
    return {"input_ids": words[0], "targets": words[1], "cu_seqlens": offsets}


# The loss


@pytest.mark.parametrize("changes", [{"n_layers": 2}, {"direction": "both", "tie_weights": False, "n_layers": 1}])
def test_gradients(changes: dict[str, Any]) -> None:
    """Of the loss with all penalties, through all dropout: every call draws the same."""
    model = make(**changes)
    model.astype(np.float64)
    count, rng = len(model.networks), np.random.default_rng(1)
    batch = batch_of(count)
    state = [tuple(rng.normal(0, 0.5, (count, 4, size)) for _ in "hc") for _, size in model.config.sizes]

    def loss() -> Any:
        manual_seed(5)
        return model(**batch, state=state).loss

    with use_reference():
        loss().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            rows = rng.choice(parameter.shape[0], 1)
            part = parameter.data[rows]

            def value(parameter: Any = parameter, rows: Any = rows, part: Any = part) -> float:
                parameter.data[rows] = part
                with no_grad():
                    return loss().item()

            wanted = differences(value, part, 1.0)
            parameter.data[rows] = part
            np.testing.assert_allclose(parameter.grad[rows], wanted, atol=1e-7, err_msg=name)


def test_the_penalties_by_hand() -> None:
    """TAR knows no step from one sequence to the next, and no dropout; AR is that of what is left."""
    model, batch = make(), batch_of()
    manual_seed(3)
    with no_grad():
        read = model.networks[0](batch["input_ids"][0], OFFSETS)
    raw, output = np.float64(read.raw.numpy()), np.float64(read.output.numpy())
    changes = [np.diff(raw[start:stop], axis=0) for start, stop in pairwise(OFFSETS)]
    manual_seed(3)
    found = model(**batch)
    penalties = 2 * (output**2).mean() + (np.concatenate(changes) ** 2).mean()
    assert found.loss.item() == pytest.approx(found.forward_loss.item() + penalties, rel=1e-5)
    model.eval()
    assert model(**batch).loss.item() == model(**batch).forward_loss.item()
    for offsets in ([0, 1, 2], [0, 1]):  # no step follows another one
        assert np.isfinite(make()(**batch_of(offsets=np.array(offsets))).loss.item())


def test_directions_are_models_of_their_own() -> None:
    both, batch = make(direction="both").eval(), batch_of(2)
    found = both(**batch)
    assert found.loss.item() == pytest.approx(found.forward_loss.item() + found.backward_loss.item())
    for i, direction in enumerate(("forward", "backward")):
        one = AwdLstmForLanguageModel(CONFIG.replace(direction=direction)).eval()
        own = {
            name: x for name, x in both.state_dict().items() if name.startswith((f"networks.{i}.", f"decoders.{i}."))
        }
        one.load_state_dict({name.replace(f"s.{i}.", "s.0.", 1): x for name, x in own.items()})
        alone = one(batch["input_ids"][i : i + 1], batch["targets"][i : i + 1], OFFSETS)
        losses = (alone.forward_loss, alone.backward_loss)
        assert losses[1 - i] is None
        assert_same_bits(losses[i].data, (found.forward_loss, found.backward_loss)[i].data)
        for pair, of_one in zip(found.state, alone.state, strict=True):
            for both_states, state_of_one in zip(pair, of_one, strict=True):
                assert_same_bits(both_states[i : i + 1], state_of_one)


# Dropout


def test_a_feature_is_dropped_throughout_a_sequence() -> None:
    manual_seed(0)
    x = np.ones((11, 400), np.float32)
    dropped = locked_dropout(x, OFFSETS, 0.25)
    sequences = [dropped[start:stop] for start, stop in pairwise(OFFSETS)]
    for rows in sequences:
        assert (rows == rows[:1]).all()
    assert {*np.unique(dropped)} == {np.float32(0), np.float32(4 / 3)}
    assert not (sequences[0][0] == sequences[3][0]).all()
    assert dropped.mean() == pytest.approx(1, abs=0.05)
    assert locked_dropout(x, OFFSETS, 0.0) is x


def test_a_word_is_dropped_everywhere() -> None:
    config = AwdLstmConfig(vocabulary_size=300, embedding_dim=6, dim=4, n_layers=1, embedding_dropout=0.4)
    manual_seed(0)
    network = AwdLstm(config)
    ids = np.tile(np.arange(300), 2)
    dropped = (network._words(ids).numpy() / network.embedding.weight.data[ids]).round(5)
    assert (dropped == dropped[:, :1]).all()
    assert (dropped[:300] == dropped[300:]).all()
    assert {*dropped[:, 0].tolist()} == {0.0, float(np.float32(1 / 0.6).round(5))}
    assert dropped.mean() == pytest.approx(1, abs=0.15)
    assert_same_bits(network.eval()._words(ids).numpy(), network.embedding.weight.data[ids])


def test_weights_are_dropped_once_a_call() -> None:
    """A network with weight dropout alone is one whose matrices from state to state are dropped by hand."""
    changes = {**DRY, "weight_dropout": 0.5}
    model, batch = make(**changes), batch_of()
    manual_seed(4)
    found = model(**batch).forward_loss.item()
    manual_seed(4)
    seeds = [next_seed() for _ in range(3)]
    for seed, layer in zip(seeds, model.networks[0].layers, strict=True):
        layer.weight_dropout = 0.0
        layer.weight_hh_l0.data[...] = kernels.dropout(layer.weight_hh_l0.data, 0.5, seed)
    assert model(**batch).forward_loss.item() == found


def test_dropout_is_for_training() -> None:
    batch, dry = batch_of(), make(**DRY)
    expected = dry.eval()(**batch).loss.item()
    for name in RATES:
        model = make(**{**DRY, name: 0.5})
        manual_seed(1)
        values = [model(**batch).forward_loss.item() for _ in range(2)]
        manual_seed(1)
        assert [model(**batch).forward_loss.item() for _ in range(2)] == values
        assert values[0] != values[1]
        assert model.eval()(**batch).loss.item() == expected
    frozen = make().freeze()
    frozen.train()
    assert np.isfinite(frozen(**batch).loss.item())


# The state, and the same bits


@pytest.mark.parametrize("direction", ["forward", "both"])
def test_two_halves_are_the_whole(direction: str) -> None:
    model = make(direction=direction).eval()
    count = len(model.networks)
    batch = batch_of(count, np.array([0, 6, 12]))
    whole = model(**batch)
    state, parts = None, []
    for window in (slice(0, 2), slice(2, 6)):
        rows = {name: batch[name].reshape(count, 2, 6)[..., window] for name in ("input_ids", "targets")}
        steps = window.stop - window.start
        offsets = np.array([0, steps, 2 * steps])
        found = model(**{name: x.reshape(count, -1) for name, x in rows.items()}, cu_seqlens=offsets, state=state)
        state = found.state
        parts.append(found.loss.item() * steps / 6)
    assert sum(parts) == pytest.approx(whole.loss.item(), rel=1e-6)
    assert [h.shape for h, _ in whole.state] == [(count, 2, 7), (count, 2, 7), (count, 2, 5)]
    for pair, other in zip(whole.state, state, strict=True):
        for one, two in zip(pair, other, strict=True):
            assert type(one) is np.ndarray
            np.testing.assert_allclose(one, two, atol=1e-6)


def test_bits_do_not_depend_on_the_company(isa: str, threads: int) -> None:
    model = make(direction="both").freeze()
    batch = batch_of(2)
    found = model(**batch)
    for i, (start, stop) in enumerate(pairwise(OFFSETS)):
        if start == stop:
            continue
        words = {name: batch[name][:, start:stop] for name in ("input_ids", "targets")}
        alone = model(**words, cu_seqlens=np.array([0, stop - start]))
        for pair, own in zip(found.state, alone.state, strict=True):
            for states, own_states in zip(pair, own, strict=True):
                assert_same_bits(states[:, i : i + 1], own_states)


def test_a_long_line_needs_no_scores_of_all_words_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make(vocabulary_size=500, direction="both").freeze(), batch_of(2, np.array([0, 3, 2000]))
    whole = model(**batch)
    monkeypatch.setattr(language_model, "LOGITS", 500 * 300 + 7, raising=False)
    tracemalloc.start()
    found = model(**batch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500 * 2000 * 4
    assert_same_bits(found.forward_loss.data, whole.forward_loss.data)
    assert_same_bits(found.backward_loss.data, whole.backward_loss.data)
    with pytest.raises(ValueError, match="target must have an entry that counts"):
        model(np.zeros((2, 0), int), np.zeros((2, 0), int), [0])


# Folders


@pytest.mark.parametrize("tied", [True, False])
def test_a_folder_is_read_back(tmp_path: Path, tied: bool) -> None:
    model = make(direction="both", tie_weights=tied, hidden_dropout=0.125)
    model.save_pretrained(tmp_path)
    again = AwdLstmForLanguageModel.from_pretrained(tmp_path)
    assert again.config == model.config
    assert not again.training
    for (name, ours), (other, theirs) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other
        assert_same_bits(ours, theirs)
    frozen = AwdLstmForLanguageModel.from_pretrained(tmp_path, trainable=False)
    assert not frozen.records()
    found, wanted = frozen(**batch_of(2)), again(**batch_of(2))
    assert isinstance(found.loss, Tensor)
    assert found.loss.item() == pytest.approx(wanted.loss.item(), rel=1e-6)
    for pair, other in zip(found.state, wanted.state, strict=True):
        assert_same_bits(pair[0], other[0])
        assert_same_bits(pair[1], other[1])


def test_new_values_are_the_authors() -> None:
    manual_seed(0)
    model = AwdLstmForLanguageModel(AwdLstmConfig(vocabulary_size=500, embedding_dim=40, dim=60))
    (network,), (decoder,) = model.networks, model.decoders
    assert model.training
    assert network.embedding.weight.data.std() == pytest.approx(0.1 / 3**0.5, rel=0.05)
    assert decoder.weight is network.embedding.weight
    assert not decoder.bias.data.any()
    assert abs(network.layers[0].weight_hh_l0.data).max() == pytest.approx(60**-0.5, rel=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layers": 2}, "n_layers is 2, but there are tensors of 3 layers"),
        ({"n_layers": None}, "n_layers must be a positive integer, got None"),
        ({"vocabulary_size": 12}, r"tensor 'networks\.0\.embedding\.weight' must have shape \(12, 5\)"),
        ({"direction": "sideways"}, "direction must be one of forward, backward, both, got 'sideways'"),
        ({"direction": "both"}, r"tensor 'networks\.1\.\S+' is missing"),
        ({"tie_weights": 1}, "tie_weights must be a bool"),
        ({"weight_dropout": 1.0}, r"weight_dropout must be a number in \[0, 1\), got 1\.0"),
        ({"temporal_penalty": -1}, "temporal_penalty must be a number of at least 0, got -1"),
        ({"model_type": "elmo"}, "model_type is 'elmo'; AwdLstmConfig reads 'awd-lstm'"),
    ],
)
def test_folders_that_cannot_be(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    make().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    values = {**json.loads(path.read_text(encoding="utf-8")), **change}
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ValueError, match=f"^{tmp_path}/.*{message}"):
        AwdLstmForLanguageModel.from_pretrained(tmp_path)


def test_a_config_without_sizes(tmp_path: Path) -> None:
    values = CONFIG.to_dict()
    del values["dim"]
    with pytest.raises(ValueError, match="dim is missing"):
        AwdLstmConfig.from_dict(values)


# Bad calls


@pytest.mark.parametrize("name", ["input_ids", "targets"])
def test_what_does_not_fit(name: str) -> None:
    model, batch = make(), batch_of()
    for wrong in (batch[name][:, :-1], batch[name][0], np.repeat(batch[name], 2, axis=0)):
        with pytest.raises(ValueError, match=rf"AwdLstmForLanguageModel: {name} must have shape \(1, 11\), got "):
            model(**{**batch, name: wrong})
    with pytest.raises(TypeError, match=f"AwdLstmForLanguageModel: {name} must be an integer array, got float64"):
        model(**{**batch, name: batch[name] * 1.0})
    for each in (model, make().freeze()):
        for wrong in (11, -1):
            changed = batch[name].copy()
            changed[0, 2] = wrong
            with pytest.raises(ValueError, match=str(wrong)):
                each(**{**batch, name: changed})
    with pytest.raises(ValueError, match="AwdLstmForLanguageModel: cu_seqlens must start at 0"):
        model(**{**batch, "cu_seqlens": np.array([1, 11])})


def test_states_that_do_not_fit() -> None:
    model, batch = make(), batch_of()
    state = model(**batch).state
    with pytest.raises(ValueError, match=r"state must have \(h, c\) for each of 3 layers, got 2"):
        model(**batch, state=state[:2])
    for wrong, message in (
        ([(h[:, 1:], c) for h, c in state], r"state\[0\]: h must have shape \(1, 4, 7\), got \(1, 3, 7\)"),
        ([(h, np.repeat(c, 2, 0)) for h, c in state], r"state\[0\]: c must have shape \(1, 4, 7\), got \(2, 4, 7\)"),
        ([*state[:2], state[0]], r"state\[2\]: h must have shape \(1, 4, 5\), got \(1, 4, 7\)"),
        ([*state[:2], (1, 2, 3)], r"state\[2\] must be \(h, c\), got \(1, 2, 3\)"),
        ([None] * 3, r"state\[0\] must be \(h, c\), got None"),
    ):
        with pytest.raises(ValueError, match=f"^AwdLstmForLanguageModel: {message}"):
            model(**batch, state=wrong)
    for value, message in ((5, "state must be a sequence"), ([(1, 2)] * 3, r"state\[0\]: h must be an array")):
        with pytest.raises(TypeError, match=f"^AwdLstmForLanguageModel: {message}"):
            model(**batch, state=value)
