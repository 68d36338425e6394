"""scaled_dot_product_attention with a window and with a bias by distance: values, gradients, bits, cost, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, assert_same_bits, cumulative, nan_out, normal, place
from helpers_attention import check_all, one_by_one, padded, ragged
from helpers_attention_backward import backward, check_call, operands, same_bits
from hypothesis import given as drawn
from hypothesis import strategies as st

import fastattn
from fastattn import kernels

ODD = (1, 0, 2, 15, 16, 17, 33, 65, 130)
LONG = (700, 3, 520)
WINDOWS = [(0, 0), (3, 0), (0, 5), (16, 16), (64, 64), (200, 31), (-1, 7), (40, -1), (10**6, 2**63 - 1)]
ALIGNMENT = pytest.mark.parametrize("alignment", ["bottom_right", "top_left"])
CAUSAL = pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])


def bias(most: int, heads: int, seed: int = 9) -> Any:
    return normal(np.random.default_rng(seed), 2 * most + 1, heads)


def attend(given: dict[str, Any], **options: Any) -> Any:
    """Output, softmax_lse and attn_weights; the output's array is full of NaN before."""
    extras = {"return_softmax_lse": True, "return_attn_weights": True}
    return kernels.scaled_dot_product_attention(**given, **extras, out=nan_out(*given["q"].shape), **options)


def check_both(given: dict[str, Any], layout: str = "plain", **options: Any) -> None:
    check_all(attend(given, **options), given, **options)
    check_call(given, layout, **options)


@CAUSAL
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_windows(isa: str, threads: int, window: tuple[int, int], is_causal: bool) -> None:
    for given in (ragged(ODD, None, 2, 24), ragged(LONG, None, 2, 16)):
        check_both(given, window=window, is_causal=is_causal)


@CAUSAL
@pytest.mark.parametrize("most", [0, 1, 20, 128, 1000])
def test_biases(isa: str, threads: int, most: int, is_causal: bool) -> None:
    for given in (ragged(ODD, None, 2, 24), ragged(LONG, None, 2, 16)):
        check_both(given, position_bias=bias(most, 2), is_causal=is_causal)


@ALIGNMENT
@CAUSAL
@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_keys(isa: str, threads: int, layout: str, is_causal: bool, alignment: str) -> None:
    """Lengths of queries and keys differ either way; either may be 0."""
    given = ragged((1, 5, 0, 40, 3, 17, 130), (7, 0, 4, 33, 140, 1, 300), 2, 24)
    for window in ((2, 3), (0, 40), (100, 10)):
        options = {"window": window, "is_causal": is_causal, "causal_alignment": alignment}
        check_both(given, layout, position_bias=bias(6, 2), **options)


@ALIGNMENT
@pytest.mark.parametrize("kind", ["bool", "additive"])
def test_padded_with_a_mask_and_dropout(isa: str, threads: int, kind: str, alignment: str) -> None:
    rng = np.random.default_rng(3)
    allowed = rng.random((2, 1, 70, 90)) < 0.7
    mask = allowed if kind == "bool" else np.where(allowed, normal(rng, 2, 1, 70, 90), np.float32(-np.inf))
    given, options = padded(2, 3, 70, 90, 20), {"attn_mask": mask, "window": (9, 30), "causal_alignment": alignment}
    options["position_bias"] = bias(25, 3)
    check_all(attend(given, **options), given, **options)
    check_call(given, **options, dropout_p=0.3, seed=5)


@drawn(
    lengths=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 300)), max_size=4),
    heads=st.integers(1, 3),
    dim=st.integers(1, 40),
    window=st.tuples(st.integers(-1, 300), st.integers(-1, 300)),
    most=st.integers(0, 200),
    is_causal=st.booleans(),
    alignment=st.sampled_from(["bottom_right", "top_left"]),
    dropout_p=st.sampled_from([0.0, 0.3]),
)
def test_any_window(
    isa: str,
    threads: int,
    lengths: list[tuple[int, int]],
    heads: int,
    dim: int,
    window: tuple[int, int],
    most: int,
    is_causal: bool,
    alignment: str,
    dropout_p: float,
) -> None:
    given = ragged([n for n, _ in lengths], [n for _, n in lengths], heads, dim)
    options = {"window": window, "position_bias": bias(most, heads), "is_causal": is_causal}
    check_call(given, **options, causal_alignment=alignment, dropout_p=dropout_p)


@pytest.mark.parametrize("window", [None, (64, 64), (300, 3)], ids=str)
def test_a_sequence_is_independent_of_its_batch(isa: str, threads: int, window: Any) -> None:
    """Alone or in a batch, with one thread or two; gradients with the same batch."""
    given, lengths = ragged(LONG, None, 2, 24), LONG
    options = {"window": window, "position_bias": bias(30, 2)}
    y, lse, weights = attend(given, **options)
    arguments = operands(given, **options)
    gradients = backward(arguments, **options)
    for i, n in enumerate(lengths):
        alone = attend(one_by_one(given, i), **options)
        tokens = slice(*given["cu_seqlens_q"][i : i + 2])
        assert_same_bits(alone[0], y[tokens])
        assert_same_bits(alone[1], lse[:, tokens])
        assert_same_bits(alone[2][0], weights[i, :, :n, :n])
    fastattn.set_num_threads(1)
    same_bits(attend(given, **options), (y, lse, weights))
    same_bits(backward(arguments, **options), gradients)


def test_the_bits_of_a_query_are_its_own(isa: str, threads: int) -> None:
    """A step with the last queries, in any number, has the rows of the whole: also where blocks of keys begin."""
    n, options = 600, {"window": (64, 64), "position_bias": bias(30, 2), "is_causal": True}
    given = ragged((n,), None, 2, 24)
    y, lse, _ = attend(given, **options)
    for end in (1, 63, 65, 129, 256, 257, 321, 322, 512, n):
        for queries in (1, 2, 30):
            start = max(0, end - queries)
            step = {"q": given["q"][start:end], "k": given["k"][:end], "v": given["v"][:end]}
            step |= {"cu_seqlens_q": cumulative((end - start,)), "cu_seqlens_k": cumulative((end,))}
            part = attend(step, **options)
            assert_same_bits(part[0], y[start:end])
            assert_same_bits(part[1], lse[:, start:end])


def test_no_window_and_a_wide_one_are_the_same(isa: str, threads: int) -> None:
    given = ragged((300, 40), None, 2, 24)
    arguments = operands(given)
    for window in ((-1, -1), (300, 400), [10**9, -1]):
        same_bits(attend(given, window=window), attend(given))
        same_bits(backward(arguments, window=window), backward(arguments))
    causal = operands(given, is_causal=True)
    same_bits(attend(given, window=(-1, 0)), attend(given, is_causal=True))
    same_bits(backward(causal, window=(-1, 0)), backward(causal, is_causal=True))
    same_bits(attend(given, position_bias=np.zeros((5, 2), np.float32)), attend(given))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_lies_outside_has_no_effect(isa: str, value: float) -> None:
    """A NaN at key j leaves the queries that do not see it as they were, to the bit."""
    left, right, n = 20, 9, 400
    given, options = ragged((n,), None, 2, 24), {"window": (left, right)}
    clean = attend(given, **options)
    arguments = operands(given, **options)
    dq, *_ = backward(arguments, **options)
    for j in (0, 31, 32, 191, 192, 255, 256, n - 1):
        rows = np.abs(np.arange(n) - j) > 0
        rows[max(0, j - right) : j + left + 1] = False
        for name in "kv":
            spoilt = {name: given[name].copy()}
            spoilt[name][j] = value
            y, lse, weights = attend(given | spoilt, **options)
            assert_same_bits(y[rows], clean[0][rows])
            assert_same_bits(lse[:, rows], clean[1][:, rows])
            assert_same_bits(weights[0][:, rows], clean[2][0][:, rows])
            assert not np.isfinite(y[~rows]).any()
            assert_same_bits(backward(arguments | spoilt, **options)[0][rows], dq[rows])


def test_queries_beyond_all_keys(isa: str, threads: int) -> None:
    """Windows that hold no key at all: the result is 0, and so are the gradients."""
    given, options = ragged((300, 9), (20, 0), 2, 8), {"window": (5, 0), "causal_alignment": "top_left"}
    y, lse, weights = attend(given, **options)
    assert (y[25:] == 0).all()
    assert (lse[:, 25:] == -np.inf).all()
    assert (weights[0, :, 25:] == 0).all()
    check_both(given, **options, position_bias=bias(4, 2))


def test_many_sequences_share_sums(isa: str, threads: int) -> None:
    """More than the chunks of the bias's gradient."""
    lengths = [int(n) for n in np.random.default_rng(5).integers(0, 12, 150)]
    given, options = ragged(lengths, None, 2, 8), {"position_bias": bias(3, 2)}
    arguments = operands(given, **options)
    check_call(given, **options)
    gradients = backward(arguments, **options)
    fastattn.set_num_threads(1)
    same_bits(backward(arguments, **options), gradients)


def test_the_gradient_of_the_bias_on_request(isa: str) -> None:
    given, options = ragged((40, 9), None, 2, 8), {"position_bias": bias(5, 2)}
    arguments = operands(given, **options)
    *others, dbias = backward(arguments, **options)
    assert dbias.shape == (11, 2)
    *same, none = backward(arguments, need_dposition_bias=False, **options)
    assert none is None
    same_bits(same, others)
    assert len(backward(operands(given))) == 3
    empty = operands(ragged((), None, 2, 8), **options)
    assert_same_bits(backward(empty, **options)[3], np.zeros((11, 2), np.float32))


@pytest.mark.parametrize(("window", "is_causal"), [((64, 64), False), ((64, 0), True)])
def test_a_window_costs_what_lies_in_it(window: tuple[int, int], is_causal: bool) -> None:
    """The operations that the profile counts are those of the pairs in the window."""
    n = 1000
    given = ragged((n,), None, 1, 8)
    with fastattn.profile() as calls:
        kernels.scaled_dot_product_attention(**given, window=window, is_causal=is_causal)
    (row,) = calls.rows
    at = np.arange(n)
    pairs = (np.minimum(at + window[1], n - 1) - np.maximum(at - window[0], 0) + 1).sum()
    assert row.flops == 4 * 8 * pairs
    assert row.shape == f"batch=1 heads=1 dim=8 q={n} k={n}{' causal' * is_causal} window"


def test_far_keys_are_never_read(isa: str, threads: int) -> None:
    """Keys that no window holds may be memory that cannot be read."""
    n, held, seen = 40, 50, 6000
    given = ragged((n,), (held,), 1, 8)
    options = {"window": (10, 10), "causal_alignment": "top_left"}
    expected = kernels.scaled_dot_product_attention(**given, **options)
    far = {name: place(given[name], "end") for name in "kv"}
    far = {name: np.lib.stride_tricks.as_strided(a, (seen, 1, 8), a.strides) for name, a in far.items()}
    far["cu_seqlens_k"] = cumulative((seen,))
    assert_same_bits(kernels.scaled_dot_product_attention(**given | far, **options), expected)


def test_gradients_of_far_keys(isa: str, threads: int) -> None:
    given = ragged((40,), (6000,), 1, 8)
    options = {"window": (10, 10), "causal_alignment": "top_left"}
    for gradient in backward(operands(given, **options), **options)[1:]:
        assert (gradient[50:] == 0).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"window": 5}, TypeError, "window must be a list or tuple, got int$"),
        ({"window": (5,)}, ValueError, "window must have 2 items, got 1$"),
        ({"window": (1, 2, 3)}, ValueError, "window must have 2 items, got 3$"),
        ({"window": (1.5, 2)}, TypeError, "window must be an integer, got float$"),
        ({"window": (1, -2)}, ValueError, r"window must be integers >= 0, or -1 for no limit, got \(1, -2\)$"),
        ({"position_bias": [1.0]}, TypeError, "position_bias must be .*, got list$"),
        ({"position_bias": np.zeros((3, 2))}, TypeError, "position_bias must be float32, got float64$"),
        ({"position_bias": np.zeros(3, np.float32)}, ValueError, r"position_bias must have 2 axes, got shape \(3,\)$"),
        (
            {"position_bias": np.zeros((3, 1), np.float32)},
            ValueError,
            r"position_bias must have shape \(3, 2\), got \(3, 1\)$",
        ),
        (
            {"position_bias": np.zeros((4, 2), np.float32)},
            ValueError,
            r"position_bias must have a row for each distance from -n to n, got shape \(4, 2\)$",
        ),
        ({"position_bias": np.zeros((0, 2), np.float32)}, ValueError, "position_bias must have a row for each"),
        ({"position_bias": np.zeros((3, 4), np.float32)[:, ::2]}, ValueError, "position_bias .*contiguous"),
    ],
)
def test_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    given = ragged((5, 40), None, 2, 8)
    with pytest.raises(error, match=f"^scaled_dot_product_attention: {message}"):
        kernels.scaled_dot_product_attention(**given, **options)
    with pytest.raises(error, match=f"^scaled_dot_product_attention_backward: {message}"):
        kernels.scaled_dot_product_attention_backward(**operands(given), **options)
