"""The reference's attention backward, in float64: against central differences, and where there is nothing to learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import cumulative
from helpers_gradients import check_gradients

from fastattn import reference

RNG = np.random.default_rng(22)
LENGTHS_Q, LENGTHS_K = (3, 0, 4, 1, 2), (4, 2, 2, 0, 2)
"""More keys than queries, fewer, none of either."""

DROPOUT = pytest.mark.parametrize("dropout_p", [0.0, 0.3])


def backward(dout: Any, inputs: tuple[Any, Any, Any], options: dict[str, Any], **gradients: Any) -> Any:
    """dq, dk, dv, from the forward pass on."""
    out, lse = reference.scaled_dot_product_attention(*inputs, **options, return_softmax_lse=True)
    return reference.scaled_dot_product_attention_backward(dout, *inputs, out, lse, **options, **gradients)


def check_all(inputs: tuple[Any, Any, Any], options: dict[str, Any]) -> None:
    dout = RNG.standard_normal(inputs[0].shape)
    gradients = backward(dout, inputs, options)
    varied = inputs if options.get("position_bias") is None else (*inputs, options["position_bias"])
    check_gradients(lambda: reference.scaled_dot_product_attention(*inputs, **options), dout, varied, gradients)


def ragged() -> tuple[tuple[Any, Any, Any], dict[str, Any]]:
    q, k, v = (RNG.standard_normal((sum(n), 2, 3)) for n in (LENGTHS_Q, LENGTHS_K, LENGTHS_K))
    return (q, k, v), {"cu_seqlens_q": cumulative(LENGTHS_Q), "cu_seqlens_k": cumulative(LENGTHS_K)}


def padded() -> tuple[tuple[Any, Any, Any], Any]:
    """q, k, v and a mask with holes, with a query that sees nothing and a key that nobody sees."""
    q, k, v = (RNG.standard_normal((2, 2, n, 3)) for n in (4, 5, 5))
    allowed = RNG.random((2, 1, 4, 5)) < 0.6
    allowed[1, 0, 2], allowed[0, 0, :, 4], allowed[0, 0, 0, 0] = False, False, True
    return (q, k, v), allowed


@DROPOUT
@pytest.mark.parametrize("alignment", ["bottom_right", "top_left"])
@pytest.mark.parametrize("is_causal", [False, True])
def test_ragged(is_causal: bool, alignment: str, dropout_p: float) -> None:
    inputs, options = ragged()
    check_all(
        inputs, options | {"is_causal": is_causal, "causal_alignment": alignment, "dropout_p": dropout_p, "seed": 5}
    )


@DROPOUT
@pytest.mark.parametrize("alignment", ["bottom_right", "top_left"])
@pytest.mark.parametrize("window", [None, (1, 1), (0, -1)], ids=str)
def test_windows_and_biases(window: tuple[int, int] | None, alignment: str, dropout_p: float) -> None:
    options = {"window": window, "causal_alignment": alignment, "dropout_p": dropout_p, "seed": 5}
    options["position_bias"] = RNG.standard_normal((5, 2))
    inputs, offsets = ragged()
    check_all(inputs, offsets | options)
    inputs, allowed = padded()
    check_all(inputs, {"attn_mask": allowed, **options})


@DROPOUT
def test_ragged_of_the_same_lengths(dropout_p: float) -> None:
    q, k, v = RNG.standard_normal((3, 7, 2, 3))
    check_all((q, k, v), {"cu_seqlens_q": cumulative((4, 1, 2)), "softmax_scale": 0.3, "dropout_p": dropout_p})


@DROPOUT
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("kind", ["none", "bool", "additive"])
def test_padded(kind: str, is_causal: bool, dropout_p: float) -> None:
    inputs, allowed = padded()
    bias = np.where(allowed, RNG.standard_normal(allowed.shape), -np.inf)
    mask = {"none": None, "bool": allowed, "additive": bias}[kind]
    check_all(inputs, {"attn_mask": mask, "is_causal": is_causal, "dropout_p": dropout_p, "seed": 6})


def test_a_query_without_a_key_has_no_gradient() -> None:
    (q, k, v), options = ragged()
    dq, dk, dv = backward(np.ones(q.shape), (q, k, v), options | {"is_causal": True})
    assert (dq[3:5] == 0).all()  # four queries, two keys: the first two see none
    assert (dq[7] == 0).all()
    assert (dk[4:6] == 0).all()  # keys without queries
    assert (dv[4:6] == 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["bool", "additive"])
def test_what_is_masked_has_no_effect(kind: str, value: float) -> None:
    (q, k, v), allowed = padded()
    mask = allowed if kind == "bool" else np.where(allowed, 0.5, -np.inf)
    dout = RNG.standard_normal(q.shape)
    clean = backward(dout, (q, k, v), {"attn_mask": mask})
    q[1, :, 2] = dout[1, :, 2] = k[0, :, 4] = v[0, :, 4] = value
    for gradient, expected in zip(backward(dout, (q, k, v), {"attn_mask": mask}), clean, strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-14)


def test_nan_stays_in_its_sequence_and_head() -> None:
    (q, k, v), options = ragged()
    dout = RNG.standard_normal(q.shape)
    clean = backward(dout, (q, k, v), options)
    q[3:7, 1] = np.nan
    spoilt = backward(dout, (q, k, v), options)
    for gradient, expected, tokens in zip(spoilt, clean, (slice(3, 7), slice(6, 8), slice(6, 8)), strict=True):
        assert np.isnan(gradient[tokens, 1]).all()
        gradient[tokens, 1] = expected[tokens, 1]
        np.testing.assert_array_equal(gradient, expected)


def test_gradients_may_be_views_of_one_array() -> None:
    q, k, v = RNG.standard_normal((7, 3, 2, 3)).swapaxes(0, 1)
    options = {"cu_seqlens_q": cumulative((4, 1, 2)), "is_causal": True}
    dout = RNG.standard_normal(q.shape)
    expected = backward(dout, (q, k, v), options)
    fused = np.full((7, 3, 2, 3), np.nan)
    given = dict(zip(("dq", "dk", "dv"), fused.swapaxes(0, 1), strict=True))
    for gradient, view in zip(backward(dout, (q, k, v), options, **given), given.values(), strict=True):
        assert gradient is view
    np.testing.assert_allclose(fused, np.stack(expected, axis=1), atol=1e-15)


@pytest.mark.parametrize("heads", [1, 3])
def test_heads_are_cut_into_parts(heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call gives the same whether all heads fit a block or not, dropout included."""
    q, k, v = RNG.standard_normal((3, 6, 3, 4))
    options = {"cu_seqlens_q": cumulative((4, 2)), "dropout_p": 0.5, "seed": 8}
    expected = reference.scaled_dot_product_attention(q, k, v, **options), *backward(q, (q, k, v), options)
    module = __import__("fastattn.reference.scaled_dot_product_attention", fromlist=["BLOCK"])
    monkeypatch.setattr(module, "BLOCK", 16 * heads)
    again = reference.scaled_dot_product_attention(q, k, v, **options), *backward(q, (q, k, v), options)
    for a, b in zip(again, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-15)


def test_dropout_numbers_the_rows_of_the_softmax() -> None:
    """Row: the place in softmax_lse; column: the key in its sequence. The weights that come back are undropped."""
    p, seed = 0.4, 77
    q, k, v = RNG.standard_normal((3, 2, 3, 4, 5))
    out, lse, weights = reference.scaled_dot_product_attention(
        q, k, v, dropout_p=p, seed=seed, return_softmax_lse=True, return_attn_weights=True
    )
    dropped = reference.dropout(weights, p, seed)  # [batch, heads, query] in the order of softmax_lse
    np.testing.assert_allclose(out, dropped @ v, atol=1e-14)
    plain = reference.scaled_dot_product_attention(q, k, v, return_softmax_lse=True, return_attn_weights=True)
    np.testing.assert_array_equal(lse, plain[1])
    np.testing.assert_array_equal(weights, plain[2])

    lengths = (3, 4)
    cu, (q, k, v) = cumulative(lengths), RNG.standard_normal((3, 7, 2, 5))
    out, weights = reference.scaled_dot_product_attention(
        q, k, v, cu_seqlens_q=cu, dropout_p=p, seed=seed, return_attn_weights=True
    )
    factors = reference.dropout(np.ones((2, 7, 4)), p, seed)  # [heads, token, key]
    for i, n in enumerate(lengths):
        at = slice(cu[i], cu[i + 1])
        mixed = (weights[i, :, :n, :n] * factors[:, at, :n]) @ v[at].swapaxes(0, 1)
        np.testing.assert_allclose(out[at], mixed.swapaxes(0, 1), atol=1e-14)
