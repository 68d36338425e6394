"""Where a module finds its parameters and child modules, and what it refuses to hide."""

from __future__ import annotations

import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastattn import Tensor, nn
from fastattn.models import BertConfig, BertModel


def test_a_parameter_or_module_is_not_replaced_by_something_else() -> None:
    layer = nn.Linear(3, 2)
    for value in (np.ones((2, 3), np.float32), Tensor(np.ones((2, 3), np.float32), requires_grad=True)):
        with pytest.raises(TypeError, match=r"Linear: weight must be a Parameter or None, got .*its data"):
            layer.weight = value  # type: ignore[assignment]
    assert list(layer.state_dict()) == ["weight", "bias"]
    parent = nn.Sequential(layer)
    parent.head = layer
    with pytest.raises(TypeError, match="Sequential: head must be a Module or None, got int"):
        parent.head = 3
    layer.bias = None
    assert list(layer.state_dict()) == ["weight"]


def test_two_parameters_with_one_name_are_refused() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            self.parts = {1: nn.Linear(2, 2), "1": nn.Linear(2, 2)}

    with pytest.raises(ValueError, match=r"Model: two parameters have the name 'parts\.1\.weight'"):
        Model().state_dict()


class _Slots:
    __slots__ = ("layer",)

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer


HIDING: dict[str, Any] = {
    "a namespace with a list": lambda layer: SimpleNamespace(layers=[layer]),
    "slots": _Slots,
    "a closure": lambda layer: lambda x: layer(x),
    "a default": lambda layer: lambda x, layer=layer: layer(x),
    "a partial of a list": lambda layer: partial(map, [layer]),
    "an object array": lambda layer: np.array([layer], object),
    "a set of tuples": lambda layer: {(layer,)},
    "a key": lambda layer: {layer: 1},
}


@pytest.mark.parametrize("hide", HIDING.values(), ids=HIDING)
def test_a_module_that_is_hidden_is_an_error(hide: Any) -> None:
    module = nn.Sequential()
    module.hidden = hide(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="Sequential: hidden h"):
        module.freeze()


def test_searching_takes_few_calls() -> None:
    """Not seconds: of functions. A search through the attributes of a model's config would double them."""
    sizes = {"hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 4, "num_hidden_layers": 6}
    model = BertModel(BertConfig(vocab_size=5, max_position_embeddings=4, **sizes))
    modules, names, calls = len(list(model.modules())), list(model.state_dict()), []
    sys.setprofile(lambda _frame, event, _argument: calls.append(event) if event.endswith("call") else None)
    try:
        assert [name for name, _ in model.named_parameters()] == names  # for the second time: names are kept
    finally:
        sys.setprofile(None)
    assert len(calls) < 20 * modules


def test_lists_in_tuples_in_dicts_are_searched_each_time() -> None:
    module = nn.Module()
    module.parts = {"a": ([], 1)}
    assert list(module.state_dict()) == []
    module.parts["a"][0].append(nn.Linear(1, 1))
    assert list(module.state_dict()) == ["parts.a.0.0.weight", "parts.a.0.0.bias"]
    module.parts["b"] = {nn.Linear(1, 1)}
    with pytest.raises(TypeError, match=r"Module: parts\.b hides a module or a parameter in a set"):
        module.state_dict()
