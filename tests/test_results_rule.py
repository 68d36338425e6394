"""What a call returns depends on what the module is, and of a function on its operands alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from test_functional_gradients import CASES, make

from fastattn import Tensor, nn, no_grad
from fastattn import functional as F

OFFSETS = np.array([0, 2, 5], np.int32)
X = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
WORDS = np.array([[1, 2, 3], [3, 2, 1]])
IDS = np.array([1, 0, 3])


def with_weights(block: nn.Module, *arguments: Any, **lists: Any) -> tuple[Any, ...]:
    """What a block gives, and its attention weights."""
    weights: dict[str, list[Any]] = {"attn_weights": [], **lists}
    return (block(*arguments, **weights), *(w for found in weights.values() for w in found))


# The module, and how to call it with an input: X or a Tensor of it.
MODULES: dict[str, tuple[Callable[[], nn.Module], Callable[[Any, Any], Any]]] = {
    "Linear": (lambda: nn.Linear(8, 3), lambda m, x: m(x)),
    "Linear without bias": (lambda: nn.Linear(8, 3, bias=False, activation="gelu"), lambda m, x: m(x)),
    "StackedLinear": (lambda: nn.StackedLinear(8, {"a": 2, "b": 3}), lambda m, x: m(x)),
    "LayerNorm": (lambda: nn.LayerNorm(8), lambda m, x: m(x, residual=x)),
    "Embedding": (lambda: nn.Embedding(4, 8), lambda m, x: m(IDS)),
    "CharCNN": (lambda: nn.CharCNN(4, 2, [(1, 3), (2, 4)]), lambda m, x: m(WORDS)),
    "Highway": (lambda: nn.Highway(8, 2), lambda m, x: m(x)),
    "LSTM": (lambda: nn.LSTM(8, 3, 2, bidirectional=True), lambda m, x: m(x, cu_seqlens=OFFSETS)),
    "LSTM padded": (lambda: nn.LSTM(8, 3), lambda m, x: m(x.reshape(5, 1, 8))),
    "GRU": (lambda: nn.GRU(8, 3, 2), lambda m, x: m(x)),
    "LSTMCell": (lambda: nn.LSTMCell(8, 3), lambda m, x: m(x)),
    "GRUCell": (lambda: nn.GRUCell(8, 3), lambda m, x: m(x)),
    "AdditiveAttention": (
        lambda: nn.AdditiveAttention(8, 8, 4),
        lambda m, x: m(x, x, cu_seqlens_q=OFFSETS, need_weights=True),
    ),
    "MultiHeadAttention": (
        lambda: nn.MultiHeadAttention(8, 2, self_attention=True),
        lambda m, x: m(x, cu_seqlens_q=OFFSETS, need_weights=True),
    ),
    "EncoderBlock": (lambda: nn.EncoderBlock(8, 2, 16, dropout=0.1), lambda m, x: with_weights(m, x, OFFSETS)),
    "EncoderBlock norm first": (
        lambda: nn.EncoderBlock(8, 2, 16, norm_first=True).eval(),
        lambda m, x: (nn.encode([m, m], x, OFFSETS), *with_weights(m, x, OFFSETS)),
    ),
    "DecoderBlock": (
        lambda: nn.DecoderBlock(8, 2, 16, dropout=0.1),
        lambda m, x: with_weights(m, x, OFFSETS, x, OFFSETS, cross_weights=[]),
    ),
    "CRF": (lambda: nn.CRF(8), lambda m, x: m(x, np.arange(len(x)) % 8, [0, len(x)])),
    "ScalarMix": (lambda: nn.ScalarMix(2, do_layer_norm=True), lambda m, x: m([x, x])),
    "Sequential": (lambda: nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Dropout(0.2)), lambda m, x: m(x)),
}
WITHOUT_PARAMETERS = {
    "Dropout": lambda: nn.Dropout(0.5),
    "ReLU": nn.ReLU,
    "Tanh": nn.Tanh,
    "Sigmoid": nn.Sigmoid,
    "SiLU": nn.SiLU,
    "GELU": nn.GELU,
    "Softmax": lambda: nn.Softmax(-1),
    "LayerNorm without weights": lambda: nn.LayerNorm(8, elementwise_affine=False),
    "Sequential of nothing": nn.Sequential,
}
ELSEWHERE = {"Module", "ModuleDict", "ModuleList", "SinusoidalPositions"}


def flat(output: Any) -> Iterator[Any]:
    if isinstance(output, tuple):
        for part in output:
            yield from flat(part)
    else:
        yield output


def test_every_module_is_here() -> None:
    modules = {name for name in nn.__all__ if inspect.isclass(m := getattr(nn, name)) and issubclass(m, nn.Module)}
    assert modules - ELSEWHERE == {name.split()[0] for name in (*MODULES, *WITHOUT_PARAMETERS)}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_with_parameters(name: str) -> None:
    make_module, call = MODULES[name]
    module = make_module()
    for trains in (True, False):
        for p in module.parameters():
            p.requires_grad = trains
        for within in (nullcontext(), no_grad()):
            with within:
                outputs = list(flat(call(module, X)))
            for output in outputs:
                assert isinstance(output, Tensor)
                assert output.requires_grad == (trains and isinstance(within, nullcontext))
    frozen = make_module().freeze()
    assert all(isinstance(output, np.ndarray) for output in flat(call(frozen, X)))
    if name not in ("Embedding", "CharCNN"):  # whose input is integers
        assert all(isinstance(output, Tensor) for output in flat(call(frozen, Tensor(X))))
        with no_grad():
            assert all(isinstance(output, Tensor) for output in flat(call(frozen, Tensor(X, requires_grad=True))))


@pytest.mark.parametrize("name", WITHOUT_PARAMETERS)
def test_a_module_without_parameters(name: str) -> None:
    module = WITHOUT_PARAMETERS[name]()
    for _ in range(2):
        assert isinstance(module(X), np.ndarray)
        assert isinstance(module(Tensor(X)), Tensor)
        module.freeze()


@pytest.mark.parametrize("name", CASES)
def test_a_function(name: str) -> None:
    """Arrays and frozen parameters give an array; each other Tensor among them makes the result one."""
    f, tensors = make(name, np.float32)
    frozen: list[Any] = [nn.Parameter(tensor.data.copy()) for tensor in tensors]
    for p in frozen:
        p.freeze()
    arrays: list[Any] = [tensor.data for tensor in tensors]
    if "weights" not in name:  # which joins two outputs
        assert isinstance(f(*arrays), np.ndarray | np.generic)
        assert isinstance(f(*frozen), np.ndarray | np.generic)
    for i, array in enumerate(arrays):
        for operand in (Tensor(array), nn.Parameter(array.copy())):
            for within in (nullcontext(), no_grad()):
                with within:
                    y = f(*frozen[:i], operand, *frozen[i + 1 :])
                assert isinstance(y, Tensor), i
                assert y.requires_grad == (operand.requires_grad and isinstance(within, nullcontext))


def test_functions_of_frozen_parameters() -> None:
    p = nn.Parameter(X.copy(), packed=True)
    p.freeze()
    for y in (p * 2.0, p.sum(axis=0), p.T, p @ X[0], p[0], p.reshape(-1), F.dropout(p, 0.0), F.relu(p * 1.0)):
        assert isinstance(y, np.ndarray)
