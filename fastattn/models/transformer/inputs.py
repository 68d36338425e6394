"""Checks of source and target that only the Transformer needs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import ragged
from fastattn.autograd import Tensor
from fastattn.functional.losses import IGNORE_INDEX
from fastattn.models.inputs import Tokens

OWNER = "Transformer"


def shift_right(labels: NDArray[np.int64], start: int, pad: int) -> NDArray[np.int64]:
    """The decoder input for `labels` `[batch, seq]`: `start`, then all labels but the last, with `pad` for -100."""
    shifted = np.empty_like(labels)
    shifted[:, :1] = start
    shifted[:, 1:] = labels[:, :-1]
    shifted[shifted == IGNORE_INDEX] = pad
    return shifted


def up_to_the_last_label(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where `labels` `[batch, seq]` have a label that counts at this or a later position."""
    counts = labels != IGNORE_INDEX
    kept: NDArray[np.bool_] = np.logical_or.accumulate(counts[:, ::-1], axis=1)[:, ::-1]
    return kept


def check_pairs(target: Tokens, source: str, cu_seqlens: NDArray[np.int32]) -> None:
    """Raise ValueError unless there are as many targets as sources and every target has a source.

    `source` is the name of the argument that `cu_seqlens` splits.
    """
    targets, sources = ragged.lengths(target.cu_seqlens), ragged.lengths(cu_seqlens)
    if len(targets) != len(sources):
        raise ValueError(f"{target.name} must have as many sequences as {source}, {len(sources)}, got {len(targets)}")
    empty = (sources == 0) & (targets > 0)
    if empty.any():
        raise ValueError(
            f"{OWNER}: {source} must have a token in each sequence, got none in sequence {int(empty.argmax())}"
        )


def check_states(name: str, states: Any, dim: int, dtype: np.dtype[Any]) -> None:
    """Raise TypeError or ValueError unless `states` is an array or a Tensor `[tokens, dim]` of `dtype`."""
    if not isinstance(states, np.ndarray | Tensor):
        raise TypeError(f"{OWNER}: {name} must be an array or a Tensor, got {type(states).__name__}")
    if len(states.shape) != 2 or states.shape[1] != dim:
        raise ValueError(f"{OWNER}: {name} must have shape (tokens, {dim}), got {states.shape}")
    if states.dtype != dtype:
        raise TypeError(f"{OWNER}: {name} must be {dtype}, got {states.dtype}")
