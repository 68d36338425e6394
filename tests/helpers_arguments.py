"""Arguments for every kernel, as hypothesis draws them.

A row of `CASES` gives a valid call: all arguments of the function by name, and the shapes of those that take a result.

>>> call = hypothesis.find(calls("softmax"), lambda call: True)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from helpers import cumulative
from helpers_draws import Call, Draw, Shapes
from hypothesis import strategies as st

from fastattn import kernels

ACTIVATIONS = (None, "relu", "gelu", "gelu_tanh", "silu", "tanh")


def calls(kernel: str) -> st.SearchStrategy[Call]:
    """Valid calls of a function of `fastattn.kernels`."""

    @st.composite
    def drawn(draw: Callable[[Any], Any]) -> Call:
        given, results = CASES[kernel](Draw(draw))
        return Call(kernel, given, results)

    return drawn()


def _rows(d: Draw, *names: str, **options: Any) -> tuple[dict[str, Any], Shapes]:
    """Arrays of rows of one shape, and a result of it."""
    shape = (*d.rows(), d.size())
    return {name: d.floats(*shape) for name in names} | options, {"out": shape}


def _log_softmax_backward(d: Draw) -> tuple[dict[str, Any], Shapes]:
    given, results = _rows(d, "dy", "y")
    return given | {"y": -np.abs(given["y"])}, results


def _log_softmax_topk(d: Draw) -> tuple[dict[str, Any], Shapes]:
    rows, columns = d.among(0, 1, 3, 7, 40), d.size(least=1)
    k = d.among(1, min(columns, 8), d.integer(1, columns))
    given: dict[str, Any] = {"x": d.floats(rows, columns), "k": k, "ids": None, "cu_ids": None, "factors": None}
    if d.flag():
        adjusted = d.rng.random((rows, columns)) < d.among(0.0, 0.05, 1.0)
        ids, cu_ids = adjusted.nonzero()[1].copy(), cumulative(adjusted.sum(axis=1))
        given |= {"ids": ids, "cu_ids": cu_ids}
        given["factors"] = d.rng.choice(np.array([0.5, 1.3, np.inf], np.float32), len(ids))
    return given, {}


def _gated_activation(d: Draw, backward: bool) -> tuple[dict[str, Any], Shapes]:
    rows, dim = d.rows(), d.size()
    given = {"x": d.floats(*rows, 2 * dim), "activation": d.among(*ACTIVATIONS[1:])}
    if backward:
        return given | {"dy": d.floats(*rows, dim)}, {"out": (*rows, 2 * dim)}
    return given, {"out": (*rows, dim)}


def _dropout(d: Draw, backward: bool) -> tuple[dict[str, Any], Shapes]:
    given, results = _rows(d, "dy" if backward else "x", p=d.among(0.0, 0.1, 0.5, 0.9), seed=d.seed())
    return given if backward else given | {"residual": d.optional(*results["out"])}, results


def _norm_input(d: Draw) -> tuple[dict[str, Any], tuple[int, ...]]:
    shape = (*d.rows(), d.size(least=1))
    dropout = {"dropout_p": d.among(0.0, 0.0, 0.3), "seed": d.seed()}
    return {"x": d.floats(*shape), "weight": d.optional(shape[-1]), "residual": d.optional(*shape), **dropout}, shape


def _layer_norm(d: Draw) -> tuple[dict[str, Any], Shapes]:
    given, shape = _norm_input(d)
    more = {"bias": d.optional(shape[-1]), "eps": d.among(1e-5, 0.1), "return_stats": d.flag()}
    return given | more, {"out": shape}


def _layer_norm_backward(d: Draw) -> tuple[dict[str, Any], Shapes]:
    given, shape = _norm_input(d)
    _, mean, rstd = kernels.layer_norm(**given, eps=1e-3, return_stats=True)
    has_weight = given["weight"] is not None
    needs = {f"need_{name}": d.flag() for name in ("dx", "dresidual", "dweight", "dbias")}
    sums = {name: d.optional(shape[-1], needed=has_weight and needs[f"need_{name}"]) for name in ("dweight", "dbias")}
    return given | {"dy": d.floats(*shape), "mean": mean, "rstd": rstd} | needs | sums, {}


def _linear(d: Draw) -> tuple[dict[str, Any], Shapes]:
    rows, (n, k) = d.rows(), d.sizes(0, 0)
    given = {
        "x": d.floats(*rows, k), "weight": d.floats(n, k), "bias": d.optional(n), "residual": d.optional(*rows, n),
        "activation": d.among(*ACTIVATIONS), "return_pre_activation": d.flag(),
    }  # fmt: skip
    return given, {"out": (*rows, n)}


def _gradients(d: Draw, weight: tuple[int, ...], bias: tuple[int, ...]) -> dict[str, Any]:
    """The last arguments of backward passes with a weight."""
    needs = {f"need_{name}": d.flag() for name in ("dx", "dweight", "dbias")}
    return needs | {
        "dweight": d.optional(*weight, needed=needs["need_dweight"]),
        "dbias": d.optional(*bias, needed=needs["need_dbias"]),
    }


def _linear_backward(d: Draw) -> tuple[dict[str, Any], Shapes]:
    rows, (n, k), activation = d.rows(), d.sizes(0, 0), d.among(*ACTIVATIONS)
    given = {
        "dy": d.floats(*rows, n), "x": d.floats(*rows, k), "weight": d.floats(n, k), "activation": activation,
        "pre_activation": d.floats(*rows, n) if activation else None,
    }  # fmt: skip
    return given | _gradients(d, (n, k), (n,)), {}


def _highway(d: Draw, backward: bool) -> tuple[dict[str, Any], Shapes]:
    rows, dim = d.rows(), d.among(d.size(70), d.size(35), d.size(520))
    given = {"x": d.floats(*rows, dim), "weight": d.floats(2 * dim, dim)}
    if backward:
        given |= {"dy": d.floats(*rows, dim), "projection": d.floats(*rows, 2 * dim)}
        return given | _gradients(d, (2 * dim, dim), (2 * dim,)), {}
    return given | {"bias": d.floats(2 * dim), "return_projection": d.flag()}, {"out": (*rows, dim)}


def _embedding(d: Draw) -> tuple[dict[str, Any], Shapes]:
    tokens, dim, scale = d.size(40), d.size(), d.among(1.0, 2.5)
    rows = {name: d.integer(1, 9) for name in ("input", "position", "token_type")}
    used = {name: name == "input" or d.flag() for name in rows}
    given: dict[str, Any] = {}
    for name, count in rows.items():
        given[f"{name}_ids"] = d.ids(count, tokens) if used[name] else None
        table = "weight" if name == "input" else f"{name}_weight"
        given[table] = d.floats(count, dim) if used[name] else None
    norm = d.optional(dim, needed=dim > 0)
    norms = {"norm_weight": norm, "norm_bias": d.optional(dim, needed=norm is not None), "eps": d.among(1e-5, 0.1)}
    return given | norms | {"scale": scale}, {"out": (tokens, dim)}


def _embedding_backward(d: Draw) -> tuple[dict[str, Any], Shapes]:
    tokens, dim, rows = d.size(70), d.size(), d.integer(1, 9)
    given = {
        "dy": d.floats(tokens, dim), "input_ids": d.ids(rows, tokens), "num_embeddings": rows,
        "padding_idx": d.among(None, 0, rows - 1), "dweight": d.optional(rows, dim),
    }  # fmt: skip
    return given, {}


def _cross_entropy(d: Draw, backward: bool) -> tuple[dict[str, Any], Shapes]:
    rows, classes = d.size(40), d.size(least=1)
    target = d.ids(classes, rows)
    ignore = d.among(-100, 0)
    target[d.rng.random(rows) < 0.2] = ignore
    given = {
        "logits": d.floats(rows, classes), "target": target, "ignore_index": ignore,
        "label_smoothing": d.among(0.0, 0.1, 1.0),
    }  # fmt: skip
    if not backward:
        return given, {}
    return given | {"dloss": d.floats(rows), "lse": kernels.cross_entropy(**given)[1]}, {"out": (rows, classes)}


def _crf(d: Draw, kernel: str) -> tuple[dict[str, Any], Shapes]:
    lengths = d.lengths(12)
    tokens, num_tags = sum(lengths), d.size(35, least=1)
    given: dict[str, Any] = {
        "emissions": d.floats(tokens, num_tags), "cu_seqlens": cumulative(lengths),
        "transitions": d.floats(num_tags, num_tags), "start_transitions": d.floats(num_tags),
        "end_transitions": d.floats(num_tags),
    }  # fmt: skip
    if d.flag():
        given["transitions"][d.rng.random((num_tags, num_tags)) < 0.3] = -np.inf
    if kernel == "crf_viterbi":
        return given | {"n": d.among(1, 1, 2, 5)}, {}
    given["tags"] = d.ids(num_tags, tokens)
    if kernel == "crf_backward":
        given["log_likelihood"], given["alpha"] = kernels.crf(**given)
        given["dlog_likelihood"] = d.floats(len(lengths))
    return given, {}


def _pooling(d: Draw, backward: bool) -> tuple[dict[str, Any], Shapes]:
    lengths, dim = d.lengths(70), d.size()
    tokens = sum(lengths)
    given = {
        "x": d.floats(tokens, dim), "cu_seqlens": cumulative(lengths),
        "mode": d.among("mean", "cls", "max", "last", "mean_sqrt_len", "weighted_mean"),
    }  # fmt: skip
    if backward:
        return given | {"dy": d.floats(len(lengths), dim)}, {"out": (tokens, dim)}
    return given, {"out": (len(lengths), dim)}


def _rotary(d: Draw, name: str) -> tuple[dict[str, Any], Shapes]:
    positions = d.integer(1, 9)
    shape = (d.size(35), d.integer(2, 4), d.integer(0, 4), 2 * d.size(130))
    table = d.floats(positions, shape[3])
    return {name: d.floats(*shape), "position_ids": d.ids(positions, shape[0]), "table": table}, {"out": shape}


def _scatter_rows(d: Draw) -> tuple[dict[str, Any], Shapes]:
    count, more, dim = d.size(40), d.integer(0, 5), d.size()
    rows = d.rng.permutation(count + more)[:count].astype(np.int64)
    return {"x": d.floats(count, dim), "rows": rows, "into": d.floats(count + more, dim)}, {}


def _flat(d: Draw, *names: str) -> dict[str, Any]:
    shape = d.among((d.size(),), (d.size(9), d.size()), (), (2, 0, 3))
    return {name: d.floats(*shape) for name in names}


def _adamw(d: Draw) -> tuple[dict[str, Any], Shapes]:
    given = _flat(d, "param", "grad", "exp_avg", "exp_avg_sq")
    options = {
        "step": d.among(1, 2, 1000), "lr": d.among(0.0, 0.01, 1.0), "beta1": d.among(0.0, 0.3, 0.9),
        "beta2": d.among(0.0, 0.999), "eps": d.among(1e-8, 0.1), "weight_decay": d.among(0.0, 0.1),
        "decoupled": d.flag(),
    }  # fmt: skip
    return given | {"exp_avg_sq": np.asarray(given["exp_avg_sq"] ** 2 + np.float32(1e-3))} | options, {}


def _sgd(d: Draw) -> tuple[dict[str, Any], Shapes]:
    momentum = d.among(0.0, 0.9)
    given = _flat(d, "param", "grad", "momentum_buffer") | {"lr": d.among(0.0, 0.1), "momentum": momentum}
    if momentum == 0:
        given["momentum_buffer"] = None
    options = {
        "dampening": d.among(0.0, 0.5), "weight_decay": d.among(0.0, 0.1), "nesterov": d.flag(), "first": d.flag()
    }  # fmt: skip
    return given | options, {}


def _gradient_norm(d: Draw) -> tuple[dict[str, Any], Shapes]:
    return {"gradients": [_flat(d, "g")["g"] for _ in range(d.integer(0, 4))]}, {}


def _char_cnn(d: Draw, backward: bool) -> tuple[dict[str, Any], Shapes]:
    words, chars, dim, rows = d.size(35), d.integer(1, 12), d.integer(1, 20), d.integer(1, 9)
    widths = [d.integer(1, chars) for _ in range(d.integer(1, 3))]
    filters = [d.size(70) for _ in widths]
    ids = d.ids(rows, words, chars)
    ids[d.rng.random(words) < 0.5, chars // 2 :] = 0  # runs of padding
    given: dict[str, Any] = {
        "char_ids": ids, "embedding": d.floats(rows, dim),
        "weights": [d.floats(n, width, dim) for n, width in zip(filters, widths, strict=True)],
        "biases": [d.floats(n) for n in filters], "activation": d.among("relu", "tanh"),
    }  # fmt: skip
    if not backward:
        return given | {"return_argmax": d.flag()}, {"out": (words, sum(filters))}
    y, argmax = kernels.char_cnn(**given, return_argmax=True)
    needs = {f"need_{name}": d.flag() for name in ("dembedding", "dweights", "dbiases")}
    sums = {
        "dembedding": d.optional(rows, dim, needed=needs["need_dembedding"]),
        "dweights": [d.optional(*w.shape) for w in given["weights"]] if needs["need_dweights"] and d.flag() else None,
        "dbiases": [d.optional(*b.shape) for b in given["biases"]] if needs["need_dbiases"] and d.flag() else None,
    }
    return given | {"dy": d.floats(*y.shape), "y": y, "argmax": argmax} | needs | sums, {}


def _attention(d: Draw, backward: bool) -> tuple[dict[str, Any], Shapes]:
    heads, dim, batch = d.integer(1, 3), d.among(d.size(65, 1), d.size(256, 1)), d.integer(0, 3)
    small = min(d.scale, 1.0)
    options: dict[str, Any] = {"cu_seqlens_q": None, "cu_seqlens_k": None, "attn_mask": None}
    if d.flag():
        lengths_q, lengths_k = ([d.size(35) for _ in range(batch)] for _ in range(2))
        shape_q, shape_k = (sum(lengths_q), heads, dim), (sum(lengths_k), heads, dim)
        options |= {"cu_seqlens_q": cumulative(lengths_q), "cu_seqlens_k": cumulative(lengths_k)}
    else:
        seq_q, seq_k = d.sizes(0, 0)
        shape_q, shape_k = (batch, heads, seq_q, dim), (batch, heads, seq_k, dim)
        mask = [n if d.flag() else 1 for n in (batch, heads, seq_q, seq_k)]
        kind = d.among(None, "boolean", "additive")
        if kind:
            seen = d.rng.random(mask) < 0.7
            options["attn_mask"] = (
                seen if kind == "boolean" else np.where(seen, d.floats(*mask, scale=1), np.float32(-np.inf))
            )
    given = {"q": d.floats(*shape_q, scale=small), "k": d.floats(*shape_k, scale=small), "v": d.floats(*shape_k)}
    options |= {
        "position_bias": d.floats(2 * d.integer(0, 5) + 1, heads) if d.flag() else None,
        "window": d.among(None, (-1, 3), (2, -1), (0, 0), (5, 9)), "is_causal": d.flag(),
        "softmax_scale": d.among(None, 0.3), "causal_alignment": d.among("bottom_right", "top_left"),
        "dropout_p": d.among(0.0, 0.0, 0.3), "seed": d.seed(),
    }  # fmt: skip
    if not backward:
        extras = {"return_softmax_lse": d.flag(), "return_attn_weights": d.flag()}
        return given | options | extras, {"out": shape_q}
    out, lse = kernels.scaled_dot_product_attention(**given, **options, return_softmax_lse=True)
    given |= {"dout": d.floats(*shape_q), "out": out, "softmax_lse": lse}
    return given | options | {"need_dposition_bias": d.flag()}, {"dq": shape_q, "dk": shape_k, "dv": shape_k}


def _recurrent(d: Draw, gates: int, backward: bool) -> tuple[dict[str, Any], Shapes]:
    """A layer of an LSTM (4 gates) or a GRU (3)."""
    lengths, directions = d.lengths(6), d.integer(1, 2)
    tokens, batch, (inputs, hidden) = sum(lengths), len(lengths), d.among(d.sizes(1, 1), (d.size(70, 1), d.size(35, 1)))
    projected = gates == 4 and d.flag()
    width = d.size(20, 1) if projected else hidden
    small = 0.5 / max(inputs, hidden) ** 0.5

    def direction() -> tuple[Any, ...]:
        bias = d.floats(gates * hidden, scale=0.5) if d.flag() else None
        last = None
        if gates == 3 and d.flag():
            last = d.floats(gates * hidden, scale=0.5)
        elif projected:
            last = d.floats(width, hidden, scale=small)
        rows = gates * hidden
        return d.floats(rows, inputs, scale=small), d.floats(rows, width, scale=small), bias, last

    weights = [direction() for _ in range(directions)]
    shared = d.flag()
    given: dict[str, Any] = {
        "x": d.floats(tokens, inputs) if shared else tuple(d.floats(tokens, inputs) for _ in range(directions)),
        "cu_seqlens": cumulative(lengths), "weights": weights, "h0": d.optional(directions, batch, width),
        "reverse": tuple(d.flag() for _ in range(directions)),
    }  # fmt: skip
    if gates == 4:
        given |= {
            "c0": d.optional(directions, batch, hidden), "cell_clip": d.among(None, 0.7),
            "proj_clip": d.among(None, 0.1) if projected else None,
        }  # fmt: skip
    if not backward:
        if gates == 4:
            given["residual"] = d.optional(tokens, directions * width)
        return given | {"return_reserve": False, "recompute": d.flag()}, {}
    given |= {"dout": d.optional(tokens, directions * width), "dh_n": d.optional(directions, batch, width)}
    if gates == 4:
        given["dc_n"] = d.optional(directions, batch, hidden)
    needs = {"need_dx": d.flag(), "need_dweights": d.flag()}
    sums = [tuple(None if w is None else d.optional(*w.shape) for w in own) for own in weights]
    dweights = sums if needs["need_dweights"] and d.flag() else None
    return given | needs | {"dweights": dweights, "reserve": {"recompute": d.flag()}}, {}


def _cell(d: Draw, gates: int) -> tuple[dict[str, Any], Shapes]:
    batch, (inputs, hidden) = d.size(20), d.sizes(1, 1)
    projected = gates == 4 and d.flag()
    width = d.size(20, 1) if projected else hidden
    small = 0.5 / max(inputs, hidden) ** 0.5
    given = {
        "x": d.floats(batch, inputs), "h": d.floats(batch, width),
        "weight_ih": d.floats(gates * hidden, inputs, scale=small),
        "weight_hh": d.floats(gates * hidden, width, scale=small),
    }  # fmt: skip
    if gates == 3:
        return given | {"bias_ih": d.optional(3 * hidden), "bias_hh": d.optional(3 * hidden)}, {}
    given |= {
        "c": d.floats(batch, hidden), "bias": d.optional(4 * hidden), "cell_clip": d.among(None, 0.7),
        "weight_hr": d.floats(width, hidden, scale=small) if projected else None,
        "proj_clip": d.among(None, 0.1) if projected else None,
    }  # fmt: skip
    return given, {}


def _eps(d: Draw) -> float:
    return float(d.among(1e-12, 0.1, 1.5))


FUNCTIONS = ("relu", "sigmoid", "silu", "tanh")
CASES: dict[str, Callable[[Draw], tuple[dict[str, Any], Shapes]]] = {
    "activation": lambda d: _rows(d, "x", function=d.among(*FUNCTIONS)),
    "activation_backward": lambda d: _rows(d, "dy", "x", function=d.among(*FUNCTIONS)),
    "adamw": _adamw,
    "char_cnn": lambda d: _char_cnn(d, False),
    "char_cnn_backward": lambda d: _char_cnn(d, True),
    "crf": lambda d: _crf(d, "crf"),
    "crf_backward": lambda d: _crf(d, "crf_backward"),
    "crf_viterbi": lambda d: _crf(d, "crf_viterbi"),
    "cross_entropy": lambda d: _cross_entropy(d, False),
    "cross_entropy_backward": lambda d: _cross_entropy(d, True),
    "dropout": lambda d: _dropout(d, False),
    "dropout_backward": lambda d: _dropout(d, True),
    "embedding": _embedding,
    "embedding_backward": _embedding_backward,
    "gated_activation": lambda d: _gated_activation(d, False),
    "gated_activation_backward": lambda d: _gated_activation(d, True),
    "gelu": lambda d: _rows(d, "x", approximate=d.among("none", "tanh")),
    "gelu_backward": lambda d: _rows(d, "dy", "x", approximate=d.among("none", "tanh")),
    "gradient_norm": _gradient_norm,
    "gru": lambda d: _recurrent(d, 3, False),
    "gru_backward": lambda d: _recurrent(d, 3, True),
    "gru_cell": lambda d: _cell(d, 3),
    "highway": lambda d: _highway(d, False),
    "highway_backward": lambda d: _highway(d, True),
    "l2_normalize": lambda d: _rows(d, "x", eps=_eps(d)),
    "l2_normalize_backward": lambda d: _rows(d, "dy", "x", eps=_eps(d)),
    "layer_norm": _layer_norm,
    "layer_norm_backward": _layer_norm_backward,
    "linear": _linear,
    "linear_backward": _linear_backward,
    "log_softmax": lambda d: _rows(d, "x"),
    "log_softmax_backward": _log_softmax_backward,
    "log_softmax_topk": _log_softmax_topk,
    "lstm": lambda d: _recurrent(d, 4, False),
    "lstm_backward": lambda d: _recurrent(d, 4, True),
    "lstm_cell": lambda d: _cell(d, 4),
    "pooling": lambda d: _pooling(d, False),
    "pooling_backward": lambda d: _pooling(d, True),
    "rotary_embedding": lambda d: _rotary(d, "x"),
    "rotary_embedding_backward": lambda d: _rotary(d, "dy"),
    "scaled_dot_product_attention": lambda d: _attention(d, False),
    "scaled_dot_product_attention_backward": lambda d: _attention(d, True),
    "scatter_rows": _scatter_rows,
    "sgd": _sgd,
    "softmax": lambda d: _rows(d, "x"),
    "softmax_backward": lambda d: _rows(d, "dy", "y"),
}
"""How a valid call of each public function is drawn."""
