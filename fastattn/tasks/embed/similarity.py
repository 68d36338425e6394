"""Similarities of embeddings, by the kernels. A pair's score does not depend on the other pairs.

Euclidean and Manhattan distances are negated, as in sentence-transformers, so larger always means more alike. A cosine
is never above 1 or below -1; in sentence-transformers, rounding may give 1.0000002.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastattn import kernels
from fastattn._types import FloatArray
from fastattn.checks import choice

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")

_BLOCK = 1 << 20  # elements of the differences held at once


def similarity(a: ArrayLike, b: ArrayLike, name: str = "cosine") -> FloatArray:
    """Scores of all pairs of `a`, `[n, dim]` or `[dim]`, and `b`, `[m, dim]` or `[dim]`: float32 `[n, m]`.

    `name` is "cosine", "dot", "euclidean" or "manhattan". Raises ValueError for dimensions that differ and for another
    name.

    >>> similarity([[1, 0], [0, 2]], [[0, 1]])
    array([[0.],
           [1.]], dtype=float32)
    """
    left, right = _rows(a, b, name)
    if left.shape[1] != right.shape[1]:
        raise ValueError(f"similarity: a has {left.shape[1]} dimensions, b has {right.shape[1]}")
    if not len(left) or not len(right):
        return np.zeros((len(left), len(right)), np.float32)
    if name in ("cosine", "dot"):
        return bounded(kernels.linear(left, right), name)
    scores = np.empty((len(left), len(right)), np.float32)
    step = max(1, _BLOCK // right.size)
    for start in range(0, len(left), step):
        block = left[start : start + step, None] - right[None]
        scores[start : start + step] = 0 - _lengths(block, name)  # 0, not -0, for equal rows
    return scores


def similarity_pairwise(a: ArrayLike, b: ArrayLike, name: str = "cosine") -> FloatArray:
    """Scores of `a[i]` with `b[i]`: float32 `[n]`. Arguments and errors are as in `similarity`.

    >>> similarity_pairwise([[3, 4], [1, 1]], [[0, 0], [1, 1]], "euclidean")
    array([-5.,  0.], dtype=float32)
    """
    left, right = _rows(a, b, name)
    if left.shape != right.shape:
        raise ValueError(f"similarity_pairwise: a has shape {left.shape}, b has {right.shape}")
    if not len(left):
        return np.zeros(0, np.float32)
    if name in ("cosine", "dot"):
        return bounded(_sum(left * right), name)
    return 0 - _lengths(left - right, name)


def bounded(products: FloatArray, name: str) -> FloatArray:
    """Products, in their array. Cosines that rounding has made larger than 1 become 1."""
    return np.clip(products, -1, 1, out=products) if name == "cosine" else products


def _lengths(differences: FloatArray, name: str) -> FloatArray:
    """Length of each row of differences, `[..., dim]` to `[...]`."""
    if name == "manhattan":
        return _sum(np.abs(differences))
    return np.sqrt(_sum(np.square(differences)))


def _sum(x: FloatArray) -> FloatArray:
    """The sum over the last axis, as one chain of additions: `[..., dim]` to `[...]`."""
    sums: FloatArray = kernels.linear(x, np.ones((1, x.shape[-1]), np.float32))[..., 0]
    return sums


def _rows(a: ArrayLike, b: ArrayLike, name: str) -> list[FloatArray]:
    """Both arguments as float32 `[n, dim]`, of length 1 for "cosine"."""
    choice("similarity: name", name, SIMILARITIES)
    given = [np.asarray(x) for x in (a, b)]
    for argument, array in zip("ab", given, strict=True):
        if array.dtype.kind not in "biuf":
            raise TypeError(f"similarity: {argument} must hold numbers, got {array.dtype}")
    both = [np.ascontiguousarray(np.atleast_2d(array), dtype=np.float32) for array in given]
    for argument, rows in zip("ab", both, strict=True):
        if rows.ndim != 2:
            raise ValueError(f"similarity: {argument} must have shape [n, dim] or [dim], got {rows.shape}")
    return [kernels.l2_normalize(rows) if name == "cosine" and len(rows) else rows for rows in both]
