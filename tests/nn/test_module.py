"""Modules: names, states, training and freezing."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, normal

import fastattn
from fastattn import Tensor, nn, no_grad, use_reference
from fastattn import functional as F
from fastattn.kernels import PackedMatrix
from fastattn.nn import init


class Block(nn.Module):
    """Stacked, listed, shared and renamed parts."""

    checkpoint_names = MappingProxyType({"stack": "attention.self"})

    def __init__(self) -> None:
        self.words = nn.Embedding(7, 4)
        self.stack = nn.StackedLinear(4, {"query": 4, "key": 4})
        self.layers = [nn.Linear(4, 4, activation="gelu"), nn.LayerNorm(4)]
        self.scale = nn.Parameter((4,), init.ones)
        self.scores = nn.Linear(4, 7)
        self.scores.weight = self.words.weight

    def forward(self, ids: Any) -> Any:
        h = self.words(ids)
        h = self.stack(h)[:, 4:] + h
        for layer in self.layers:
            h = layer(h)
        return self.scores(h * self.scale)


NAMES = [
    "scale",
    "words.weight",
    "attention.self.query.weight",
    "attention.self.query.bias",
    "attention.self.key.weight",
    "attention.self.key.bias",
    "layers.0.weight",
    "layers.0.bias",
    "layers.1.weight",
    "layers.1.bias",
    "scores.bias",
]
IDS = np.array([1, 3, 6, 1])


@pytest.fixture
def block() -> Block:
    fastattn.manual_seed(1)
    return Block()


def loss(module: Any) -> Any:
    return F.cross_entropy(module(IDS), np.array([0, 1, 2, 3]))


class TestParameters:
    def test_names(self, block: Block) -> None:
        names = dict(block.named_parameters())
        assert list(names) == NAMES
        assert [id(p) for p in block.parameters()] == [id(p) for p in names.values()]
        assert [name for name, _ in block.named_parameters("model.")] == [f"model.{name}" for name in NAMES]
        assert names["attention.self.key.weight"].shape == (4, 4)

    def test_every_parameter_gets_its_gradient(self, block: Block) -> None:
        loss(block).backward()
        for name, p in block.named_parameters():
            assert p.grad is not None, name
            assert p.grad.shape == p.shape == p.data.shape
            assert p.grad.dtype == p.dtype == np.float32
            assert p.requires_grad
            assert not p.frozen

    def test_stacked_parameters_are_views_of_one(self, block: Block) -> None:
        names = dict(block.named_parameters())
        key, query = names["attention.self.key.weight"], names["attention.self.query.weight"]
        assert key.data.base is block.stack.weight.data
        before = query.data.copy()
        key.data[...] = 7
        np.testing.assert_array_equal(block.stack.weight.data[4:], 7)
        np.testing.assert_array_equal(query.data, before)
        assert key.grad is None
        key.grad = np.ones((4, 4), np.float32)
        np.testing.assert_array_equal(query.grad, 0)
        assert key.grad is not None
        key.grad *= 2
        np.testing.assert_array_equal(key.grad, 2)
        np.testing.assert_array_equal(block.stack.weight.grad[:4], 0)
        query.grad = None
        assert key.grad is None

    def test_some_rows_alone_are_trained(self, block: Block) -> None:
        names = dict(block.named_parameters())
        key, query = names["attention.self.key.weight"], names["attention.self.query.weight"]
        query.requires_grad = False
        assert block.stack.weight.requires_grad
        loss(block).backward()
        assert query.grad is None
        assert key.grad is not None
        key.requires_grad = False
        block.zero_grad()
        loss(block).backward()
        assert key.grad is block.stack.weight.grad is None
        assert names["attention.self.key.bias"].grad is not None
        key.requires_grad = True
        assert not query.requires_grad
        assert key.requires_grad

    def test_rows_compute_as_any_tensor(self, block: Block) -> None:
        """Their gradients are added to the whole's, whoever computes with them."""
        for p in block.parameters():
            assert isinstance(p, Tensor)
        total = sum((p * p).sum() for p in block.parameters())
        total.backward()
        assert float(total) == pytest.approx(sum(float((p.data**2).sum()) for p in block.parameters()))
        for p in block.parameters():
            np.testing.assert_allclose(p.grad, 2 * p.data, rtol=1e-6)
        block.zero_grad()
        loss(block).backward()
        expected = {name: p.grad.copy() for name, p in block.named_parameters()}
        names = dict(block.named_parameters())
        key, bias = names["attention.self.key.weight"], names["attention.self.key.bias"]
        x = np.ones((2, 4), np.float32)
        F.linear(x, key, bias).sum().backward()
        (1.0 - key).sum().backward()
        fastattn.checkpoint(lambda x: F.linear(x, key, residual=x), x).sum().backward()
        np.testing.assert_allclose(key.grad, expected["attention.self.key.weight"] + 2 - 1 + 2, rtol=1e-5)
        np.testing.assert_allclose(bias.grad, expected["attention.self.key.bias"] + 2, rtol=1e-5)
        for name in ("attention.self.query.weight", "attention.self.query.bias"):
            assert_same_bits(names[name].grad, expected[name])
        key.requires_grad = False
        assert not (key * 2.0).requires_grad
        assert (names["attention.self.query.weight"] * key).requires_grad

    def test_data_of_rows_is_set(self, block: Block) -> None:
        key = dict(block.named_parameters())["attention.self.key.weight"]
        whole, before = block.stack.weight.data, block.stack.weight.data[:4].copy()
        key.data = np.full((4, 4), 3, np.float32)
        assert block.stack.weight.data is whole
        np.testing.assert_array_equal(whole[4:], 3)
        assert_same_bits(whole[:4], before)
        with pytest.raises(ValueError, match=r"data must have shape \(4, 4\), got \(1, 4\)"):
            key.data = np.ones((1, 4), np.float32)
        block.freeze()
        with pytest.raises(ValueError, match="data of a frozen parameter cannot be set"):
            key.data = np.ones((4, 4), np.float32)
        np.testing.assert_array_equal((key * 2.0).data, 6)

    def test_an_array_is_kept_and_a_shape_is_drawn(self) -> None:
        array = np.ones(3, np.float32)
        assert nn.Parameter(array).data is array
        read_only = np.ones(3, np.float32)
        read_only.flags.writeable = False
        assert nn.Parameter(read_only).data.flags.writeable
        np.testing.assert_array_equal(nn.Parameter((2, 3)).data, np.zeros((2, 3)))
        with pytest.raises(TypeError, match="Parameter: data must be floating point, got int64"):
            nn.Parameter(np.arange(3))

    def test_first_values(self) -> None:
        fastattn.manual_seed(3)
        linear, table = nn.Linear(400, 300), nn.Embedding(500, 100, 2, std=0.5)
        weight = linear.weight.data
        assert weight.dtype == np.float32
        assert 0.0499 < np.abs(weight).max() <= 0.05
        assert abs(weight.mean()) < 0.001
        assert not linear.bias.data.any()
        assert abs(table.weight.data.std() - 0.5) < 0.01
        assert not table.weight.data[2].any()
        assert abs(nn.Linear(100, 100, std=0.2).weight.data.std() - 0.2) < 0.01
        fastattn.manual_seed(3)
        assert_same_bits(nn.Linear(400, 300).weight.data, weight)

    def test_uninitialized(self) -> None:
        with init.uninitialized():
            block = Block()
            assert block.scale.value is None
            block.initialize()
            assert block.scale.value is None
        assert nn.Parameter((2,)).value is not None
        block.initialize()
        assert all(p.data is not None for p in block.parameters())
        values = {name: array.copy() for name, array in block.state_dict().items()}
        block.initialize()
        for name, array in block.state_dict().items():
            assert_same_bits(array, values[name])


class TestState:
    def test_it_is_live_and_read_only(self, block: Block) -> None:
        state = block.state_dict()
        assert list(state) == NAMES
        block.scale.data[...] = 5
        np.testing.assert_array_equal(state["scale"], 5)
        for array in state.values():
            assert not array.flags.writeable

    def test_there_and_back(self, block: Block) -> None:
        other = Block()
        arrays = {name: p.data for name, p in other.named_parameters()}
        assert loss(other).item() != loss(block).item()
        other.load_state_dict(block.state_dict())
        assert loss(other).item() == loss(block).item()
        for name, p in other.named_parameters():
            assert np.shares_memory(p.data, arrays[name])  # in place: an optimizer goes on
            assert not np.shares_memory(p.data, block.state_dict()[name])

    def test_all_problems_are_listed_and_nothing_is_changed(self, block: Block) -> None:
        state = {name: np.array(array) + 1 for name, array in block.state_dict().items()}
        before = {name: np.array(array) for name, array in block.state_dict().items()}
        del state["scale"], state["attention.self.key.bias"]
        state["words.weight"] = np.ones((7, 5), np.float32)
        state["layers.2.weight"] = np.ones(3, np.float32)
        with pytest.raises(ValueError, match="load_state_dict: ") as caught:
            block.load_state_dict(state)
        assert str(caught.value).removeprefix("load_state_dict: ").split("; ") == [
            "tensor 'scale' is missing",
            "tensor 'attention.self.key.bias' is missing",
            "tensor 'words.weight' must have shape (7, 4), got (7, 5)",
            "tensor 'layers.2.weight' is not known",
        ]
        with pytest.raises(ValueError, match=r"tensor 'words.weight' must have shape \(7, 4\), got \(7, 5\)$"):
            block.load_state_dict(state, strict=False)
        del state["words.weight"]
        state["scores.bias"] = np.ones(7)
        listed: Any = {**state, "scores.bias": [1.0] * 7}
        with pytest.raises(TypeError, match=r"tensor 'scores\.bias' must be an array of float32, got list"):
            block.load_state_dict(listed, strict=False)
        with pytest.raises(TypeError, match=r"tensor 'scores\.bias' must be an array of float32, got float64"):
            block.load_state_dict(state, strict=False)
        for name, array in block.state_dict().items():
            assert_same_bits(array, before[name])
        del state["scores.bias"]
        block.load_state_dict(state, strict=False)
        for name, array in block.state_dict().items():
            assert_same_bits(array, before[name] + (name in state))

    def test_other_names_of_a_shared_parameter(self, block: Block) -> None:
        state = {name: np.array(array) for name, array in block.state_dict().items()}
        state["scores.weight"] = np.zeros((7, 4), np.float32)
        block.load_state_dict(state)  # the first name counts
        assert_same_bits(block.words.weight.data, state["words.weight"])
        del state["words.weight"]
        block.load_state_dict(state)
        assert not block.words.weight.data.any()
        state["scores.weight"] = np.zeros((4, 7), np.float32)
        with pytest.raises(ValueError, match=r"'scores.weight' must have shape \(7, 4\), got \(4, 7\)"):
            block.load_state_dict(state)


class TestCopies:
    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
    def test_of_a_trainable_module(self, block: Block, copied: Any) -> None:
        block.scale.requires_grad = False
        loss(block).backward()
        other = copied(block)
        assert list(other.state_dict()) == NAMES
        assert other.scores.weight is other.words.weight
        assert loss(other).item() == loss(block).item()
        mine, its = dict(block.named_parameters()), dict(other.named_parameters())
        for name, p in its.items():
            assert_same_bits(p.data, mine[name].data)
            assert not np.shares_memory(p.data, mine[name].data)
            assert p.requires_grad == mine[name].requires_grad
            if p.requires_grad:
                assert_same_bits(p.grad, mine[name].grad)
                assert not np.shares_memory(p.grad, mine[name].grad)
        its["attention.self.key.weight"].data[...] = 0
        assert not other.stack.weight.data[4:].any()
        its["attention.self.key.weight"].requires_grad = False
        assert mine["attention.self.key.weight"].requires_grad
        other.zero_grad()
        loss(other).backward()
        assert other.words.weight.grad.any()

    def test_of_a_frozen_module(self, block: Block) -> None:
        expected = block.freeze()(IDS)
        other = copy.deepcopy(block)
        assert_same_bits(other(IDS), expected)
        assert other.stack.weight.value is block.stack.weight.value
        other.load_state_dict({name: np.zeros(p.shape, np.float32) for name, p in block.named_parameters()})
        assert not other(IDS).any()
        assert_same_bits(block(IDS), expected)
        for p in other.parameters():
            assert p.frozen
            with pytest.raises(ValueError, match="requires_grad of a frozen parameter stays False"):
                p.requires_grad = True

    def test_a_pickle_of_a_frozen_module(self, block: Block) -> None:
        expected = block.freeze()(IDS)
        other = pickle.loads(pickle.dumps(block))
        assert_same_bits(other(IDS), expected)
        assert other.scores.weight is other.words.weight
        assert isinstance(other.stack.weight.value, PackedMatrix)
        for name, p in other.named_parameters():
            assert p.frozen
            assert not p.requires_grad
            assert_same_bits(np.array(p.data), np.array(block.state_dict()[name]))
        assert not other.layers[1].weight.data.flags.writeable
        other.load_state_dict({name: np.zeros(p.shape, np.float32) for name, p in block.named_parameters()})
        assert not other(IDS).any()
        assert_same_bits(block(IDS), expected)

    def test_packed_groups_are_kept(self) -> None:
        lstm, x = nn.LSTM(3, 5).freeze(), np.ones((4, 3), np.float32)
        other = pickle.loads(pickle.dumps(lstm))
        assert other.weight_hh_l0.value.groups == 4
        assert_same_bits(other(x)[0], lstm(x)[0])

    def test_in_a_process_that_was_spawned(self) -> None:
        model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.StackedLinear(3, {"a": 2, "b": 2})).freeze()
        x = normal(np.random.default_rng(0), 5, 4)
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            y = pool.submit(model, x).result()
        assert_same_bits(y, model(x))

    def test_first_values_that_are_a_function_of_the_users(self) -> None:
        p = nn.Parameter((2,), lambda shape: np.full(shape, 3, np.float32))
        assert pickle.loads(pickle.dumps(p)).data.tolist() == [3, 3]

    def test_of_one_without_values(self) -> None:
        with init.uninitialized():
            block = copy.deepcopy(Block())
        block.initialize()
        assert all(p.data is not None for p in block.parameters())


def test_forward_is_what_a_call_runs(block: Block) -> None:
    class Twice(nn.Linear):
        def forward(self, x: Any, *, times: float = 2.0, **options: Any) -> Any:
            return super().forward(x, **options) * times

    class Thrice(Twice):
        def __call__(self, x: Any) -> Any:
            return super().__call__(x, times=3.0)

    x = np.ones((1, 4), np.float32)
    for layer, times in ((Twice(4, 3), 2), (Thrice(4, 3), 3)):
        np.testing.assert_array_equal(layer(x).data, times * F.linear(x, layer.weight, layer.bias).data)
    block.forward = lambda ids: ids  # type: ignore[method-assign]  # of one object alone
    assert block(3) == 3
    with pytest.raises(TypeError, match="Module: this module has no forward and cannot be called"):
        nn.Module()(x)


class TestModes:
    def test_train_and_eval_reach_every_part(self, block: Block) -> None:
        assert all(module.training for module in block.modules())
        assert block.eval() is block
        assert not any(module.training for module in block.modules())
        block.layers[0].freeze()
        assert block.train() is block
        assert [m for m in block.modules() if not m.training] == [block.layers[0]]
        assert len(list(block.modules())) == 6

    def test_freeze(self, block: Block) -> None:
        expected, state = block(IDS).data, {name: np.array(x) for name, x in block.state_dict().items()}
        loss(block).backward()
        assert block.records()
        assert block.freeze() is block
        assert not block.records()
        y = block(IDS)
        assert isinstance(y, np.ndarray)
        assert_same_bits(y, expected)
        assert isinstance(block.stack.weight.value, PackedMatrix)
        assert isinstance(block.words.weight.value, np.ndarray)  # a table of rows is not packed, shared or not
        for name, p in block.named_parameters():
            assert p.grad is None
            assert p.frozen
            assert not p.requires_grad
            assert not p.data.flags.writeable or isinstance(getattr(p, "value", None), PackedMatrix)
            assert_same_bits(np.array(p.data), state[name])
            with pytest.raises(ValueError, match="requires_grad of a frozen parameter stays False"):
                p.requires_grad = True
        with pytest.raises(ValueError, match="data of a frozen parameter cannot be set"):
            block.scale.data = np.ones(4, np.float32)

    def test_a_frozen_module_is_loaded_and_stays_frozen(self, block: Block) -> None:
        other = Block().freeze()
        other.load_state_dict(block.state_dict())
        assert all(p.frozen for p in other.parameters())
        assert_same_bits(other(IDS), block(IDS).data)

    def test_without_gradients(self, block: Block) -> None:
        expected = block(IDS)
        assert expected.requires_grad
        with no_grad():
            assert not block.records()
            y = block(IDS)
        assert isinstance(y, Tensor)
        assert not y.requires_grad
        assert_same_bits(y.data, expected.data)
        for p in block.parameters():
            p.requires_grad = False
        assert not block.records()
        assert isinstance(block(IDS), Tensor)
        assert not block(IDS).requires_grad

    def test_another_dtype(self, block: Block) -> None:
        loss(block).backward()
        single = {name: p.grad for name, p in block.named_parameters()}
        block.astype(np.float64)
        with use_reference():
            loss(block).backward()
        for name, p in block.named_parameters():
            assert p.grad.dtype == p.data.dtype == p.dtype == np.float64
            np.testing.assert_allclose(single[name], p.grad, atol=1e-5)
        with pytest.raises(ValueError, match="data of a frozen parameter"):
            Block().freeze().astype(np.float64)

    def test_parameters_refuse_what_does_not_fit(self) -> None:
        p = nn.Parameter((2, 3))
        with pytest.raises(ValueError, match=r"Parameter: data must have shape \(2, 3\), got \(3, 2\)"):
            p.data = np.ones((3, 2), np.float32)
        with pytest.raises(ValueError, match=r"Parameter: array must have shape \(2, 3\), got \(3, 2\)"):
            p.load(np.ones((3, 2), np.float32))
        with pytest.raises(TypeError, match="Parameter: array must be float32, got float64"):
            p.load(np.ones((2, 3)))


class TestLayers:
    def test_dropout_is_for_training(self) -> None:
        dropout, x = nn.Dropout(0.5), np.ones((10, 10), np.float32)
        tensor = Tensor(x)
        assert set(np.unique(dropout(x))) == {0.0, 2.0}
        assert set(np.unique(dropout(tensor).data)) == {0.0, 2.0}
        dropout.eval()
        assert dropout(x) is x
        assert dropout(tensor) is tensor
        assert nn.Dropout(0.5).freeze().train()(x) is x


def test_gradients_are_removed_or_zeros() -> None:
    layer = nn.Linear(3, 2)
    layer(np.ones((1, 3), np.float32)).sum().backward()
    layer.zero_grad(set_to_none=False)
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()
    layer.zero_grad()
    assert layer.weight.grad is None
