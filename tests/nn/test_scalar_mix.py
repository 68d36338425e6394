"""nn.ScalarMix."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_gradients import check_tensor_gradients, leaf

from fastattn import Tensor, nn, use_reference
from fastattn import functional as F

LAYERS = np.random.default_rng(1).normal(2.0, 3.0, (3, 6, 4)).astype(np.float32)


def test_names_are_allennlps() -> None:
    mix = nn.ScalarMix(3)
    shapes = {"gamma": (1,), **{f"scalar_parameters.{j}": (1,) for j in range(3)}}
    assert {name: p.shape for name, p in mix.named_parameters()} == shapes
    assert list(dict(mix.named_parameters())) == list(shapes)
    state = {name: np.full(1, i, np.float32) for i, name in enumerate(shapes)}
    mix.load_state_dict(state)
    for name, array in mix.state_dict().items():
        assert_same_bits(array, state[name])


@pytest.mark.parametrize("norm", [False, True])
def test_by_hand(norm: bool, isa: str) -> None:
    mix = nn.ScalarMix(3, norm, [0.5, -1.0, 2.0])
    mix.gamma.data[...] = 1.5
    layers = LAYERS.astype(np.float64)
    if norm:
        layers = (layers - layers.mean(-1, keepdims=True)) / layers.std(-1, keepdims=True)
    weights = np.exp([0.5, -1.0, 2.0])
    wanted = 1.5 * (layers * (weights / weights.sum())[:, None, None]).sum(axis=0)
    for given in (LAYERS, list(LAYERS), [Tensor(layer) for layer in LAYERS]):
        np.testing.assert_allclose(mix(given).data, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", [False, True])
def test_gradients(norm: bool) -> None:
    mix = nn.ScalarMix(3, norm, [0.5, -1.0, 2.0])
    mix.astype(np.float64)
    leaves = [leaf(6, 4, seed=i) for i in range(3)]
    check_tensor_gradients(lambda *layers: mix(layers[:3]), *leaves, *mix.parameters())
    mix.zero_grad()
    with use_reference():
        (mix([x.data for x in leaves]) * 1.0).sum().backward()
    assert all(p.grad is not None for p in mix.parameters())


@pytest.mark.parametrize("norm", [False, True])
def test_the_same_bits_in_any_company(norm: bool, isa: str) -> None:
    mix = nn.ScalarMix(3, norm, [0.5, -1.0, 2.0]).freeze()
    whole = mix(LAYERS)
    for rows in (slice(0, 1), slice(2, 5), slice(5, 6)):
        assert_same_bits(mix(np.ascontiguousarray(LAYERS[:, rows])), whole[rows])


def test_fixed_or_trained() -> None:
    mix = nn.ScalarMix(3, trainable=False)
    y = mix(LAYERS)
    assert isinstance(y, np.ndarray)
    np.testing.assert_allclose(y, LAYERS.mean(axis=0), rtol=0, atol=1e-5)
    assert not any(p.requires_grad for p in mix.parameters())
    trained = nn.ScalarMix(3)
    F.mse_loss(trained(LAYERS), LAYERS[2]).backward()
    gradients = [p.grad for p in trained.parameters()]
    assert gradients[3] is not None
    assert gradients[3] < 0  # more of the layer that is wanted
    assert isinstance(trained.freeze()(LAYERS), np.ndarray)


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="ScalarMix: mixture_size must be a positive integer, got 0"):
        nn.ScalarMix(0)
    with pytest.raises(ValueError, match="initial_scalar_parameters must be 3 numbers, got 2"):
        nn.ScalarMix(3, initial_scalar_parameters=[1.0, 2.0])
    for first in (3, ["x"], "abc"):
        with pytest.raises(TypeError, match="ScalarMix: initial_scalar_parameters must be numbers, got "):
            nn.ScalarMix(3, initial_scalar_parameters=first)
    with pytest.raises(ValueError, match="ScalarMix: layers must be 3, got 2"):
        nn.ScalarMix(3)(LAYERS[:2])
    with pytest.raises(ValueError, match=r"layers must have shape \(6, 4\), got \(5, 4\) at 1"):
        nn.ScalarMix(2)([LAYERS[0], LAYERS[1, 1:]])
