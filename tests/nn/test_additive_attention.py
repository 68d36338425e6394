"""nn.AdditiveAttention: against its definition and differences; company, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, cumulative, normal
from helpers_gradients import check_tensor_gradients, leaf

import fastattn
from fastattn import functional as F
from fastattn import nn

OFFSETS, OTHERS = cumulative([2, 0, 5, 1]), cumulative([3, 4, 20, 0])
QUERY, KEY, HIDDEN, VALUE = 5, 7, 24, 3


def make(hidden: int = HIDDEN) -> nn.AdditiveAttention:
    layer = nn.AdditiveAttention(QUERY, KEY, hidden, std=0.8)
    rng = np.random.default_rng(0)
    layer.load_state_dict({name: normal(rng, *array.shape) for name, array in layer.state_dict().items()})
    return layer


def inputs() -> list[Any]:
    rng = np.random.default_rng(1)
    rows, columns = int(OFFSETS[-1]), int(OTHERS[-1])
    return [normal(rng, rows, QUERY), normal(rng, columns, KEY), normal(rng, columns, VALUE)]


def by_hand(layer: nn.AdditiveAttention, query: Any, key: Any, value: Any) -> tuple[Any, Any]:
    state = {name: array.astype(np.float64) for name, array in layer.state_dict().items()}
    q, k = (rows @ state[f"{name}.weight"].T + state[f"{name}.bias"] for name, rows in (("query", query), ("key", key)))
    y = np.zeros((len(query), value.shape[1]))
    weights = np.zeros((len(OFFSETS) - 1, np.diff(OFFSETS).max(), np.diff(OTHERS).max()))
    for i in range(len(OFFSETS) - 1):
        columns = range(OTHERS[i], OTHERS[i + 1])
        for row in range(OFFSETS[i], OFFSETS[i + 1]):
            scores = np.array([float(state["weight"][0] @ np.tanh(q[row] + k[j])) for j in columns])
            p = np.exp(scores) / max(np.exp(scores).sum(), 1e-300)
            y[row] = p @ value[columns.start : columns.stop]
            weights[i, row - OFFSETS[i], : len(columns)] = p
    return y, weights


@pytest.mark.parametrize("hidden", [1, 7, 16, 24, 64])
def test_values_and_weights(hidden: int, isa: str, threads: int) -> None:
    layer, arrays = make(hidden), inputs()
    y, weights = layer(*arrays, cu_seqlens_q=OFFSETS, cu_seqlens_k=OTHERS, need_weights=True)
    wanted, wanted_weights = by_hand(layer, *arrays)
    np.testing.assert_allclose(y.data, wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(weights.data, wanted_weights, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(y.data[-1], 0)  # no keys
    plain = make(hidden).freeze()(*arrays, cu_seqlens_q=OFFSETS, cu_seqlens_k=OTHERS)
    assert_same_bits(plain, y.data)


def test_it_is_the_concatenation_score(isa: str) -> None:
    """v . tanh([W U] [query, key]): the perceptron over each pair."""
    layer, (query, key, _) = make(), inputs()
    query, key = query[:1], key[:3]
    y, weights = layer(query, key, cu_seqlens_q=cumulative([1]), cu_seqlens_k=cumulative([3]), need_weights=True)
    pairs = np.concatenate([np.repeat(query, 3, axis=0), key], axis=1)
    matrix = np.concatenate([layer.query.weight.data, layer.key.weight.data], axis=1)
    t = F.linear(pairs, matrix, layer.query.bias.data + layer.key.bias.data, activation="tanh")
    scores = F.linear(t, layer.weight.data).reshape(1, 3)
    np.testing.assert_allclose(weights.data[0], F.softmax(scores, dim=1), rtol=0, atol=1e-5)
    np.testing.assert_allclose(y.data[0], (weights.data[0, 0, :, None] * key).sum(axis=0), rtol=0, atol=1e-5)


def test_gradients() -> None:
    layer = make()
    layer.astype(np.float64)
    query, key, value = leaf(8, QUERY), leaf(27, KEY, seed=1), leaf(27, VALUE, seed=2)
    offsets = {"cu_seqlens_q": OFFSETS, "cu_seqlens_k": OTHERS}
    parameters: list[Any] = list(layer.parameters())
    check_tensor_gradients(lambda *_: layer(query, key, value, **offsets), query, key, value, *parameters)
    again = leaf(27, KEY, seed=3)  # these are what is averaged, too
    check_tensor_gradients(lambda *_: layer(query, again, **offsets), again)


def test_company_does_not_matter(isa: str, restore_runtime: None) -> None:
    layer = make().freeze()
    rng = np.random.default_rng(2)
    sizes = [(1, 9), (17, 40), (3, 1), (8, 8)]
    batch = [(normal(rng, rows, QUERY), normal(rng, columns, KEY)) for rows, columns in sizes]

    def run(chosen: list[int]) -> list[Any]:
        queries, keys = zip(*(batch[i] for i in chosen), strict=True)
        offsets = cumulative([len(part) for part in queries])
        others = cumulative([len(part) for part in keys])
        y = layer(np.concatenate(queries), np.concatenate(keys), cu_seqlens_q=offsets, cu_seqlens_k=others)
        return list(np.split(y, offsets[1:-1]))

    fastattn.set_num_threads(1)
    alone = [run([i])[0] for i in range(4)]
    for threads in (1, 2):
        fastattn.set_num_threads(threads)
        for order in ([0, 1, 2, 3], [3, 1, 0], [2, 2]):
            for i, y in zip(order, run(order), strict=True):
                assert_same_bits(y, alone[i])


def test_nan_stays_in_its_own_sequence() -> None:
    layer, arrays = make().freeze(), inputs()
    offsets = {"cu_seqlens_q": OFFSETS, "cu_seqlens_k": OTHERS}
    wanted = layer(*arrays, **offsets)
    arrays[1][0] = np.nan
    y = layer(*arrays, **offsets)
    assert np.isnan(y[:2]).all()
    assert_same_bits(y[2:], wanted[2:])


def test_names() -> None:
    shapes = {name: array.shape for name, array in make().state_dict().items()}
    assert shapes == {
        "query.weight": (HIDDEN, QUERY),
        "query.bias": (HIDDEN,),
        "key.weight": (HIDDEN, KEY),
        "key.bias": (HIDDEN,),
        "weight": (1, HIDDEN),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query": np.ones((8, 4), "f4")}, r"key must have shape \(27, 4\), got \(27, 6\)"),
        ({"query": np.ones((8, 6, 1), "f4")}, r"query must have shape \(tokens_q, hidden\), got \(8, 6, 1\)"),
        ({"value": np.ones((26, 3), "f4")}, r"key must have shape \(26, 6\), got \(27, 6\)"),
        ({"value": np.ones(27, "f4")}, r"value must have shape \(tokens_k, dim\), got \(27,\)"),
        ({"query": np.ones((8, 0), "f4")}, r"query must have shape \(tokens_q, hidden\), got \(8, 0\)"),
        ({"weight": np.ones((6,), "f4")}, r"weight must have shape \(1, 6\), got \(6,\)"),
        ({"cu_seqlens_q": OTHERS}, "additive_attention: cu_seqlens_q must end at 8"),
        ({"cu_seqlens_k": None}, "additive_attention: cu_seqlens_k must end at 27"),
        ({"cu_seqlens_q": cumulative([8])}, r"cu_seqlens_k must have shape \(2,\), got \(5,\)"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    arguments = {
        "query": np.ones((8, 6), "f4"),
        "key": np.ones((27, 6), "f4"),
        "value": np.ones((27, 3), "f4"),
        "weight": np.ones((1, 6), "f4"),
        "cu_seqlens_q": OFFSETS,
        "cu_seqlens_k": OTHERS,
    }
    with pytest.raises(ValueError, match=message):
        F.additive_attention(**{**arguments, **changes})
