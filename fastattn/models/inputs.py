"""The inputs of models: padded batches become ragged, and ids, positions and labels are checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import functional as F
from fastattn import ragged
from fastattn._core import run_pass
from fastattn._types import Array
from fastattn.autograd import Tensor, record, values
from fastattn.checks import integers
from fastattn.functional.losses import IGNORE_INDEX


@dataclass(eq=False, repr=False)
class Tokens:
    """Sequences of tokens without padding.

    `ids` and `position_ids` are int64 `[tokens]`, `cu_seqlens` int32 `[batch + 1]`. `shape` is the original shape of
    the ids: `(batch, seq)`, where `mask` is True at the tokens (None if all are), or `(tokens,)` for a ragged batch.
    `name` is the name of the ids in errors: "BertModel: input_ids".
    """

    name: str
    ids: NDArray[np.int64]
    cu_seqlens: NDArray[np.int32]
    position_ids: NDArray[np.int64]
    shape: tuple[int, ...]
    mask: NDArray[np.bool_] | None = None

    @property
    def sequences(self) -> int:
        """The number of sequences."""
        return len(self.cu_seqlens) - 1

    def pad(self, rows: Any, fill: float = 0.0) -> Any:
        """Pad `[tokens, dim]`, an array or a Tensor, with `fill` to `[batch, seq, dim]`, unless the batch is ragged."""
        if self.mask is not None:
            if fill == 0.0 and not isinstance(rows, Tensor):
                return ragged.unpack(rows, self.cu_seqlens, self.mask)
            rows = F.scatter_rows(rows, np.flatnonzero(self.mask), self.mask.size, fill)
        return rows.reshape(*self.shape, rows.shape[1]) if len(self.shape) == 2 else rows

    def pad_weights(self, weights: Any, keys: Tokens | None = None) -> Any:
        """Move attention weights `[batch, heads, longest, longest_k]` to their tokens' columns: `[.., seq, seq_k]`.

        They are the weights from these tokens to `keys`, by default themselves. A ragged batch is left unchanged.
        """
        keys = keys or self
        if len(self.shape) == 1 or (self.mask is None and keys.mask is None and self.sequences):
            return weights
        (array,) = values(weights)
        run_pass()
        padded = np.zeros((self.sequences, array.shape[1], self.shape[1], keys.shape[1]), array.dtype)
        places = [(self.columns(i)[:, None], keys.columns(i)) for i in range(self.sequences)]
        for i, (rows, columns) in enumerate(places):
            padded[i][:, rows, columns] = array[i, :, : len(rows), : len(columns)]

        def backward(dy: Array) -> tuple[Array]:
            dx = np.zeros_like(array)
            for i, (rows, columns) in enumerate(places):
                dx[i, :, : len(rows), : len(columns)] = dy[i][:, rows, columns]
            return (dx,)

        return record(padded, (weights,), backward)

    def columns(self, i: int) -> NDArray[np.int64]:
        """The columns of the tokens of sequence i, for a padded batch."""
        return np.arange(self.shape[1]) if self.mask is None else np.flatnonzero(self.mask[i])

    def check_positions(self, limit: int) -> None:
        """Raise ValueError for a token at a position that is negative or >= `limit`."""
        if self.position_ids.min(initial=0) < 0:
            raise ValueError(f"{self.name}: position_ids must not be negative, got {self.position_ids.min()}")
        last = int(self.position_ids.max(initial=0))
        if last >= limit:
            i = int(np.searchsorted(self.cu_seqlens, self.position_ids.argmax(), side="right")) - 1
            raise ValueError(
                f"{self.name} has a token at position {last} in sequence {i}, but max_position_embeddings is {limit}"
            )

    def check_ids(self, vocab_size: int) -> None:
        """Raise ValueError for an id outside [0, vocab_size), with its position in the original batch."""
        self.check_rows(self.name, self.ids, vocab_size)

    def check_rows(self, name: str, ids: NDArray[np.int64], rows: int) -> None:
        """The same for other `ids` `[tokens]`, called `name` in errors, and a table with `rows` rows."""
        wrong = (ids < 0) | (ids >= rows)
        if wrong.any():
            first = int(wrong.argmax())
            kept = np.arange(len(ids)) if self.mask is None else np.flatnonzero(self.mask)
            place = tuple(int(i) for i in np.unravel_index(kept[first], self.shape))
            raise ValueError(f"{name} must be in [0, {rows}), got {ids[first]} at {_text(place)}")

    def pack_labels(self, owner: str, labels: ArrayLike, classes: int, mask: str = "attention_mask") -> Array:
        """The labels of the tokens, `[tokens]`, checked by `check_labels`. At the padding they must be -100.

        `labels` have the shape of the ids. `mask` is the name of the argument with the padding.
        """
        array = check_labels(owner, "labels", labels, self.shape, classes)
        if self.mask is None:
            return array.reshape(-1)
        wrong = (array != IGNORE_INDEX) & ~self.mask
        if wrong.any():
            place = _first(wrong)
            raise ValueError(
                f"{owner}: labels must be {IGNORE_INDEX} where {mask} is 0, got {array[place]} at {_text(place)}"
            )
        return array[self.mask]


def pack(
    owner: str,
    name: str,
    ids: ArrayLike,
    mask: ArrayLike | None,
    mask_name: str = "attention_mask",
    uncounted: int | None = None,
) -> Tokens:
    """Tokens of a padded batch: `ids` `[batch, seq]`, of any integer dtype, and their `mask`, None if all are tokens.

    The position of a token is its column, or, with an id that is `uncounted`, the id plus the number of other ids up to
    this column; this id itself has itself as its position. Raises TypeError or ValueError, naming `owner` and the
    argument.
    """
    array = integers(f"{owner}: {name}", ids)
    if array.ndim != 2:
        raise ValueError(f"{owner}: {name} must have shape (batch, seq), got {array.shape}")
    kept = None if mask is None else ragged.check_mask(mask, array.shape, f"{owner}: {mask_name}")
    tokens, cu_seqlens, position_ids = ragged.pack(array, kept)
    if uncounted is not None:
        counted = array != uncounted
        places = counted.cumsum(axis=1) * counted + uncounted
        position_ids = places.reshape(-1) if kept is None else places[kept]
    return Tokens(f"{owner}: {name}", tokens, cu_seqlens, position_ids, array.shape, kept)


def pack_ragged(
    owner: str,
    name: str,
    ids: ArrayLike,
    cu_seqlens: ArrayLike,
    position_ids: ArrayLike | None = None,
    cu_seqlens_name: str = "cu_seqlens",
    uncounted: int | None = None,
) -> Tokens:
    """Tokens of a ragged batch: `ids` `[tokens]`. Positions count from 0 in each sequence unless given, or as in `pack`
    with an id that is `uncounted`."""
    array = integers(f"{owner}: {name}", ids)
    if array.ndim != 1:
        raise ValueError(f"{owner}: {name} must have shape (tokens,), got {array.shape}")
    offsets = ragged.check_cu_seqlens(cu_seqlens, len(array), f"{owner}: {cu_seqlens_name}")
    if position_ids is not None:
        places = integers(f"{owner}: position_ids", position_ids, array.shape)
    elif uncounted is None:
        places = ragged.positions(offsets)
    else:
        counted = array != uncounted
        counts = np.concatenate([[0], counted.cumsum()])
        places = (counts[1:] - np.repeat(counts[offsets[:-1]], ragged.lengths(offsets))) * counted + uncounted
    return Tokens(f"{owner}: {name}", array, offsets, places, array.shape)


def check_labels(owner: str, name: str, labels: ArrayLike, shape: tuple[int, ...], classes: int) -> NDArray[np.int64]:
    """`labels` as int64, if they have `shape`, are in [0, classes) or -100, and not all -100.

    Raises TypeError or ValueError, naming `owner`, `name`, the value and its position.
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


def sequence_target(
    owner: str, config: Any, labels: ArrayLike, sequences: int
) -> tuple[NDArray[Any], Callable[..., Any]]:
    """Labels of sequences, and their loss, by the `problem_type` of a config; see `heads.SequenceClassification`."""
    array, kind, count = np.asarray(labels), config.problem_type, config.num_labels
    if kind == "regression" or (kind is None and count == 1):
        return _numbers(owner, array, (sequences, count)), F.mse_loss
    if kind == "single_label_classification" or (kind is None and array.dtype.kind in "iu"):
        return check_labels(owner, "labels", labels, (sequences,), count), F.cross_entropy
    return _several(owner, array, (sequences, count)), F.binary_cross_entropy_with_logits


def _numbers(owner: str, labels: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Labels as numbers in this shape. The axis of a single column may be missing."""
    if labels.dtype.kind not in "fiub":
        raise TypeError(f"{owner}: labels must be numbers, got {labels.dtype}")
    if labels.shape != shape and (shape[1] != 1 or labels.shape != shape[:1]):
        raise ValueError(f"{owner}: labels must have shape {shape[: 1 if shape[1] == 1 else 2]}, got {labels.shape}")
    if not np.isfinite(labels).all():
        place = np.argwhere(~np.isfinite(labels))[0]
        raise ValueError(f"{owner}: labels must be finite, got {labels[tuple(place)]} at {tuple(place.tolist())}")
    return labels.reshape(shape)


def _several(owner: str, labels: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Labels `[batch, num_labels]`, each a probability."""
    if labels.ndim == 1 and labels.dtype.kind in "fb":
        raise ValueError(
            f"{owner}: labels of {labels.dtype} mean several labels per sequence and must have shape {shape}, "
            f"got {labels.shape}; classes are integers"
        )
    array = _numbers(owner, labels, shape)
    wrong = (array < 0) | (array > 1)
    if wrong.any():
        place = tuple(np.argwhere(wrong)[0].tolist())
        raise ValueError(f"{owner}: several labels must be in [0, 1], got {array[place]} at {place}")
    return array


def _first(wrong: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))


def _text(place: tuple[int, ...]) -> str:
    return f"index {place[0]}" if len(place) == 1 else str(place)
