"""What the Transformer checks of source and target beyond what `inputs` does for all models."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import ragged
from fastattn.functional.losses import IGNORE_INDEX
from fastattn.models.inputs import check_labels

OWNER = "Transformer"


def shift_right(labels: NDArray[np.int64], start: int, pad: int) -> NDArray[np.int64]:
    """What the decoder reads to predict `labels` `[batch, seq]`: `start` and all labels but the last, -100 as `pad`."""
    shifted = np.empty_like(labels)
    shifted[:, :1] = start
    shifted[:, 1:] = labels[:, :-1]
    shifted[shifted == IGNORE_INDEX] = pad
    return shifted


def up_to_the_last_label(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where in `labels` `[batch, seq]` a label that counts stands, or one follows later."""
    counts = labels != IGNORE_INDEX
    kept: NDArray[np.bool_] = np.logical_or.accumulate(counts[:, ::-1], axis=1)[:, ::-1]
    return kept


def check_target(name: str, labels: ArrayLike, shape: tuple[int, ...] | None, classes: int) -> NDArray[np.int64]:
    """The words to be predicted, int64; of `shape`, or of any `[batch, seq]` where that is None."""
    if shape is None:
        shape = np.shape(labels)
        if len(shape) != 2:
            raise ValueError(f"{OWNER}: {name} must have shape (batch, seq), got {shape}")
    return check_labels(OWNER, name, labels, shape, classes)


def check_memory(cu_seqlens_q: NDArray[np.int32], cu_seqlens_k: NDArray[np.int32]) -> None:
    """Raise ValueError when the sequences are not as many, or one has a target but no source."""
    targets, sources = ragged.lengths(cu_seqlens_q), ragged.lengths(cu_seqlens_k)
    if len(targets) != len(sources):
        raise ValueError(
            f"{OWNER}: decoder_input_ids must have as many sequences as input_ids, {len(sources)}, got {len(targets)}"
        )
    empty = (sources == 0) & (targets > 0)
    if empty.any():
        raise ValueError(f"{OWNER}: input_ids must have a token in each sequence, got none in {int(empty.argmax())}")
