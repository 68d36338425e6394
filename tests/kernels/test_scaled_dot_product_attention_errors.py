"""What scaled_dot_product_attention refuses, and in which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import cumulative
from helpers_attention import padded, ragged

from fastattn import kernels

NAME = "scaled_dot_product_attention"


def refused(error: type[Exception], message: str, given: dict[str, Any], **options: Any) -> None:
    with pytest.raises(error, match=f"^{NAME}: {message}"):
        kernels.scaled_dot_product_attention(**given | options)


@pytest.mark.parametrize("name", ["q", "k", "v"])
@pytest.mark.parametrize("given", [ragged((3, 4), None, 2, 8), padded(2, 3, 4, 5, 8)], ids=["ragged", "padded"])
def test_queries_keys_values(given: dict[str, Any], name: str) -> None:
    array = given[name]
    refused(TypeError, f"{name} must be float32, got float64$", given, **{name: array.astype(np.float64)})
    refused(TypeError, f"{name} must be .*, got list$", given, **{name: array.tolist()})
    refused(TypeError, f"{name} must be .*, got NoneType$", given, **{name: None})
    refused(ValueError, f"{name} must have .*, got ", given, **{name: array[0]})
    refused(ValueError, f"{name} .*contiguous", given, **{name: np.repeat(array, 2, axis=-1)[..., ::2]})
    if name != "q":
        narrow = np.ascontiguousarray(array[..., :7])
        refused(ValueError, rf"{name} must have .*8.*, got \(.*7\)$", given, **{name: narrow})


def test_shapes_that_do_not_match() -> None:
    given = ragged((3, 4), None, 2, 8)
    refused(ValueError, r"k must have .*, got \(7, 1, 8\)$", given, k=given["k"][:, :1])
    refused(ValueError, r"v must have shape \(7, 2, 8\), got \(6, 2, 8\)$", given, v=given["v"][:6])
    given = padded(2, 3, 4, 5, 8)
    refused(ValueError, r"k must have .*, got \(1, 3, 5, 8\)$", given, k=given["k"][:1])
    refused(ValueError, r"k must have .*, got \(2, 1, 5, 8\)$", given, k=given["k"][:, :1])
    refused(ValueError, r"v must have shape \(2, 3, 5, 8\), got \(2, 3, 4, 8\)$", given, v=given["v"][:, :, :4])


@pytest.mark.parametrize("dim", [0, 257])
def test_head_dim(dim: int) -> None:
    refused(
        ValueError,
        rf"q must have a head dimension from 1 to 256, got shape \(1, 1, 2, {dim}\)$",
        padded(1, 1, 2, 2, dim),
    )
    refused(
        ValueError,
        rf"q must have a head dimension from 1 to 256, got shape \(2, 1, {dim}\)$",
        ragged((2,), None, 1, dim),
    )


@pytest.mark.parametrize("name", ["cu_seqlens_q", "cu_seqlens_k"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 5, 4, 7], "must not decrease, got 5 then 4"),
        ([0, 2, 3, 6], "must end at the number of tokens, 7, got 6$"),
        ([0, 2, 3, 8], "must end at the number of tokens, 7, got 8$"),
        ([1, 2, 3, 7], "must start at 0, got 1$"),
        ([-2, 2, 3, 7], "must start at 0, got -2$"),
        ([[0, 2, 3, 7]], r"must have 1 axis, got shape \(1, 4\)$"),
        ([0, 2**31 - 1, -(2**31), 7], "must not decrease"),
    ],
    ids=str,
)
def test_cu_seqlens(name: str, values: Any, message: str) -> None:
    given = ragged((2, 1, 4), (3, 3, 1), 2, 8)
    refused(ValueError, f"{name} {message}", given, **{name: np.array(values, np.int32)})


@pytest.mark.parametrize("name", ["cu_seqlens_q", "cu_seqlens_k"])
def test_cu_seqlens_of_another_type(name: str) -> None:
    given = ragged((2, 1, 4), (3, 3, 1), 2, 8)
    refused(TypeError, f"{name} must be int32, got int64$", given, **{name: given[name].astype(np.int64)})
    refused(TypeError, f"{name} must be .*, got list$", given, **{name: given[name].tolist()})
    refused(ValueError, f"{name} .*contiguous", given, **{name: np.repeat(given[name], 2)[::2]})
    refused(ValueError, name, given, **{name: np.zeros(0, np.int32)})


def test_cu_seqlens_that_do_not_match() -> None:
    given = ragged((2, 1, 4), (3, 3, 1), 2, 8)
    refused(
        ValueError,
        r"cu_seqlens_k must have shape \(4,\), got \(3,\)$",
        given,
        cu_seqlens_k=cumulative((3, 4)),
    )
    given = ragged((3, 4), (2, 2), 2, 8)
    del given["cu_seqlens_k"]  # so they are the queries', which end elsewhere
    refused(ValueError, r"cu_seqlens_. must end at the number of tokens, 4, got 7$", given)
    refused(ValueError, "cu_seqlens_k", padded(2, 2, 3, 3, 4), cu_seqlens_k=cumulative((3, 3)))


def test_masks() -> None:
    given = padded(2, 3, 4, 5, 8)
    mask = np.ones((4, 5), bool)
    refused(TypeError, "attn_mask must be .*, got float64$", given, attn_mask=mask.astype(np.float64))
    refused(TypeError, "attn_mask must be .*, got int64$", given, attn_mask=mask.astype(np.int64))
    refused(TypeError, "attn_mask must be .*, got uint8$", given, attn_mask=mask.astype(np.uint8))
    refused(TypeError, "attn_mask must be .*, got list$", given, attn_mask=mask.tolist())
    for shape in ((4, 4), (5, 4), (3, 1, 4, 5), (2, 2, 4, 5), (2, 3, 4, 6), (1, 2, 3, 4, 5), (0,)):
        text = str(shape).replace("(", r"\(").replace(")", r"\)")
        refused(
            ValueError,
            rf"attn_mask must .*\(2, 3, 4, 5\), got {text}$",
            given,
            attn_mask=np.ones(shape, bool),
        )
    refused(ValueError, "attn_mask", ragged((4,), None, 1, 8), attn_mask=np.ones((4, 4), bool))


def test_other_arguments() -> None:
    given = padded(2, 3, 4, 5, 8)
    refused(
        ValueError,
        "causal_alignment must be one of 'bottom_right', 'top_left', got 'left'$",
        given,
        causal_alignment="left",
    )
    refused(TypeError, "softmax_scale must be a number, got str$", given, softmax_scale="big")
    for scale in (0.0, -1.0, np.inf, np.nan):
        refused(ValueError, f"softmax_scale must be .*, got {scale}$", given, softmax_scale=scale)
    with pytest.raises(TypeError):
        kernels.scaled_dot_product_attention(given["q"], given["k"])


def test_out() -> None:
    given = ragged((3, 4), None, 1, 8)
    for bad, error, message in (
        (np.zeros((7, 1, 8)), TypeError, "out must be float32, got float64$"),
        ([], TypeError, "out must be .*, got list$"),
        (np.zeros((8, 1, 8), np.float32), ValueError, r"out must have shape \(7, 1, 8\), got \(8, 1, 8\)$"),
        (np.zeros((7, 1, 9), np.float32)[..., :8], ValueError, "out .*contiguous"),
        (np.zeros((7, 2, 8), np.float32)[:, :1], ValueError, "out .*contiguous"),
    ):
        refused(error, message, given, out=bad)
    frozen = np.zeros((7, 1, 8), np.float32)
    frozen.flags.writeable = False
    refused(ValueError, "out .*(writable|read-only)", given, out=frozen)
    given = {name: np.ascontiguousarray(array) for name, array in given.items()}
    for name in "qkv":
        refused(ValueError, "out .*overlap", given, out=given[name])
