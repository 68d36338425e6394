"""What scaled_dot_product_attention_backward refuses, and in which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import cumulative, place
from helpers_attention import padded, ragged

from fastattn import kernels

NAMES = ("dq", "dk", "dv")


def operands(given: dict[str, Any]) -> dict[str, Any]:
    """`given` with dout, out and softmax_lse."""
    out, lse = kernels.scaled_dot_product_attention(**given, return_softmax_lse=True)
    return given | {"dout": np.ones_like(out), "out": out, "softmax_lse": lse}


def refused(error: type[Exception], message: str, arguments: dict[str, Any], **options: Any) -> None:
    with pytest.raises(error, match=f"^scaled_dot_product_attention_backward: {message}"):
        kernels.scaled_dot_product_attention_backward(**arguments | options)


@pytest.mark.parametrize("given", [ragged((3, 4), None, 2, 8), padded(2, 3, 4, 5, 8)], ids=["ragged", "padded"])
def test_bad_arrays(given: dict[str, Any]) -> None:
    arguments = operands(given)
    for name in ("q", "k", "v", "dout", "out", "softmax_lse"):
        array = arguments[name]
        refused(TypeError, f"{name} must be float32, got float64$", arguments, **{name: array.astype(np.float64)})
        refused(TypeError, f"{name} must be .*, got list$", arguments, **{name: array.tolist()})
        wrong = array[0] if name == "q" else array[..., :-1].copy()
        refused(ValueError, f"{name} must have .*, got ", arguments, **{name: wrong})
        refused(ValueError, f"{name} .*contiguous", arguments, **{name: np.repeat(array, 2, axis=-1)[..., ::2]})
    for name in NAMES:
        good = np.zeros_like(arguments[name[1]])
        refused(TypeError, f"{name} must be float32, got float64$", arguments, **{name: good.astype(np.float64)})
        refused(ValueError, f"{name} must have shape .*, got ", arguments, **{name: good[:-1]})
        refused(ValueError, f"{name} .*contiguous", arguments, **{name: np.repeat(good, 2, axis=-1)[..., ::2]})
        refused(ValueError, f"{name} .*(writable|read-only)", arguments, **{name: place(good, "read-only")})
        refused(ValueError, f"{name} .*overlap", arguments, **{name: arguments[name[1]]})


def test_bad_options() -> None:
    arguments = operands(ragged((3, 4), None, 2, 8))
    refused(ValueError, "causal_alignment must be .*, got 'left'$", arguments, causal_alignment="left")
    refused(ValueError, r"dropout_p must be in \[0, 1\), got 1", arguments, dropout_p=1.0)
    refused(ValueError, "dropout_p must be in .*, got nan", arguments, dropout_p=float("nan"))
    refused(ValueError, "seed must be .*, got -1", arguments, dropout_p=0.5, seed=-1)
    refused(ValueError, "seed must be .*", arguments, dropout_p=0.5, seed=1 << 64)
    refused(ValueError, "cu_seqlens_q must ", arguments, cu_seqlens_q=cumulative((3, 5)))
    refused(ValueError, "attn_mask", arguments, attn_mask=np.ones((7, 7), bool))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout_p": 1.0}, r"dropout_p must be in \[0, 1\), got 1"),
        ({"dropout_p": -0.1}, r"dropout_p must be in \[0, 1\), got -0\.1"),
        ({"dropout_p": 0.5, "seed": -1}, "seed must be .*, got -1"),
    ],
)
def test_dropout_of_the_forward_pass(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^scaled_dot_product_attention: {message}"):
        kernels.scaled_dot_product_attention(**ragged((3, 4), None, 2, 8), **options)
