"""A sample of every kernel, for `fastattn info --selftest`: the kernels and their reference compute the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.kernels import PackedMatrix

Array = NDArray[Any]
LENGTHS = (1, 0, 7, 33, 20)
CU_SEQLENS = np.cumsum((0, *LENGTHS)).astype(np.int32)
TOKENS = int(CU_SEQLENS[-1])


class Draw:
    """Random arrays of the given shapes: the same numbers in every dtype."""

    def __init__(self, dtype: type[np.floating[Any]]) -> None:
        self._rng, self._dtype = np.random.default_rng(0), dtype

    def __call__(self, *shape: int) -> Array:
        return self._rng.standard_normal(shape, np.float32).astype(self._dtype)

    def ids(self, size: int, below: int) -> NDArray[np.int64]:
        return self._rng.integers(0, below, size)


Case = Callable[[Any, Draw], Any]
"""From `fastattn.kernels` or `fastattn.reference`, and a `Draw`, to arrays, in tuples and lists, among None."""


def _pair(name: str, *options: Any, of_y: bool = False) -> Case:
    """A kernel from rows to rows and its backward, which reads x, or the result."""

    def case(ops: Any, draw: Draw) -> Any:
        x, dy = draw(37, 132), draw(37, 132)
        y = getattr(ops, name)(x, *options)
        return y, getattr(ops, f"{name}_backward")(dy, y if of_y else x, *options)

    return case


def _gated_activation(ops: Any, draw: Draw) -> Any:
    x, dy = draw(37, 132), draw(37, 66)
    return ops.gated_activation(x, "gelu"), ops.gated_activation_backward(dy, x, "gelu")


def _dropout(ops: Any, draw: Draw) -> Any:
    x, residual = draw(37, 132), draw(37, 132)
    return ops.dropout(x, 0.3, 5, residual=residual), ops.dropout_backward(x, 0.3, 5)


def _layer_norm(ops: Any, draw: Draw) -> Any:
    x, residual, dy, weight, bias = draw(37, 132), draw(37, 132), draw(37, 132), draw(132), draw(132)
    y, mean, rstd = ops.layer_norm(x, weight, bias, residual=residual, return_stats=True)
    return y, mean, rstd, ops.layer_norm_backward(dy, x, weight, mean, rstd, residual=residual)


def _linear(ops: Any, draw: Draw) -> Any:
    x, weight, bias, residual, dy = draw(70, 131), draw(83, 131), draw(83), draw(70, 83), draw(70, 83)
    y, before = ops.linear(x, weight, bias, residual, activation="gelu", return_pre_activation=True)
    pack = getattr(ops, "PackedMatrix", np.asarray)  # the reference has none
    packed = ops.linear(x, pack(weight), bias)
    plain = weight.astype(np.float32)
    reduced = [ops.linear(x, PackedMatrix(plain, dtype=dtype), bias) for dtype in ("bfloat16", "int8")]
    return y, packed, reduced, ops.linear_backward(dy, x, weight, activation="gelu", pre_activation=before)


def _embedding(ops: Any, draw: Draw) -> Any:
    ids, places, table, rows = draw.ids(TOKENS, 50), draw.ids(TOKENS, 40), draw(50, 132), draw(40, 132)
    options = {"position_ids": places, "position_weight": rows, "norm_weight": draw(132), "norm_bias": draw(132)}
    return ops.embedding(ids, table, **options), ops.embedding_backward(draw(TOKENS, 132), ids, 50)


def _scatter_rows(ops: Any, draw: Draw) -> Any:
    into = draw(40, 132)
    ops.scatter_rows(draw(20, 132), np.arange(20)[::-1] * 2, into)
    return into


def _pooling(ops: Any, draw: Draw) -> Any:
    x, dy = draw(TOKENS, 132), draw(len(LENGTHS), 132)
    modes = ("mean", "cls", "max", "last", "mean_sqrt_len", "weighted_mean")
    return [(ops.pooling(x, CU_SEQLENS, m), ops.pooling_backward(dy, x, CU_SEQLENS, m)) for m in modes]


def _rotary_embedding(ops: Any, draw: Draw) -> Any:
    x, places, table = draw(TOKENS, 3, 2, 24), draw.ids(TOKENS, 40), draw(40, 24)
    return ops.rotary_embedding(x, places, table), ops.rotary_embedding_backward(x, places, table)


def _attention(ops: Any, draw: Draw) -> Any:
    q, k, v, dout = (draw(TOKENS, 3, 40) for _ in range(4))
    found = []
    for options in ({}, {"is_causal": True}, {"window": (4, 4)}, {"dropout_p": 0.2, "seed": 3}):
        given = {"cu_seqlens_q": CU_SEQLENS, **options}
        out, lse = ops.scaled_dot_product_attention(q, k, v, return_softmax_lse=True, **given)
        found.append((out, lse, ops.scaled_dot_product_attention_backward(dout, q, k, v, out, lse, **given)))
    return found


def _log_softmax_topk(ops: Any, draw: Draw) -> Any:
    x, ids = draw(37, 131), np.arange(37) * 3
    adjusted = {"ids": ids, "cu_ids": np.arange(38, dtype=np.int32), "factors": abs(draw(37)) + 0.5}
    return ops.log_softmax_topk(x, 9, **adjusted)


def _crf(ops: Any, draw: Draw) -> Any:
    emissions, tags, dy = draw(TOKENS, 19), draw.ids(TOKENS, 19), draw(len(LENGTHS))
    scores = (draw(19, 19), draw(19), draw(19))
    result = ops.crf(emissions, tags, CU_SEQLENS, *scores)
    return result, ops.crf_backward(dy, emissions, tags, CU_SEQLENS, *scores, *result)


def _crf_viterbi(ops: Any, draw: Draw) -> Any:
    tags, scores = ops.crf_viterbi(draw(TOKENS, 19), CU_SEQLENS, draw(19, 19), draw(19), draw(19), 3)
    return tags, scores[scores > -np.inf]  # an empty sequence has one score


def _cross_entropy(ops: Any, draw: Draw) -> Any:
    logits, target, dloss = draw(37, 131), draw.ids(37, 131), draw(37)
    loss, lse = ops.cross_entropy(logits, target, label_smoothing=0.1)
    return loss, lse, ops.cross_entropy_backward(dloss, logits, target, lse, label_smoothing=0.1)


def _lstm(ops: Any, draw: Draw) -> Any:
    x, dout = draw(TOKENS, 20), draw(TOKENS, 34)
    weights = [(draw(96, 20), draw(96, 17) / 4, draw(96), draw(17, 24) / 4) for _ in range(2)]
    *states, reserve = ops.lstm(x, CU_SEQLENS, weights, return_reserve=True)
    dx, dweights, *rest = ops.lstm_backward(dout, None, None, x, CU_SEQLENS, weights, reserve)
    return states, dx, dweights, rest, ops.lstm_cell(x, draw(TOKENS, 17), draw(TOKENS, 24), *weights[0])


def _gru(ops: Any, draw: Draw) -> Any:
    x, dout = draw(TOKENS, 20), draw(TOKENS, 48)
    weights = [(draw(72, 20), draw(72, 24) / 4, draw(72), draw(72)) for _ in range(2)]
    *states, reserve = ops.gru(x, CU_SEQLENS, weights, return_reserve=True)
    gradients = ops.gru_backward(dout, None, x, CU_SEQLENS, weights, reserve)
    return states, gradients, ops.gru_cell(x, draw(TOKENS, 24), *weights[0])


def _highway(ops: Any, draw: Draw) -> Any:
    x, weight, bias, dy = draw(37, 40), draw(80, 40), draw(80), draw(37, 40)
    y, projection = ops.highway(x, weight, bias, return_projection=True)
    return y, ops.highway_backward(dy, x, weight, projection)


def _char_cnn(ops: Any, draw: Draw) -> Any:
    ids, table = draw.ids(19 * 12, 30).reshape(19, 12), draw(30, 16)
    weights, biases = [draw(20, 1, 16), draw(33, 3, 16)], [draw(20), draw(33)]
    y, argmax = ops.char_cnn(ids, table, weights, biases, return_argmax=True)
    return y, ops.char_cnn_backward(draw(19, 53), ids, table, weights, biases, y, argmax)


def _optimizer(name: str, buffers: int, **options: Any) -> Case:
    """A step of an optimizer, which changes its arrays."""

    def case(ops: Any, draw: Draw) -> Any:
        arrays = [draw(1003) for _ in range(2 + buffers)]
        arrays[-1] = abs(arrays[-1])
        getattr(ops, name)(*arrays, lr=0.01, **options)
        return arrays

    return case


CASES: dict[str, Case] = {
    "activation": _pair("activation", "tanh"),
    "adamw": _optimizer("adamw", 2, step=3),
    "char_cnn": _char_cnn,
    "crf": _crf,
    "crf_viterbi": _crf_viterbi,
    "cross_entropy": _cross_entropy,
    "dropout": _dropout,
    "embedding": _embedding,
    "gated_activation": _gated_activation,
    "gelu": _pair("gelu"),
    "gradient_norm": lambda ops, draw: np.float32(ops.gradient_norm([draw(1003), draw(7, 5)])),
    "gru": _gru,
    "highway": _highway,
    "l2_normalize": _pair("l2_normalize"),
    "layer_norm": _layer_norm,
    "linear": _linear,
    "log_softmax": _pair("log_softmax", of_y=True),
    "log_softmax_topk": _log_softmax_topk,
    "lstm": _lstm,
    "pooling": _pooling,
    "rotary_embedding": _rotary_embedding,
    "scaled_dot_product_attention": _attention,
    "scatter_rows": _scatter_rows,
    "sgd": _optimizer("sgd", 1, momentum=0.9),
    "softmax": _pair("softmax", of_y=True),
}
"""By the stem of the kernel: all of its functions."""


def arrays_of(result: Any) -> Iterator[Array]:
    """The arrays of a result, in order."""
    if isinstance(result, (tuple, list)):
        for each in result:
            yield from arrays_of(each)
    elif result is not None:
        yield np.asarray(result)
