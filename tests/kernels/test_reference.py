"""The reference itself, against definitions written out element by element."""

from __future__ import annotations

import inspect
import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers import cumulative
from helpers_crf import case, ranked, scores, sequences, without_tags

from fastattn import reference
from fastattn.reference._erf import erf

RNG = np.random.default_rng(20)
CU = cumulative((3, 0, 5, 1))


def attention_by_hand(q: Any, k: Any, v: Any, visible: Any, scale: float) -> tuple[Any, float, Any]:
    """One query `[dim]` over keys `[n, dim]`: the output, the log-sum-exp and the softmax."""
    scores = {j: scale * math.fsum(q * k[j]) for j in range(len(k)) if visible(j)}
    weights = np.zeros(len(k))
    if not scores:
        return np.zeros(len(q)), -math.inf, weights
    top = max(scores.values())
    lse = top + math.log(math.fsum(math.exp(s - top) for s in scores.values()))
    for j, s in scores.items():
        weights[j] = math.exp(s - lse)
    return sum(weights[j] * v[j] for j in scores), lse, weights


def test_erf_is_accurate() -> None:
    x = np.concatenate([np.linspace(-7, 7, 20001), 10.0 ** np.linspace(-300, 2, 2001), [0.0, np.inf, -np.inf]])
    exact = np.array([math.erf(value) for value in x])
    np.testing.assert_allclose(erf(x), exact, rtol=1e-15, atol=0)
    single = erf(x.astype(np.float32))
    assert single.dtype == np.float32
    exact = np.array([math.erf(value) for value in x.astype(np.float32).tolist()])
    np.testing.assert_allclose(single, exact, rtol=4e-7, atol=1e-44)
    assert np.isnan(erf(np.array([np.nan]))).all()


@pytest.mark.parametrize(
    ("activation", "scalar"),
    [
        (None, lambda t: t),
        ("relu", lambda t: max(t, 0.0)),
        ("gelu", lambda t: t * 0.5 * math.erfc(-t / math.sqrt(2))),
        ("gelu_tanh", lambda t: 0.5 * t * (1 + math.tanh(math.sqrt(2 / math.pi) * (t + 0.044715 * t**3)))),
        ("silu", lambda t: t / (1 + math.exp(-t))),
        ("tanh", math.tanh),
    ],
)
def test_linear(activation: str | None, scalar: Any) -> None:
    x, w, b, r = (RNG.standard_normal(shape) for shape in ((2, 3, 5), (4, 5), (4,), (2, 3, 4)))
    y = reference.linear(x, w, b, r, activation=activation)
    for i, j, n in np.ndindex(y.shape):
        assert y[i, j, n] == pytest.approx(scalar(math.fsum(x[i, j] * w[n]) + b[n]) + r[i, j, n], abs=1e-14)


def test_silu_is_relatively_accurate_far_out() -> None:
    x = np.array([[-700.0], [-60.0], [-1e-300], [800.0], [-800.0], [-np.inf]])
    y = reference.linear(x, np.ones((1, 1)), activation="silu")
    exact = [-700 * math.exp(-700), -60 * math.exp(-60), -5e-301, 800, 0, 0]
    np.testing.assert_allclose(y[:, 0], exact, rtol=1e-14)


@pytest.mark.parametrize("window", [None, (1, 1), (0, 2), (-1, 0), (2, -1)], ids=str)
@pytest.mark.parametrize("alignment", ["bottom_right", "top_left"])
@pytest.mark.parametrize("is_causal", [False, True])
def test_ragged_attention(is_causal: bool, alignment: str, window: tuple[int, int] | None) -> None:
    lengths_q, lengths_k = (3, 0, 5, 1), (4, 2, 2, 0)
    cu_q, cu_k = cumulative(lengths_q), cumulative(lengths_k)
    q, k, v = (RNG.standard_normal((n, 2, 3)) for n in (9, 8, 8))
    y, lse, weights = reference.scaled_dot_product_attention(
        *(q, k, v),
        cu_seqlens_q=cu_q,
        cu_seqlens_k=cu_k,
        window=window,
        is_causal=is_causal,
        causal_alignment=alignment,
        return_softmax_lse=True,
        return_attn_weights=True,
    )
    assert weights.shape == (4, 2, 5, 4)
    for b, h in np.ndindex(4, 2):
        keys = slice(cu_k[b], cu_k[b + 1])
        past = lengths_k[b] - lengths_q[b] if alignment == "bottom_right" else 0
        for i in range(lengths_q[b]):
            left, right = (99 if side == -1 else side for side in window or (-1, -1))
            sees = range(i + past - left, i + past + (0 if is_causal else right) + 1).__contains__
            expected = attention_by_hand(q[cu_q[b] + i, h], k[keys, h], v[keys, h], sees, 1 / math.sqrt(3))
            np.testing.assert_allclose(y[cu_q[b] + i, h], expected[0], atol=1e-14)
            np.testing.assert_allclose(lse[h, cu_q[b] + i], expected[1], atol=1e-14)
            np.testing.assert_allclose(weights[b, h, i, : lengths_k[b]], expected[2], atol=1e-14)
            assert (weights[b, h, i, lengths_k[b] :] == 0).all()


@pytest.mark.parametrize("kind", ["bool", "additive"])
def test_padded_attention_with_a_mask(kind: str) -> None:
    q, k, v = (RNG.standard_normal((2, 2, n, 3)) for n in (4, 6, 6))
    allowed = RNG.random((2, 1, 4, 6)) < 0.6
    allowed[1, 0, 2] = False
    k[0, :, 5], v[0, :, 5], allowed[0, :, :, 5] = np.nan, np.inf, False  # without effect
    bias = np.where(allowed, RNG.standard_normal(allowed.shape), -np.inf)
    mask = allowed if kind == "bool" else bias
    y, lse = reference.scaled_dot_product_attention(q, k, v, attn_mask=mask, softmax_scale=1.0, return_softmax_lse=True)
    for b, h, i in np.ndindex(2, 2, 4):
        # an additive mask as one more dimension: the query has 1 there, key j has bias[i, j]
        seen = np.flatnonzero(allowed[b, 0, i])
        extra = bias[b, 0, i, seen] if kind == "additive" else np.zeros(len(seen))
        expected = attention_by_hand(
            np.append(q[b, h, i], 1.0),
            np.column_stack([k[b, h, seen], extra]),
            np.column_stack([v[b, h, seen], extra]),
            lambda j: True,
            1.0,
        )
        np.testing.assert_allclose(y[b, h, i], expected[0][:3], atol=1e-14)
        np.testing.assert_allclose(lse[b, h, i], expected[1], atol=1e-14)


@pytest.mark.parametrize("alignment", ["bottom_right", "top_left"])
def test_attention_with_a_bias_by_distance(alignment: str) -> None:
    q, k, v = (RNG.standard_normal((2, 2, n, 3)) for n in (4, 6, 6))
    bias = RNG.standard_normal((5, 2))
    y = reference.scaled_dot_product_attention(
        q, k, v, position_bias=bias, causal_alignment=alignment, softmax_scale=1.0
    )
    for b, h, i in np.ndindex(2, 2, 4):
        # as one more dimension: the query has 1 there, key j the bias of its distance
        distances = [j - i - (2 if alignment == "bottom_right" else 0) for j in range(6)]
        extra = [bias[2 + max(-2, min(2, distance)), h] for distance in distances]
        expected = attention_by_hand(
            np.append(q[b, h, i], 1.0), np.column_stack([k[b, h], extra]), v[b, h], lambda j: True, 1.0
        )
        np.testing.assert_allclose(y[b, h, i], expected[0], atol=1e-14)


def test_attention_weights_of_masked_keys_beside_nan() -> None:
    """They are 0, as those of the kernel: a masked key has no part in what is NaN."""
    x = RNG.standard_normal((1, 1, 3, 4))
    k = x.copy()
    k[0, 0, 1] = np.nan
    mask = np.array([[True, True, False], [True, False, True], [True, True, True]])
    _, weights = reference.scaled_dot_product_attention(x, k, x, attn_mask=mask, return_attn_weights=True)
    assert weights[0, 0, 0].tolist() == [pytest.approx(np.nan, nan_ok=True)] * 2 + [0]
    assert np.isfinite(weights[0, 0, 1]).all()
    assert weights[0, 0, 1, 1] == 0


def test_rows() -> None:
    x, r, w, b = (RNG.standard_normal(shape) for shape in ((3, 5), (3, 5), (5,), (5,)))
    y, mean, rstd = reference.layer_norm(x, w, b, 0.1, residual=r, return_stats=True)
    soft, log_soft, unit = reference.softmax(x), reference.log_softmax(x), reference.l2_normalize(x)
    for i in range(3):
        h = x[i] + r[i]
        m = math.fsum(h) / 5
        s = 1 / math.sqrt(math.fsum((h - m) ** 2) / 5 + 0.1)
        np.testing.assert_allclose(y[i], (h - m) * s * w + b, atol=1e-14)
        np.testing.assert_allclose([mean[i], rstd[i]], [m, s], atol=1e-14)
        total = math.fsum(math.exp(value) for value in x[i])
        np.testing.assert_allclose(soft[i], [math.exp(value) / total for value in x[i]], atol=1e-14)
        np.testing.assert_allclose(log_soft[i], x[i] - math.log(total), atol=1e-14)
        np.testing.assert_allclose(unit[i], x[i] / math.sqrt(math.fsum(x[i] ** 2)), atol=1e-14)


@pytest.mark.parametrize(
    ("mode", "by_hand"),
    [
        ("mean", lambda x: sum(x) / len(x)),
        ("cls", lambda x: x[0]),
        ("last", lambda x: x[-1]),
        ("max", lambda x: [max(column) for column in x.T]),
        ("mean_sqrt_len", lambda x: sum(x) / math.sqrt(len(x))),
        ("weighted_mean", lambda x: sum((i + 1) * x[i] for i in range(len(x))) / sum(range(len(x) + 1))),
    ],
)
def test_pooling(mode: str, by_hand: Any) -> None:
    x = RNG.standard_normal((9, 4))
    y = reference.pooling(x, CU, mode)
    for row, start, end in zip(y, CU[:-1], CU[1:], strict=True):
        np.testing.assert_allclose(row, by_hand(x[start:end]) if end > start else 0 * row, atol=1e-14)


def test_embedding() -> None:
    word, kind, place = (RNG.standard_normal((n, 3)) for n in (7, 2, 4))
    ids, kinds, places = np.array([6, 0, 6]), np.array([1, 1, 0]), np.array([0, 3, 2])
    extra = {"token_type_ids": kinds, "token_type_weight": kind}
    extra |= {"position_ids": places, "position_weight": place}
    y = reference.embedding(ids, word, **extra)
    np.testing.assert_array_equal(y, [word[a] + kind[b] + place[c] for a, b, c in zip(ids, kinds, places, strict=True)])
    scaled = reference.embedding(ids, word, **extra, scale=2.5)
    np.testing.assert_array_equal(
        scaled, [word[a] * 2.5 + kind[b] + place[c] for a, b, c in zip(ids, kinds, places, strict=True)]
    )
    weight, bias = RNG.standard_normal((2, 3))
    normed = reference.embedding(ids, word, **extra, norm_weight=weight, norm_bias=bias, eps=0.5)
    np.testing.assert_array_equal(normed, reference.layer_norm(y, weight, bias, 0.5))


def test_scatter_rows() -> None:
    x, into = RNG.standard_normal((2, 3)), RNG.standard_normal((4, 3))
    expected = [x[1], into[1], into[2], x[0]]
    assert reference.scatter_rows(x, np.array([3, 0]), into) is into
    np.testing.assert_array_equal(into, expected)


def test_log_softmax_topk() -> None:
    x = RNG.standard_normal((4, 7))
    x[0, 5] = x[0, 1] = 3
    x[1, 1:] = -np.inf
    x[2, 6] = np.nan
    ids, cu_ids, factors = np.array([0, 2, 4, 5, 6]), np.array([0, 2, 3, 4, 5]), np.array([0.01, 2, 2, np.inf, 0.5])
    adjusted = [{0: 0.01, 2: 2.0}, {4: 2.0}, {5: np.inf}, {6: 0.5}]
    for row, own in enumerate(adjusted):
        log_sum = math.log(math.fsum(math.exp(value) for value in x[row]))
        y = [-math.inf if own.get(i) == math.inf else (x[row, i] - log_sum) * own.get(i, 1) for i in range(7)]
        order = sorted(range(7), key=lambda i: (not math.isnan(y[i]), -y[i] if y[i] == y[i] else 0, i))
        for k in (1, 3, 7):
            values, indices = reference.log_softmax_topk(x, k, ids=ids, cu_ids=cu_ids, factors=factors)
            assert values.shape == indices.shape == (4, k)
            assert indices[row].tolist() == order[:k]
            np.testing.assert_allclose(values[row], [y[i] for i in order[:k]], atol=1e-14)
    assert reference.log_softmax_topk(x.astype(np.float16), 2)[0].dtype == np.float16
    assert reference.log_softmax_topk(np.zeros((2, 5)), 3)[1].tolist() == [[0, 1, 2]] * 2


@pytest.mark.parametrize(("activation", "scalar"), [("relu", lambda t: max(t, 0.0)), ("tanh", math.tanh)])
def test_char_cnn(activation: str, scalar: Any) -> None:
    ids = np.array([[1, 4, 2, 0, 0, 0], [3, 3, 1, 2, 4, 1]])
    letters = RNG.standard_normal((5, 3))
    weights = [RNG.standard_normal(shape) for shape in ((4, 1, 3), (3, 4, 3), (1, 6, 3))]
    biases = [RNG.standard_normal(len(weight)) for weight in weights]
    y, argmax = reference.char_cnn(ids, letters, weights, biases, activation=activation, return_argmax=True)
    assert y.shape == argmax.shape == (2, 8)
    assert argmax.dtype == np.int32
    filters = [(w, b) for weight, bias in zip(weights, biases, strict=True) for w, b in zip(weight, bias, strict=True)]
    for word, (column, (w, b)) in product(range(2), enumerate(filters)):
        values = [
            math.fsum((w * letters[ids[word, p : p + len(w)]]).reshape(-1)) for p in range(ids.shape[1] - len(w) + 1)
        ]
        assert y[word, column] == pytest.approx(scalar(max(values) + b), abs=1e-14)
        assert values[argmax[word, column]] == pytest.approx(max(values), abs=1e-14)


def test_char_cnn_of_nan_and_packed() -> None:
    letters = np.array([[1.0, -1.0], [np.nan, 2.0], [0.0, 3.0]], np.float32)
    weight = RNG.standard_normal((2, 2, 2)).astype(np.float32)
    ids = np.array([[0, 2, 1, 1], [0, 2, 0, 2]])
    bias = np.zeros(2, np.float32)
    y, argmax = reference.char_cnn(ids, letters, [weight], [bias], return_argmax=True)
    assert np.isnan(y[0]).all()
    assert (argmax[0] == 1).all()
    assert not np.isnan(y[1]).any()
    from fastattn.kernels import PackedMatrix  # the only thing here that is compiled

    np.testing.assert_array_equal(reference.char_cnn(ids, letters, [PackedMatrix(weight.reshape(2, 4))], [bias]), y)


def test_char_cnn_without_filters() -> None:
    """A width of which there are none, as the kernel takes it."""
    ids, letters, none = np.zeros((2, 3), np.int64), np.ones((1, 4)), np.zeros((0, 2, 4))
    y, argmax = reference.char_cnn(ids, letters, [none], [np.zeros(0)], return_argmax=True)
    assert y.shape == argmax.shape == (2, 0)
    dembedding, (dweight,), (dbias,) = reference.char_cnn_backward(y, ids, letters, [none], [np.zeros(0)], y, argmax)
    assert not dembedding.any()
    assert (dweight.shape, dbias.shape) == ((0, 2, 4), (0,))


def test_highway() -> None:
    x, w, b = (RNG.standard_normal(shape) for shape in ((2, 3, 4), (8, 4), (8,)))
    y, projection = reference.highway(x, w, b, return_projection=True)
    np.testing.assert_array_equal(projection, reference.linear(x, w, b))
    for i, j, n in np.ndindex(y.shape):
        h, t = (math.fsum(x[i, j] * w[row]) + b[row] for row in (n, 4 + n))
        gate = 1 / (1 + math.exp(-t))
        assert y[i, j, n] == pytest.approx(gate * max(h, 0.0) + (1 - gate) * x[i, j, n], abs=1e-14)


@pytest.mark.parametrize(
    ("function", "scalar"),
    [
        ("relu", lambda t: max(t, 0.0)),
        ("sigmoid", lambda t: 1 / (1 + math.exp(-t))),
        ("silu", lambda t: t / (1 + math.exp(-t))),
        ("tanh", math.tanh),
    ],
)
def test_activation(function: str, scalar: Any) -> None:
    x = RNG.standard_normal((3, 4))
    np.testing.assert_allclose(reference.activation(x, function), np.vectorize(scalar)(x), rtol=1e-14)
    far = reference.activation(np.array([-1e300, 1e300]), function)
    assert far.tolist() == {"relu": [0, 1e300], "sigmoid": [0, 1], "silu": [0, 1e300], "tanh": [-1, 1]}[function]


def test_gated_activation() -> None:
    x = RNG.standard_normal((2, 3, 8))
    for activation in ("relu", "gelu", "gelu_tanh", "silu", "tanh"):
        y = reference.gated_activation(x, activation)
        expected = reference.linear(x[..., :4], np.eye(4), activation=activation) * x[..., 4:]
        np.testing.assert_allclose(y, expected, rtol=1e-13)
        half = x.copy()
        out = half[..., :4]
        assert reference.gated_activation(half, activation, out=out) is out
        np.testing.assert_array_equal(out, y)
    for name, arguments in (("gated_activation", (x,)), ("gated_activation_backward", (x[..., :4], x))):
        with pytest.raises(ValueError, match=f"^{name}: activation must be one of 'relu', .*, got 'sigmoid'$"):
            getattr(reference, name)(*arguments, "sigmoid")
    with pytest.raises(ValueError, match=r"x must have an even number of columns, got shape \(2, 3, 7\)$"):
        reference.gated_activation(x[..., :7], "relu")


def test_rotary_embedding() -> None:
    """A pair is a complex number, and is multiplied by another one."""
    x, angles, ids = RNG.standard_normal((4, 3, 2, 6)), RNG.standard_normal((5, 3)), np.array([3, 0, 3, 1])
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    y = reference.rotary_embedding(x, ids, table)
    pairs = (x[..., :3] + 1j * x[..., 3:]) * np.exp(1j * angles[ids])[:, None, None]
    np.testing.assert_allclose(y[:, :2], np.concatenate([pairs.real, pairs.imag], axis=-1)[:, :2], rtol=1e-13)
    np.testing.assert_array_equal(y[:, 2], x[:, 2])
    np.testing.assert_allclose(reference.rotary_embedding_backward(y, ids, table), x, rtol=1e-13)
    out = x.copy()
    assert reference.rotary_embedding(out, ids, table, out=out) is out
    np.testing.assert_array_equal(out, y)
    np.testing.assert_array_equal(reference.rotary_embedding(x[:, :2], ids, table), y[:, :2])
    with pytest.raises(
        ValueError, match=r"^rotary_embedding: position_ids must be in \[0, 3\), the rows of table, got 3"
    ):
        reference.rotary_embedding(x, ids, table[:3])


def test_crf() -> None:
    given = case(RNG, (4, 0, 1, 3), 3, 0.2, np.float64)
    log_likelihood, _ = reference.crf(**given)
    for found, own in zip(log_likelihood, sequences(given), strict=True):
        every = scores(own)
        total = math.fsum(math.exp(score) for score in every.values())
        assert found == pytest.approx(every[tuple(own["tags"].tolist())] - math.log(total), abs=1e-13)


def test_crf_viterbi() -> None:
    given = without_tags(case(RNG, (4, 0, 1, 3), 3, 0.2, np.float64))
    tags, found = reference.crf_viterbi(**given, n=4)
    for i, own in enumerate(sequences(given)):
        for rank, (path, score) in enumerate(ranked(own, 4)):
            assert tags[rank, given["cu_seqlens"][i] : given["cu_seqlens"][i + 1]].tolist() == [*path]
            assert found[i, rank] == pytest.approx(score, abs=1e-13)
    assert found[2, 3] == -np.inf  # a single word has three
    assert found.dtype == np.float64


CALLS: dict[str, tuple[Any, ...]] = {
    "linear": ((2, 5), (3, 5), (3,), (2, 3)),
    "layer_norm": ((4, 5), (5,), (5,)),
    "activation": ((4, 5),),
    "gelu": ((4, 5),),
    "gated_activation": ((4, 6),),
    "rotary_embedding": ((3, 3, 2, 4), (7, 4)),
    "softmax": ((4, 5),),
    "log_softmax": ((4, 5),),
    "l2_normalize": ((4, 5),),
    "dropout": ((4, 5),),
    "scaled_dot_product_attention": ((2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 5)),
    "pooling": ((9, 5),),
    "embedding": ((7, 5),),
    "highway": ((4, 5), (10, 5), (10,)),
    "char_cnn": ((7, 5), (3, 2, 5), (3,)),
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", CALLS)
def test_the_dtype_is_kept_and_out_is_used(name: str, dtype: Any) -> None:
    function = getattr(reference, name)
    arguments = [RNG.standard_normal(shape).astype(dtype) for shape in CALLS[name]]
    if name == "pooling":
        arguments.append(CU)
    if name == "activation":
        arguments.append("sigmoid")
    if name == "gated_activation":
        arguments.append("gelu")
    if name == "rotary_embedding":
        arguments.insert(1, np.array([1, 0, 6]))
    if name == "embedding":
        arguments.insert(0, np.array([1, 0, 6]))
    if name == "char_cnn":
        table, weight, bias = arguments
        arguments = [np.array([[1, 0, 6], [2, 2, 2]]), table, [weight], [bias]]
    y = function(*arguments)
    assert y.dtype == dtype
    out = np.full_like(y, np.nan)
    assert function(*arguments, out=out) is out
    np.testing.assert_array_equal(out, y)


def characters(x: Any, weight: Any = None, **options: Any) -> Any:
    given = {"ids": np.zeros((1, 4), int), "biases": [np.zeros(2)]} | options
    weights = [np.zeros((2, 2, 3)) if weight is None else weight]
    return reference.char_cnn(given.pop("ids"), x, weights, given.pop("biases"), **given)


def test_every_function_is_in_the_file_of_its_stem() -> None:
    assert set(CALLS) < set(reference.__all__)
    for name in reference.__all__:
        stem = name.removesuffix("_backward").removesuffix("_cell")
        assert inspect.getmodule(getattr(reference, name)).__name__ == f"fastattn.reference.{stem}"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: reference.gelu(x, "erf"), "gelu: approximate must be one of 'none', 'tanh', got 'erf'"),
        (lambda x: reference.linear(x, x, activation="elu"), "linear: activation must be .*, got 'elu'"),
        (lambda x: reference.pooling(x, CU, "sum"), "pooling: mode must be one of .*, got 'sum'"),
        (lambda x: reference.pooling(x, CU + 1), "cu_seqlens must start at 0, got 1"),
        (lambda x: reference.pooling(x, CU[:-1]), "cu_seqlens must end at the number of tokens, 9, got 8"),
        (lambda x: reference.pooling(x, cumulative((5, -2, 6))), "must not decrease, got 5 then 3"),
        (
            lambda x: reference.embedding(np.array([0, 9]), x),
            r"input_ids must be in \[0, 9\), the rows of weight, got 9 at index 1",
        ),
        (lambda x: reference.embedding(np.array([-1]), x), "got -1 at index 0"),
        (
            lambda x: reference.embedding(np.array([1]), x, position_weight=x),
            "position_ids must be given with position_weight",
        ),
        (lambda x: reference.crf(x, CU, CU, x, x, x), r"crf: tags must be in \[0, 3\), .*, got 3 at index 1"),
        (lambda x: reference.crf_viterbi(x, CU, x, x, x, 0), "crf_viterbi: n must be from 1 to 5592405, .*, got 0"),
        (lambda x: reference.crf_viterbi(x, CU[1:], x, x, x), "crf_viterbi: cu_seqlens must start at 0, got 3"),
        (lambda x: characters(x, activation="gelu"), "char_cnn: activation must be one of 'relu', 'tanh', got 'gelu'"),
        (
            lambda x: characters(x, ids=np.full((1, 4), 9)),
            r"char_ids must be in \[0, 9\), the rows of embedding, got 9",
        ),
        (lambda x: characters(x, biases=[]), "biases must be as many as weights, 1, got 0"),
        (lambda x: characters(x, biases=[np.zeros(3)]), r"biases\[0\] must have shape \(2,\), got \(3,\)"),
        (lambda x: characters(x, np.zeros((2, 4, 2))), r"weights\[0\] must have shape \(filters, width, 3\), got"),
        (lambda x: characters(x, np.zeros((2, 5, 3))), r"weights\[0\] must have a width from 1 to 4, .*, got 5"),
    ],
)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(np.zeros((9, 3)))
