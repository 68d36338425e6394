"""A valid call of every public function: its arguments by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastattn import kernels

IDS = np.array([0, 2, 1, 0], np.int64)
ENDS = np.array([0, 1, 4], np.int32)


def _floats(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).standard_normal(shape, dtype=np.float32)


def functional_calls() -> dict[str, dict[str, Any]]:
    """Those of `fastattn.functional`; four tokens in two sequences, three wide."""
    x, x2, w, b = _floats(4, 3), _floats(4, 3), _floats(3, 3), _floats(3)
    lstm = (_floats(12, 3), _floats(12, 3), _floats(12), _floats(12), None)
    gru = (_floats(9, 3), _floats(9, 3), _floats(9), _floats(9))
    q = _floats(1, 1, 4, 3)
    table = {"input": x, "out": np.empty_like(x)}
    return {
        "additive_attention": {
            "query": x, "key": x, "value": x, "weight": _floats(1, 3), "cu_seqlens_q": ENDS, "cu_seqlens_k": ENDS,
            "return_attn_weights": True,
        },
        "binary_cross_entropy_with_logits": {
            "input": x, "target": np.zeros_like(x), "weight": np.ones_like(x), "reduction": "mean",
            "pos_weight": np.ones(3, np.float32),
        },
        "cat": {"tensors": [x, x2], "dim": 0},
        "char_cnn": {
            "char_ids": np.zeros((4, 6), np.int64), "embedding": w, "weights": [_floats(2, 3, 3)],
            "biases": [_floats(2)], "activation": "relu", "out": np.empty((4, 2), np.float32),
        },
        "cosent_loss": {"input": b, "target": np.arange(3.0), "scale": 20.0},
        "cosine_similarity": {"x1": x, "x2": x2, "dim": 1, "eps": 1e-8},
        "crf": {
            "emissions": x, "tags": IDS, "cu_seqlens": ENDS, "transitions": w, "start_transitions": b,
            "end_transitions": b, "constraints": [np.ones((3, 3), bool), np.ones(3, bool), np.ones(3, bool)],
            "reduction": "sum",
        },
        "cross_entropy": {
            "input": x, "target": IDS, "weight": np.ones(3, np.float32), "ignore_index": -100, "reduction": "mean",
            "label_smoothing": 0.1,
        },
        "dropout": {"input": x, "p": 0.5, "training": True},
        "embedding": {"input": IDS, "weight": w, "padding_idx": 1, "out": np.empty((4, 3), np.float32)},
        "embedding_sum": {
            "input_ids": IDS, "weight": w, "position_ids": IDS, "position_weight": w, "token_type_ids": IDS,
            "token_type_weight": w, "scale": 2.0, "norm_weight": b, "norm_bias": b, "eps": 1e-12, "padding_idx": 1,
            "out": np.empty((4, 3), np.float32),
        },
        "gather_rows": {"input": x, "rows": IDS},
        "gated_activation": {
            "input": _floats(4, 6), "activation": "gelu", "out": np.empty((4, 3), np.float32),
        },
        "gelu": {**table, "approximate": "tanh"},
        "gru": {
            "input": x, "cu_seqlens": ENDS, "weights": [gru] * 2, "hx": _floats(2, 2, 3), "reverse": (False, True),
            "recompute": False,
        },
        "gru_cell": {
            "input": x, "hx": x2, "weight_ih": _floats(9, 3), "weight_hh": _floats(9, 3), "bias_ih": _floats(9),
            "bias_hh": _floats(9),
        },
        "highway": {**table, "weight": _floats(6, 3), "bias": _floats(6)},
        "kv_attention": {
            "query": q[0].transpose(1, 0, 2), "key_value": _floats(4, 2, 1, 3), "cu_seqlens_q": ENDS,
            "cu_seqlens_k": ENDS, "dropout_p": 0.0, "is_causal": False, "scale": 0.5, "return_attn_weights": False,
            "position_bias": _floats(3, 1), "window": (1, 1),
        },
        "layer_norm": {
            **table, "normalized_shape": (3,), "weight": b, "bias": b, "eps": 1e-5, "residual": x2, "dropout_p": 0.0,
        },
        "linear": {
            **table, "weight": w, "bias": b, "residual": x2, "activation": None, "dropout_p": 0.0,
        },
        "log_softmax": {**table, "dim": -1},
        "lstm": {
            "input": x, "cu_seqlens": ENDS, "weights": [lstm] * 2, "hx": (_floats(2, 2, 3), _floats(2, 2, 3)),
            "reverse": (False, True), "cell_clip": 3.0, "proj_clip": None, "recompute": False,
        },
        "lstm_cell": {
            "input": x, "hx": (x2, x2), "weight_ih": _floats(12, 3), "weight_hh": _floats(12, 3),
            "bias_ih": _floats(12), "bias_hh": _floats(12), "weight_hr": None, "cell_clip": 3.0, "proj_clip": None,
        },
        "mse_loss": {"input": x, "target": x2, "reduction": "mean"},
        "multiple_negatives_ranking_loss": {"input": x, "candidates": x2, "scale": 20.0, "ids": IDS},
        "normalize": {**table, "p": 2.0, "dim": 1, "eps": 1e-12},
        "pooling": {"input": x, "cu_seqlens": ENDS, "mode": "mean", "out": np.empty((2, 3), np.float32)},
        "qkv_attention": {
            "query_key_value": _floats(4, 3, 1, 3), "cu_seqlens": ENDS, "dropout_p": 0.0, "is_causal": False,
            "scale": 0.5, "return_attn_weights": False, "position_bias": _floats(3, 1), "window": (1, 1),
        },
        "relu": table,
        "rotary_embedding": {
            "query_key_value": _floats(4, 3, 1, 2), "position_ids": IDS, "table": _floats(3, 2),
            "out": np.empty((4, 3, 1, 2), np.float32),
        },
        "sampled_softmax_loss": {
            "input": x, "target": IDS, "weight": w, "bias": b, "num_sampled": 2, "reduction": "mean",
        },
        "scaled_dot_product_attention": {
            "query": q, "key": q, "value": q, "attn_mask": np.ones((1, 1, 4, 4), bool), "dropout_p": 0.0,
            "is_causal": False, "scale": 0.5, "cu_seqlens_q": None, "cu_seqlens_k": None,
            "return_attn_weights": False, "out": np.empty_like(q), "position_bias": _floats(3, 1), "window": (1, 1),
        },
        "scatter_rows": {"input": x, "rows": np.array([3, 1, 0, 5]), "num_rows": 6, "fill": 0.0},
        "sigmoid": table,
        "silu": table,
        "softmax": {**table, "dim": -1},
        "stack": {"tensors": [x, x2], "dim": 0},
        "tanh": table,
    }  # fmt: skip


def kernel_calls() -> dict[str, dict[str, Any]]:
    """Those of `fastattn.kernels`, and of `fastattn.reference`, which has the same ones."""
    x, x2, w, b, rows = _floats(4, 3), _floats(4, 3), _floats(3, 3), _floats(3), _floats(4)
    q = {name: _floats(1, 1, 4, 3) for name in "qkv"}
    seen, lse = kernels.scaled_dot_product_attention(**q, return_softmax_lse=True)
    attention = {
        "cu_seqlens_q": None, "cu_seqlens_k": None, "attn_mask": np.ones((1, 1, 4, 4), bool), "is_causal": False,
        "softmax_scale": 0.5, "causal_alignment": "top_left", "dropout_p": 0.0, "seed": 0,
        "position_bias": _floats(3, 1), "window": (1, 1),
    }  # fmt: skip
    word: dict[str, Any] = {
        "char_ids": np.zeros((4, 6), np.int64), "embedding": w, "weights": [_floats(2, 3, 3)], "biases": [_floats(2)],
    }  # fmt: skip
    y, argmax = kernels.char_cnn(**word, return_argmax=True)
    logits = {"logits": x, "target": np.array([0, 2, 1, 0]), "ignore_index": -100, "label_smoothing": 0.1}
    pair, pooled = {"dy": x, "x": x2, "out": np.empty_like(x)}, np.empty((2, 3), np.float32)
    table = {"x": x, "out": np.empty_like(x)}
    ids: dict[str, Any] = {"input_ids": IDS, "weight": w}
    more = {
        "position_ids": IDS, "position_weight": w, "token_type_ids": IDS, "token_type_weight": w, "scale": 2.0,
        "norm_weight": b, "norm_bias": b, "eps": 1e-12, "out": np.empty_like(x),
    }  # fmt: skip
    drop = {"p": 0.5, "seed": 0, "out": np.empty_like(x)}
    path = {
        "emissions": x,
        "tags": IDS,
        "cu_seqlens": ENDS,
        "transitions": w,
        "start_transitions": b,
        "end_transitions": b,
    }
    given: dict[str, dict[str, Any]] = {
        "activation": {**table, "function": "relu"},
        "activation_backward": {**pair, "function": "relu"},
        "adamw": {name: _floats(3) ** 2 for name in ("param", "grad", "exp_avg", "exp_avg_sq")} | {
            "step": 1, "lr": 0.1, "beta1": 0.9, "beta2": 0.9, "eps": 1e-8, "weight_decay": 0.1, "decoupled": True},
        "char_cnn": {**word, "activation": "relu", "return_argmax": False, "out": np.empty((4, 2), np.float32)},
        "char_cnn_backward": {
            "dy": y, **word, "y": y, "argmax": argmax, "activation": "relu", "need_dembedding": True,
            "need_dweights": True, "need_dbiases": True, "dembedding": np.zeros_like(w),
            "dweights": [np.zeros((2, 3, 3), np.float32)], "dbiases": [np.zeros(2, np.float32)]},
        "crf": path,
        "crf_backward": {
            **path, "dlog_likelihood": b[:2],
            **dict(zip(("log_likelihood", "alpha"), kernels.crf(**path), strict=True))},
        "crf_viterbi": {**{name: value for name, value in path.items() if name != "tags"}, "n": 2},
        "cross_entropy": logits,
        "cross_entropy_backward": {
            "dloss": rows, **logits, "lse": kernels.cross_entropy(**logits)[1], "out": np.empty_like(x)},
        "dropout": {"x": x, "residual": x2, **drop},
        "dropout_backward": {"dy": x, **drop},
        "embedding": {**ids, **more},
        "embedding_backward": {
            "dy": x, "input_ids": IDS, "num_embeddings": 3, "padding_idx": 1, "dweight": np.zeros_like(w)},
        "gated_activation": {"x": _floats(4, 6), "activation": "gelu", "out": np.empty_like(x)},
        "gated_activation_backward": {
            "dy": x, "x": _floats(4, 6), "activation": "gelu", "out": np.empty((4, 6), np.float32)},
        "gelu": {**table, "approximate": "tanh"},
        "gelu_backward": {**pair, "approximate": "tanh"},
        "gradient_norm": {"gradients": [x, b]},
        "highway": {**table, "weight": _floats(6, 3), "bias": _floats(6), "return_projection": False},
        "highway_backward": {
            "dy": x, "x": x, "weight": _floats(6, 3), "projection": _floats(4, 6), "need_dx": True,
            "need_dweight": True, "need_dbias": True, "dweight": np.zeros((6, 3), np.float32),
            "dbias": np.zeros(6, np.float32)},
        "l2_normalize": {**table, "eps": 1e-12},
        "l2_normalize_backward": {**pair, "eps": 1e-12},
        "layer_norm": {
            **table, "weight": b, "bias": b, "eps": 1e-5, "residual": x2, "dropout_p": 0.0, "seed": 0,
            "return_stats": False},
        "layer_norm_backward": {
            "dy": x, "x": x, "weight": b, "mean": rows, "rstd": rows, "residual": x2, "dropout_p": 0.0, "seed": 0,
            "need_dx": True, "need_dresidual": True, "need_dweight": True, "need_dbias": True,
            "dweight": np.zeros(3, np.float32), "dbias": np.zeros(3, np.float32)},
        "linear": {
            **table, "weight": w, "bias": b, "residual": x2, "activation": "relu", "return_pre_activation": False},
        "linear_backward": {
            "dy": x, "x": x, "weight": w, "activation": "relu", "pre_activation": x2, "need_dx": True,
            "need_dweight": True, "need_dbias": True, "dweight": np.zeros_like(w), "dbias": np.zeros(3, np.float32)},
        "log_softmax": table,
        "log_softmax_backward": {"dy": x, "y": x2, "out": np.empty_like(x)},
        "log_softmax_topk": {
            "x": x, "k": 2, "ids": np.array([0, 2, 1]), "cu_ids": np.array([0, 2, 2, 3, 3], np.int32),
            "factors": np.array([2, 0.5, np.inf], np.float32)},
        "pooling": {"x": x, "cu_seqlens": ENDS, "mode": "mean", "out": pooled},
        "pooling_backward": {
            "dy": _floats(2, 3), "x": x, "cu_seqlens": ENDS, "mode": "mean", "out": np.empty_like(x)},
        **{
            name: {
                first: _floats(4, 3, 1, 2), "position_ids": IDS, "table": _floats(3, 2),
                "out": np.empty((4, 3, 1, 2), np.float32)}
            for name, first in (("rotary_embedding", "x"), ("rotary_embedding_backward", "dy"))},
        "scaled_dot_product_attention": {
            **q, **attention, "return_softmax_lse": False, "return_attn_weights": False, "out": np.empty_like(seen)},
        "scaled_dot_product_attention_backward": {
            "dout": seen, **q, "out": seen, "softmax_lse": lse, **attention, "need_dposition_bias": True,
            **{f"d{name}": np.empty_like(array) for name, array in q.items()}},
        "scatter_rows": {"x": x, "rows": np.array([3, 1, 0, 5]), "into": np.zeros((6, 3), np.float32)},
        "sgd": {name: _floats(3) for name in ("param", "grad", "momentum_buffer")} | {
            "lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, "first": False},
        "softmax": table,
        "softmax_backward": {"dy": x, "y": x2, "out": np.empty_like(x)},
        "lstm_cell": {
            "x": x, "h": x2, "c": x2, "weight_ih": _floats(12, 3), "weight_hh": _floats(12, 3), "bias": _floats(12),
            "weight_hr": None, "cell_clip": 3.0, "proj_clip": None},
        "gru_cell": {
            "x": x, "h": x2, "weight_ih": _floats(9, 3), "weight_hh": _floats(9, 3), "bias_ih": _floats(9),
            "bias_hh": _floats(9)},
    }  # fmt: skip
    for kind, gates in (("lstm", 4), ("gru", 3)):
        weights = [(_floats(gates * 3, 3), _floats(gates * 3, 3), None, None)]
        states = {name: _floats(1, 2, 3) for name in ("h0", "c0")[: gates - 2]}
        clips = {"cell_clip": 3.0, "proj_clip": None} if kind == "lstm" else {}
        layer: dict[str, Any] = {"x": x, "cu_seqlens": ENDS, "weights": weights, **states, "reverse": (False,), **clips}
        *_, reserve = getattr(kernels, kind)(**layer, return_reserve=True)
        none = dict.fromkeys(("dout", "dh_n", "dc_n")[: gates - 1])
        needs = {"need_dx": True, "need_dweights": True, "dweights": None}
        given[kind] = {**layer, "return_reserve": False, "recompute": False}
        given[f"{kind}_backward"] = {**none, **layer, "reserve": reserve, **needs}
    return given
