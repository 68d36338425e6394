"""Ragged batches: tokens without padding, with `cu_seqlens` marking where each sequence begins.

A batch of sequences of lengths 3, 0 and 2 is five rows and `cu_seqlens = [0, 3, 3, 5]` (int32, `[batch +
1]`, first 0, last `tokens`), as in flash-attention's varlen functions. Sequence `i` is
`tokens[cu_seqlens[i]:cu_seqlens[i + 1]]`.

    >>> import numpy as np
    >>> padded = np.array([[7, 8, 9], [5, 0, 0]])
    >>> tokens, offsets, position_ids = pack(padded, np.array([[1, 1, 1], [1, 0, 0]]))
    >>> tokens.tolist(), offsets.tolist(), position_ids.tolist()
    ([7, 8, 9, 5], [0, 3, 4], [0, 1, 2, 0])
    >>> unpack(tokens, offsets).tolist()
    [[7, 8, 9], [5, 0, 0]]
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn._core import run_pass
from fastattn.checks import integers

__all__ = [
    "check_cu_seqlens",
    "check_mask",
    "cu_seqlens",
    "int32_offsets",
    "lengths",
    "pack",
    "positions",
    "ranges",
    "uniform",
    "unpack",
]

_INT32 = np.dtype(np.int32)


def cu_seqlens(lengths: ArrayLike) -> NDArray[np.int32]:
    """The offsets of sequences of these lengths: int32 `[batch + 1]`, from `[batch]` integers.

    Raises TypeError for lengths that are not integers, ValueError for a negative length or 2**31 or more tokens.

    >>> cu_seqlens([3, 0, 2]).tolist()
    [0, 3, 3, 5]
    """
    array = integers("cu_seqlens: lengths", lengths if np.size(lengths) else np.empty(0, np.int64))
    if array.ndim != 1:
        raise ValueError(f"cu_seqlens: lengths must have shape (batch,), got {array.shape}")
    return _offsets(array)


def uniform(batch: int, length: int) -> NDArray[np.int32]:
    """The offsets of `batch` sequences of `length` tokens each: int32 `[batch + 1]`.

    Raises ValueError for 2**31 or more tokens.

    >>> uniform(2, 3).tolist()
    [0, 3, 6]
    """
    _check_total(batch * length)
    offsets: NDArray[np.int32] = np.arange(batch + 1, dtype=np.int32) * np.int32(length)
    return offsets


def lengths(cu_seqlens: NDArray[np.int32]) -> NDArray[np.int32]:
    """The length of each sequence: int32 `[batch]`, from `cu_seqlens` `[batch + 1]`.

    >>> lengths(np.array([0, 3, 3, 5], np.int32)).tolist()
    [3, 0, 2]
    """
    return cu_seqlens[1:] - cu_seqlens[:-1]


def ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The integers from each start on, one range after the other: int64 `[sum of lengths]`, from `[batch]` int64.

    >>> ranges(np.array([7, 0]), np.array([2, 3])).tolist()
    [7, 8, 0, 1, 2]
    """
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)


def positions(cu_seqlens: NDArray[np.int32]) -> NDArray[np.int64]:
    """The position of each token in its own sequence: int64 `[tokens]`.

    >>> positions(np.array([0, 3, 3, 5], np.int32)).tolist()
    [0, 1, 2, 0, 1]
    """
    places = np.arange(cu_seqlens[-1], dtype=np.int64)
    if len(cu_seqlens) > 2:
        places -= np.repeat(cu_seqlens[:-1], lengths(cu_seqlens))
    return places


def int32_offsets(cu_seqlens: ArrayLike, name: str = "cu_seqlens") -> NDArray[np.int32]:
    """`cu_seqlens` as int32. An int32 array is returned itself, other integers (lists too) as a new array.

    The kernels check the rest. Raises TypeError for anything but integers, ValueError for integers below 0 or from
    2**31 on; the message begins with `name`.

    >>> int32_offsets([0, 3, 5])
    array([0, 3, 5], dtype=int32)
    """
    if isinstance(cu_seqlens, np.ndarray) and cu_seqlens.dtype == _INT32:
        return cu_seqlens
    offsets = integers(name, cu_seqlens)
    if offsets.min(initial=0) < 0:
        raise ValueError(f"{name} must not be negative, got {offsets.min()}")
    _check_total(offsets.max(initial=0), name)
    return offsets.astype(np.int32)


def check_cu_seqlens(cu_seqlens: ArrayLike, tokens: int | None, name: str = "cu_seqlens") -> NDArray[np.int32]:
    """`cu_seqlens` as int32 `[batch + 1]`, checked to split `tokens` rows, None for any number, into sequences.

    Raises the errors of `int32_offsets`, and ValueError when it does not start at 0, decreases, or does not end at
    `tokens`; the message begins with `name`.

    >>> check_cu_seqlens([0, 3, 3, 5], tokens=6)
    Traceback (most recent call last):
    ValueError: cu_seqlens must end at 6, the number of tokens, got 5
    """
    offsets = int32_offsets(cu_seqlens, name)
    if offsets.ndim != 1 or len(offsets) == 0:
        raise ValueError(f"{name} must have shape (batch + 1,), got {offsets.shape}")
    if offsets[0] != 0:
        raise ValueError(f"{name} must start at 0, got {offsets[0]}")
    if tokens is not None and offsets[-1] != tokens:
        raise ValueError(f"{name} must end at {tokens}, the number of tokens, got {offsets[-1]}")
    falls = offsets[1:] < offsets[:-1]
    if np.count_nonzero(falls):
        i = int(falls.argmax())
        raise ValueError(f"{name} must not decrease, got {offsets[i]} then {offsets[i + 1]} at {i + 1}")
    return offsets


def check_mask(mask: ArrayLike, shape: tuple[int, ...], name: str = "attention_mask") -> NDArray[np.bool_] | None:
    """`mask` as bool, or None if it keeps every token, checked to have `shape` and to hold only 0 and 1.

    Raises TypeError for another dtype than bool or integers (an additive float mask would be read upside
    down), ValueError for another shape or another value; the message begins with `name`.

    >>> check_mask([[1, 1, 0]], (1, 3)).tolist(), check_mask([[1, 1, 1]], (1, 3))
    ([[True, True, False]], None)
    """
    array = np.asarray(mask)
    if array.dtype.kind not in "biu":
        raise TypeError(f"{name} must be bool or integers 0 and 1, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    kept: NDArray[np.bool_] = array == 1
    ones = np.count_nonzero(kept)
    if ones == kept.size:
        return None
    if ones != np.count_nonzero(array):
        raise ValueError(f"{name} must hold 0 and 1, got {array[array != kept][0]}")
    return kept


def pack(
    padded: NDArray[Any], attention_mask: ArrayLike | None = None
) -> tuple[NDArray[Any], NDArray[np.int32], NDArray[np.int64]]:
    """Remove the padding from a batch.

    `padded` is `[batch, seq, ...]` of any dtype and `attention_mask` `[batch, seq]`, bool or integers 0 and
    1, with 1 at the tokens to keep (None keeps all). Returns `tokens` `[tokens, ...]`, `cu_seqlens` int32
    `[batch + 1]` and `position_ids` int64 `[tokens]`, the column each token came from, even after left
    padding or a gap. Without padding, `tokens` is a view of `padded` if its memory layout allows one.

    Raises the errors of `check_mask`.

    The first sequence is padded on the left, the second on the right; 0 is the padding here:

    >>> padded = np.array([[0, 7, 8], [5, 0, 0]])
    >>> tokens, offsets, position_ids = pack(padded, attention_mask=padded != 0)
    >>> tokens.tolist(), offsets.tolist(), position_ids.tolist()
    ([7, 8, 5], [0, 2, 3], [1, 2, 0])
    """
    if padded.ndim < 2:
        raise ValueError(f"pack: padded must have shape (batch, seq, ...), got {padded.shape}")
    batch, seq = padded.shape[:2]
    rows = padded.reshape(batch * seq, *padded.shape[2:])
    mask = None
    if attention_mask is not None:
        mask = check_mask(attention_mask, (batch, seq), "pack: attention_mask")
    if mask is None:
        offsets = uniform(batch, seq)
        columns = np.arange(seq, dtype=np.int64)
        return rows, offsets, columns if batch == 1 else np.tile(columns, batch)
    kept = mask.ravel().nonzero()[0]
    return rows.take(kept, axis=0), _offsets(np.add.reduce(mask, 1)), kept % seq if seq else kept


def unpack(
    tokens: NDArray[Any],
    cu_seqlens: NDArray[np.int32],
    attention_mask: ArrayLike | None = None,
    *,
    max_length: int | None = None,
) -> NDArray[Any]:
    """Put a ragged batch back into a padded array `[batch, seq, ...]`, zeros at the padding.

    `tokens` is `[tokens, ...]`. With an `attention_mask` `[batch, seq]` every token returns to the column
    it was packed from. Without one, sequences begin at column 0 and `seq` is `max_length`, or the longest
    length. If every sequence fills its row, the result is a view of `tokens`.

    Raises ValueError for a mask that keeps another number of tokens, and for a sequence longer than
    `max_length`.

    >>> tokens, offsets = np.array([7, 8, 5]), np.array([0, 2, 3], np.int32)
    >>> unpack(tokens, offsets, max_length=3).tolist()
    [[7, 8, 0], [5, 0, 0]]
    >>> unpack(tokens, offsets, [[0, 1, 1], [1, 0, 0]]).tolist()  # to where pack took them from
    [[0, 7, 8], [5, 0, 0]]
    """
    sizes = lengths(cu_seqlens)
    batch = len(sizes)
    mask = None
    if attention_mask is not None:
        given = np.asarray(attention_mask)
        if given.ndim != 2 or len(given) != batch:
            raise ValueError(f"unpack: attention_mask must have shape ({batch}, seq), got {given.shape}")
        seq = given.shape[1]
        mask = check_mask(given, given.shape, "unpack: attention_mask")
        counts = np.full(batch, seq) if mask is None else np.add.reduce(mask, 1)
        wrong = counts != sizes
        if np.count_nonzero(wrong):
            i = int(wrong.argmax())
            raise ValueError(
                f"unpack: attention_mask must keep the tokens of each sequence: sequence {i} has {sizes[i]}, "
                f"the mask keeps {counts[i]}"
            )
    else:
        longest = int(sizes.max(initial=0))
        seq = longest if max_length is None else max_length
        if seq < longest:
            raise ValueError(f"unpack: max_length must be at least {longest}, the longest sequence, got {seq}")
    shape = (batch, seq, *tokens.shape[1:])
    if len(tokens) == batch * seq:
        return tokens.reshape(shape)
    if mask is None:
        mask = np.arange(seq) < sizes[:, None]
    run_pass()
    padded = np.zeros((batch * seq, *tokens.shape[1:]), tokens.dtype)
    padded[mask.ravel().nonzero()[0]] = tokens
    return padded.reshape(shape)


def _check_total(tokens: int | np.int64, name: str = "cu_seqlens") -> None:
    if tokens >= 2**31:
        raise ValueError(f"{name} must end below 2**31, got {tokens} tokens")


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int32]:
    """`cu_seqlens` of an array of lengths."""
    if np.maximum.reduce(lengths.view(np.uint64), initial=0) >= 2**31:  # negative ones, too; smaller sums cannot wrap
        if (lowest := lengths.min()) < 0:
            raise ValueError(f"cu_seqlens: lengths must not be negative, got {lowest}")
        _check_total(lengths.max())
    offsets = np.zeros(len(lengths) + 1, np.int32)
    ends = np.add.accumulate(lengths)
    if len(ends):
        _check_total(ends[-1])
    offsets[1:] = ends
    return offsets
