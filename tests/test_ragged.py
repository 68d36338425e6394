"""fastattn.ragged: what is packed comes back, columns become positions, bad offsets are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastattn import ragged
from fastattn.text.batching import gather


@given(st.lists(st.integers(0, 9), max_size=7))
def test_lengths_and_offsets_are_inverse(sizes: list[int]) -> None:
    offsets = ragged.cu_seqlens(sizes)
    assert offsets.dtype == np.int32
    assert offsets.tolist() == [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    assert ragged.lengths(offsets).tolist() == sizes
    assert ragged.positions(offsets).tolist() == [i for size in sizes for i in range(size)]


@given(
    st.integers(0, 5),
    st.integers(0, 6),
    st.integers(0, 2**30),
    st.sampled_from([np.bool_, np.int64, np.uint8]),
)
def test_pack_then_unpack_gives_the_batch_back(batch: int, seq: int, seed: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    mask = (rng.random((batch, seq)) < 0.6).astype(dtype)
    padded = rng.standard_normal((batch, seq, 3)) * mask[..., None]
    tokens, offsets, positions = ragged.pack(padded, mask)
    assert len(tokens) == len(positions) == offsets[-1] == mask.sum()
    for i in range(batch):
        columns = np.flatnonzero(mask[i])
        assert positions[offsets[i] : offsets[i + 1]].tolist() == columns.tolist()
        np.testing.assert_array_equal(tokens[offsets[i] : offsets[i + 1]], padded[i, columns])
    np.testing.assert_array_equal(ragged.unpack(tokens, offsets, mask), padded)


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_pack_without_a_mask_copies_nothing(batch: int) -> None:
    padded = np.arange(batch * 4).reshape(batch, 4)
    tokens, offsets, positions = ragged.pack(padded)
    assert np.shares_memory(tokens, padded) or batch == 0
    assert offsets.tolist() == list(range(0, batch * 4 + 1, 4))
    assert offsets.dtype == np.int32
    assert positions.tolist() == [0, 1, 2, 3] * batch
    assert positions.dtype == np.int64
    assert np.shares_memory(ragged.unpack(tokens, offsets), padded) or batch == 0


def test_pack_takes_strided_arrays() -> None:
    wide = np.arange(24).reshape(3, 8)
    mask = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    tokens, _, _ = ragged.pack(wide[:, ::2], np.repeat(mask, 2, axis=1)[:, ::2])
    assert tokens.tolist() == [0, 2, 8, 16, 18, 20, 22]


def test_unpack_to_a_length() -> None:
    tokens = np.array([[1.0], [2.0], [3.0]], np.float32)
    offsets = ragged.cu_seqlens([2, 0, 1])
    assert ragged.unpack(tokens, offsets)[..., 0].tolist() == [[1, 2], [0, 0], [3, 0]]
    assert ragged.unpack(tokens, offsets, max_length=3).shape == (3, 3, 1)
    with pytest.raises(ValueError, match=r"max_length must be at least 2, the longest sequence, got 1"):
        ragged.unpack(tokens, offsets, max_length=1)


def test_unpack_refuses_the_mask_of_another_batch() -> None:
    tokens, offsets = np.zeros((3, 1)), ragged.cu_seqlens([2, 1])
    with pytest.raises(ValueError, match=r"sequence 0 has 2, the mask keeps 1"):
        ragged.unpack(tokens, offsets, np.array([[1, 0], [1, 1]]))
    with pytest.raises(ValueError, match=r"attention_mask must have shape \(2, seq\), got \(3, 2\)"):
        ragged.unpack(tokens, offsets, np.ones((3, 2), int))


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (np.ones((2, 3), np.float32), TypeError, "must be bool or integers 0 and 1, got float32"),
        (np.ones((3, 2), int), ValueError, r"must have shape \(2, 3\), got \(3, 2\)"),
        (np.array([[1, 1, 1], [1, 0, -10000]]), ValueError, "must hold 0 and 1, got -10000"),
        (np.full((2, 3), 2, np.uint8), ValueError, "must hold 0 and 1, got 2"),
    ],
)
def test_pack_names_a_bad_mask(mask: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^pack: attention_mask {message}"):
        ragged.pack(np.zeros((2, 3), int), mask)


@pytest.mark.parametrize(
    ("offsets", "error", "message"),
    [
        (np.array([0.0, 3.0]), TypeError, "must be an integer array, got float64"),
        (np.zeros((2, 2), np.int32), ValueError, r"must have shape \(batch \+ 1,\), got \(2, 2\)"),
        (np.zeros(0, np.int32), ValueError, r"must have shape \(batch \+ 1,\), got \(0,\)"),
        (np.array([1, 3]), ValueError, "must start at 0, got 1"),
        (np.array([0, 2]), ValueError, "must end at 3, the number of tokens, got 2"),
        ([0, -(2**32), 3], ValueError, "must not be negative, got -4294967296"),
        (np.array([0, 2, 1, 3]), ValueError, "must not decrease, got 2 then 1 at 2"),
        (np.array([0, 2**32, 3]), ValueError, r"must end below 2\*\*31, got 4294967296 tokens"),
    ],
)
def test_check_cu_seqlens_names_what_is_wrong(offsets: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^cu_seqlens {message}"):
        ragged.check_cu_seqlens(offsets, 3)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_check_cu_seqlens_takes_any_integers(dtype: Any) -> None:
    offsets = ragged.check_cu_seqlens(np.array([0, 2, 2, 3], dtype), 3)
    assert offsets.dtype == np.int32
    assert offsets.tolist() == [0, 2, 2, 3]


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([1.5], TypeError, "must be an integer array, got float64"),
        ([2, -1], ValueError, "must not be negative, got -1"),
        ([[1, 2]], ValueError, r"must have shape \(batch,\), got \(1, 2\)"),
    ],
)
def test_cu_seqlens_names_bad_lengths(lengths: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"cu_seqlens: lengths must .*{message}|lengths {message}"):
        ragged.cu_seqlens(lengths)


def test_offsets_that_int32_cannot_hold() -> None:
    """Of arrays that need no memory: no offset may wrap around."""
    assert ragged.uniform(2, 2**30 - 1).tolist() == [0, 2**30 - 1, 2**31 - 2]
    message = r"cu_seqlens must end below 2\*\*31, got 2147483648 tokens"
    huge = np.broadcast_to(np.int8(0), (2, 2**30))
    for make in (
        lambda: ragged.uniform(2, 2**30),
        lambda: ragged.pack(huge),
        lambda: ragged.cu_seqlens([2**30, 2**30]),
        lambda: ragged.check_cu_seqlens([0, 2**31], 2**31),
        lambda: gather(np.zeros(1), np.array([0, 2**31]), [0]),
    ):
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize("lengths", [[2**62] * 4, np.array([2**64 - 1, 5], np.uint64)])
def test_lengths_whose_sum_wraps_are_refused(lengths: object) -> None:
    with pytest.raises(ValueError, match=r"cu_seqlens.* must .* below 2\*\*(31|63)"):
        ragged.cu_seqlens(lengths)  # type: ignore[arg-type]
