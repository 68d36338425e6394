"""Every backward function of the reference, in float64, against central differences of its forward function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers import cumulative
from helpers_crf import SCORES, case, without_tags
from helpers_gradients import check_gradients

from fastattn import reference

RNG = np.random.default_rng(21)
LENGTHS = (3, 0, 5, 1)
CU = cumulative(LENGTHS)


@pytest.mark.parametrize("activation", [None, "relu", "gelu", "gelu_tanh", "silu", "tanh"])
def test_linear(activation: str | None) -> None:
    x, weight, bias, residual, dy = (RNG.standard_normal(s) for s in ((2, 3, 5), (4, 5), (4,), (2, 3, 4), (2, 3, 4)))
    y, pre = reference.linear(x, weight, bias, residual, activation=activation, return_pre_activation=True)
    np.testing.assert_array_equal(y, reference.linear(x, weight, bias, residual, activation=activation))
    np.testing.assert_array_equal(pre, reference.linear(x, weight, bias))
    options = {"activation": activation, "pre_activation": None if activation is None else pre}
    gradients = reference.linear_backward(dy, x, weight, **options)
    check_gradients(lambda: reference.linear(x, weight, bias, activation=activation), dy, (x, weight, bias), gradients)


def test_linear_with_a_packed_weight() -> None:
    from fastattn.kernels import PackedMatrix  # the only thing here that is compiled

    x, weight, dy = (RNG.standard_normal(s).astype(np.float32) for s in ((6, 5), (4, 5), (6, 4)))
    for a, b in zip(*(reference.linear_backward(dy, x, w) for w in (weight, PackedMatrix(weight))), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "silu", "tanh"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_slope_far_out(activation: str, dtype: Any) -> None:
    """0 or 1 where the activation is flat or straight, with no NaN and no warning on the way."""
    largest = float(np.finfo(dtype).max)
    pre = np.array([[-np.inf, -largest, -1000.0, -100.0, 100.0, 1000.0, largest, np.inf]], dtype)
    one = np.eye(8, dtype=dtype)
    slope, *_ = reference.linear_backward(
        np.ones_like(pre), pre, one, activation=activation, pre_activation=pre, need_dweight=False
    )
    assert slope.dtype == dtype
    np.testing.assert_allclose(slope[0], [0] * 8 if activation == "tanh" else [0] * 4 + [1] * 4, atol=1e-40)


def test_relu_passes_nothing_at_zero() -> None:
    pre = np.array([[0.0, -0.0, 1e-300, -1e-300]])
    dx, *_ = reference.linear_backward(np.ones((1, 4)), pre, np.eye(4), activation="relu", pre_activation=pre)
    assert dx.tolist() == [[0, 0, 1, 0]]


@pytest.mark.parametrize("dropout_p", [0.0, 0.4])
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_layer_norm(affine: bool, with_residual: bool, dropout_p: float) -> None:
    x, residual, dy = RNG.standard_normal((3, 2, 4, 5))
    weight, bias = RNG.standard_normal((2, 5)) if affine else (None, None)
    options = {"residual": residual if with_residual else None, "dropout_p": dropout_p, "seed": 9}

    def forward(**more: Any) -> Any:
        return reference.layer_norm(x, weight, bias, 0.1, **options, **more)

    _, mean, rstd = forward(return_stats=True)
    gradients = reference.layer_norm_backward(dy, x, weight, mean, rstd, **options)
    arguments = (x, options["residual"], weight, bias)
    given = [i for i, a in enumerate(arguments) if a is not None]
    assert [i for i, gradient in enumerate(gradients) if gradient is not None] == given
    check_gradients(forward, dy, [arguments[i] for i in given], [gradients[i] for i in given])


@pytest.mark.parametrize("function", ["relu", "sigmoid", "silu", "tanh"])
def test_activation(function: str) -> None:
    dy, x = RNG.standard_normal((2, 4, 5))
    dx = reference.activation_backward(dy, x, function)
    check_gradients(lambda: reference.activation(x, function), dy, [x], [dx])


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate: str) -> None:
    x, dy = 2 * RNG.standard_normal((2, 4, 50))
    for a, b in ((x, dy), (x[:, ::2], dy[:, ::2])):
        dx = reference.gelu_backward(b, a, approximate)
        check_gradients(lambda a=a: reference.gelu(a, approximate), b, [a], [dx])


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(name: str) -> None:
    x, dy = RNG.standard_normal((2, 2, 3, 7))
    forward, backward = getattr(reference, name), getattr(reference, f"{name}_backward")
    check_gradients(lambda: forward(x), dy, [x], [backward(dy, forward(x))])


def test_l2_normalize() -> None:
    x, dy = RNG.standard_normal((2, 2, 6, 7))
    x[0] *= 0.05
    for eps in (1e-12, 0.5):  # with the latter only some of the rows have length 1
        check_gradients(
            lambda eps=eps: reference.l2_normalize(x, eps), dy, [x], [reference.l2_normalize_backward(dy, x, eps)]
        )
    zero = np.zeros((1, 7))
    np.testing.assert_allclose(reference.l2_normalize_backward(dy[0, :1], zero, 0.5), 2 * dy[0, :1])


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "last", "mean_sqrt_len", "weighted_mean"])
def test_pooling(mode: str) -> None:
    x, dy = RNG.standard_normal((9, 4)), RNG.standard_normal((4, 4))
    check_gradients(lambda: reference.pooling(x, CU, mode), dy, [x], [reference.pooling_backward(dy, x, CU, mode)])


def test_max_pooling_goes_to_the_first_maximum() -> None:
    x = np.array([[1.0, 3.0, np.nan], [2.0, 3.0, 5.0], [2.0, 0.0, np.nan]])
    dx = reference.pooling_backward(np.array([[1.0, 2.0, 3.0]]), x, cumulative((3,)), "max")
    assert dx.tolist() == [[0, 2, 3], [1, 0, 0], [0, 0, 0]]


def test_embedding() -> None:
    weight, ids = RNG.standard_normal((5, 3)), np.array([4, 0, 4, 2, 4])
    dy = RNG.standard_normal((5, 3))
    dweight = reference.embedding_backward(dy, ids, 5)
    check_gradients(lambda: reference.embedding(ids, weight), dy, [weight], [dweight])
    without = reference.embedding_backward(dy, ids, 5, padding_idx=4)
    assert (without[4] == 0).all()
    np.testing.assert_array_equal(without[:4], dweight[:4])
    given = np.ones((5, 3))
    assert reference.embedding_backward(dy, ids, 5, dweight=given) is given
    np.testing.assert_allclose(given, 1 + dweight)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy(label_smoothing: float) -> None:
    logits, dloss = RNG.standard_normal((6, 7)), RNG.standard_normal(6)
    target = np.array([0, 6, -100, 3, 3, -100])
    logits[2] = 1e3
    loss, lse = reference.cross_entropy(logits, target, label_smoothing=label_smoothing)
    log_p = reference.log_softmax(logits)
    for i, t in enumerate(target):
        smooth = (1 - label_smoothing) * log_p[i, t] + label_smoothing * log_p[i].mean() if t >= 0 else 0
        assert loss[i] == pytest.approx(-smooth, abs=1e-14)
        assert lse[i] == pytest.approx(logits[i, 0] - log_p[i, 0] if t >= 0 else 0)
    options = {"label_smoothing": label_smoothing}
    dlogits = reference.cross_entropy_backward(dloss, logits, target, lse, **options)
    check_gradients(lambda: reference.cross_entropy(logits, target, **options)[0], dloss, [logits], [dlogits])
    assert (dlogits[target == -100] == 0).all()
    assert reference.cross_entropy_backward(dloss, logits, target, lse, **options, out=logits) is logits
    np.testing.assert_array_equal(logits, dlogits)


def test_cross_entropy_ignores_any_index_whatever_its_row_holds() -> None:
    logits = np.array([[np.nan, 1.0], [0.0, 0.0], [np.inf, 0.0]])
    target = np.array([1, 0, 1])
    loss, lse = reference.cross_entropy(logits, target, ignore_index=1)
    assert loss.round(6).tolist() == [0, 0.693147, 0]
    dlogits = reference.cross_entropy_backward(np.ones(3), logits, target, lse, ignore_index=1)
    assert dlogits.tolist() == [[0, 0], [-0.5, 0.5], [0, 0]]


def test_crf() -> None:
    given = case(RNG, (4, 0, 1, 3), 3, dtype=np.float64)
    dy = RNG.standard_normal(4)
    result = reference.crf(**given)
    gradients = reference.crf_backward(dy, **given, log_likelihood=result[0], alpha=result[1])
    check_gradients(lambda: reference.crf(**given)[0], dy, [given[name] for name in SCORES], gradients)


def test_dropout() -> None:
    x, dy = RNG.standard_normal((2, 3, 4, 5))
    for p in (0.0, 0.3):
        check_gradients(lambda p=p: reference.dropout(x, p, 11), dy, [x], [reference.dropout_backward(dy, p, 11)])


def test_highway() -> None:
    x, weight, bias, dy = (RNG.standard_normal(shape) for shape in ((2, 3, 4), (8, 4), (8,), (2, 3, 4)))
    _, projection = reference.highway(x, weight, bias, return_projection=True)
    gradients = reference.highway_backward(dy, x, weight, projection)
    check_gradients(lambda: reference.highway(x, weight, bias), dy, [x, weight, bias], gradients)


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "silu", "tanh"])
def test_gated_activation(activation: str) -> None:
    x, dy = RNG.standard_normal((2, 3, 8)), RNG.standard_normal((2, 3, 4))
    dx = reference.gated_activation_backward(dy, x, activation)
    check_gradients(lambda: reference.gated_activation(x, activation), dy, [x], [dx])


def test_rotary_embedding() -> None:
    x, dy, table = RNG.standard_normal((4, 3, 2, 6)), RNG.standard_normal((4, 3, 2, 6)), RNG.standard_normal((5, 6))
    ids = np.array([3, 0, 3, 1])
    dx = reference.rotary_embedding_backward(dy, ids, table)
    check_gradients(lambda: reference.rotary_embedding(x, ids, table), dy, [x], [dx])


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_char_cnn(activation: str) -> None:
    ids = RNG.integers(0, 5, (4, 9))
    ids[:, 6:] = 4
    ids[0] = 3
    letters = RNG.standard_normal((5, 3))
    weights = [RNG.standard_normal(shape) for shape in ((2, 1, 3), (3, 4, 3), (5, 9, 3))]
    biases = [RNG.standard_normal(len(weight)) for weight in weights]
    given = (ids, letters, weights, biases)
    y, argmax = reference.char_cnn(*given, activation=activation, return_argmax=True)
    dy = RNG.standard_normal(y.shape)
    dembedding, dweights, dbiases = reference.char_cnn_backward(dy, *given, y, argmax, activation=activation)
    check_gradients(
        lambda: reference.char_cnn(*given, activation=activation),
        dy,
        [letters, *weights, *biases],
        [dembedding, *dweights, *dbiases],
    )
    sums = np.ones((2, 1, 3)), np.ones(5)
    added = reference.char_cnn_backward(
        *(dy, *given, y, argmax),
        activation=activation,
        need_dembedding=False,
        dweights=[sums[0], None, None],
        dbiases=[None, None, sums[1]],
    )
    assert added[0] is None
    assert added[1][0] is sums[0]
    assert added[2][2] is sums[1]
    np.testing.assert_allclose(sums[0], 1 + dweights[0])
    np.testing.assert_allclose(sums[1], 1 + dbiases[2])
    few = {"need_dweights": False, "need_dbiases": False, "dembedding": np.ones((5, 3))}
    again = reference.char_cnn_backward(dy, *given, y, argmax, activation=activation, **few)
    assert again[0] is few["dembedding"]
    assert again[1:] == (None, None)
    np.testing.assert_allclose(again[0], 1 + dembedding)


SHAPES = {
    "linear": ((3, 4), (3, 5), (4, 5)),
    "layer_norm": ((3, 5), (3, 5), (5,), (3,), (3,)),
    "highway": ((3, 4), (3, 4), (8, 4), (3, 8)),
}


def both_parameters(name: str) -> tuple[Callable[..., Any], Sequence[Any]]:
    """The backward function with its arguments bound, and what it returns."""
    arguments = [RNG.standard_normal(shape) for shape in SHAPES[name]]
    more = {"residual": RNG.standard_normal((3, 5)), "dropout_p": 0.2} if name == "layer_norm" else {}
    function = getattr(reference, f"{name}_backward")

    def call(**options: Any) -> Any:
        return function(*arguments, **more, **options)

    return call, call()


@pytest.mark.parametrize("name", SHAPES)
def test_only_what_is_needed(name: str) -> None:
    call, everything = both_parameters(name)
    flags = ["need_dx", *(["need_dresidual"] if name == "layer_norm" else []), "need_dweight", "need_dbias"]
    for choice in product((False, True), repeat=len(flags)):
        for gradient, expected, needed in zip(
            call(**dict(zip(flags, choice, strict=True))), everything, choice, strict=True
        ):
            if needed:
                np.testing.assert_array_equal(gradient, expected)
            else:
                assert gradient is None


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_are_added_to_given_arrays(name: str) -> None:
    call, (*_, dweight, dbias) = both_parameters(name)
    fused = np.ones((3, *dweight.shape))
    given = np.ones(dbias.shape)
    *_, a, b = call(dweight=fused[1], dbias=given)
    assert np.shares_memory(a, fused)
    assert b is given
    np.testing.assert_allclose(fused[1], 1 + dweight)
    np.testing.assert_allclose(given, 1 + dbias)
    assert (fused[[0, 2]] == 1).all()


def calls(dtype: Any) -> dict[str, Callable[..., Any]]:
    """Backward functions that take `out`, as calls that leave only it open."""
    dy, x = RNG.standard_normal((2, 4, 5)).astype(dtype)
    target, lse = np.array([0, 1, 2, 3]), np.ones(4, dtype)
    return {
        "activation": lambda **o: reference.activation_backward(dy, x, "sigmoid", **o),
        "gelu": lambda **o: reference.gelu_backward(dy, x, **o),
        "softmax": lambda **o: reference.softmax_backward(dy, x, **o),
        "log_softmax": lambda **o: reference.log_softmax_backward(dy, x, **o),
        "l2_normalize": lambda **o: reference.l2_normalize_backward(dy, x, **o),
        "pooling": lambda **o: reference.pooling_backward(dy, x, cumulative((1, 0, 2, 1)), **o),
        "dropout": lambda **o: reference.dropout_backward(dy, **o),
        "cross_entropy": lambda **o: reference.cross_entropy_backward(dy[:, 0], x, target, lse, **o),
    }


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", calls(np.float32))
def test_the_dtype_is_kept_and_out_is_used(name: str, dtype: Any) -> None:
    call = calls(dtype)[name]
    dx = call()
    assert dx.dtype == dtype
    out = np.full_like(dx, np.nan)
    assert call(out=out) is out
    np.testing.assert_array_equal(out, dx)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_dtype_is_kept_by_the_others(dtype: Any) -> None:
    for name in SHAPES:
        arguments = [RNG.standard_normal(shape).astype(dtype) for shape in SHAPES[name]]
        gradients = getattr(reference, f"{name}_backward")(*arguments)
        assert all(gradient is None or gradient.dtype == dtype for gradient in gradients)
    dy = np.ones((2, 3), dtype)
    assert reference.embedding_backward(dy, np.array([1, 1]), 4).dtype == dtype
    loss, lse = reference.cross_entropy(dy, np.array([1, 1]), label_smoothing=0.1)
    assert (loss.dtype, lse.dtype) == (dtype, np.float64)
    given = case(RNG, (2, 1), 3, dtype=dtype)
    found = reference.crf(**given)
    more = reference.crf_backward(dy[0, :2], **given, log_likelihood=found[0], alpha=found[1])
    best = reference.crf_viterbi(**without_tags(given))[1]
    assert {each.dtype for each in (*found, *more, best)} == {np.dtype(dtype)}
    q = np.ones((2, 2, 3, 4), dtype)
    out, lse = reference.scaled_dot_product_attention(q, q, q, dropout_p=0.5, return_softmax_lse=True)
    assert out.dtype == lse.dtype == dtype
    for gradient in reference.scaled_dot_product_attention_backward(q, q, q, q, out, lse, dropout_p=0.5):
        assert gradient.dtype == dtype


def test_out_may_be_an_input() -> None:
    dy, x = RNG.standard_normal((2, 4, 5))
    for name, which in product(("gelu", "softmax", "log_softmax", "l2_normalize"), (0, 1)):
        function = getattr(reference, f"{name}_backward")
        arguments = [dy.copy(), x.copy()]
        expected = function(*arguments)
        assert function(*arguments, out=arguments[which]) is arguments[which]
        np.testing.assert_array_equal(arguments[which], expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: reference.gelu_backward(x, x, "erf"), "gelu_backward: approximate must be .*, got 'erf'"),
        (lambda x: reference.linear_backward(x, x, x, activation="elu"), "linear_backward: activation .*, got 'elu'"),
        (
            lambda x: reference.linear_backward(x, x, x, activation="gelu"),
            "linear_backward: pre_activation must be given with activation 'gelu'",
        ),
        (lambda x: reference.pooling_backward(x, x, CU, "sum"), "pooling_backward: mode must be .*, got 'sum'"),
        (lambda x: reference.pooling_backward(x, x, CU + 1), "pooling_backward: cu_seqlens must start at 0, got 1"),
        (
            lambda x: reference.embedding_backward(x, np.arange(9), 8),
            r"embedding_backward: input_ids must be in \[0, 8\), .*, got 8 at index 8",
        ),
        (
            lambda x: reference.cross_entropy(x, np.array([0, 2, -100, 3, -1, 0, 0, 0, 0])),
            r"cross_entropy: target must be in \[0, 3\) or ignore_index \(-100\), got 3 at index 3",
        ),
        (
            lambda x: reference.cross_entropy_backward(x[0], x, np.full(9, -1), x[0]),
            "cross_entropy_backward: target .*, got -1 at index 0",
        ),
        (lambda x: reference.dropout(x, 1.0), r"dropout: p must be in \[0, 1\), got 1.0"),
        (lambda x: reference.dropout(x, float("nan")), r"dropout: p must be in \[0, 1\), got nan"),
        (lambda x: reference.dropout_backward(x, -0.1), r"dropout_backward: p must be in \[0, 1\), got -0.1"),
        (lambda x: reference.dropout(x, 0.5, -1), r"dropout: seed must be in \[0, 2\^64\), got -1"),
        (lambda x: reference.dropout(x, 0.5, 1 << 64), "dropout: seed must be in"),
        (lambda x: reference.layer_norm(x, dropout_p=1.5), "layer_norm: dropout_p must be in .*, got 1.5"),
        (
            lambda x: reference.layer_norm_backward(x, x, None, x[:, 0], x[:, 0], dropout_p=1.5),
            "layer_norm_backward: dropout_p must be in .*, got 1.5",
        ),
        (
            lambda x: reference.scaled_dot_product_attention(x, x, x, cu_seqlens_q=CU, dropout_p=-1),
            "scaled_dot_product_attention: dropout_p must be in .*, got -1",
        ),
        (
            lambda x: reference.scaled_dot_product_attention_backward(x, x, x, x, x, x, causal_alignment="left"),
            "scaled_dot_product_attention_backward: causal_alignment must be .*, got 'left'",
        ),
    ],
)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(np.zeros((9, 3)))
