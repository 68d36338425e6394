"""nn.Sequential, ModuleList, ModuleDict: what they do in PyTorch."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, normal

import fastattn
from fastattn import functional as F
from fastattn import nn

X = normal(np.random.default_rng(0), 5, 4)


def layers(count: int) -> list[nn.Module]:
    return [nn.Linear(4, 4) for _ in range(count)]


class TestModuleList:
    def test_it_is_a_list(self) -> None:
        a, b, c, d = layers(4)
        modules = nn.ModuleList([a, b])
        assert len(modules) == 2
        assert modules.append(c) is modules
        assert modules.extend(iter([d])) is modules
        assert list(modules) == [a, b, c, d]
        assert (modules[0], modules[-1], modules[np.int64(1)]) == (a, d, b)
        modules.insert(1, d)
        modules.insert(-1, a)
        assert list(modules) == [a, d, b, c, a, d]
        modules[2] = c
        del modules[3:]
        del modules[0]
        assert list(modules) == [d, c]
        assert d in modules
        assert a not in modules
        assert len(nn.ModuleList()) == 0

    def test_a_slice_shares_its_modules(self) -> None:
        modules = nn.ModuleList(layers(4))
        part = modules[1:3]
        assert type(part) is nn.ModuleList
        assert list(part) == list(modules)[1:3]
        assert list(dict(part.named_parameters())) == ["0.weight", "0.bias", "1.weight", "1.bias"]

    def test_names(self) -> None:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.blocks = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(2))

        net = Net()
        assert list(net.state_dict()) == ["blocks.0.weight", "blocks.1.weight"]
        assert [name for name, _ in net.blocks.named_children()] == ["0", "1"]
        assert list(net.blocks.children()) == list(net.blocks)
        assert [name for name, _ in net.named_modules()] == ["", "blocks", "blocks.0", "blocks.1"]
        net.checkpoint_names = {"blocks.{}": "encoder.layer.{}.dense"}
        assert list(net.state_dict()) == ["encoder.layer.0.dense.weight", "encoder.layer.1.dense.weight"]

    def test_what_does_not_fit(self) -> None:
        modules = nn.ModuleList(layers(1))
        for wrong in (lambda: modules.append(F.relu), lambda: nn.ModuleList([1])):  # type: ignore[arg-type, list-item]  # on purpose
            with pytest.raises(TypeError, match=r"ModuleList: module '.' must be a Module, got "):
                wrong()
        for index in (1, -2):
            with pytest.raises(IndexError, match=rf"ModuleList: index must be in \[-1, 1\), got {index}"):
                modules[index]
        with pytest.raises(TypeError, match="ModuleList: this module has no forward"):
            modules(X)
        assert len(modules) == 1


class TestSequential:
    def test_each_gets_what_the_one_before_gives(self) -> None:
        first, last = nn.Linear(4, 8), nn.Linear(8, 2)
        model = nn.Sequential(first, nn.GELU(), nn.LayerNorm(8), last)
        norm = model[2]
        wanted = last(norm(F.gelu(first(X))))
        assert_same_bits(model(X).data, wanted.data)
        model(X).sum().backward()
        assert all(p.grad is not None for p in model.parameters())
        assert nn.Sequential()(X) is X
        frozen = model.freeze()(X)
        assert isinstance(frozen, np.ndarray)
        assert_same_bits(frozen, wanted.data)

    def test_an_activation_apart_has_the_bits_of_one_within(self, isa: str) -> None:
        for module, name in ((nn.ReLU(), "relu"), (nn.GELU(), "gelu"), (nn.GELU("tanh"), "gelu_tanh")):
            within = nn.Linear(4, 8, activation=name)
            apart = nn.Linear(4, 8)
            apart.weight, apart.bias = within.weight, within.bias
            assert_same_bits(nn.Sequential(apart, module)(X).data, within(X).data)

    def test_names(self) -> None:
        model = nn.Sequential(OrderedDict(dense=nn.Linear(4, 3), act=nn.ReLU()))
        assert list(model.state_dict()) == ["dense.weight", "dense.bias"]
        assert model.dense is model[0]
        assert isinstance(model.act, nn.ReLU)
        with pytest.raises(AttributeError, match="'Sequential' object has no attribute 'other'"):
            _ = model.other
        assert list(dict(model[:1].named_children())) == ["dense"]
        part = nn.Sequential(*layers(3))[1:]
        assert isinstance(part, nn.Sequential)
        assert list(part.state_dict()) == ["1.weight", "1.bias", "2.weight", "2.bias"]

    def test_train_freeze_and_copies(self) -> None:
        fastattn.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
        assert not np.array_equal(model(X).data, model(X).data)
        model.eval()
        assert not model[1].training
        for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert_same_bits(copied(X).data, model(X).data)
            assert copied[0] is not model[0]
        assert_same_bits(pickle.loads(pickle.dumps(model.freeze()))(X), model(X))

    def test_more_attributes_of_a_subclass_are_found(self) -> None:
        class Scaled(nn.Sequential):
            def __init__(self, *modules: nn.Module) -> None:
                super().__init__(*modules)
                self.scale = nn.Parameter(np.ones(1, np.float32))

            def forward(self, x: Any) -> Any:
                return super().forward(x) * self.scale

        assert list(Scaled(nn.Linear(2, 2)).state_dict()) == ["scale", "0.weight", "0.bias"]


class TestModuleDict:
    def test_it_is_a_dict(self) -> None:
        a, b = layers(2)
        heads = nn.ModuleDict({"a": a})
        heads["b"] = b
        assert (len(heads), list(heads), list(heads.keys()), list(heads.values())) == (
            2,
            ["a", "b"],
            ["a", "b"],
            [a, b],
        )
        assert dict(heads.items()) == {"a": a, "b": b}
        assert heads["b"] is b
        assert "a" in heads
        assert list(heads.state_dict()) == ["a.weight", "a.bias", "b.weight", "b.bias"]
        del heads["a"]
        assert list(heads) == ["b"]
        heads["training"] = a  # the name of an attribute
        assert heads["training"] is a
        assert heads.eval().training is False
        assert len(nn.ModuleDict()) == 0
        assert heads.pop("training") is a
        heads.update({"c": a})
        assert (list(heads), heads.get("d")) == (["b", "c"], None)
        assert heads != nn.ModuleDict(heads)  # a module is equal to itself alone
        assert len({heads, heads}) == 1

    def test_what_does_not_fit(self) -> None:
        with pytest.raises(ValueError, match=r"ModuleDict: names must be strings without dots, got 'a\.b'"):
            nn.ModuleDict({"a.b": nn.ReLU()})
        with pytest.raises(KeyError):
            nn.ModuleDict()["a"]


class TestTrees:
    def test_repr(self) -> None:
        model = nn.Sequential(
            nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)) for _ in range(3)),
            nn.LayerNorm(2),
            nn.Linear(2, 1, bias=False, activation="tanh"),
        )
        assert repr(model) == (
            "Sequential(\n"
            "  (0): ModuleList(\n"
            "    (0-2): 3 x Sequential(\n"
            "      (0): Linear(in_features=2, out_features=2, bias=True)\n"
            "      (1): Dropout(p=0.1)\n"
            "    )\n"
            "  )\n"
            "  (1): LayerNorm((2,), eps=1e-05, elementwise_affine=True)\n"
            "  (2): Linear(in_features=2, out_features=1, bias=False, activation='tanh')\n"
            ")"
        )

        class Plain(nn.Module):
            def __init__(self) -> None:
                self.layers = [nn.ReLU(), nn.ReLU()]

        assert repr(Plain()) == "Plain(\n  (layers.0-1): 2 x ReLU()\n)"
        assert repr(nn.Module()) == "Module()"

    def test_every_layer_shows_what_it_was_made_with(self) -> None:
        layers = [nn.Embedding(7, 4), nn.Embedding(7, 4, padding_idx=2), nn.GELU("tanh"), nn.Softmax(-1)]
        assert [repr(layer) for layer in layers] == [
            "Embedding(7, 4)", "Embedding(7, 4, padding_idx=2)", "GELU(approximate='tanh')", "Softmax(dim=-1)",
        ]  # fmt: skip
        assert repr(nn.LSTM(3, 4, num_layers=2, bidirectional=True)).startswith("LSTM(3, 4, num_layers=2, bidirection")

    def test_a_shared_module_comes_once(self) -> None:
        layer = nn.Linear(4, 4)
        model = nn.Sequential(layer, nn.ReLU(), layer)
        assert len(list(model.modules())) == 3
        assert list(model.state_dict()) == ["0.weight", "0.bias"]
        model(X).sum().backward()

    def test_apply(self) -> None:
        seen: list[nn.Module] = []
        model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU()))
        assert model.apply(seen.append) is model
        assert seen == [model[0], model[1][0], model[1], model]  # type: ignore[index]  # a Sequential


class TestLayers:
    def test_a_linear_layer_without_bias(self) -> None:
        for layer in (nn.Linear(4, 3, False), nn.Linear(4, 3, bias=False)):
            assert layer.bias is None
            assert list(layer.state_dict()) == ["weight"]
            assert_same_bits(layer(X).data, F.linear(X, layer.weight).data)
        assert list(nn.StackedLinear(4, {"q": 2, "k": 2}, False).state_dict()) == ["q.weight", "k.weight"]

    @pytest.mark.parametrize(
        ("build", "error", "message"),
        [
            (
                lambda: nn.Linear(0, 3),
                ValueError,
                "Linear: in_features must be a positive integer, got 0",
            ),
            (
                lambda: nn.Linear(2, 3, bias=nn.Parameter((3,))),
                TypeError,
                "Linear: bias must be a bool, got ",
            ),  # type: ignore[arg-type]  # on purpose
            (lambda: nn.Linear(2, 3, activation="elu"), ValueError, "Linear: activation must be one of .*, got 'elu'"),
            (lambda: nn.LayerNorm(()), ValueError, "LayerNorm: normalized_shape must have sizes of at least 1"),
            (lambda: nn.LayerNorm((2, 0)), ValueError, r"normalized_shape must have sizes .*, got \(2, 0\)"),
            (lambda: nn.Dropout(1.0), ValueError, r"Dropout: p must be a number in \[0, 1\), got 1.0"),
            (lambda: nn.Dropout(-0.1), ValueError, r"Dropout: p must be a number in \[0, 1\), got -0.1"),
            (lambda: nn.GELU("erf"), ValueError, "GELU: approximate must be one of none, tanh, got 'erf'"),
        ],
    )
    def test_what_is_refused_at_once(self, build: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            build()

    def test_layer_norm(self) -> None:
        x = normal(np.random.default_rng(1), 2, 3, 4)
        for layer in (nn.LayerNorm((3, 4)), nn.LayerNorm([3, 4], bias=False)):
            assert_same_bits(layer(x).data, F.layer_norm(x, (3, 4)))
        assert nn.LayerNorm(4, 1e-3).eps == 1e-3
        assert list(nn.LayerNorm(4, bias=False).state_dict()) == ["weight"]
        assert list(nn.LayerNorm(4, elementwise_affine=False).state_dict()) == []


def test_as_in_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch, the other side of this test, is not installed")
    theirs, ours = [
        lib.Sequential(
            OrderedDict(a=lib.Linear(4, 8, bias=False), b=lib.LayerNorm((8,), 1e-5, True, False), c=lib.SiLU()),
        )
        for lib in (torch.nn, nn)
    ]
    for modules, lib in ((theirs, torch.nn), (ours, nn)):
        modules.append(lib.Linear(8, 3)).extend([lib.Sigmoid(), lib.Tanh()])
    assert list(theirs.state_dict()) == list(ours.state_dict())
    ours.load_state_dict({name: x.numpy() for name, x in theirs.state_dict().items()})
    np.testing.assert_allclose(ours(X).data, theirs(torch.tensor(X)).detach().numpy(), rtol=0, atol=1e-6)
    assert repr(ours[:3]).replace("8,)", "8,)") == repr(theirs[:3]).replace(", bias=False)\n  (c)", ")\n  (c)")
    assert [name for name, _ in theirs[1:3].named_children()] == [name for name, _ in ours[1:3].named_children()]
    for a, b in ((torch.nn.ModuleList(), nn.ModuleList()),):
        assert bool(a) == bool(b)
