"""nn.MultiHeadAttention: against its definition and torch; cached steps, company, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, cumulative, normal
from helpers_gradients import check_tensor_gradients, leaf
from helpers_heads import assert_gradients

import fastattn
from fastattn import Tensor, nn, no_grad

DIM, HEADS = 24, 3
OFFSETS, OTHERS = cumulative([2, 0, 5, 1]), cumulative([3, 4, 1, 0])


def make(self_attention: bool, **options: Any) -> nn.MultiHeadAttention:
    """With biases that are not 0, and weights large enough to choose."""
    layer = nn.MultiHeadAttention(DIM, HEADS, self_attention=self_attention, std=0.4, **options)
    rng = np.random.default_rng(3)
    state = {name: normal(rng, *array.shape) * np.float32(0.4) for name, array in layer.state_dict().items()}
    layer.load_state_dict(state)
    return layer


def inputs() -> tuple[Any, Any]:
    rng = np.random.default_rng(4)
    return normal(rng, int(OFFSETS[-1]), DIM), normal(rng, int(OTHERS[-1]), DIM)


def by_hand(
    layer: nn.MultiHeadAttention, x: Any, memory: Any, others: Any, causal: bool, bias: Any = None
) -> tuple[Any, Any]:
    """In float64, one head of one sequence after the other; and the weights."""
    state = {name: array.astype(np.float64) for name, array in layer.state_dict().items()}
    q, k, v = (
        (rows @ state[f"{name}_proj.weight"].T + state[f"{name}_proj.bias"]).reshape(len(rows), HEADS, -1)
        for name, rows in (("q", x), ("k", memory), ("v", memory))
    )
    context = np.zeros((len(x), HEADS, DIM // HEADS))
    weights = np.zeros((len(OFFSETS) - 1, HEADS, np.diff(OFFSETS).max(), np.diff(others).max()))
    for i in range(len(OFFSETS) - 1):
        rows, columns = slice(*OFFSETS[i : i + 2]), slice(*others[i : i + 2])
        for h in range(HEADS):
            scores = q[rows, h] @ k[columns, h].T / (DIM // HEADS) ** 0.5
            distances = np.arange(scores.shape[1]) - np.arange(len(scores))[:, None]
            if bias is not None:
                scores += bias[distances.clip(-2, 2) + 2, h]
            left, right = layer.window or (99, 99)
            scores[(distances < -left) | (distances > (0 if causal else right))] = -np.inf
            e = np.exp(scores)
            p = e / np.maximum(e.sum(axis=1, keepdims=True), 1e-300)
            weights[i, h, : p.shape[0], : p.shape[1]] = p
            context[rows, h] = p @ v[columns, h]
    return context.reshape(len(x), DIM) @ state["out_proj.weight"].T + state["out_proj.bias"], weights


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention(causal: bool, isa: str, threads: int) -> None:
    x, _ = inputs()
    layer = make(True)
    y, weights = layer(x, cu_seqlens_q=OFFSETS, is_causal=causal, need_weights=True)
    wanted, wanted_weights = by_hand(layer, x, x, OFFSETS, causal)
    np.testing.assert_allclose(y.data, wanted, rtol=0, atol=2e-5)
    np.testing.assert_allclose(weights.data, wanted_weights, rtol=0, atol=2e-6)
    plain = make(True).freeze()(x, cu_seqlens_q=OFFSETS, is_causal=causal)
    assert_same_bits(plain, y.data)
    other = make(False)  # two products instead of one: the same chains
    other.load_state_dict(layer.state_dict())
    assert_same_bits(other(x, cu_seqlens_q=OFFSETS, is_causal=causal).data, plain)


def test_to_a_memory(isa: str, threads: int) -> None:
    x, memory = inputs()
    layer = make(False)
    offsets = {"cu_seqlens_q": OFFSETS, "cu_seqlens_k": OTHERS}
    y, weights = layer(x, memory, **offsets, need_weights=True)
    wanted, wanted_weights = by_hand(layer, x, memory, OTHERS, False)
    np.testing.assert_allclose(y.data, wanted, rtol=0, atol=2e-5)
    np.testing.assert_allclose(weights.data, wanted_weights, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(y.data[-1], layer.out_proj.bias.data)  # its sequence has no keys
    frozen = make(False).freeze()
    assert_same_bits(frozen(x, memory, **offsets), y.data)
    assert_same_bits(frozen.attend(x, frozen.keys_values(memory), **offsets), y.data)


@pytest.mark.parametrize("self_attention", [True, False])
def test_without_biases(self_attention: bool) -> None:
    layer, other = make(self_attention, bias=False), make(self_attention)
    assert {name.split(".")[1] for name in layer.state_dict()} == {"weight"}
    zeros = {name: np.zeros_like(x) for name, x in other.state_dict().items() if name.endswith("bias")}
    other.load_state_dict({**zeros, **layer.state_dict()})
    x, memory = inputs()
    arguments = {"cu_seqlens_q": OFFSETS} if self_attention else {"cu_seqlens_q": OFFSETS, "cu_seqlens_k": OTHERS}
    operands = (x,) if self_attention else (x, memory)
    assert_same_bits(layer(*operands, **arguments), other(*operands, **arguments))


@pytest.mark.parametrize("self_attention", [True, False])
def test_gradients(self_attention: bool) -> None:
    """In float64 against differences; dropout, residual and all."""
    layer = make(self_attention, dropout=0.3)
    layer.astype(np.float64)
    parameters = (layer.stacked.weight, layer.stacked.bias, layer.out_proj.weight)
    x, memory, residual = leaf(8, DIM), leaf(8, DIM, seed=1), leaf(8, DIM, seed=2)

    def f(*_: Any) -> Any:
        fastattn.manual_seed(5)
        if self_attention:
            return layer(x, cu_seqlens_q=OFFSETS, is_causal=True, residual=residual, dropout_p=0.2)
        return layer(x, memory, cu_seqlens_q=OFFSETS, cu_seqlens_k=OTHERS, residual=residual, dropout_p=0.2)

    check_tensor_gradients(f, x, residual, *([] if self_attention else [memory]), *parameters)


@pytest.mark.parametrize("self_attention", [True, False])
def test_dropout_only_while_training(self_attention: bool) -> None:
    x, memory = inputs()
    operands, offsets = (x,), {"cu_seqlens_q": OFFSETS}
    if not self_attention:
        operands, offsets = (x, memory), {**offsets, "cu_seqlens_k": OTHERS}
    layer = make(self_attention, dropout=0.5)
    fastattn.manual_seed(1)
    a, b = (layer(*operands, **offsets).data for _ in range(2))
    assert not np.array_equal(a, b)
    layer.eval()
    a, b = (layer(*operands, **offsets).data for _ in range(2))
    assert_same_bits(a, b)
    assert_same_bits(a, make(self_attention)(*operands, **offsets).data)


@pytest.mark.parametrize("self_attention", [True, False])
@pytest.mark.parametrize("causal", [False, True])
def test_windows_and_biases(causal: bool, self_attention: bool, isa: str) -> None:
    x, memory = inputs()
    bias = normal(np.random.default_rng(6), 5, HEADS)
    layer = make(self_attention, window=(1, 2))
    given = {} if self_attention else {"key_value": memory, "cu_seqlens_k": OTHERS}
    options: dict[str, Any] = {"cu_seqlens_q": OFFSETS, "is_causal": causal, "position_bias": bias, **given}
    y, weights = layer(x, need_weights=True, **options)
    others = (x, OFFSETS) if self_attention else (memory, OTHERS)
    wanted, wanted_weights = by_hand(layer, x, *others, causal, bias)
    np.testing.assert_allclose(y.data, wanted, rtol=0, atol=2e-5)
    np.testing.assert_allclose(weights.data, wanted_weights, rtol=0, atol=2e-6)
    assert_same_bits(layer.freeze()(x, **options), y)


def test_residual() -> None:
    x, memory = inputs()
    for layer, arguments in ((make(True), (x,)), (make(False), (x, memory))):
        offsets = {"cu_seqlens_q": OFFSETS, **({"cu_seqlens_k": OTHERS} if len(arguments) == 2 else {})}
        assert_same_bits(layer(*arguments, **offsets, residual=x).data, layer(*arguments, **offsets).data + x)


@pytest.mark.parametrize("self_attention", [True, False])
def test_company_does_not_matter(self_attention: bool, isa: str, restore_runtime: None) -> None:
    layer = make(self_attention).freeze()
    rng = np.random.default_rng(6)
    lengths, sources = [1, 17, 300, 4], [9, 260, 2, 31]
    queries, memories = ([normal(rng, n, DIM) for n in part] for part in (lengths, sources))

    def run(chosen: list[int]) -> list[Any]:
        parts, others = [queries[i] for i in chosen], [memories[i] for i in chosen]
        offsets = cumulative([len(part) for part in parts])
        if self_attention:
            y = layer(np.concatenate(parts), cu_seqlens_q=offsets, is_causal=True)
        else:
            keys = cumulative([len(part) for part in others])
            y = layer(np.concatenate(parts), np.concatenate(others), cu_seqlens_q=offsets, cu_seqlens_k=keys)
        return list(np.split(y, offsets[1:-1]))

    fastattn.set_num_threads(1)
    alone = [run([i])[0] for i in range(4)]
    for threads in (1, 2):
        fastattn.set_num_threads(threads)
        for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0]):
            for i, y in zip(order, run(order), strict=True):
                assert_same_bits(y, alone[i])


def test_names_are_marians() -> None:
    for layer in (make(True), make(False)):
        names = {f"{part}_proj.{kind}" for part in "qkv" for kind in ("weight", "bias")}
        assert set(layer.state_dict()) == names | {"out_proj.weight", "out_proj.bias"}
        assert all(p.requires_grad for p in layer.parameters())
    frozen = make(False).freeze()
    assert not any(p.requires_grad for p in frozen.parameters())


def test_nothing_at_all() -> None:
    empty, none = np.zeros((0, DIM), np.float32), np.zeros(1, np.int32)
    for self_attention in (True, False):
        with no_grad():
            assert make(self_attention)(empty, cu_seqlens_q=none).shape == (0, DIM)


def test_refused() -> None:
    x, memory = inputs()
    for dim, heads, message in (
        (DIM, 5, f"num_heads must divide embed_dim into heads of at most 256, got 5 and {DIM}"),
        (512, 1, "num_heads must divide embed_dim into heads of at most 256, got 1 and 512"),
        (DIM, 0, "num_heads must be a positive integer, got 0"),
        (0, 1, "embed_dim must be a positive integer, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            nn.MultiHeadAttention(dim, heads)
    with pytest.raises(TypeError, match=r"num_heads must be a positive integer, got 2\.0"):
        nn.MultiHeadAttention(DIM, 2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"dropout must be a number in \[0, 1\), got 1\.5"):
        nn.MultiHeadAttention(DIM, HEADS, 1.5)
    for window, error, message in (
        ((1,), ValueError, "window must have 2 items, got 1"),
        ((1, -2), ValueError, "window must be an integer of at least -1, got -2"),
        ((1, 2.0), TypeError, r"window must be an integer of at least -1, got 2\.0"),
        (64, TypeError, "window must be a sequence of int, got int"),
    ):
        with pytest.raises(error, match=f"^MultiHeadAttention: {message}$"):
            nn.MultiHeadAttention(DIM, HEADS, window=window)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="key_value cannot be given to a layer with self_attention"):
        make(True)(x, memory, cu_seqlens_q=OFFSETS)
    with pytest.raises(ValueError, match="cu_seqlens_k cannot be given to a layer with self_attention"):
        make(True)(x, cu_seqlens_q=OFFSETS, cu_seqlens_k=OFFSETS)
    with pytest.raises(ValueError, match="attend is for a layer without self_attention"):
        make(True).attend(x, memory, cu_seqlens_q=OFFSETS, cu_seqlens_k=OTHERS)
    with pytest.raises(ValueError, match=r"cu_seqlens_k must start at 0, got 1"):
        make(False)(x, memory, cu_seqlens_q=OFFSETS, cu_seqlens_k=OFFSETS + 1)
    with pytest.raises(ValueError, match=r"key_value must have shape \(tokens, 2, heads, dim\), got \(8, 24\)"):
        make(False).attend(x, memory, cu_seqlens_q=OFFSETS, cu_seqlens_k=OTHERS)


@pytest.mark.parametrize("self_attention", [True, False])
def test_against_torch(self_attention: bool) -> None:
    torch = pytest.importorskip("torch", reason="torch, the other side of this test, is not installed")
    ours, lengths = make(self_attention), [6, 6]
    theirs = torch.nn.MultiheadAttention(DIM, HEADS, batch_first=True).double()
    state = ours.state_dict()
    stacked = [np.concatenate([state[f"{part}_proj.{kind}"] for part in "qkv"]) for kind in ("weight", "bias")]
    with torch.no_grad():
        for parameter, array in (
            (theirs.in_proj_weight, stacked[0]),
            (theirs.in_proj_bias, stacked[1]),
            (theirs.out_proj.weight, state["out_proj.weight"]),
            (theirs.out_proj.bias, state["out_proj.bias"]),
        ):
            parameter.copy_(torch.tensor(array))
    rng = np.random.default_rng(7)
    x, dy = (normal(rng, 2, 6, DIM) for _ in range(2))
    memory = x if self_attention else normal(rng, 2, 4, DIM)
    mask = torch.ones(6, 6, dtype=torch.bool).triu(1) if self_attention else None
    query = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    key = query if self_attention else torch.tensor(memory, dtype=torch.float64, requires_grad=True)
    wanted, weights = theirs(query, key, key, attn_mask=mask, average_attn_weights=False)
    wanted.backward(torch.tensor(dy).double())

    leaves = [Tensor(array.reshape(-1, DIM), requires_grad=True) for array in (x, memory)]
    offsets = {"cu_seqlens_q": cumulative(lengths), "need_weights": True}
    if self_attention:
        y, ours_weights = ours(leaves[0], is_causal=True, **offsets)
    else:
        y, ours_weights = ours(leaves[0], leaves[1], cu_seqlens_k=cumulative([4, 4]), **offsets)
    y.backward(dy.reshape(-1, DIM))
    np.testing.assert_allclose(y.data, wanted.detach().numpy().reshape(-1, DIM), rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours_weights.data, weights.detach().numpy(), rtol=0, atol=1e-6)
    expected = {"x": query.grad.numpy().reshape(-1, DIM), "out_proj.weight": theirs.out_proj.weight.grad.numpy()}
    for kind, gradient in (("weight", theirs.in_proj_weight.grad), ("bias", theirs.in_proj_bias.grad)):
        parts = zip("qkv", np.split(gradient.numpy(), 3), strict=True)
        expected.update({f"{part}_proj.{kind}": array for part, array in parts})
    actual = {name: p.grad for name, p in ours.named_parameters() if name in expected}
    actual["x"] = leaves[0].grad
    if not self_attention:
        actual["memory"], expected["memory"] = leaves[1].grad, key.grad.numpy().reshape(-1, DIM)
    assert_gradients(actual, expected)
