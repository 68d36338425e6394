"""scaled_dot_product_attention against the reference: ragged and padded, every mask, special values.

What must not change its bits is in test_scaled_dot_product_attention_bits.py, bad arguments in ..._errors.py.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, assert_close, assert_same_bits, cumulative, nan_out, normal, place
from helpers_attention import HEAD_DIMS, check_all, exact, padded, ragged
from hypothesis import given
from hypothesis import strategies as st

from fastattn import kernels

ODD = (1, 0, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65)
CAUSAL = pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])


def attend(given: dict[str, Any], **options: Any) -> Any:
    """Output, softmax_lse and attn_weights; the output's array is full of NaN before."""
    out = nan_out(*given["q"].shape)
    result = kernels.scaled_dot_product_attention(
        **given, return_softmax_lse=True, return_attn_weights=True, out=out, **options
    )
    assert result[0] is out
    return result


@CAUSAL
@pytest.mark.parametrize("dim", HEAD_DIMS)
def test_ragged(isa: str, threads: int, dim: int, is_causal: bool) -> None:
    given = ragged(ODD, None, 2, dim)
    check_all(attend(given, is_causal=is_causal), given, is_causal=is_causal)


@CAUSAL
@pytest.mark.parametrize("lengths", [(768,), (130, 1, 257)], ids=str)
def test_long_sequences(isa: str, threads: int, lengths: tuple[int, ...], is_causal: bool) -> None:
    given = ragged(lengths, None, 3, 64)
    check_all(attend(given, is_causal=is_causal), given, is_causal=is_causal)


@pytest.mark.parametrize("alignment", ["bottom_right", "top_left"])
@CAUSAL
@pytest.mark.parametrize("layout", LAYOUTS)
def test_ragged_with_other_keys(isa: str, threads: int, layout: str, is_causal: bool, alignment: str) -> None:
    """Lengths of queries and keys differ either way; either may be 0."""
    given = ragged((1, 5, 0, 40, 3, 17, 130), (7, 0, 4, 33, 140, 1, 129), 2, 24)
    given = {name: place(array, layout) for name, array in given.items()}
    options = {"is_causal": is_causal, "causal_alignment": alignment}
    check_all(attend(given, **options), given, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_length_in_every_place(isa: str, layout: str) -> None:
    for length_q, length_k in product((1, 2, 7, 8, 9, 16, 33, 65), (1, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 129)):
        given = ragged((length_q,), (length_k,), 1, 9)
        given = {name: place(array, layout) for name, array in given.items()}
        check_all(attend(given), given)


@pytest.mark.parametrize("alignment", ["bottom_right", "top_left"])
@CAUSAL
@pytest.mark.parametrize("layout", LAYOUTS)
def test_padded(isa: str, threads: int, layout: str, is_causal: bool, alignment: str) -> None:
    for seq_q, seq_k, dim in ((1, 1, 1), (7, 17, 8), (33, 9, 31), (65, 65, 64), (5, 140, 16)):
        given = padded(2, 3, seq_q, seq_k, dim)
        given = {name: place(array, layout) for name, array in given.items()}
        options = {"is_causal": is_causal, "causal_alignment": alignment}
        check_all(attend(given, **options), given, **options)


@pytest.mark.parametrize("kind", ["bool", "additive"])
@pytest.mark.parametrize(
    "shape",
    [
        (2, 3, 9, 37),
        (2, 1, 9, 37),
        (2, 1, 1, 37),
        (1, 3, 9, 1),
        (1, 1, 1, 1),
        (3, 9, 37),
        (9, 37),
        (37,),
        (1,),
    ],
    ids=str,
)
@CAUSAL
def test_masks(isa: str, threads: int, shape: tuple[int, ...], kind: str, is_causal: bool) -> None:
    """Every shape that broadcasts; rows and whole heads without a key among them."""
    rng = np.random.default_rng(2)
    given = padded(2, 3, 9, 37, 20)
    allowed = rng.random(shape) < 0.6
    if len(shape) > 1:
        allowed[..., :1, :] &= shape[-2] == 1
    mask = allowed if kind == "bool" else np.where(allowed, 3 * normal(rng, *shape), -np.inf).astype(np.float32)
    for layout in LAYOUTS:
        options = {"attn_mask": place(mask, layout), "is_causal": is_causal}
        check_all(attend(given, **options), given, **options)


def test_a_broadcast_mask_without_memory(isa: str) -> None:
    """Strides of 0, as np.broadcast_to makes them."""
    given = padded(2, 3, 9, 37, 20)
    row = np.arange(37) % 3 > 0
    wide = attend(given, attn_mask=np.broadcast_to(row, (2, 3, 9, 37)))
    for a, b in zip(wide, attend(given, attn_mask=row), strict=True):
        assert_same_bits(a, b)
    check_all(wide, given, attn_mask=row)


def test_the_least_float_as_a_mask(isa: str) -> None:
    """What Hugging Face adds instead of -inf; a row of nothing else stays finite."""
    given = padded(2, 1, 5, 19, 16)
    mask = np.where(np.random.default_rng(3).random((2, 1, 5, 19)) < 0.5, 0, np.finfo(np.float32).min)
    mask = mask.astype(np.float32)
    mask[0, 0, 0] = np.finfo(np.float32).min
    y, lse, weights = attend(given, attn_mask=mask)
    expected = exact(given, attn_mask=mask)
    rows = np.ones((2, 1, 5), bool)
    rows[0, 0, 0] = False  # there float32 cannot tell the scores apart
    for got, ideal in zip((y, lse, weights), expected, strict=True):
        assert_close(got[rows], ideal[rows], 35)
    np.testing.assert_allclose(weights[0, 0, 0], 1 / 19, rtol=1e-5)


@pytest.mark.parametrize("scale", [None, 1.0, 0.01, 3])
def test_softmax_scale(isa: str, scale: float | None) -> None:
    given = ragged((5, 33), None, 2, 16)
    check_all(attend(given, softmax_scale=scale), given, softmax_scale=scale)


def test_what_is_returned(isa: str) -> None:
    given = ragged((3, 4), None, 2, 8)
    call = kernels.scaled_dot_product_attention
    y, lse, weights = call(**given, return_softmax_lse=True, return_attn_weights=True)
    assert (y.shape, lse.shape, weights.shape) == ((7, 2, 8), (2, 7), (2, 2, 4, 4))
    assert_same_bits(call(**given), y)
    for flag, extra in (("return_softmax_lse", lse), ("return_attn_weights", weights)):
        one, other = call(**given, **{flag: True})
        assert_same_bits(one, y)
        assert_same_bits(other, extra)
    q = padded(2, 3, 4, 5, 8)
    y, lse, weights = call(**q, return_softmax_lse=True, return_attn_weights=True)
    assert (y.shape, lse.shape, weights.shape) == ((2, 3, 4, 8), (2, 3, 4), (2, 3, 4, 5))


@CAUSAL
def test_sharp_scores(isa: str, is_causal: bool) -> None:
    """Scores in the hundreds, their maximum in any key block: nothing overflows."""
    given = ragged((300,), None, 1, 4)
    given["q"] = given["q"] * np.float32(20)
    given["k"] = given["k"] * np.float32(20)
    y, lse, weights = attend(given, is_causal=is_causal)
    expected = exact(given, is_causal=is_causal)
    # a score of 1000 has an error of 1000 eps, which exp turns into a relative one
    largest = float(np.abs(expected[1]).max())
    for got, ideal in zip((y, lse, weights), expected, strict=True):
        assert_close(got, ideal, 4, c=4 * largest)


@pytest.mark.parametrize("where", [0, 100, 255, 256, 511, 512, 599])
def test_one_sharp_key(isa: str, where: int) -> None:
    """The maximum in any block of keys, with all the others far below: its value is the result."""
    given = ragged((3,), (600,), 1, 8)
    given["k"][where] = 100 * given["q"][0]
    given["k"][where] *= np.float32(100) / np.abs(given["q"][0]).max()
    y, _, weights = attend(given)
    assert_same_bits(y[0], given["v"][where])
    assert weights[0, 0, 0, where] == 1


def test_one_key_is_its_value(isa: str) -> None:
    for dim in HEAD_DIMS:
        given = ragged((1, 5), (1, 1), 2, dim)
        y, _, weights = attend(given)
        assert_same_bits(y, np.ascontiguousarray(given["v"][[0, 1, 1, 1, 1, 1]]))
        assert (weights[1] == 1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["k", "v", "kv"])
@pytest.mark.parametrize("kind", ["bool", "additive"])
def test_a_masked_key_has_no_effect(isa: str, kind: str, where: str, value: float) -> None:
    """Whatever it and its value are, to the bit."""
    given = padded(2, 2, 9, 300, 20)
    allowed = np.random.default_rng(4).random((2, 1, 9, 300)) < 0.7
    allowed[:, :, :, [0, 63, 64, 255, 256, 299]] = False
    allowed[1, 0, 3] = False
    allowed[0, 0, 4] = True  # a row that sees all of it
    mask = allowed if kind == "bool" else np.where(allowed, np.float32(0.5), np.float32(-np.inf))
    clean = attend(given, attn_mask=mask)
    spoilt = {name: array.copy() for name, array in given.items()}
    for name in where:
        spoilt[name][:, :, [0, 63, 64, 255, 256, 299]] = value
    dirty = attend(spoilt, attn_mask=mask)
    rows = np.ones((2, 2, 9), bool)
    rows[0, :, 4] = False
    for got, ideal in zip(dirty, clean, strict=True):
        assert_same_bits(got[rows], ideal[rows])
    assert not np.isfinite(dirty[0][0, :, 4]).any()
    assert (dirty[0][1, :, 3] == 0).all()
    assert (dirty[1][1, :, 3] == -np.inf).all()
    assert (dirty[2][1, :, 3] == 0).all()


@pytest.mark.parametrize("where", ["k", "v"])
def test_a_later_key_has_no_effect(isa: str, where: str) -> None:
    """Causal: a NaN at key j leaves the queries before j as they were, to the bit."""
    given = ragged((300,), None, 2, 24)
    clean = attend(given, is_causal=True)
    for j in (1, 8, 127, 128, 150, 255, 256, 299):
        spoilt = given | {where: given[where].copy()}
        spoilt[where][j] = np.nan
        y, lse, weights = attend(spoilt, is_causal=True)
        assert_same_bits(y[:j], clean[0][:j])
        assert_same_bits(lse[:, :j], clean[1][:, :j])
        assert_same_bits(weights[:, :, :j], clean[2][:, :, :j])
        assert np.isnan(y[j:]).all()


@pytest.mark.parametrize("options", [{"window": (2, 1)}, {"is_causal": True}, {"attn_mask": None}], ids=str)
def test_weights_of_masked_keys_beside_nan(isa: str, options: dict[str, Any]) -> None:
    """They are 0, and those of the keys that count are NaN."""
    given = padded(1, 1, 40, 40, 8)
    if "attn_mask" in options:
        options = {"attn_mask": np.random.default_rng(5).random((40, 40)) < 0.5}
    _, clean = kernels.scaled_dot_product_attention(**given, **options, return_attn_weights=True)
    given["q"][0, 0, 20] = np.nan
    _, weights = kernels.scaled_dot_product_attention(**given, **options, return_attn_weights=True)
    np.testing.assert_array_equal(np.isnan(weights[0, 0, 20]), clean[0, 0, 20] > 0)
    assert_same_bits(np.delete(weights, 20, axis=2), np.delete(clean, 20, axis=2))


@CAUSAL
def test_nan_stays_in_its_sequence_and_head(isa: str, threads: int, is_causal: bool) -> None:
    given = ragged((3, 9, 0, 130, 5), None, 3, 17)
    clean = attend(given, is_causal=is_causal)
    spoilt = {name: array.copy() for name, array in given.items()}
    for name in "qkv":
        spoilt[name][3:12, 1] = np.nan
    dirty = attend(spoilt, is_causal=is_causal)
    assert np.isnan(dirty[0][3:12, 1]).all()
    assert np.isnan(dirty[1][1, 3:12]).all()
    for got, ideal, token_axis, head_axis in zip(dirty[:2], clean[:2], (0, 1), (1, 0), strict=True):
        for head in (0, 2):
            assert_same_bits(np.take(got, head, head_axis), np.take(ideal, head, head_axis))
        for tokens in (range(3), range(12, 147)):
            assert_same_bits(np.take(got, tokens, token_axis), np.take(ideal, tokens, token_axis))
    assert_same_bits(dirty[2][[0, 2, 3, 4]], clean[2][[0, 2, 3, 4]])


def test_rows_without_a_key(isa: str, threads: int) -> None:
    """More queries than keys, bottom-right: the first queries see nothing; sequences without keys at all."""
    given = ragged((9, 4, 3), (5, 0, 3), 2, 8)
    y, lse, weights = attend(given, is_causal=True)
    for tokens in (slice(0, 4), slice(9, 13)):
        assert (y[tokens] == 0).all()
        assert (lse[:, tokens] == -np.inf).all()
    assert (weights[0, :, :4] == 0).all()
    assert (weights[1] == 0).all()
    assert np.isfinite(lse[:, 13:]).all()
    check_all((y, lse, weights), given, is_causal=True)


def test_scores_that_overflow(isa: str) -> None:
    """A score of +inf makes its row NaN, one of -inf counts for nothing, and neither spreads."""
    given = padded(1, 1, 3, 20, 4)
    given["q"][0, 0, 1] = 1e30
    given["k"][0, 0, 7] = 1e30
    given["k"][0, 0, :7] = np.abs(given["k"][0, 0, :7])
    y, lse, _ = attend(given)
    assert np.isnan(y[0, 0, 1]).all()
    assert np.isnan(lse[0, 0, 1])
    given["k"][0, 0, 7] = -1e30
    y, lse, weights = attend(given)
    assert np.isfinite(y).all()
    assert (weights[0, 0, 1, 7]) == 0
    assert_close(y[:, :, ::2], exact(given)[0][:, :, ::2], 24, c=1e3)


@pytest.mark.parametrize("flags", [False, True])
def test_empty(isa: str, threads: int, flags: bool) -> None:
    options = {"return_softmax_lse": flags, "return_attn_weights": flags}
    for lengths in ((), (0,), (0, 0, 0)):
        given = ragged(lengths, None, 2, 8)
        result = kernels.scaled_dot_product_attention(**given, **options)
        if flags:
            y, lse, weights = result
            assert (y.shape, lse.shape, weights.shape) == ((0, 2, 8), (2, 0), (len(lengths), 2, 0, 0))
        else:
            assert result.shape == (0, 2, 8)
    for shape in ((0, 2, 3, 3), (2, 0, 3, 3), (2, 2, 0, 3)):
        given = padded(*shape, 8)
        result = kernels.scaled_dot_product_attention(**given, **options)
        assert (result[0] if flags else result).shape == given["q"].shape
    y, lse, weights = attend(padded(2, 2, 3, 0, 8))
    assert (y == 0).all()
    assert (lse == -np.inf).all()
    assert weights.shape == (2, 2, 3, 0)


@given(
    lengths=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 140)), max_size=5),
    heads=st.integers(1, 3),
    dim=st.integers(1, 70),
    is_causal=st.booleans(),
    alignment=st.sampled_from(["bottom_right", "top_left"]),
    layout=st.sampled_from(LAYOUTS),
)
def test_any_lengths(
    isa: str,
    threads: int,
    lengths: list[tuple[int, int]],
    heads: int,
    dim: int,
    is_causal: bool,
    alignment: str,
    layout: str,
) -> None:
    given = ragged([n for n, _ in lengths], [n for _, n in lengths], heads, dim)
    given["v"] = np.abs(given["v"])  # no sum is small by chance
    given = {name: place(array, layout) for name, array in given.items()}
    options = {"is_causal": is_causal, "causal_alignment": alignment}
    check_all(attend(given, **options), given, **options)


def test_many_tokens(isa: str, threads: int) -> None:
    """More sequences than any block of work holds, strided as the models pass them."""
    lengths = [int(n) for n in np.random.default_rng(5).integers(0, 60, 80)]
    given = ragged(lengths, None, 4, 32)
    assert given["cu_seqlens_q"][-1] == cumulative(lengths)[-1]
    check_all(attend(given), given)
