"""Elmo.represent: scalar mixes that are trained, alone or with the network below."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers_elmo import SENTENCES, options
from helpers_gradients import differences

import fastattn
from fastattn import Tensor, no_grad, use_reference
from fastattn.models import Elmo, ElmoConfig

CONFIG = ElmoConfig.from_options(options())
WORDS = [len(sentence) for sentence in SENTENCES]


def make(trainable: bool = False, **arguments: Any) -> Elmo:
    fastattn.manual_seed(1)
    elmo = Elmo(CONFIG, trainable=True, **arguments)
    for parameter in elmo.network.parameters():
        parameter.data = parameter.data + np.random.default_rng(parameter.numel()).normal(
            0, 0.3, parameter.shape
        ).astype(np.float32)
    if not trainable:
        elmo.network.freeze()
    return elmo.eval()


def test_layers_are_those_of_the_call():
    elmo = make(num_output_representations=2)
    output = elmo.represent(SENTENCES)
    assert np.diff(output.cu_seqlens).tolist() == WORDS
    assert len(output.elmo_representations) == 2
    expected = np.concatenate(elmo(SENTENCES), axis=1)
    assert len(output.layers) == len(expected) == 4
    for layer, values in zip(output.layers, expected, strict=True):
        np.testing.assert_array_equal(layer, values)


def test_a_mix_is_a_weighted_sum():
    scalars = [0.5, -1.0, 2.0, 0.0]
    elmo = make(num_output_representations=2, scalar_mix_parameters=scalars)
    weights = np.exp(scalars) / np.exp(scalars).sum()
    output = elmo.represent(SENTENCES)
    expected = sum(w * layer for w, layer in zip(weights, output.layers, strict=True))
    for mix in output.elmo_representations:
        np.testing.assert_allclose(mix, expected, atol=1e-5)
    assert not any(p.requires_grad for mix in elmo.scalar_mixes for p in mix.parameters())


def test_layer_norm_is_of_each_word():
    elmo = make(num_output_representations=1, do_layer_norm=True)
    output = elmo.represent(SENTENCES)
    layers = np.array(output.layers, np.float64)
    normal = (layers - layers.mean(-1, keepdims=True)) / layers.std(-1, keepdims=True)
    with no_grad():
        (mix,) = elmo.represent(SENTENCES).elmo_representations
    np.testing.assert_allclose(mix, normal.mean(axis=0), atol=1e-4)
    np.testing.assert_array_equal(elmo.represent(SENTENCES[2:3]).elmo_representations[0].numpy(), mix[7:13])


def test_dropout_is_of_the_mixes_while_training():
    elmo = make(num_output_representations=2, dropout=0.5)
    before = [mix.numpy() for mix in elmo.represent(SENTENCES).elmo_representations]
    elmo.train()
    first, second = (mix.numpy() for mix in elmo.represent(SENTENCES).elmo_representations)
    for mix, whole in ((first, before[0]), (second, before[1])):
        assert 0.3 < (mix == 0).mean() < 0.7
        np.testing.assert_allclose(mix[mix != 0], 2 * whole[mix != 0], rtol=1e-6)
    assert ((first == 0) != (second == 0)).any()
    for a, b in zip(elmo(SENTENCES), elmo.eval()(SENTENCES), strict=True):
        np.testing.assert_array_equal(a, b)


def test_of_a_frozen_network_the_mixes_train_alone():
    elmo = make(num_output_representations=1)
    assert [name for name, p in elmo.named_parameters() if p.requires_grad] == [
        "scalar_mixes.0.gamma",
        *(f"scalar_mixes.0.scalar_parameters.{i}" for i in range(4)),
    ]
    output = elmo.represent(SENTENCES)
    assert all(isinstance(layer, np.ndarray) for layer in output.layers)
    (mix,) = output.elmo_representations
    assert isinstance(mix, Tensor)
    mix.sum().backward()
    assert all(np.abs(p.grad).max() > 0 for p in elmo.scalar_mixes[0].parameters())
    with no_grad():
        assert isinstance(elmo.represent(SENTENCES).elmo_representations[0], np.ndarray)


@pytest.mark.parametrize("boundaries", [False, True])
def test_gradients(boundaries):
    elmo = make(
        trainable=True, num_output_representations=2, do_layer_norm=boundaries, keep_sentence_boundaries=boundaries
    )
    sentences = [["a", "b", "a"], [], ["é"]]
    with use_reference():
        elmo.astype(np.float64)
        rng = np.random.default_rng(0)
        state = elmo.new_state()
        elmo.represent(sentences[:1], state)  # through which no gradient reaches back

        def loss() -> Any:
            mixes = elmo.represent(sentences, state.copy()).elmo_representations
            return (mixes[0] * weights[0]).sum() + (mixes[1] * weights[1]).sum()

        words = 4 + 6 * boundaries
        weights = rng.normal(size=(2, words, 12))
        loss().backward()
        for name, parameter in elmo.named_parameters():
            gradient = parameter.grad
            assert gradient is not None, name
            places = [np.unravel_index(i, gradient.shape) for i in rng.permutation(gradient.size)[:3]]
            places.append(np.unravel_index(np.abs(gradient).argmax(), gradient.shape))
            for place in places:
                part = parameter.data[tuple(slice(i, i + 1) for i in place)]
                with no_grad():
                    wanted = differences(loss, part, np.ones(()))
                np.testing.assert_allclose(gradient[place], wanted.item(), atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_output_representations": -1}, "num_output_representations must be an integer from 0 on, got -1"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\), got 1.0"),
        ({"num_output_representations": True}, "num_output_representations must be an integer from 0 on, got True"),
        ({"do_layer_norm": "yes"}, "do_layer_norm must be a bool, got 'yes'"),
        ({"scalar_mix_parameters": [1.0]}, "scalar_mix_parameters must have one number for each of 4 layers, got 1"),
        ({"scalar_mix_parameters": [1, 2, 3, np.nan]}, "scalar_mix_parameters must be finite numbers, got .*nan"),
        ({"scalar_mix_parameters": "abcd"}, "scalar_mix_parameters must be finite numbers, got 'abcd'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"Elmo: {message}"):
        Elmo(CONFIG, **arguments)


def test_options_are_no_configuration():
    with pytest.raises(TypeError, match="Elmo: config must be an ElmoConfig, got dict"):
        Elmo(options())
