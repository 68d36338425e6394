"""Gradients of attention in tests: operands, and the reference's answer in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from helpers import assert_close, assert_same_bits, double, nan_out, normal, place
from helpers_attention import in_float64

from fastattn import kernels, reference

NAMES = ("dq", "dk", "dv")


def operands(given: dict[str, Any], layout: str = "plain", **options: Any) -> dict[str, Any]:
    """All that the backward function takes: `given` (q, k, v, cu_seqlens), dout, out and softmax_lse, in a layout."""
    floats = {name: double(given[name]) for name in "qkv"}
    out, lse = reference.scaled_dot_product_attention(**given | floats, **in_float64(options), return_softmax_lse=True)
    arrays = given | {
        "dout": normal(np.random.default_rng(7), *out.shape),
        "out": out.astype(np.float32),
        "softmax_lse": lse.astype(np.float32),
    }
    placed = {name: place(a, layout) for name, a in arrays.items() if name != "softmax_lse"}
    # its rows may not lie apart
    placed["softmax_lse"] = place(arrays["softmax_lse"], "plain" if layout == "strided" else layout)
    return placed


def backward(arguments: dict[str, Any], **options: Any) -> Any:
    """dq, dk and dv, in arrays full of NaN that end at an unreadable page, and the gradient of a bias."""
    outputs = {name: nan_out(*arguments[name[1]].shape) for name in NAMES}
    gradients = kernels.scaled_dot_product_attention_backward(**arguments, **options, **outputs)
    for gradient, output in zip(gradients[:3], outputs.values(), strict=True):
        assert gradient is output
    return gradients


def exact(arguments: dict[str, Any], **options: Any) -> Any:
    """The same in float64."""
    floats = {name: a if name.startswith("cu") else double(a) for name, a in arguments.items()}
    return reference.scaled_dot_product_attention_backward(**floats, **in_float64(options))


def usual(
    arguments: dict[str, Any], softmax_scale: float | None = None, position_bias: Any = None, **_: Any
) -> tuple[float, ...]:
    """How large the terms of the gradients are, by root mean squares: where they cancel, nothing may be left."""
    if any(arguments[name].size == 0 for name in "qkv"):
        return (0.0,) * (3 if position_bias is None else 4)
    q, k, v, dout = (float(np.sqrt(np.nanmean(np.square(double(arguments[name]))))) for name in ("q", "k", "v", "dout"))
    dim = arguments["q"].shape[-1]
    score = dout * v * dim**0.5 * (dim**-0.5 if softmax_scale is None else softmax_scale)
    terms = score * k, score * q, dout
    return terms if position_bias is None else (*terms, dout * v * dim**0.5)


def check(gradients: Any, arguments: dict[str, Any], c: float = 2.0, **options: Any) -> None:
    """Against float64."""
    q, k = arguments["q"], arguments["k"]
    length = q.shape[-1] + max(a.shape[-2 if a.ndim == 4 else 0] for a in (q, k))
    for gradient, ideal, magnitude in zip(
        gradients, exact(arguments, **options), usual(arguments, **options), strict=True
    ):
        assert_close(gradient, ideal, length, c, magnitude / (1 - options.get("dropout_p", 0.0)))


def check_call(given: dict[str, Any], layout: str = "plain", **options: Any) -> None:
    arguments = operands(given, layout, **options)
    check(backward(arguments, **options), arguments, **options)


def same_bits(gradients: Any, expected: Any) -> None:
    for gradient, other in zip(gradients, expected, strict=True):
        assert_same_bits(gradient, other)
