"""nn.CharCNN and nn.Highway."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, normal
from helpers_gradients import check_tensor_gradients, leaf

import fastattn
from fastattn import Tensor, nn, no_grad
from fastattn.kernels import PackedMatrix

FILTERS = [(1, 3), (2, 4), (5, 2)]
IDS = np.random.default_rng(3).integers(0, 11, (7, 9))


@pytest.fixture
def rng() -> np.random.Generator:
    fastattn.manual_seed(1)
    return np.random.default_rng(0)


class TestCharCNN:
    def test_names_and_first_values(self, rng: np.random.Generator) -> None:
        cnn = nn.CharCNN(262, 16, [(1, 32), (7, 64)])
        assert {name: p.shape for name, p in cnn.named_parameters()} == {
            "embedding": (262, 16),
            "weight_0": (32, 1, 16),
            "bias_0": (32,),
            "weight_1": (64, 7, 16),
            "bias_1": (64,),
        }
        assert cnn.output_dim == 96
        state = cnn.state_dict()
        assert 0.99 < np.abs(state["embedding"]).max() <= 1
        assert 0.049 < np.abs(state["weight_1"]).max() <= 0.05
        assert not state["bias_1"].any()
        tanh = nn.CharCNN(262, 16, [(7, 640)], activation="tanh")
        assert abs(tanh.state_dict()["weight_0"].std() - (7 * 16) ** -0.5) < 0.002

    @pytest.mark.parametrize("activation", ["relu", "tanh"])
    def test_by_hand(self, activation: str, rng: np.random.Generator, isa: str) -> None:
        cnn = nn.CharCNN(11, 4, FILTERS, activation)
        state = cnn.state_dict()
        words = state["embedding"][IDS]
        columns = []
        for i, (width, _) in enumerate(FILTERS):
            windows = np.stack([words[:, p : p + width] for p in range(IDS.shape[1] - width + 1)], axis=1)
            sums = np.einsum("npwe,fwe->npf", windows, state[f"weight_{i}"]) + state[f"bias_{i}"]
            columns.append(sums.max(axis=1))
        wanted = np.concatenate(columns, axis=1)
        wanted = np.tanh(wanted) if activation == "tanh" else np.maximum(wanted, 0)
        np.testing.assert_allclose(cnn(IDS).data, wanted, rtol=0, atol=1e-5)

    def test_gradients(self, rng: np.random.Generator) -> None:
        cnn = nn.CharCNN(11, 3, FILTERS, "tanh")
        cnn.astype(np.float64)
        zero = Tensor(np.zeros(1))  # and a Tensor where nothing is recorded, too
        check_tensor_gradients(lambda *_: zero + cnn(IDS), *cnn.parameters())

    def test_frozen(self, rng: np.random.Generator, isa: str) -> None:
        cnn = nn.CharCNN(11, 4, FILTERS)
        expected = cnn(IDS)
        assert expected.requires_grad
        with no_grad():
            assert_same_bits(cnn(IDS), expected.data)
        frozen = copy.deepcopy(cnn).freeze()
        y = frozen(IDS)
        assert isinstance(y, np.ndarray)
        assert_same_bits(y, expected.data)
        for (name, p), array in zip(frozen.named_parameters(), cnn.state_dict().values(), strict=True):
            assert isinstance(p, nn.Parameter)
            assert isinstance(p.value, PackedMatrix) == name.startswith("weight")
            assert_same_bits(p.data, array)
            assert not p.data.flags.writeable

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0, 4, FILTERS), "n_characters must be a positive integer, got 0"),
            ((11, 0, FILTERS), "embedding_dim must be a positive integer, got 0"),
            ((11, 4, []), r"filters must not be empty"),
            ((11, 4, [(1, 2, 3)]), r"filters must be pairs \(width, number\), got \[\(1, 2, 3\)\]"),
            ((11, 4, {1: 2}), r"filters must be pairs \(width, number\), got \{1: 2\}"),
            ((11, 4, [(1, 2), (0, 3)]), "filters: a width must be a positive integer, got 0"),
            ((11, 4, FILTERS, "gelu"), "activation must be one of relu, tanh, got 'gelu'"),
        ],
    )
    def test_what_does_not_fit(self, arguments: Any, message: str) -> None:
        with pytest.raises(ValueError, match=f"CharCNN: {message}"):
            nn.CharCNN(*arguments)


class TestHighway:
    def test_names_and_first_values(self, rng: np.random.Generator) -> None:
        highway = nn.Highway(100, 2)
        assert {name: p.shape for name, p in highway.named_parameters()} == {
            "layers.0.weight": (200, 100),
            "layers.0.bias": (200,),
            "layers.1.weight": (200, 100),
            "layers.1.bias": (200,),
        }
        state = highway.state_dict()
        np.testing.assert_array_equal(state["layers.1.bias"], np.repeat(np.float32([0, -2]), 100))
        assert abs(state["layers.0.weight"].std() - 0.1) < 0.002

    def test_by_hand(self, rng: np.random.Generator, isa: str) -> None:
        highway, x = nn.Highway(5, 2), normal(rng, 7, 5)
        wanted = x.astype(np.float64)
        for layer in highway.layers:
            h, t = np.split(wanted @ layer.weight.data.T + layer.bias.data, 2, axis=1)
            gate = 1 / (1 + np.exp(-t))
            wanted = gate * np.maximum(h, 0) + (1 - gate) * wanted
        np.testing.assert_allclose(highway(x).data, wanted, rtol=0, atol=1e-5)

    def test_gradients(self, rng: np.random.Generator) -> None:
        highway = nn.Highway(4, 2)
        highway.astype(np.float64)
        check_tensor_gradients(lambda x, *_: highway(x), leaf(5, 4), *highway.parameters())

    def test_frozen(self, rng: np.random.Generator, isa: str) -> None:
        highway, x = nn.Highway(5, 2), normal(rng, 7, 5)
        expected = highway(x).data
        highway.freeze()
        assert isinstance(highway.layers[1].weight.value, PackedMatrix)
        y = highway(x)
        assert isinstance(y, np.ndarray)
        assert_same_bits(y, expected)
        tensor = Tensor(x, requires_grad=True)
        highway(tensor).sum().backward()
        assert tensor.grad is not None

    @pytest.mark.parametrize("sizes", [(0, 1), (4, 0)])
    def test_what_does_not_fit(self, sizes: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match=r"Highway: (dim|num_layers) must be a positive integer, got 0"):
            nn.Highway(*sizes)
