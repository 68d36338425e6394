"""fastattn.functional: PyTorch's meanings over the kernels, with arrays of any axis and shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, assert_same_bits, double, normal

from fastattn import Tensor, _core, kernels, manual_seed, nn, reference
from fastattn import functional as F


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("softmax", reference.softmax),
        ("log_softmax", reference.log_softmax),
        ("normalize", reference.l2_normalize),
    ],
)
def test_any_axis(rng: np.random.Generator, name: str, expected: Callable[[Any], Any], dim: int, isa: str) -> None:
    x = normal(rng, 3, 17, 5)
    y = getattr(F, name)(x, dim=dim)
    wanted = np.moveaxis(expected(np.moveaxis(double(x), dim, -1)), -1, dim)
    assert_close(y, wanted, length=x.shape[dim])
    assert y.flags.c_contiguous
    out = np.full_like(x, np.nan)
    assert getattr(F, name)(x, dim=dim, out=out) is out
    np.testing.assert_array_equal(out, y)


@pytest.mark.parametrize("dim", [3, -4])
def test_an_axis_that_is_not_there(rng: np.random.Generator, dim: int) -> None:
    with pytest.raises(IndexError, match=f"softmax: dim must be an axis of input, which has 3, got {dim}"):
        F.softmax(normal(rng, 2, 3, 4), dim)


def test_linear(rng: np.random.Generator) -> None:
    x, weight, bias, residual = normal(rng, 2, 5, 7), normal(rng, 9, 7), normal(rng, 9), normal(rng, 2, 5, 9)
    y = F.linear(x, weight, bias, residual=residual, activation="gelu")
    assert_close(y, reference.linear(*double(x, weight, bias, residual), activation="gelu"), length=7)


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 4, 6)])
def test_layer_norm_over_several_axes(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    x, residual = normal(rng, 3, *(2, 4, 6)), normal(rng, 3, 2, 4, 6)
    weight, bias = normal(rng, *shape), normal(rng, *shape)
    y = F.layer_norm(x, shape, weight, bias, 1e-6, residual=residual)
    flat = (*x.shape[: 4 - len(shape)], -1)
    x64, residual64, weight64, bias64 = double(x, residual, weight, bias)
    wanted = reference.layer_norm(
        x64.reshape(flat), weight64.ravel(), bias64.ravel(), 1e-6, residual=residual64.reshape(flat)
    )
    assert_close(y, wanted.reshape(x.shape), length=weight.size)
    out = np.full_like(x, np.nan)
    assert F.layer_norm(x, list(shape), weight, bias, 1e-6, residual=residual, out=out) is out
    np.testing.assert_array_equal(out, y)


@pytest.mark.parametrize("shape", [(5,), (3, 6), (), (9, 2, 4, 6)])
def test_layer_norm_names_a_shape_that_is_not_the_inputs(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"layer_norm: input must .*got \(2, 4, 6\)"):
        F.layer_norm(normal(rng, 2, 4, 6), shape)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,), (2, 0, 3)])
def test_embedding(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> None:
    weight = normal(rng, 10, 4)
    ids = rng.integers(0, 10, shape).astype(dtype)
    np.testing.assert_array_equal(F.embedding(ids, weight), weight[ids])
    out = np.empty((*shape, 4), np.float32)
    assert F.embedding(ids, weight, out=out) is out
    np.testing.assert_array_equal(out, weight[ids])


@pytest.mark.parametrize(
    "out",
    [np.zeros((3, 2), np.float32), np.zeros((2, 6), np.float32)[:, ::2], np.zeros((2, 3))],
    ids=["shape", "strided", "dtype"],
)
def test_an_out_that_does_not_fit_is_refused_and_not_copied(rng: np.random.Generator, out: Any) -> None:
    x, weight = normal(rng, 2, 3), normal(rng, 5, 3)
    for call in (
        lambda: F.softmax(x, 0, out=out),
        lambda: F.normalize(x, dim=0, out=out),
        lambda: F.layer_norm(x, (2, 3), out=out),
        lambda: F.embedding(np.array([1, 2]), weight, out=out),
    ):
        with pytest.raises((TypeError, ValueError), match="out must be"):
            call()


def test_out_is_for_arrays_alone(rng: np.random.Generator) -> None:
    weight, ids, out = Tensor(normal(rng, 5, 3), requires_grad=True), np.array([1, 2]), np.empty((2, 3), np.float32)
    calls: list[Callable[[], Any]] = [
        lambda: F.linear(normal(rng, 2, 3), weight, out=np.empty((2, 5), np.float32)),
        lambda: F.embedding(ids, weight, out=out),
        lambda: F.embedding_sum(ids, weight, out=out),
        lambda: F.embedding_sum(ids, weight.data, norm_weight=weight[0], norm_bias=weight[0], out=out),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="out must be None"):
            call()


def test_embedding_names_a_bad_index(rng: np.random.Generator) -> None:
    weight = normal(rng, 10, 4)
    for table in (weight, Tensor(weight, requires_grad=True)):
        with pytest.raises(ValueError, match=r"^embedding: input must .*got 10"):
            F.embedding(np.array([[1, 2], [3, 10]]), table)
    with pytest.raises(TypeError, match="embedding: input must be an integer array, got float64"):
        F.embedding(np.array([1.0]), weight)


def test_causal_attention_is_aligned_as_in_pytorch(rng: np.random.Generator) -> None:
    q, k, v = normal(rng, 1, 2, 3, 8), normal(rng, 1, 2, 5, 8), normal(rng, 1, 2, 5, 8)
    y, weights = F.scaled_dot_product_attention(q, k, v, is_causal=True, return_attn_weights=True)
    assert weights[0, 0, 0].tolist() == [1, 0, 0, 0, 0]
    assert not np.triu(weights[0, 0], 1).any()
    wanted = reference.scaled_dot_product_attention(*double(q, k, v), is_causal=True, causal_alignment="top_left")
    assert_close(y, wanted, length=8)


def test_ragged_attention(rng: np.random.Generator) -> None:
    q, k, v = normal(rng, 7, 2, 8), normal(rng, 6, 2, 8), normal(rng, 6, 2, 8)
    cu_q, cu_k = np.array([0, 3, 3, 7], np.int32), np.array([0, 1, 4, 6], np.int32)
    y = F.scaled_dot_product_attention(q, k, v, scale=0.3, cu_seqlens_q=cu_q, cu_seqlens_k=cu_k)
    wanted = reference.scaled_dot_product_attention(
        *double(q, k, v), cu_seqlens_q=cu_q, cu_seqlens_k=cu_k, softmax_scale=0.3
    )
    assert_close(y, wanted, length=8)


def test_fused_projections_are_attention_of_their_parts(rng: np.random.Generator) -> None:
    """With a scale of its own, and causal where there are fewer keys than queries, and more."""
    q, kv, qkv = normal(rng, 7, 2, 8), normal(rng, 6, 2, 2, 8), normal(rng, 7, 3, 2, 8)
    cu_q, cu_k = np.array([0, 3, 3, 7], np.int32), np.array([0, 1, 2, 6], np.int32)
    for options in ({"scale": 0.3}, {"is_causal": True}):
        wanted = F.scaled_dot_product_attention(q, kv[:, 0], kv[:, 1], cu_seqlens_q=cu_q, cu_seqlens_k=cu_k, **options)
        assert_same_bits(F.kv_attention(q, kv, cu_q, cu_k, **options), wanted)
        wanted = F.scaled_dot_product_attention(qkv[:, 0], qkv[:, 1], qkv[:, 2], cu_seqlens_q=cu_q, **options)
        assert_same_bits(F.qkv_attention(qkv, cu_q, **options), wanted)


def test_linear_drops_by_the_rules_of_both(rng: np.random.Generator) -> None:
    x, w, r = normal(rng, 5, 8), normal(rng, 4, 8), normal(rng, 5, 4)

    def dropped(**options: Any) -> Any:
        manual_seed(7)
        return F.linear(x, w, dropout_p=0.5, **options)

    wanted = dropped(residual=r)
    assert_same_bits(dropped() + r, wanted)
    assert_same_bits(dropped(residual=Tensor(r, requires_grad=True)).data, wanted)
    out = np.empty_like(r)
    assert dropped(residual=r, out=out) is out
    assert_same_bits(out, wanted)
    for options, error, message in (
        ({"residual": r[0]}, ValueError, r"residual must have shape \(5, 4\), got \(4,\)"),
        ({"residual": r.astype(float)}, TypeError, "residual must be float32, got float64"),
        ({"residual": r, "out": r}, ValueError, "out must not overlap residual"),
    ):
        with pytest.raises(error, match=message):
            dropped(**options)
    for p in (-0.1, 1.0):
        with pytest.raises(ValueError, match=rf"linear: dropout_p must be a number in \[0, 1\), got {p}"):
            F.linear(x, w, dropout_p=p)


def test_what_is_not_there_is_refused(rng: np.random.Generator) -> None:
    q = normal(rng, 1, 1, 2, 4)
    for p in (-0.1, 1.0):
        with pytest.raises(ValueError, match=rf"dropout_p must be in .*got {p}"):
            F.scaled_dot_product_attention(q, q, q, dropout_p=p)
    with pytest.raises(ValueError, match="attn_mask must be None when is_causal=True"):
        F.scaled_dot_product_attention(q, q, q, np.ones((2, 2), bool), is_causal=True)
    with pytest.raises(ValueError, match=r"normalize: p must be 2.0, got 1.0"):
        F.normalize(q, p=1.0)


def test_same_numbers_as_torch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="torch, the other side of this test, is not installed")
    T = torch.nn.functional
    x = normal(rng, 2, 3, 4, 6)
    t = torch.tensor
    q, k, v = normal(rng, 2, 3, 4, 8), normal(rng, 2, 3, 5, 8), normal(rng, 2, 3, 5, 8)
    allowed, added = rng.random((2, 1, 4, 5)) < 0.7, normal(rng, 4, 5)
    allowed[..., 0] = True
    weight, bias, table = normal(rng, 9, 6), normal(rng, 9), normal(rng, 10, 4)
    norm_weight, norm_bias = normal(rng, 4, 6), normal(rng, 4, 6)
    ids = rng.integers(0, 10, (2, 3))
    pairs = {
        "linear": (F.linear(x, weight, bias), T.linear(t(x), t(weight), t(bias))),
        "gelu": (F.gelu(x), T.gelu(t(x))),
        "gelu tanh": (F.gelu(x, approximate="tanh"), T.gelu(t(x), approximate="tanh")),
        "softmax": (F.softmax(x, dim=1), T.softmax(t(x), dim=1)),
        "log_softmax": (F.log_softmax(x, -1), T.log_softmax(t(x), -1)),
        "normalize": (F.normalize(x), T.normalize(t(x))),
        "embedding": (F.embedding(ids, table), T.embedding(t(ids), t(table))),
        "layer_norm": (
            F.layer_norm(x, (4, 6), norm_weight, norm_bias),
            T.layer_norm(t(x), (4, 6), t(norm_weight), t(norm_bias)),
        ),
    }
    for name, options in {
        "attention": {},
        "attention bool mask": {"attn_mask": allowed},
        "attention float mask": {"attn_mask": added},
        "attention causal": {"is_causal": True},
        "attention scale": {"scale": 0.2},
    }.items():
        theirs = {key: t(value) if isinstance(value, np.ndarray) else value for key, value in options.items()}
        pairs[name] = (
            F.scaled_dot_product_attention(q, k, v, **options),
            T.scaled_dot_product_attention(t(q), t(k), t(v), **theirs),
        )
    for name, (ours, expected) in pairs.items():
        np.testing.assert_allclose(ours, expected.numpy(), rtol=0, atol=1e-5, err_msg=name)


def test_both_sides_of_mse_loss_have_a_gradient(rng: np.random.Generator) -> None:
    a, b = Tensor(normal(rng, 3, 2), requires_grad=True), Tensor(normal(rng, 3, 2), requires_grad=True)
    F.mse_loss(a, b).backward()
    expected = (a.data - b.data) / 3
    np.testing.assert_allclose(a.grad, expected, rtol=1e-6)
    np.testing.assert_allclose(b.grad, -expected, rtol=1e-6)


def lists_for() -> dict[str, tuple[Callable[[Any], Any], str]]:
    """Calls with a list where an array or a Tensor is needed, and what their errors call it."""
    x, ids = np.ones((2, 2), np.float32), np.arange(2)
    calls: dict[str, Callable[[Any], Any]] = {
        **{name: getattr(F, name) for name in ("relu", "tanh", "sigmoid", "silu", "gelu", "normalize")},
        **{name: lambda x, name=name: getattr(F, name)(x, -1) for name in ("softmax", "log_softmax")},
        "layer_norm": lambda x: F.layer_norm(x, (2,)),
        "cross_entropy": lambda x: F.cross_entropy(x, ids),
        "mse_loss": lambda y: F.mse_loss(y, x),
        "binary_cross_entropy_with_logits": lambda y: F.binary_cross_entropy_with_logits(y, x),
        "sampled_softmax_loss": lambda y: F.sampled_softmax_loss(y, ids, x, x[0], 1),
        "scatter_rows": lambda x: F.scatter_rows(x, ids, 3),
    }
    return {
        **{name: (call, f"{name}: input") for name, call in calls.items()},
        "embedding": (lambda x: F.embedding(ids, x), "embedding: weight"),
        "crf": (lambda y: F.crf(y, ids, [0, 2], x, x[0], x[0]), "crf: emissions"),
        "crf transitions": (lambda y: F.crf(x, ids, [0, 2], y, x[0], x[0]), "crf: transitions"),
        "Parameter": (nn.Parameter, "Parameter: data"),
        "Parameter.data": (lambda y: setattr(nn.Parameter(x), "data", y), "Parameter: data"),
        "Parameter.load": (lambda y: nn.Parameter(x).load(y), "Parameter: array"),
        "ScalarMix": (lambda y: nn.ScalarMix(1)([y]), "ScalarMix: layer 0"),
        "LayerNorm": (nn.LayerNorm(2), "layer_norm: input"),
    }


@pytest.mark.parametrize("case", lists_for())
def test_a_list_is_no_array(case: str) -> None:
    call, name = lists_for()[case]
    with pytest.raises(TypeError, match=f"^{name} must be an array or a Tensor, got list$"):
        call([[1.0, 2.0], [3.0, 4.0]])


def test_lists_of_integers_do(rng: np.random.Generator) -> None:
    table = normal(rng, 4, 3)
    assert_same_bits(F.embedding([[2, 0]], table), table[[[2, 0]]])
    weight, bias = normal(rng, 2, 2, 3), normal(rng, 2)
    char_ids = [[0, 1, 3], [2, 2, 0]]
    wanted = F.char_cnn(np.array(char_ids), table, [weight], [bias])
    assert_same_bits(F.char_cnn(char_ids, table, [weight], [bias]), wanted)


@pytest.mark.parametrize(
    "name", ["attention", "qkv", "kv", "additive", "pooling", "lstm", "gru", "LSTM", "MultiHeadAttention", "crf"]
)
def test_cu_seqlens_of_any_integers(rng: np.random.Generator, name: str) -> None:
    x, heads = normal(rng, 3, 4), normal(rng, 3, 3, 1, 4)
    q, k, v = heads[:, 0], heads[:, 1], heads[:, 2]
    weights = {"lstm": (normal(rng, 16, 4), normal(rng, 16, 4), None, None, None),
               "gru": (normal(rng, 12, 4), normal(rng, 12, 4), None, None)}  # fmt: skip
    lstm, attention = nn.LSTM(4, 2).freeze(), nn.MultiHeadAttention(4, 2).freeze()
    call: Callable[[Any], Any] = {
        "attention": lambda cu: F.scaled_dot_product_attention(q, k, v, cu_seqlens_q=cu, cu_seqlens_k=cu),
        "qkv": lambda cu: F.qkv_attention(heads, cu),
        "kv": lambda cu: F.kv_attention(q, heads[:, 1:], cu, cu),
        "additive": lambda cu: F.additive_attention(x, x, x, x[:1], cu_seqlens_q=cu),
        "pooling": lambda cu: F.pooling(x, cu),
        "lstm": lambda cu: F.lstm(x, cu, [weights["lstm"]], reverse=(False,))[0],
        "gru": lambda cu: F.gru(x, cu, [weights["gru"]], reverse=(False,))[0],
        "LSTM": lambda cu: lstm(x, cu_seqlens=cu)[0],
        "MultiHeadAttention": lambda cu: attention(x, cu_seqlens_q=cu),
        "crf": lambda cu: F.crf(x, [3, 0, 1], cu, normal(np.random.default_rng(1), 4, 4), x[0], x[1]),
    }[name]  # fmt: skip
    wanted = call(np.array([0, 2, 3], np.int32))
    for cu_seqlens in ([0, 2, 3], np.array([0, 2, 3]), np.array([0, 2, 3], np.uint8)):
        assert_same_bits(call(cu_seqlens), wanted)
    with pytest.raises(TypeError, match=r"cu_seqlens\S* must be an integer array, got float64$"):
        call([0.0, 3.0])
    with pytest.raises(ValueError, match=r"cu_seqlens\S* must end below 2\*\*31, got 4294967299 tokens$"):
        call([0, 2**32 + 3])
    with pytest.raises(ValueError, match=r"cu_seqlens\S* must not be negative, got -4294967296$"):
        call([0, -(2**32), 3])


def test_rows_of_padding_get_no_gradient() -> None:
    """In the tables of words and of positions, as with torch's `padding_idx`."""
    words, places = (Tensor(np.ones((5, 2), np.float32), requires_grad=True) for _ in range(2))
    ids = np.array([0, 3, 3, 4])
    y = F.embedding_sum(ids, words, position_ids=ids, position_weight=places, padding_idx=3, position_padding_idx=0)
    y.backward(np.ones((4, 2), np.float32))
    assert words.grad is not None
    assert places.grad is not None
    assert words.grad[:, 0].tolist() == [1, 0, 0, 0, 1]
    assert places.grad[:, 0].tolist() == [0, 0, 0, 2, 1]


def test_functions_that_read_compute_the_pass_first() -> None:
    x = normal(np.random.default_rng(1), 4, 6)
    labels, numbers = np.array([1, 0, 2, 3]), np.ones((4, 6), np.float32) / 2
    functions: list[Any] = [
        lambda y: F.softmax(y, 0),
        lambda y: F.cross_entropy(y, labels),
        lambda y: F.cross_entropy(y, labels, weight=np.ones(6, np.float32), label_smoothing=0.1),
        lambda y: F.mse_loss(y, numbers),
        lambda y: F.binary_cross_entropy_with_logits(y, numbers),
        lambda y: F.cat([y, y], 1),
        lambda y: F.stack([y, y]),
    ]
    for function in functions:
        expected = function(kernels.gelu(x))
        with _core.Pass():
            found = function(kernels.gelu(x, out=np.full_like(x, np.nan)))
        assert_same_bits(np.asarray(found), np.asarray(expected))
