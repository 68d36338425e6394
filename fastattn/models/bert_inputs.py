"""The border of the BERT models: padded batches become ragged ones, labels are checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import functional as F
from fastattn import ragged
from fastattn.autograd import Tensor
from fastattn.functional.losses import IGNORE_INDEX

Array = NDArray[Any]


@dataclass
class Batch:
    """A batch without its padding.

    `input_ids`, `token_type_ids` and `position_ids` are int64 `[tokens]`, `cu_seqlens` int32 `[batch + 1]`. `shape` is
    that of the ids as they were given: `(batch, seq)`, with True in `mask` at the tokens (None where all are), or
    `(tokens,)` of a ragged batch.
    """

    input_ids: NDArray[np.int64]
    cu_seqlens: NDArray[np.int32]
    token_type_ids: NDArray[np.int64] | None
    position_ids: NDArray[np.int64]
    shape: tuple[int, ...]
    mask: NDArray[np.bool_] | None = None

    @property
    def sequences(self) -> int:
        """How many there are."""
        return len(self.cu_seqlens) - 1

    def pad(self, rows: Any, fill: float = 0.0) -> Any:
        """`[tokens, dim]`, an array or a Tensor, to `[batch, seq, dim]` with `fill` at the padding; ragged as it is."""
        if self.mask is not None:
            if fill == 0.0 and not isinstance(rows, Tensor):
                return ragged.unpack(rows, self.cu_seqlens, self.mask)
            rows = F.scatter_rows(rows, np.flatnonzero(self.mask), self.mask.size, fill)
        return rows.reshape(*self.shape, rows.shape[1]) if len(self.shape) == 2 else rows

    def pad_weights(self, weights: Array) -> Array:
        """Attention weights `[batch, heads, longest, longest]`, moved to their tokens' columns: `[.., seq, seq]`."""
        if len(self.shape) == 1 or (self.mask is None and self.sequences):
            return weights
        (batch, seq), heads = self.shape, weights.shape[1]
        padded = np.zeros((batch, heads, seq, seq), weights.dtype)
        for i in range(batch):
            columns = self.position_ids[self.cu_seqlens[i] : self.cu_seqlens[i + 1]]
            n = len(columns)
            padded[i][:, columns[:, None], columns] = weights[i, :, :n, :n]
        return padded

    def check_ids(self, vocab_size: int, type_vocab_size: int) -> None:
        """Raise ValueError for ids without a row, with their place in the batch as it was given."""
        for name, ids, rows in (
            ("input_ids", self.input_ids, vocab_size),
            ("token_type_ids", self.token_type_ids, type_vocab_size),
        ):
            if ids is not None and (wrong := (ids < 0) | (ids >= rows)).any():
                first = int(wrong.argmax())
                kept = np.arange(len(ids)) if self.mask is None else np.flatnonzero(self.mask)
                place = tuple(int(i) for i in np.unravel_index(kept[first], self.shape))
                raise ValueError(f"BertModel: {name} must be in [0, {rows}), got {ids[first]} at {_text(place)}")

    def pack_labels(self, owner: str, labels: ArrayLike, classes: int) -> NDArray[np.int64]:
        """The labels of the tokens, `[tokens]`, as `check_labels`; given as the ids were, and -100 at the padding."""
        array = check_labels(owner, "labels", labels, self.shape, classes)
        if self.mask is None:
            return array.reshape(-1)
        wrong = (array != IGNORE_INDEX) & ~self.mask
        if wrong.any():
            place = _first(wrong)
            raise ValueError(
                f"{owner}: labels must be {IGNORE_INDEX} where attention_mask is 0, "
                f"got {array[place]} at {_text(place)}"
            )
        return array[self.mask]


def integers(name: str, array: ArrayLike, shape: tuple[int, ...] | None = None) -> NDArray[np.int64]:
    """`array` as contiguous int64, once it is known to hold integers and to have `shape`."""
    ids = np.asarray(array)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an integer array, got {ids.dtype}")
    if shape is not None and ids.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {ids.shape}")
    return np.ascontiguousarray(ids, np.int64)


def check_labels(owner: str, name: str, labels: ArrayLike, shape: tuple[int, ...], classes: int) -> NDArray[np.int64]:
    """`labels` as int64, once they are known to have `shape` and to be in [0, classes) or -100, not all of them -100.

    Raises TypeError or ValueError; the message begins with `owner` and has `name`, the value and its place.
    """
    array = integers(f"{owner}: {name}", labels, shape)
    wrong = (array != IGNORE_INDEX) & ((array < 0) | (array >= classes))
    if wrong.any():
        place = _first(wrong)
        raise ValueError(
            f"{owner}: {name} must be in [0, {classes}) or {IGNORE_INDEX}, got {array[place]} at {_text(place)}"
        )
    if not (array != IGNORE_INDEX).any():
        raise ValueError(f"{owner}: {name} must have something other than {IGNORE_INDEX}, the label that is ignored")
    return array


def _first(wrong: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))


def _text(place: tuple[int, ...]) -> str:
    return f"index {place[0]}" if len(place) == 1 else str(place)
