"""scaled_dot_product_attention_backward against the reference: ragged and padded, every mask, dropout, special values.

Kernel and reference get the same softmax_lse and output, those of the reference rounded to float32, so that only the
backward pass is compared. What is refused is in ..._backward_errors.py.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from helpers import LAYOUTS, assert_close, assert_same_bits, double, nan_out, normal
from helpers_attention import HEAD_DIMS, padded, ragged
from helpers_attention_backward import NAMES, backward, check, check_call, operands, same_bits
from hypothesis import given
from hypothesis import strategies as st

import fastattn
from fastattn import kernels, reference

ODD = (1, 0, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65)
CAUSAL = pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
ALIGNMENT = pytest.mark.parametrize("alignment", ["bottom_right", "top_left"])


@CAUSAL
@pytest.mark.parametrize("dim", HEAD_DIMS)
def test_ragged(isa: str, threads: int, dim: int, is_causal: bool) -> None:
    check_call(ragged(ODD, None, 2, dim), is_causal=is_causal)


@CAUSAL
@pytest.mark.parametrize("lengths", [(768,), (130, 1, 257)], ids=str)
def test_long_sequences(isa: str, threads: int, lengths: tuple[int, ...], is_causal: bool) -> None:
    check_call(ragged(lengths, None, 3, 64), is_causal=is_causal)


@ALIGNMENT
@CAUSAL
@pytest.mark.parametrize("layout", LAYOUTS)
def test_ragged_with_other_keys(isa: str, threads: int, layout: str, is_causal: bool, alignment: str) -> None:
    """Lengths of queries and keys differ either way; either may be 0."""
    given = ragged((1, 5, 0, 40, 3, 17, 130), (7, 0, 4, 33, 140, 1, 129), 2, 24)
    check_call(given, layout, is_causal=is_causal, causal_alignment=alignment)


@CAUSAL
@pytest.mark.parametrize("lengths", [(300, 5), (5, 600), (700, 270)], ids=str)
def test_more_than_a_block(isa: str, lengths: tuple[int, int], is_causal: bool) -> None:
    check_call(ragged(lengths[:1], lengths[1:], 2, 40), is_causal=is_causal)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_length_in_every_place(isa: str, layout: str) -> None:
    for length_q, length_k in product((1, 2, 7, 8, 9, 16, 33, 65), (1, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 129)):
        check_call(ragged((length_q,), (length_k,), 1, 9), layout)


@ALIGNMENT
@CAUSAL
@pytest.mark.parametrize("layout", LAYOUTS)
def test_padded(isa: str, threads: int, layout: str, is_causal: bool, alignment: str) -> None:
    for seq_q, seq_k, dim in ((1, 1, 1), (7, 17, 8), (33, 9, 31), (65, 65, 64), (5, 140, 16)):
        check_call(padded(2, 3, seq_q, seq_k, dim), layout, is_causal=is_causal, causal_alignment=alignment)


@CAUSAL
@pytest.mark.parametrize("kind", ["bool", "additive"])
@pytest.mark.parametrize("shape", [(2, 3, 70, 90), (2, 1, 70, 90), (1, 3, 70, 1), (2, 1, 1, 90), (90,)], ids=str)
def test_masks(isa: str, threads: int, shape: tuple[int, ...], kind: str, is_causal: bool) -> None:
    """With holes, in every shape that broadcasts."""
    rng = np.random.default_rng(3)
    allowed = rng.random(shape) < 0.7
    mask = allowed if kind == "bool" else np.where(allowed, normal(rng, *shape), np.float32(-np.inf))
    check_call(padded(2, 3, 70, 90, 20), attn_mask=mask, is_causal=is_causal)


@pytest.mark.parametrize("scale", [1.0, 0.01, 0.5])
def test_softmax_scale(isa: str, scale: float) -> None:
    check_call(ragged((5, 40), None, 2, 8), softmax_scale=scale)


@pytest.mark.parametrize("dropout_p", [0.1, 0.5, 0.9])
@CAUSAL
def test_dropout(isa: str, threads: int, is_causal: bool, dropout_p: float) -> None:
    """Forward and backward drop the same, that of the reference."""
    options = {"dropout_p": dropout_p, "seed": 2**63 + 12345, "is_causal": is_causal}
    for each in (ragged(ODD, None, 3, 20), ragged((5, 300, 9), (7, 290, 65), 2, 33), padded(2, 3, 70, 90, 16)):
        check_call(each, **options)
        floats = {name: double(each[name]) for name in "qkv"}
        extras = {"return_softmax_lse": True, "return_attn_weights": True}
        expected = reference.scaled_dot_product_attention(**each | floats, **options, **extras)
        out, lse, weights = kernels.scaled_dot_product_attention(
            **each, **options, **extras, out=nan_out(*each["q"].shape)
        )
        assert_close(out, expected[0], 400, magnitude=1 / (1 - dropout_p))
        without = kernels.scaled_dot_product_attention(**each, is_causal=is_causal, **extras)
        same_bits((lse, weights), without[1:])


def test_dropout_with_a_mask(isa: str, threads: int) -> None:
    mask = np.random.default_rng(4).random((2, 1, 70, 90)) < 0.7
    check_call(padded(2, 3, 70, 90, 16), attn_mask=mask, dropout_p=0.3, seed=1)


@CAUSAL
@pytest.mark.parametrize("seq_q", [1, 70, 300])
def test_layout_and_threads_change_nothing(isa: str, threads: int, seq_q: int, is_causal: bool) -> None:
    given = ragged((seq_q, 5, 130), (70, 3, 290), 3, 40)
    options = {"is_causal": is_causal, "dropout_p": 0.2}
    arguments = operands(given, **options)
    expected = backward(arguments, **options)
    for layout in LAYOUTS[1:]:
        same_bits(backward(operands(given, layout, **options), **options), expected)
    fastattn.set_num_threads(1)
    same_bits(backward(arguments, **options), expected)


def test_new_arrays(isa: str, threads: int) -> None:
    """Without dq, dk, dv: the same in new memory; with some of them, these."""
    for each in (ragged((5, 40), None, 2, 24), padded(2, 3, 5, 9, 8)):
        arguments = operands(each)
        expected = backward(arguments)
        gradients = kernels.scaled_dot_product_attention_backward(**arguments)
        same_bits(gradients, expected)
        arrays = [*gradients, *(arguments[name] for name in ("q", "k", "v", "dout", "out", "softmax_lse"))]
        for i, gradient in enumerate(gradients):
            assert not any(np.shares_memory(gradient, other) for j, other in enumerate(arrays) if i != j)
        dk = nan_out(*arguments["k"].shape)
        mixed = kernels.scaled_dot_product_attention_backward(**arguments, dk=dk)
        assert mixed[1] is dk
        same_bits(mixed, expected)


def test_views_of_one_fused_gradient(isa: str, threads: int) -> None:
    arguments = operands(ragged((7, 0, 33, 130), None, 3, 24), is_causal=True)
    expected = backward(arguments, is_causal=True)
    fused = nan_out(170, 3, 3, 24)
    views = dict(zip(NAMES, fused.swapaxes(0, 1), strict=True))
    gradients = kernels.scaled_dot_product_attention_backward(**arguments, is_causal=True, **views)
    for gradient, view, ideal in zip(gradients, views.values(), expected, strict=True):
        assert gradient is view
        assert_same_bits(np.ascontiguousarray(view), ideal)


def test_padded_views_of_one_fused_gradient(isa: str, threads: int) -> None:
    """[batch, seq, 3, heads, dim], whose sequences also have a column that is not theirs."""
    arguments = operands(padded(2, 3, 19, 19, 8))
    expected = backward(arguments)
    fused = np.full((2, 20, 3, 3, 8), np.nan, np.float32)
    views = dict(zip(NAMES, fused[:, :19].transpose(2, 0, 3, 1, 4), strict=True))
    kernels.scaled_dot_product_attention_backward(**arguments, **views)
    same_bits([np.ascontiguousarray(view) for view in views.values()], expected)
    assert np.isnan(fused[:, 19]).all()


def test_transposed_views_and_shared_keys(isa: str, threads: int) -> None:
    memory = normal(np.random.default_rng(4), 2, 19, 4, 3, 8)  # batch, seq, (q, k, v, dout), heads, dim
    q, k, v, dout = memory.transpose(2, 0, 3, 1, 4)
    given = {"q": q, "k": np.broadcast_to(k[:, :1], k.shape), "v": np.broadcast_to(v[:, :1], v.shape)}
    plain = operands({name: np.ascontiguousarray(a) for name, a in given.items()})
    plain["dout"] = np.ascontiguousarray(dout)
    same_bits(backward(plain | given | {"dout": dout}), backward(plain))


@CAUSAL
def test_rows_without_a_key(isa: str, threads: int, is_causal: bool) -> None:
    """More queries than keys, sequences without keys or without queries: exactly 0, not NaN."""
    arguments = operands(ragged((9, 4, 3, 0), (5, 0, 3, 6), 2, 8), is_causal=is_causal)
    dq, dk, dv = backward(arguments, is_causal=is_causal)
    assert (dq[9:13] == 0).all()
    if is_causal:
        assert (dq[:4] == 0).all()
    for gradient in (dk, dv):
        assert (gradient[8:] == 0).all()
    check((dq, dk, dv), arguments, is_causal=is_causal)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["bool", "additive"])
def test_what_is_masked_has_no_effect(isa: str, kind: str, value: float) -> None:
    """A key that nobody sees and a query that sees nothing, whatever they are: to the bit."""
    hidden = [0, 63, 64, 255, 256, 299]
    allowed = np.random.default_rng(4).random((2, 1, 9, 300)) < 0.7
    allowed[:, :, :, hidden] = False
    allowed[1, 0, 3] = False
    mask = allowed if kind == "bool" else np.where(allowed, np.float32(0.5), np.float32(-np.inf))
    clean = operands(padded(2, 2, 9, 300, 20), attn_mask=mask)
    expected = backward(clean, attn_mask=mask)
    assert (expected[0][1, :, 3] == 0).all()
    for gradient in expected[1:]:
        assert (gradient[:, :, hidden] == 0).all()
    for names in (("k",), ("v",), ("q",), ("dout",), ("q", "k", "v", "dout")):
        dirty = {name: a.copy() for name, a in clean.items()}
        for name in names:
            if name in "kv":
                dirty[name][:, :, hidden] = value
            else:
                dirty[name][1, :, 3] = value
        same_bits(backward(dirty, attn_mask=mask), expected)


@pytest.mark.parametrize("where", ["k", "v"])
def test_a_later_key_has_no_effect(isa: str, where: str) -> None:
    """Causal: a NaN at key j leaves the gradients of the queries before j as they were, to the bit."""
    clean = operands(ragged((300,), None, 2, 24), is_causal=True)
    expected, *_ = backward(clean, is_causal=True)
    for j in (1, 8, 128, 255, 256, 299):
        dirty = clean | {where: clean[where].copy()}
        dirty[where][j] = np.nan
        dq, *_ = backward(dirty, is_causal=True)
        assert_same_bits(dq[:j], expected[:j])
        assert np.isnan(dq[j:]).all()


@pytest.mark.parametrize("where", ["q", "dout"])
def test_an_earlier_query_has_no_effect(isa: str, where: str) -> None:
    """Causal: a NaN at query j leaves the gradients of the keys behind j as they were, to the bit."""
    given = ragged((300,), None, 2, 24)
    clean = operands(given, is_causal=True)
    _, *expected = backward(clean, is_causal=True)
    for j in (1, 8, 128, 255, 256):
        dirty = (clean if where == "dout" else given).copy()
        dirty[where] = dirty[where].copy()
        dirty[where][j] = np.nan
        if where == "q":
            dirty = operands(dirty, is_causal=True) | {"dout": clean["dout"]}
        _, *gradients = backward(dirty, is_causal=True)
        for gradient, ideal in zip(gradients, expected, strict=True):
            assert_same_bits(gradient[j + 1 :], ideal[j + 1 :])
            assert np.isnan(gradient[: j + 1]).all()


@CAUSAL
@pytest.mark.parametrize("where", ["q", "k", "v", "dout"])
def test_nan_stays_in_its_sequence_and_head(isa: str, threads: int, where: str, is_causal: bool) -> None:
    clean = operands(ragged((3, 9, 0, 130, 5), None, 3, 17), is_causal=is_causal)
    expected = backward(clean, is_causal=is_causal)
    dirty = clean | {where: clean[where].copy()}
    dirty[where][3:12, 1] = np.nan
    for name, gradient, ideal in zip(NAMES, backward(dirty, is_causal=is_causal), expected, strict=True):
        assert np.isnan(gradient[3:12, 1]).any() or (name, where) == ("dv", "v")  # which does not depend on it
        for head in (0, 2):
            assert_same_bits(gradient[:, head], ideal[:, head])
        assert_same_bits(gradient[:3], ideal[:3])
        assert_same_bits(gradient[12:], ideal[12:])


@CAUSAL
def test_sharp_scores(isa: str, is_causal: bool) -> None:
    """Scores in the hundreds, their maximum in any key block: nothing overflows."""
    given = ragged((300,), None, 1, 4)
    given["q"], given["k"] = given["q"] * np.float32(20), given["k"] * np.float32(20)
    arguments = operands(given, is_causal=is_causal)
    # a score of 1000 has an error of 1000 eps, which exp turns into a relative one
    largest = float(np.abs(arguments["softmax_lse"]).max())
    check(backward(arguments, is_causal=is_causal), arguments, c=largest / 4, is_causal=is_causal)


@CAUSAL
def test_from_its_own_forward_pass(isa: str, threads: int, is_causal: bool) -> None:
    """With the kernel's output and softmax_lse, against float64 from the beginning."""
    given = ragged((5, 64, 130), (5, 70, 129), 3, 64)
    out, lse = kernels.scaled_dot_product_attention(**given, is_causal=is_causal, return_softmax_lse=True)
    ideal = operands(given, is_causal=is_causal)
    arguments = ideal | {"out": out, "softmax_lse": lse}
    gradients = kernels.scaled_dot_product_attention_backward(**arguments, is_causal=is_causal)
    check(gradients, ideal, is_causal=is_causal)


def test_empty(isa: str, threads: int) -> None:
    for each in (
        *(ragged(lengths, None, 2, 8) for lengths in ((), (0,), (0, 0, 0))),
        *(padded(*shape, 8) for shape in ((0, 2, 3, 3), (2, 0, 3, 3), (2, 2, 0, 3), (2, 2, 3, 0))),
    ):
        arguments = operands(each)
        for gradient, name in zip(backward(arguments), "qkv", strict=True):
            assert gradient.shape == each[name].shape
            assert (gradient == 0).all()


@given(
    lengths=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 140)), max_size=5),
    heads=st.integers(1, 3),
    dim=st.integers(1, 70),
    is_causal=st.booleans(),
    alignment=st.sampled_from(["bottom_right", "top_left"]),
    dropout_p=st.sampled_from([0.0, 0.3]),
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
    dropout_p: float,
    layout: str,
) -> None:
    given = ragged([n for n, _ in lengths], [n for _, n in lengths], heads, dim)
    check_call(given, layout, is_causal=is_causal, causal_alignment=alignment, dropout_p=dropout_p)


def test_many_tokens(isa: str, threads: int) -> None:
    """More sequences than any block of work holds, strided as the models pass them."""
    lengths = [int(n) for n in np.random.default_rng(5).integers(0, 60, 80)]
    check_call(ragged(lengths, None, 4, 32))
