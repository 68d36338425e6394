"""How far off float32 may be: for each result of a kernel, the terms of its longest sum and how large they are.

A result of n terms as large as m may be off by C * eps * sqrt(n) * m, eps being float32's. The magnitude m is computed
from the arguments, with absolute values where the terms of a sum may cancel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from helpers import EPS, TINY
from helpers_draws import Call, leaves

C = 16.0


def largest(*values: Any) -> float:
    """The largest finite absolute value in arrays, lists of arrays and None."""
    arrays = [array for _, array in leaves(list(values)) if array.dtype != np.bool_]
    return max((float(np.abs(a[np.isfinite(a)]).max(initial=0.0)) for a in arrays), default=0.0)


def assert_near(call: Call, doubled: dict[str, Any], actual: list[Any], expected: list[Any]) -> None:
    """Every result against the reference's, of arguments in float64; NaN and infinities are in the same places."""
    lengths, magnitude = MEASURES.get(call.kernel, _rowwise)(doubled)
    assert len(actual) == len(expected)
    for i, (got, ideal) in enumerate(zip(actual, expected, strict=True)):
        assert got.shape == ideal.shape, f"result {i} has shape {got.shape}, not {ideal.shape}"
        if got.dtype.kind != "f":  # positions: what they point to is among the results
            continue
        with np.errstate(over="ignore"):
            rounded = ideal.astype(np.float32)
        plain = np.isfinite(rounded)
        np.testing.assert_array_equal(got[~plain], rounded[~plain], f"result {i}: not finite in other places")
        error = np.abs(got[plain].astype(np.float64) - ideal[plain])
        limit = C * EPS * max(lengths, 1) ** 0.5 * max(largest(ideal), magnitude) + TINY * max(1.0, magnitude)
        worst = float(error.max(initial=0.0)) if np.isfinite(error).all() else np.inf
        assert worst <= limit, f"result {i} is off by {worst:.3e} where {limit:.3e} is allowed"


Measure = tuple[int, float]


def _last(a: Any) -> int:
    return int(a.shape[-1]) if a.ndim else 1


def _count(a: Any) -> int:
    return int(np.prod(a.shape[:-1]))


def _product(x: Any, weight: Any) -> float:
    """The largest sum of |x| |weight|^T."""
    return float((np.abs(x.reshape(_count(x), -1 if x.size else x.shape[-1])) @ np.abs(weight).T).max(initial=0.0))


def _rowwise(g: dict[str, Any]) -> Measure:
    """One array of rows, or dy beside what is saved."""
    x = next(g[name] for name in ("x", "y", "dy") if name in g and g[name] is not None)
    size = largest(x)
    return _last(x), (1 + size) * (largest(g["dy"]) if "dy" in g else 1.0)


def _sum_of_row(a: Any) -> float:
    return float(np.abs(a).sum(axis=-1).max(initial=0.0))


def _softmax_backward(g: dict[str, Any]) -> Measure:
    return _last(g["y"]), largest(g["y"]) * (largest(g["dy"]) + _sum_of_row(g["y"] * g["dy"]))


def _log_softmax_backward(g: dict[str, Any]) -> Measure:
    return _last(g["y"]), largest(g["dy"]) + _sum_of_row(g["dy"]) * (1 + largest(g["y"]))


def _l2_normalize_backward(g: dict[str, Any]) -> Measure:
    x, dy, eps = g["x"], g["dy"], g["eps"]
    length = np.maximum(np.sqrt((x * x).sum(axis=-1)), eps)
    unit = np.abs(x) / length[..., None]
    all_of = np.abs(dy) + unit * (unit * np.abs(dy)).sum(axis=-1, keepdims=True)
    return _last(x), largest(all_of / length[..., None])


def _layer_norm(g: dict[str, Any]) -> Measure:
    p = g["dropout_p"]
    size = largest(g["x"]) / (1 - p) + largest(g["residual"])
    rstd = g["eps"] ** -0.5  # at most
    if p == 0:
        x = g["x"] if g["residual"] is None else g["x"] + g["residual"]
        rstd = float((1 / np.sqrt(x.var(axis=-1) + g["eps"])).max(initial=0.0)) if x.size else 1.0
    scale = max(1.0, largest(g["weight"]) if g["weight"] is not None else 1.0)
    return _last(g["x"]), size * max(rstd, rstd * rstd * size * rstd) * scale + largest(g["bias"]) + 1


def _layer_norm_backward(g: dict[str, Any]) -> Measure:
    weight, rstd = largest(g["weight"]) if g["weight"] is not None else 1.0, largest(g["rstd"])
    h = largest(g["x"]) / (1 - g["dropout_p"]) + largest(g["residual"]) + largest(g["mean"])
    normed = h * rstd
    dh = rstd * largest(g["dy"]) * weight * (2 + normed * (1 + normed)) / (1 - g["dropout_p"])
    sums = _count(g["x"]) * largest(g["dy"]) * max(1.0, normed) + largest(g["dweight"], g["dbias"])
    return _last(g["x"]) + _count(g["x"]), max(dh, sums)


def _linear(g: dict[str, Any]) -> Measure:
    return _last(g["x"]), 1.2 * (_product(g["x"], g["weight"]) + largest(g["bias"])) + largest(g["residual"]) + 1e-3


def _linear_backward(g: dict[str, Any], slope: float = 1.2) -> Measure:
    x, dy = g["x"], np.abs(g["dy"]) * slope
    rows = _count(x)
    d, x = dy.reshape(rows, _last(dy)), np.abs(x).reshape(rows, _last(x))
    pre = 1 + largest(g.get("pre_activation"))
    sizes = (
        largest(d @ np.abs(g["weight"])),
        largest(d.T @ x),
        largest(d.sum(axis=0)),
        largest(g["dweight"], g["dbias"]),
    )
    return rows + _last(x) + _last(d), pre * max(sizes)


def _highway(g: dict[str, Any]) -> Measure:
    projection, x = _product(g["x"], g["weight"]) + largest(g["bias"]), largest(g["x"])
    return _last(g["x"]), projection + x + projection * (projection + x) / 4


def _highway_backward(g: dict[str, Any]) -> Measure:
    slope = 1 + (largest(g["projection"]) + largest(g["x"])) / 4
    both = np.concatenate([g["dy"], g["dy"]], axis=-1)
    length, size = _linear_backward(g | {"dy": both, "pre_activation": g["projection"]}, slope)
    return length, size + largest(g["dy"])


def _log_softmax_topk(g: dict[str, Any]) -> Measure:
    return _last(g["x"]), (1 + largest(g["x"])) * max(1.0, largest(g["factors"]))


def _embedding(g: dict[str, Any]) -> Measure:
    size = g["scale"] * largest(g["weight"]) + largest(g["position_weight"]) + largest(g["token_type_weight"])
    if g["norm_weight"] is None:
        return 3, size
    rstd = g["eps"] ** -0.5
    return _last(g["weight"]), (1 + size * rstd) ** 2 * max(1.0, largest(g["norm_weight"])) + largest(g["norm_bias"])


def _embedding_backward(g: dict[str, Any]) -> Measure:
    return len(g["dy"]), len(g["dy"]) * largest(g["dy"]) + largest(g["dweight"])


def _cross_entropy(g: dict[str, Any]) -> Measure:
    return _last(g["logits"]), (1 + largest(g["logits"]) + 7) * (largest(g["dloss"]) if "dloss" in g else 1.0)


def _crf(g: dict[str, Any]) -> Measure:
    """A path's score; gradients are of probabilities, which are as exact as the logarithms they come from."""
    tokens = int(np.diff(g["cu_seqlens"]).max(initial=1))
    size = 4 + largest(*(g[name] for name in ("emissions", "transitions", "start_transitions", "end_transitions")))
    if "dlog_likelihood" in g:
        return tokens * _last(g["emissions"]), size * largest(g["dlog_likelihood"]) * max(1, len(g["emissions"]))
    return tokens * _last(g["emissions"]), size * tokens


def _pooling(g: dict[str, Any]) -> Measure:
    tokens = len(g["x"])
    return tokens, max(largest(g["x"]), largest(g.get("dy"))) * max(1, tokens) ** 0.5


def _dropout(g: dict[str, Any]) -> Measure:
    return 1, largest(g.get("x"), g.get("dy")) / (1 - g["p"]) + largest(g.get("residual"))


def _gated(g: dict[str, Any]) -> Measure:
    return 1, (1 + largest(g["x"])) ** 2 * (largest(g["dy"]) if "dy" in g else 1.0)


def _rotary(g: dict[str, Any]) -> Measure:
    return 2, 2 * largest(g.get("x"), g.get("dy")) * max(1.0, largest(g["table"]))


def _adamw(g: dict[str, Any]) -> Measure:
    decay = 1 + g["weight_decay"] * max(1.0, largest(g["param"]))
    gradient = (largest(g["grad"]) + largest(g["exp_avg"])) * decay
    least = (float(g["exp_avg_sq"].min(initial=1.0)) * g["beta2"]) ** 0.5 + g["eps"]
    if g["beta2"] == 0:  # the gradient alone may be as small as it likes
        least = g["eps"]
    return 4, (largest(g["param"]) + g["lr"] / (1 - g["beta1"] ** g["step"]) * gradient / least + gradient**2) * decay


def _sgd(g: dict[str, Any]) -> Measure:
    return 4, 2 * largest(g["param"], g["grad"], g["momentum_buffer"]) + 1e-3


def _char_cnn(g: dict[str, Any]) -> Measure:
    terms = max(w.shape[1] * w.shape[2] for w in g["weights"])
    return terms, terms * largest(g["weights"]) * largest(g["embedding"]) + largest(g["biases"])


def _char_cnn_backward(g: dict[str, Any]) -> Measure:
    words, filters = g["dy"].shape
    sizes = largest(g["weights"]), largest(g["embedding"]), 1.0
    terms = max(words * filters * g["char_ids"].shape[1], 1)
    return terms, terms * largest(g["dy"]) * max(sizes) + largest(g["dembedding"], g["dweights"], g["dbiases"])


def _scores(g: dict[str, Any]) -> float:
    dim = _last(g["q"])
    scale = g["softmax_scale"] if g["softmax_scale"] is not None else dim**-0.5
    norms = (float(np.sqrt((g[name] ** 2).sum(axis=-1)).max(initial=0.0)) for name in "qk")
    mask = g["attn_mask"]
    more = 0.0 if mask is None or mask.dtype == np.bool_ else largest(mask)
    return 1 + float(np.prod(list(norms))) * scale + largest(g["position_bias"]) + more


def _attention(g: dict[str, Any]) -> Measure:
    keys = g["k"].shape[0 if g["cu_seqlens_q"] is not None else 2]
    return _last(g["q"]) + keys, _scores(g) * max(1.0, largest(g["v"])) / (1 - g["dropout_p"])


def _attention_backward(g: dict[str, Any]) -> Measure:
    axis = 0 if g["cu_seqlens_q"] is not None else 2
    queries, keys, dim = g["q"].shape[axis], g["k"].shape[axis], _last(g["q"])
    ds = 2 * dim**0.5 * largest(g["dout"]) * (dim**0.5 * largest(g["v"]) + largest(g["out"])) / (1 - g["dropout_p"])
    sums = max(1, queries) * max(ds, ds * largest(g["q"], g["k"]), largest(g["dout"]) / (1 - g["dropout_p"]))
    return dim + keys + queries, _scores(g) * sums


def _recurrent(g: dict[str, Any]) -> Measure:
    inputs = _last(g["x"] if isinstance(g["x"], np.ndarray) else g["x"][0])
    width = _last(g["weights"][0][1])
    steps = int(np.diff(g["cu_seqlens"]).max(initial=1))
    sums = 1 + inputs**0.5 * largest(g["x"]) + largest([own[2:] for own in g["weights"]])
    size = sums * (1 + largest(g["h0"], g.get("c0")) + largest(g.get("residual"))) * steps
    backward = largest(g.get("dout"), g.get("dh_n"), g.get("dc_n"))
    if "dout" not in g:
        return steps * (inputs + width), size
    tokens = int(g["cu_seqlens"][-1])
    return steps * (inputs + width + tokens), size * backward * max(1, tokens) + largest(g["dweights"])


def _cell(g: dict[str, Any]) -> Measure:
    inputs, width = _last(g["x"]), _last(g["h"])
    sums = 1 + inputs**0.5 * largest(g["x"]) + width**0.5 * largest(g["h"])
    return inputs + width, sums * (1 + largest(g.get("c"), g.get("bias"), g.get("bias_ih"), g.get("bias_hh")))


MEASURES: dict[str, Callable[[dict[str, Any]], Measure]] = {
    "adamw": _adamw,
    "char_cnn": _char_cnn,
    "char_cnn_backward": _char_cnn_backward,
    "crf": _crf,
    "crf_backward": _crf,
    "crf_viterbi": _crf,
    "cross_entropy": _cross_entropy,
    "cross_entropy_backward": _cross_entropy,
    "dropout": _dropout,
    "dropout_backward": _dropout,
    "embedding": _embedding,
    "embedding_backward": _embedding_backward,
    "gated_activation": _gated,
    "gated_activation_backward": _gated,
    "gradient_norm": lambda g: (1, 0.0),
    "gru": _recurrent,
    "gru_backward": _recurrent,
    "gru_cell": _cell,
    "highway": _highway,
    "highway_backward": _highway_backward,
    "l2_normalize_backward": _l2_normalize_backward,
    "layer_norm": _layer_norm,
    "layer_norm_backward": _layer_norm_backward,
    "linear": _linear,
    "linear_backward": _linear_backward,
    "log_softmax_backward": _log_softmax_backward,
    "log_softmax_topk": _log_softmax_topk,
    "lstm": _recurrent,
    "lstm_backward": _recurrent,
    "lstm_cell": _cell,
    "pooling": _pooling,
    "pooling_backward": _pooling,
    "rotary_embedding": _rotary,
    "rotary_embedding_backward": _rotary,
    "scaled_dot_product_attention": _attention,
    "scaled_dot_product_attention_backward": _attention_backward,
    "scatter_rows": lambda g: (1, 0.0),
    "sgd": _sgd,
    "softmax_backward": _softmax_backward,
}
"""From arguments in float64 to the terms of the longest sum, and their size. Others are functions of one row."""
