"""Similarities of embeddings, by the kernels: a pair's score does not depend on the other pairs.

Euclidean and Manhattan distances are negated, as in sentence-transformers: larger always means more alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastattn import kernels
from fastattn._types import FloatArray
from fastattn.tasks.sentence_folder import SIMILARITIES

_BLOCK = 1 << 20  # differences held at once, in elements


def similarity(a: ArrayLike, b: ArrayLike, name: str = "cosine") -> FloatArray:
    """Scores of all pairs.

    Args:
        a: embeddings `[n, dim]` or `[dim]`.
        b: embeddings `[m, dim]` or `[dim]`.
        name: "cosine", "dot", "euclidean" or "manhattan".

    Returns:
        float32 `[n, m]`.

    Raises:
        ValueError: the dimensions differ, or an unknown name.

    >>> similarity([[1, 0], [0, 2]], [[0, 1]])
    array([[0.],
           [1.]], dtype=float32)
    """
    left, right = _rows(a, "a"), _rows(b, "b")
    _check_name(name)
    if left.shape[1] != right.shape[1]:
        raise ValueError(f"similarity: a has {left.shape[1]} dimensions, b has {right.shape[1]}")
    if not len(left) or not len(right):
        return np.zeros((len(left), len(right)), np.float32)
    if name == "cosine":
        left, right = kernels.l2_normalize(left), kernels.l2_normalize(right)
    if name in ("cosine", "dot"):
        products: FloatArray = kernels.linear(left, right)
        return products
    scores = np.empty((len(left), len(right)), np.float32)
    step = max(1, _BLOCK // right.size)
    for start in range(0, len(left), step):
        block = left[start : start + step, None] - right[None]
        scores[start : start + step] = 0 - _lengths(block, name)  # 0, not -0, for equal rows
    return scores


def similarity_pairwise(a: ArrayLike, b: ArrayLike, name: str = "cosine") -> FloatArray:
    """Scores of `a[i]` with `b[i]`: float32 `[n]`. Arguments and errors are those of `similarity`.

    >>> similarity_pairwise([[3, 4], [1, 1]], [[0, 0], [1, 1]], "euclidean")
    array([-5.,  0.], dtype=float32)
    """
    left, right = _rows(a, "a"), _rows(b, "b")
    _check_name(name)
    if left.shape != right.shape:
        raise ValueError(f"similarity_pairwise: a has shape {left.shape}, b has {right.shape}")
    if not len(left):
        return np.zeros(0, np.float32)
    if name == "cosine":
        left, right = kernels.l2_normalize(left), kernels.l2_normalize(right)
    if name in ("cosine", "dot"):
        return _sum(left * right)
    return 0 - _lengths(left - right, name)


def _lengths(differences: FloatArray, name: str) -> FloatArray:
    """Length of each row of differences, `[..., dim]` to `[...]`."""
    if name == "manhattan":
        return _sum(np.abs(differences))
    return np.sqrt(_sum(np.square(differences)))


def _sum(x: FloatArray) -> FloatArray:
    """The sum over the last axis, as one chain of additions: `[..., dim]` to `[...]`."""
    sums: FloatArray = kernels.linear(x, np.ones((1, x.shape[-1]), np.float32))[..., 0]
    return sums


def _rows(x: ArrayLike, name: str) -> FloatArray:
    rows = np.ascontiguousarray(np.atleast_2d(np.asarray(x)), dtype=np.float32)
    if rows.ndim != 2:
        raise ValueError(f"similarity: {name} must have shape [n, dim] or [dim], got {rows.shape}")
    return rows


def _check_name(name: str) -> None:
    if name not in SIMILARITIES:
        raise ValueError(f"similarity: name must be one of {', '.join(SIMILARITIES)}, got {name!r}")
