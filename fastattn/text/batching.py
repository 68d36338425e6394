"""Batches of about equally many tokens.

fastattn computes no padding, so a batch costs what its tokens cost: the number of *tokens* is the size of a
batch, not the number of texts. Texts of similar length share a batch, which gives the threads equal shares of
attention.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import ragged
from fastattn._types import IntArray
from fastattn.checks import integer


def token_budget_batches(lengths: ArrayLike, max_tokens: int, max_sequences: int | None = None) -> list[IntArray]:
    """Split sequences into batches of at most `max_tokens` tokens, the longest sequences first.

    Args:
        lengths: integers `[sequences]`, the tokens of each sequence.
        max_tokens: the budget of a batch. A longer sequence gets its own batch.
        max_sequences: the most sequences in a batch; None sets no limit.

    Returns:
        Index arrays (int64) that hold every index 0..sequences-1 once. Equal lengths give equal batches.

    Raises:
        ValueError: a negative length, or a limit below 1.

    >>> [batch.tolist() for batch in token_budget_batches([3, 9, 4, 2], max_tokens=8)]
    [[1], [2, 0], [3]]
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if lengths.ndim != 1:
        raise ValueError(f"token_budget_batches: lengths must have one axis, got shape {lengths.shape}")
    if lengths.size and lengths.min() < 0:
        raise ValueError(f"token_budget_batches: lengths must not be negative, got {lengths.min()}")
    max_tokens = integer("token_budget_batches: max_tokens", max_tokens)
    if max_sequences is not None:
        max_sequences = integer("token_budget_batches: max_sequences", max_sequences)
    order = np.argsort(-lengths, kind="stable").astype(np.int64)
    ends = np.cumsum(lengths[order])
    batches = []
    start = 0
    while start < len(order):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + max_tokens, side="right")))
        if max_sequences is not None:
            stop = min(stop, start + max_sequences)
        batches.append(order[start:stop])
        start = stop
    return batches


def gather(
    values: NDArray[Any], cu_seqlens: NDArray[Any], indices: ArrayLike
) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Take sequences out of a ragged array, in the order of `indices`.

    Args:
        values: `[tokens, ...]`, the sequences one after the other.
        cu_seqlens: integers `[sequences + 1]`: sequence i is `values[cu_seqlens[i]:cu_seqlens[i + 1]]`.
        indices: which sequences, integers `[n]`.

    Returns:
        Their values, and their `cu_seqlens` (int32, `[n + 1]`).

    Raises ValueError for 2**31 values and more.

    >>> gather(np.array([10, 20, 21, 30]), np.array([0, 1, 3, 4]), [2, 1])
    (array([30, 20, 21]), array([0, 1, 3], dtype=int32))
    """
    indices = np.asarray(indices, dtype=np.int64)
    cu_seqlens = np.asarray(cu_seqlens)
    starts = cu_seqlens[:-1][indices].astype(np.int64)
    lengths = cu_seqlens[1:][indices].astype(np.int64) - starts
    offsets = ragged.cu_seqlens(lengths)
    return values[ragged.ranges(starts, lengths)], offsets


def tokens_per_batch(threads: int) -> int:
    """Tokens of one pass through a model: enough rows for every thread, activations that fit into caches.

    Measured with MiniLM on two cores: from 256 to 4096 tokens speed differs by 6 %, 16384 are the slowest.

    >>> tokens_per_batch(4)
    2048
    """
    return min(max(512 * threads, 1024), 8192)
