"""The invariance of attention: what a query's result depends on, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, cumulative, place
from helpers_attention import one_by_one, padded, ragged

import fastattn
from fastattn import kernels

CAUSAL = pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
LENGTHS = (1, 17, 0, 65, 2, 130, 33, 300, 8)


def attend(given: dict[str, Any], **options: Any) -> Any:
    return kernels.scaled_dot_product_attention(**given, return_softmax_lse=True, return_attn_weights=True, **options)


@CAUSAL
@pytest.mark.parametrize("dim", [1, 17, 64, 96, 256])
def test_a_sequence_is_independent_of_its_batch(isa: str, threads: int, dim: int, is_causal: bool) -> None:
    """Alone, in the batch, in another order, with one thread or two."""
    given = ragged(LENGTHS, None, 3, dim)
    y, lse, weights = attend(given, is_causal=is_causal)
    cu = given["cu_seqlens_q"]
    for i, n in enumerate(LENGTHS):
        alone = attend(one_by_one(given, i), is_causal=is_causal)
        assert_same_bits(alone[0], y[cu[i] : cu[i + 1]])
        assert_same_bits(alone[1], lse[:, cu[i] : cu[i + 1]])
        assert_same_bits(alone[2][0], weights[i, :, :n, :n])
    order = np.random.default_rng(2).permutation(len(LENGTHS))
    tokens = np.concatenate([np.arange(cu[i], cu[i + 1]) for i in order])
    shuffled = {name: given[name][tokens] for name in "qkv"}
    shuffled["cu_seqlens_q"] = cumulative([LENGTHS[i] for i in order])
    other = attend(shuffled, is_causal=is_causal)
    assert_same_bits(other[0], y[tokens])
    assert_same_bits(other[1], lse[:, tokens])
    assert_same_bits(other[2], weights[order])
    fastattn.set_num_threads(1)
    for a, b in zip(attend(given, is_causal=is_causal), (y, lse, weights), strict=True):
        assert_same_bits(a, b)


@CAUSAL
def test_heads_are_independent(isa: str, threads: int, is_causal: bool) -> None:
    given = ragged((5, 40, 130), None, 4, 33)
    y, lse, weights = attend(given, is_causal=is_causal)
    for h in range(4):
        one = given | {name: given[name][:, h : h + 1] for name in "qkv"}
        alone = attend(one, is_causal=is_causal)
        assert_same_bits(alone[0], y[:, h : h + 1])
        assert_same_bits(alone[1], lse[h : h + 1])
        assert_same_bits(alone[2], weights[:, h : h + 1])


def test_queries_are_independent(isa: str, threads: int) -> None:
    """Any subset of the queries of a sequence gives their rows of the whole."""
    given = ragged((260,), (300,), 2, 40)
    y, lse, weights = attend(given)
    rng = np.random.default_rng(3)
    for size in (1, 2, 5, 6, 7, 29, 128, 129, 200):
        chosen = rng.permutation(260)[:size]
        some = given | {"q": given["q"][chosen], "cu_seqlens_q": cumulative((size,))}
        part = attend(some)
        assert_same_bits(part[0], y[chosen])
        assert_same_bits(part[1], lse[:, chosen])
        assert_same_bits(part[2][0], weights[0][:, chosen])


def test_nan_queries_spoil_no_other(isa: str, threads: int) -> None:
    given = ragged((140,), (290,), 2, 24)
    y, lse, weights = attend(given)
    spoilt = given | {"q": given["q"].copy()}
    bad = np.arange(140) % 3 == 0
    spoilt["q"][bad] = np.nan
    part = attend(spoilt)
    assert_same_bits(part[0][~bad], y[~bad])
    assert_same_bits(part[1][:, ~bad], lse[:, ~bad])
    assert_same_bits(part[2][0][:, ~bad], weights[0][:, ~bad])
    assert np.isnan(part[0][bad]).all()


@pytest.mark.parametrize("dim", [1, 24, 64, 80])
def test_cached_decoding(isa: str, threads: int, dim: int) -> None:
    """The last query or queries against a cache of keys give the rows of the whole causal run."""
    n = 290
    given = ragged((n,), None, 2, dim)
    y, lse, weights = attend(given, is_causal=True)
    for end in (1, 2, 7, 16, 63, 64, 65, 127, 128, 129, 200, 256, 257, n):
        for queries in (1, 2, 9):
            start = max(0, end - queries)
            step = {
                "q": given["q"][start:end],
                "k": given["k"][:end],
                "v": given["v"][:end],
                "cu_seqlens_q": cumulative((end - start,)),
                "cu_seqlens_k": cumulative((end,)),
            }
            part = attend(step, is_causal=True)
            assert_same_bits(part[0], y[start:end])
            assert_same_bits(part[1], lse[:, start:end])
            assert_same_bits(part[2][0], weights[0][:, start:end, :end])


def test_the_last_query_needs_no_causal_mask(isa: str) -> None:
    given = ragged((200,), None, 2, 24)
    y, lse, _ = attend(given, is_causal=True)
    for end in (1, 64, 100, 129, 200):
        last = {
            "q": given["q"][end - 1 : end],
            "k": given["k"][:end],
            "v": given["v"][:end],
            "cu_seqlens_q": cumulative((1,)),
            "cu_seqlens_k": cumulative((end,)),
        }
        part = attend(last)
        assert_same_bits(part[0], y[end - 1 : end])
        assert_same_bits(part[1], lse[:, end - 1 : end])


@CAUSAL
@pytest.mark.parametrize("kind", ["bool", "additive"])
def test_ragged_equals_padded(isa: str, threads: int, kind: str, is_causal: bool) -> None:
    """Padding behind a mask, full of NaN, changes nothing."""
    lengths = (1, 17, 65, 290, 33)
    longest = 300
    given = ragged(lengths, None, 3, 24)
    y, lse, weights = attend(given, is_causal=is_causal, causal_alignment="top_left")
    cu = given["cu_seqlens_q"]
    wide = {name: np.full((len(lengths), 3, longest, 24), np.nan, np.float32) for name in "qkv"}
    allowed = np.arange(longest) < np.array(lengths)[:, None, None, None]
    for i, n in enumerate(lengths):
        for name in "qkv":
            wide[name][i, :, :n] = given[name][cu[i] : cu[i + 1]].swapaxes(0, 1)
    mask = allowed if kind == "bool" else np.where(allowed, np.float32(0), np.float32(-np.inf))
    other = attend(wide, attn_mask=mask, is_causal=is_causal, causal_alignment="top_left")
    for i, n in enumerate(lengths):
        assert_same_bits(other[0][i, :, :n], np.ascontiguousarray(y[cu[i] : cu[i + 1]].swapaxes(0, 1)))
        assert_same_bits(other[1][i, :, :n], lse[:, cu[i] : cu[i + 1]])
        assert_same_bits(other[2][i, :, :n, :n], weights[i, :, :n, :n])
        assert (other[2][i, :, :n, n:] == 0).all()


def test_a_causal_mask_is_a_causal_call(isa: str, threads: int) -> None:
    given = padded(2, 2, 290, 290, 24)
    triangle = np.tri(290, dtype=bool)
    for a, b in zip(attend(given, is_causal=True), attend(given, attn_mask=triangle), strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("layout", ["strided", "end", "start", "read-only"])
@CAUSAL
def test_layout_changes_nothing(isa: str, layout: str, is_causal: bool) -> None:
    given = ragged((5, 33, 130), (7, 140, 64), 2, 20)
    expected = attend(given, is_causal=is_causal)
    moved = {name: place(array, layout) for name, array in given.items()}
    for a, b in zip(attend(moved, is_causal=is_causal), expected, strict=True):
        assert_same_bits(a, b)


def test_transposed_views(isa: str, threads: int) -> None:
    """[batch, seq, heads, dim] seen as [batch, heads, seq, dim]; keys that the heads share by stride 0."""
    rng = np.random.default_rng(4)
    memory = rng.standard_normal((2, 19, 3, 4, 8), dtype=np.float32)  # batch, seq, qkv, heads, dim
    q, k, v = memory.transpose(2, 0, 3, 1, 4)
    plain = {name: np.ascontiguousarray(a) for name, a in zip("qkv", (q, k, v), strict=True)}
    for a, b in zip(attend({"q": q, "k": k, "v": v}), attend(plain), strict=True):
        assert_same_bits(a, b)
    shared = {"q": q, "k": np.broadcast_to(k[:, :1], k.shape), "v": np.broadcast_to(v[:, :1], v.shape)}
    copied = {name: np.ascontiguousarray(a) for name, a in shared.items()}
    for a, b in zip(attend(shared), attend(copied), strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("dim", [16, 24, 64])
def test_few_queries_of_a_cache(isa: str, threads: int, dim: int) -> None:
    """A step of decoding, keys and values in slots with unused room between, gives the rows of separate calls."""
    capacity, lengths, queries = 40, (1, 17, 40, 0, 33, 16, 5), (1, 6, 2, 3, 0, 1, 4)
    rng = np.random.default_rng(5)
    slots = rng.standard_normal((len(lengths) * capacity, 2, 3, dim), dtype=np.float32)
    ends = np.repeat(np.arange(len(lengths) + 1) * capacity, 2)[:-1].astype(np.int32)
    ends[1::2] += lengths
    for end, next_slot in zip(ends[1::2], ends[2::2], strict=True):
        slots[end:next_slot] = np.nan
    counts = [0] * (2 * len(lengths))
    counts[::2] = queries
    cu = cumulative(counts)
    q = rng.standard_normal((sum(queries), 3, dim), dtype=np.float32)
    step = {"q": q, "k": slots[:, 0], "v": slots[:, 1], "cu_seqlens_q": cu, "cu_seqlens_k": ends}
    y, lse, weights = attend(step)
    for i in range(0, len(counts), 2):
        rows, n = slice(cu[i], cu[i + 1]), ends[i + 1] - ends[i]
        # as padded, with other queries: too many to read the keys and values in place
        many = np.concatenate([q[rows], rng.standard_normal((70, 3, dim), dtype=np.float32)])
        k, v = (slots[ends[i] : ends[i + 1], part].swapaxes(0, 1)[None] for part in (0, 1))
        alone = attend({"q": many.swapaxes(0, 1)[None], "k": k, "v": v})
        few = counts[i]
        assert_same_bits(np.ascontiguousarray(alone[0][0, :, :few].swapaxes(0, 1)), y[rows])
        assert_same_bits(alone[1][0, :, :few], lse[:, rows])
        assert_same_bits(alone[2][0, :, :few], weights[i, :, :few, :n])


@pytest.mark.parametrize("dim", [24, 64])
def test_few_queries_beside_hidden_nan(isa: str, threads: int, dim: int) -> None:
    """Values that are not finite spoil only the queries that see them, also where few queries read them in place."""
    given = ragged((4, 6), (21, 300), 2, dim)
    y, lse, _ = attend(given, is_causal=True)
    spoilt = given | {"v": given["v"].copy()}
    spoilt["v"][19], spoilt["v"][320] = np.nan, np.inf
    other = attend(spoilt, is_causal=True)
    seen = np.isin(np.arange(10), [2, 3, 9])
    assert_same_bits(other[0][~seen], y[~seen])
    assert_same_bits(other[1], lse)
    assert not np.isfinite(other[0][seen]).any()
