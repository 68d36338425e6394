"""fastattn.functional on Tensors: every function's gradients, by central differences and on every instruction set."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_gradients import differences

import fastattn
from fastattn import Tensor, nn, no_grad, use_reference
from fastattn import functional as F
from fastattn.kernels import PackedMatrix

OFFSETS, OTHER = np.array([0, 3, 3, 7], np.int32), np.array([0, 1, 4, 9], np.int32)
IDS = np.array([1, 2, 1, 0, 4, 2, 1])
RNG = np.random.default_rng(0)
SEEN = RNG.random((2, 1, 4, 5)) < 0.7
TARGET = np.array([2, -100, 0, 5])
TAGS = np.array([1, 2, 0, 3, 3, 1, 2])
ALLOWED = (np.arange(16).reshape(4, 4) != 4, np.arange(4) != 2, np.arange(4) != 1)
CLASS_WEIGHTS = np.array([1.0, 0.0, 2.0, 0.5, 3.0, 1.5])
NUMBERS = RNG.normal(size=(4, 6))
TURNS = nn.SinusoidalPositions(6, order="concatenated").lookup(np.arange(5), np.float64)[0]

LSTM = ((12, 3), (12, 2), (12,), (12,), (2, 3))
GRU = ((12, 3), (12, 4), (12,), (12,))


def joined(*outputs: Any) -> Any:
    """All numbers of several outputs as one."""
    parts = [output.reshape(-1, 1) for output in outputs]
    ends = np.cumsum([0, *(part.shape[0] for part in parts)])
    return sum(F.scatter_rows(part, np.arange(*ends[i : i + 2]), ends[-1]) for i, part in enumerate(parts))


def lstm(x: Any, h: Any, c: Any, *weights: Any) -> Any:
    directions = [weights[i : i + 5] for i in range(0, len(weights), 5)]
    output, states = F.lstm(x, OFFSETS, directions, (h, c), cell_clip=1.2, proj_clip=0.9, recompute=len(directions) > 1)
    return joined(output, *states)


def gru(x: Any, h: Any, *weights: Any) -> Any:
    directions = [weights[i : i + 4] for i in range(0, len(weights), 4)]
    return joined(*F.gru(x, OFFSETS, directions, h, recompute=len(directions) > 1))


WORDS = np.array([[1, 4, 2, 0, 0, 0], [3, 3, 1, 2, 4, 1], [0, 0, 0, 0, 0, 0]])


def char_cnn(embedding: Any, *parameters: Any, activation: str = "relu") -> Any:
    return F.char_cnn(WORDS, embedding, parameters[::2], parameters[1::2], activation=activation)


CASES: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "linear": (F.linear, ((2, 3, 5), (6, 5))),
    "linear bias residual": (lambda *t: F.linear(*t[:3], residual=t[3]), ((4, 5), (6, 5), (6,), (4, 6))),
    **{
        f"linear {act}": (lambda *t, act=act: F.linear(*t, activation=act), ((4, 5), (6, 5), (6,)))
        for act in ("relu", "gelu", "gelu_tanh", "silu", "tanh")
    },
    "linear gelu residual": (
        lambda *t: F.linear(*t[:3], residual=t[3], activation="gelu"),
        ((4, 5), (6, 5), (6,), (4, 6)),
    ),
    "linear dropout": (lambda *t: F.linear(*t, dropout_p=0.4), ((2, 3, 5), (6, 5), (6,))),
    "linear gelu dropout residual": (
        lambda *t: F.linear(*t[:3], residual=t[3], activation="gelu", dropout_p=0.4),
        ((4, 5), (6, 5), (6,), (4, 6)),
    ),
    "layer_norm": (lambda x: F.layer_norm(x, (6,)), ((2, 4, 6),)),
    "layer_norm weight": (lambda x, w: F.layer_norm(x, (6,), w), ((4, 6), (6,))),
    "layer_norm bias": (lambda x, b: F.layer_norm(x, (6,), None, b), ((4, 6), (6,))),
    "layer_norm all": (
        lambda x, w, b, r: F.layer_norm(x, (6,), w, b, 1e-3, residual=r, dropout_p=0.4),
        ((4, 6), (6,), (6,), (4, 6)),
    ),
    "layer_norm axes": (
        lambda x, w, b, r: F.layer_norm(x, (4, 6), w, b, residual=r),
        ((3, 4, 6), (4, 6), (4, 6), (3, 4, 6)),
    ),
    "gelu": (F.gelu, ((4, 6),)),
    "gelu tanh": (lambda x: F.gelu(x, "tanh"), ((4, 6),)),
    **{name: (getattr(F, name), ((4, 6),)) for name in ("relu", "tanh", "sigmoid", "silu")},
    "cat": (lambda *t: F.cat(t, dim=1), ((2, 3, 4), (2, 1, 4), (2, 2, 4))),
    "cat last": (lambda *t: F.cat(t, dim=-1), ((2, 3), (2, 1))),
    "stack": (lambda *t: F.stack(t), ((2, 3), (2, 3))),
    "stack last": (lambda *t: F.stack(t, -1), ((2, 3), (2, 3), (2, 3))),
    "dropout": (lambda x: F.dropout(x, 0.4), ((4, 6),)),
    **{
        f"{name} {dim}": (lambda x, name=name, dim=dim: getattr(F, name)(x, dim=dim), ((3, 4, 5),))
        for name in ("softmax", "log_softmax", "normalize")
        for dim in (0, 1, -1)
    },
    "embedding": (lambda w: F.embedding(IDS.reshape(1, 7), w, 2), ((6, 3),)),
    "embedding_sum": (
        lambda w, p, t: F.embedding_sum(
            IDS, w, position_ids=np.arange(7), position_weight=p, token_type_ids=IDS % 2, token_type_weight=t
        ),
        ((6, 3), (7, 3), (2, 3)),
    ),
    "embedding_sum scale": (
        lambda w, p: F.embedding_sum(IDS, w, position_ids=np.arange(7), position_weight=p, scale=2.5),
        ((6, 3), (7, 3)),
    ),
    "embedding_sum norm": (
        lambda w, p, n, b: F.embedding_sum(
            IDS, w, position_ids=np.arange(7), position_weight=p, norm_weight=n, norm_bias=b, padding_idx=2
        ),
        ((6, 3), (7, 3), (3,), (3,)),
    ),
    **{
        f"pooling {mode}": (lambda x, mode=mode: F.pooling(x, OFFSETS, mode), ((7, 3),))
        for mode in ("mean", "cls", "max", "last", "mean_sqrt_len", "weighted_mean")
    },
    "gather_rows": (lambda x: F.gather_rows(x, IDS), ((6, 3),)),
    "scatter_rows": (lambda x: F.scatter_rows(x, np.array([5, 0, 3]), 7, fill=2.0), ((3, 4),)),
    "scaled_dot_product_attention": (F.scaled_dot_product_attention, ((2, 3, 4, 5),) + ((2, 3, 5, 5),) * 2),
    "scaled_dot_product_attention mask": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, SEEN, 0.2, scale=0.3),
        ((2, 3, 4, 5),) + ((2, 3, 5, 5),) * 2,
    ),
    "scaled_dot_product_attention causal": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        ((2, 3, 4, 5),) * 3,
    ),
    "scaled_dot_product_attention ragged": (
        lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, dropout_p=0.3, cu_seqlens_q=OFFSETS, cu_seqlens_k=OTHER
        ),
        ((7, 2, 5),) + ((9, 2, 5),) * 2,
    ),
    "qkv_attention": (lambda x: F.qkv_attention(x, OFFSETS, 0.3, scale=0.4), ((7, 3, 2, 5),)),
    "qkv_attention causal": (lambda x: F.qkv_attention(x, OFFSETS, is_causal=True), ((7, 3, 2, 5),)),
    "kv_attention": (lambda q, x: F.kv_attention(q, x, OFFSETS, OTHER, 0.3, scale=0.4), ((7, 2, 5), (9, 2, 2, 5))),
    "kv_attention causal": (
        lambda q, x: F.kv_attention(q, x, OFFSETS, OTHER, is_causal=True),
        ((7, 2, 5), (9, 2, 2, 5)),
    ),
    "scaled_dot_product_attention bias window": (
        lambda q, k, v, b: F.scaled_dot_product_attention(
            q, k, v, dropout_p=0.3, cu_seqlens_q=OFFSETS, cu_seqlens_k=OTHER, position_bias=b, window=(2, 1)
        ),
        ((7, 2, 5),) + ((9, 2, 5),) * 2 + ((5, 2),),
    ),
    "qkv_attention bias window": (
        lambda x, b: F.qkv_attention(x, OFFSETS, position_bias=b, window=(1, 2)),
        ((7, 3, 2, 5), (3, 2)),
    ),
    "kv_attention bias": (
        lambda q, x, b: F.kv_attention(q, x, OFFSETS, OTHER, position_bias=b),
        ((7, 2, 5), (9, 2, 2, 5), (7, 2)),
    ),
    "additive_attention": (
        lambda *t: F.additive_attention(*t, cu_seqlens_q=OFFSETS, cu_seqlens_k=OTHER),
        ((7, 24), (9, 24), (9, 5), (1, 24)),
    ),
    "additive_attention weights": (
        lambda *t: joined(*F.additive_attention(*t, cu_seqlens_q=OFFSETS, return_attn_weights=True)),
        ((7, 3), (7, 3), (7, 2), (1, 3)),
    ),
    **{
        f"scaled_dot_product_attention weights{name}": (
            lambda *t, options=options: joined(
                *F.scaled_dot_product_attention(*t, return_attn_weights=True, **options)
            ),
            ((2, 3, 4, 5),) * 3,
        )
        for name, options in (
            ("", {"scale": 0.7}),
            (" causal", {"is_causal": True}),
            (" mask", {"attn_mask": SEEN[..., :4]}),
        )
    },
    "qkv_attention weights": (
        lambda x: joined(*F.qkv_attention(x, OFFSETS, 0.3, is_causal=True, return_attn_weights=True)),
        ((7, 3, 2, 5),),
    ),
    "qkv_attention weights bias window": (
        lambda x, b: joined(*F.qkv_attention(x, OFFSETS, position_bias=b, window=(2, 1), return_attn_weights=True)),
        ((7, 3, 2, 5), (5, 2)),
    ),
    "kv_attention weights bias": (
        lambda q, x, b: joined(*F.kv_attention(q, x, OFFSETS, OTHER, position_bias=b, return_attn_weights=True)),
        ((7, 2, 5), (9, 2, 2, 5), (5, 2)),
    ),
    "kv_attention weights": (
        lambda q, x: joined(*F.kv_attention(q, x, OFFSETS, OTHER, scale=0.4, return_attn_weights=True)),
        ((7, 2, 5), (9, 2, 2, 5)),
    ),
    "additive_attention self": (
        lambda *t: F.additive_attention(*t, cu_seqlens_q=OFFSETS),
        ((7, 3), (7, 3), (7, 2), (1, 3)),
    ),
    **{
        f"cross_entropy {how}": (
            lambda x, how=how: F.cross_entropy(x, TARGET, reduction=how, label_smoothing=0.1),
            ((4, 6),),
        )
        for how in ("mean", "sum", "none")
    },
    **{
        f"cross_entropy weight {how} {smoothing}": (
            lambda x, how=how, smoothing=smoothing: F.cross_entropy(
                x, TARGET, CLASS_WEIGHTS, reduction=how, label_smoothing=smoothing
            ),
            ((4, 6),),
        )
        for how in ("mean", "sum", "none")
        for smoothing in (0.0, 0.1)
    },
    **{
        f"cross_entropy images {how}": (
            lambda x, how=how: F.cross_entropy(
                x, np.array([[2, -100], [0, 1]]), CLASS_WEIGHTS[:3], reduction=how, label_smoothing=0.2
            ),
            ((2, 3, 2),),
        )
        for how in ("mean", "none")
    },
    "cross_entropy four axes": (
        lambda x: F.cross_entropy(x, np.array([[[2, -100, 1], [0, 1, 1]]])),
        ((1, 3, 2, 3),),
    ),
    **{
        f"crf {how}": (
            lambda *t, how=how: F.crf(t[0], TAGS, OFFSETS, *t[1:], constraints=ALLOWED, reduction=how),
            ((7, 4), (4, 4), (4,), (4,)),
        )
        for how in ("sum", "mean", "token_mean", "none")
    },
    "crf anything": (lambda *t: F.crf(t[0], TAGS, OFFSETS, *t[1:]), ((7, 4), (4, 4), (4,), (4,))),
    "cross_entropy ignore": (lambda x: F.cross_entropy(x, np.array([2, 1, 0, 5]), ignore_index=1), ((4, 6),)),
    **{
        f"mse_loss {how}": (lambda x, how=how: F.mse_loss(x, NUMBERS, reduction=how), ((4, 6),))
        for how in ("mean", "none")
    },
    **{
        f"cosine_similarity {dim}": (lambda x, y, dim=dim: F.cosine_similarity(x, y, dim=dim), ((4, 6), (4, 6)))
        for dim in (0, 1)
    },
    "cosent_loss": (lambda x: F.cosent_loss(x, [1, 0, 2, 1, 0, 2, 2], scale=3.0), ((7,),)),
    "cosent_loss of equal labels": (lambda x: F.cosent_loss(x, [1, 1, 1]), ((3,),)),
    **{
        f"multiple_negatives_ranking_loss {ids}": (
            lambda x, y, ids=ids: F.multiple_negatives_ranking_loss(x, y, 3.0, ids=ids),
            ((4, 6), (5, 6)),
        )
        for ids in (None, (7, 8, 7, 9, 8))
    },
    **{
        f"binary_cross_entropy_with_logits {how}": (
            lambda x, how=how: F.binary_cross_entropy_with_logits(x, NUMBERS > 0, reduction=how),
            ((4, 6),),
        )
        for how in ("mean", "sum", "none")
    },
    "binary_cross_entropy_with_logits weights": (
        lambda x: F.binary_cross_entropy_with_logits(x, NUMBERS > 0, CLASS_WEIGHTS, pos_weight=[1, 2, 3, 4, 5, 6]),
        ((4, 6),),
    ),
    **{
        f"sampled_softmax_loss {how}": (
            lambda x, w, b, how=how: F.sampled_softmax_loss(x, IDS, w, b, 4, reduction=how),
            ((7, 3), (6, 3), (6,)),
        )
        for how in ("mean", "sum", "none")
    },
    "lstm": (lstm, ((7, 3), (1, 3, 2), (1, 3, 3), *LSTM)),
    "lstm both": (lstm, ((7, 3), (2, 3, 2), (2, 3, 3), *LSTM, *LSTM)),
    "lstm_cell": (
        lambda x, h, c, *w: joined(*F.lstm_cell(x, (h, c), *w, cell_clip=1.2, proj_clip=0.9)),
        ((4, 3), (4, 2), (4, 3), *LSTM),
    ),
    "gru": (gru, ((7, 3), (1, 3, 4), *GRU)),
    "gru both": (gru, ((7, 3), (2, 3, 4), *GRU, *GRU)),
    "gru_cell": (F.gru_cell, ((5, 3), (5, 4), *GRU)),
    "char_cnn": (char_cnn, ((5, 3), (4, 1, 3), (4,), (2, 4, 3), (2,))),
    "char_cnn tanh": (lambda *t: char_cnn(*t, activation="tanh"), ((5, 3), (4, 2, 3), (4,))),
    **{
        f"gated_activation {act}": (lambda x, act=act: F.gated_activation(x, act), ((2, 3, 8),))
        for act in ("relu", "gelu", "gelu_tanh", "silu", "tanh")
    },
    "rotary_embedding": (lambda x: F.rotary_embedding(x, IDS, TURNS.astype(x.dtype)), ((7, 3, 2, 6),)),
    "highway": (F.highway, ((2, 3, 4), (8, 4), (8,))),
}


def make(name: str, dtype: Any) -> tuple[Callable[..., Any], list[Tensor]]:
    function, shapes = CASES[name]
    rng = np.random.default_rng(1)
    tensors = [Tensor(rng.normal(size=shape).astype(np.float32).astype(dtype), requires_grad=True) for shape in shapes]

    def f(*operands: Any) -> Any:
        fastattn.manual_seed(11)
        return function(*operands)

    return f, tensors


def gradients(f: Callable[..., Any], tensors: list[Tensor]) -> tuple[Any, list[Any]]:
    y = f(*tensors)
    y.backward(np.random.default_rng(2).normal(size=y.shape).astype(y.dtype))
    return y.data, [tensor.grad for tensor in tensors]


def test_every_function_is_here() -> None:
    assert {name.split()[0] for name in CASES} == set(F.__all__)


@pytest.mark.parametrize("name", CASES)
def test_central_differences(name: str) -> None:
    f, tensors = make(name, np.float64)
    with use_reference():
        y, exact = gradients(f, tensors)
        dy = np.random.default_rng(2).normal(size=y.shape)
        for i, (x, gradient) in enumerate(zip(tensors, exact, strict=True)):
            with no_grad():
                wanted = differences(lambda: f(*tensors).data, x.data, dy)
            if name == "embedding" or (name == "embedding_sum norm" and i == 0):
                assert wanted[2].any()
                wanted[2] = 0  # the padding
            np.testing.assert_allclose(gradient, wanted, atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_kernels(name: str, isa: str, threads: int) -> None:
    y, actual = gradients(*make(name, np.float32))
    with use_reference():
        wanted, expected = gradients(*make(name, np.float64))
    for a, b in zip([y, *actual], [wanted, *expected], strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1.0, float(np.abs(b).max())))


@pytest.mark.parametrize("name", CASES)
def test_arrays_in_arrays_out_and_the_same_bits(name: str, isa: str) -> None:
    f, tensors = make(name, np.float32)
    recorded = f(*tensors)
    plain = f(*[tensor.data for tensor in tensors])
    assert isinstance(plain, np.ndarray)
    with no_grad():
        unrecorded = f(*tensors)
    assert isinstance(unrecorded, Tensor)
    assert not unrecorded.requires_grad
    for y in (plain, unrecorded.data):
        assert_same_bits(y, recorded.data)


@pytest.mark.parametrize("name", [name for name, (_, shapes) in CASES.items() if len(shapes) > 1])
def test_one_operand_alone(name: str) -> None:
    """Its gradient has the same bits when the others are arrays."""
    f, tensors = make(name, np.float32)
    _, expected = gradients(f, tensors)
    for i, wanted in enumerate(expected):
        operands: list[Any] = [tensor.data for tensor in tensors]
        operands[i] = x = Tensor(operands[i], requires_grad=True)
        y = f(*operands)
        y.backward(np.random.default_rng(2).normal(size=y.shape).astype(y.dtype))
        assert_same_bits(x.grad, wanted)


@pytest.mark.parametrize("name", CASES)
def test_inputs_are_not_changed(name: str) -> None:
    f, tensors = make(name, np.float32)
    before = [tensor.data.copy() for tensor in tensors]
    gradients(f, tensors)
    for tensor, copy in zip(tensors, before, strict=True):
        assert_same_bits(tensor.data, copy)


def test_attention_weights() -> None:
    rng = np.random.default_rng(0)
    x = Tensor(rng.normal(size=(7, 3, 2, 5)).astype(np.float32), requires_grad=True)
    y, weights = F.qkv_attention(x, OFFSETS, return_attn_weights=True)
    q, k, v = (Tensor(np.ascontiguousarray(x.data[:, i]), requires_grad=True) for i in range(3))
    z, more = F.scaled_dot_product_attention(q, k, v, cu_seqlens_q=OFFSETS, return_attn_weights=True)
    assert_same_bits(y.data, z.data)
    assert isinstance(weights, Tensor)
    assert_same_bits(weights.data, more.data)
    dy = rng.normal(size=y.shape).astype(np.float32)
    y.backward(dy)
    z.backward(dy)
    for i, part in enumerate((q, k, v)):
        assert_same_bits(x.grad[:, i], part.grad)
    plain, again = F.qkv_attention(x.data, OFFSETS, return_attn_weights=True)
    assert_same_bits(plain, y.data)
    assert_same_bits(again, weights.data)


def test_a_packed_weight_passes_the_gradient_on() -> None:
    """A frozen layer above a trainable one."""
    rng = np.random.default_rng(0)
    x, weight, dy = (rng.normal(size=shape).astype(np.float32) for shape in ((4, 5), (6, 5), (4, 6)))
    results = []
    for matrix in (weight, PackedMatrix(weight)):
        tensor = Tensor(x, requires_grad=True)
        y = F.linear(tensor, matrix, activation="gelu")
        y.backward(dy)
        results.append((y.data, tensor.grad))
    for a, b in zip(*results, strict=True):
        assert_same_bits(a, b)


def test_packed_filters_pass_the_gradient_on() -> None:
    """A frozen convolution above characters that are trained, and beside one that is trained."""
    rng = np.random.default_rng(0)
    table, a, b, bias, dy = (rng.normal(size=s).astype("f4") for s in ((5, 3), (4, 1, 3), (2, 4, 3), (4,), (3, 6)))
    results = []
    for filters in (a, PackedMatrix(a.reshape(4, 3))):
        letters, last = (Tensor(array, requires_grad=True) for array in (table, b))
        y = F.char_cnn(WORDS.astype(np.int32), letters, [filters, last], [bias, bias[:2]])
        y.backward(dy)
        results.append((y.data, letters.grad, last.grad))
    for x, z in zip(*results, strict=True):
        assert_same_bits(x, z)


def test_char_cnn_takes_integers_alone() -> None:
    with pytest.raises(TypeError, match="char_cnn: char_ids must be an integer array, got float64"):
        F.char_cnn(np.zeros((2, 3)), np.zeros((4, 2), np.float32), [], [])
    with pytest.raises(TypeError, match="char_cnn: char_ids must be an integer array, got NoneType"):
        F.char_cnn(None, np.zeros((4, 2), np.float32), [], [])  # type: ignore[arg-type]


def test_same_gradients_as_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch, the other side of this test, is not installed")
    T = torch.nn.functional
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 6)).astype(np.float32)
    target = torch.tensor(TARGET)
    pairs: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
        "cross_entropy": (
            lambda x: F.cross_entropy(x, TARGET, label_smoothing=0.2),
            lambda x: T.cross_entropy(x, target, label_smoothing=0.2),
        ),
        "relu": (
            lambda x: (F.relu(x) * NUMBERS.astype("f4")).sum(),
            lambda x: (T.relu(x) * torch.tensor(NUMBERS)).sum(),
        ),
        "tanh": (lambda x: (F.tanh(x) ** 2).sum(), lambda x: (T.tanh(x) ** 2).sum()),
        "sigmoid": (lambda x: (F.sigmoid(x) ** 2).sum(), lambda x: (T.sigmoid(x) ** 2).sum()),
        "silu": (lambda x: (F.silu(x) ** 2).sum(), lambda x: (T.silu(x) ** 2).sum()),
        "cat": (
            lambda x: (F.cat([x, x * 2.0, x[:, :1]], dim=-1) ** 2).sum(),
            lambda x: (torch.cat([x, x * 2.0, x[:, :1]], dim=-1) ** 2).sum(),
        ),
        "stack": (
            lambda x: (F.stack([x, x * x], dim=-1)[..., 1] ** 2).sum(),
            lambda x: (torch.stack([x, x * x], dim=-1)[..., 1] ** 2).sum(),
        ),
        "tensors": (
            lambda x: (x.T @ x[:, :2] + x.mean(dim=0, keepdim=True).T).transpose(0, 1).sum(1).mean(),
            lambda x: (x.T @ x[:, :2] + x.mean(dim=0, keepdim=True).T).transpose(0, 1).sum(1).mean(),
        ),
        **{
            f"cross_entropy weight {how} {smoothing}": (
                lambda x, o={"reduction": how, "label_smoothing": smoothing}: F.cross_entropy(
                    x, TARGET, CLASS_WEIGHTS, **o
                ).sum(),
                lambda x, o={"reduction": how, "label_smoothing": smoothing}: T.cross_entropy(
                    x, target, torch.tensor(CLASS_WEIGHTS, dtype=torch.float32), **o
                ).sum(),
            )
            for how in ("mean", "sum", "none")
            for smoothing in (0.0, 0.3)
        },
        **{
            f"cross_entropy images {how}": (
                lambda x, how=how: F.cross_entropy(
                    x.reshape(2, 3, 4), np.array([[0, 2, 1, -100]] * 2), [1.0, 2.0, 3.0], reduction=how
                ).sum(),
                lambda x, how=how: T.cross_entropy(
                    x.reshape(2, 3, 4),
                    torch.tensor([[0, 2, 1, -100]] * 2),
                    torch.tensor([1.0, 2.0, 3.0]),
                    reduction=how,
                ).sum(),
            )
            for how in ("mean", "none")
        },
        "bce weights": (
            lambda x: F.binary_cross_entropy_with_logits(x, NUMBERS > 0, CLASS_WEIGHTS, pos_weight=[2.0]),
            lambda x: T.binary_cross_entropy_with_logits(
                x,
                torch.tensor(NUMBERS > 0, dtype=torch.float32),
                torch.tensor(CLASS_WEIGHTS, dtype=torch.float32),
                pos_weight=torch.tensor([2.0]),
            ),
        ),
        "mse": (lambda x: F.mse_loss(x, NUMBERS), lambda x: T.mse_loss(x, torch.tensor(NUMBERS, dtype=torch.float32))),
        "bce": (
            lambda x: F.binary_cross_entropy_with_logits(x, NUMBERS > 0),
            lambda x: T.binary_cross_entropy_with_logits(x, torch.tensor(NUMBERS > 0, dtype=torch.float32)),
        ),
        "normalize": (
            lambda x: (F.normalize(x) * NUMBERS.astype("f4")).sum(),
            lambda x: (T.normalize(x) * torch.tensor(NUMBERS)).sum(),
        ),
    }
    for name, (ours, theirs) in pairs.items():
        a, b = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = ours(a), theirs(b)
        y.backward()
        z.backward()
        assert y.item() == pytest.approx(z.item(), rel=1e-5)
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=0, atol=1e-6, err_msg=name)


def test_signatures_begin_as_torchs() -> None:
    """Positional arguments mean the same."""
    names = {name: list(inspect.signature(getattr(F, name)).parameters) for name in F.__all__}
    assert names["linear"][:3] == ["input", "weight", "bias"]
    assert names["dropout"] == ["input", "p", "training"]
    assert names["embedding"][:3] == ["input", "weight", "padding_idx"]
    assert names["layer_norm"][:5] == ["input", "normalized_shape", "weight", "bias", "eps"]
    assert names["cross_entropy"][:2] == ["input", "target"]
    for cell, last in (("lstm_cell", "weight_hr"), ("gru_cell", "bias_hh")):
        wanted = ["input", "hx", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"]
        assert names[cell][: wanted.index(last) + 1] == wanted[: wanted.index(last) + 1]
