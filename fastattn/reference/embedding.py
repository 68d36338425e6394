"""Reference of `embedding` (word, token type and position rows summed, then normalised) and `embedding_backward`."""

from __future__ import annotations

import numpy as np

from fastattn._types import Floats, IntArray

from .layer_norm import layer_norm


def embedding(
    input_ids: IntArray,
    weight: Floats,
    *,
    position_ids: IntArray | None = None,
    position_weight: Floats | None = None,
    token_type_ids: IntArray | None = None,
    token_type_weight: Floats | None = None,
    scale: float = 1.0,
    norm_weight: Floats | None = None,
    norm_bias: Floats | None = None,
    eps: float = 1e-12,
    out: Floats | None = None,
) -> Floats:
    """(scale * word + token type) + position, then layer-normalised on request. See `fastattn.kernels.embedding`.

    >>> table = np.array([[0.0, 1.0], [2.0, 3.0]])
    >>> embedding(np.array([1, 0, 1]), table).tolist()
    [[2.0, 3.0], [0.0, 1.0], [2.0, 3.0]]
    """
    y = np.empty((len(input_ids), weight.shape[1]), weight.dtype) if out is None else out
    check_ids("embedding", "input_ids", input_ids, "weight", len(weight))
    np.take(weight, input_ids, axis=0, out=y, mode="clip")  # the ids are checked, and "raise" would buffer `out`
    if scale != 1.0:
        y *= scale
    for name, ids, table in (
        ("token_type", token_type_ids, token_type_weight),
        ("position", position_ids, position_weight),
    ):
        if (ids is None) != (table is None):
            given, missing = ("weight", "ids") if ids is None else ("ids", "weight")
            raise ValueError(f"embedding: {name}_{missing} must be given with {name}_{given}")
        if ids is not None and table is not None:
            check_ids("embedding", f"{name}_ids", ids, f"{name}_weight", len(table))
            y += np.take(table, ids, axis=0)
    if norm_bias is not None and norm_weight is None:
        raise ValueError("embedding: norm_weight must be given with norm_bias")
    if norm_weight is not None:
        layer_norm(y, norm_weight, norm_bias, eps, out=y)
    return y


def embedding_backward(
    dy: Floats,
    input_ids: IntArray,
    num_embeddings: int,
    *,
    padding_idx: int | None = None,
    dweight: Floats | None = None,
) -> Floats:
    """Row i is the sum of the rows of dy whose id is i, in the order of the tokens.

    See `fastattn.kernels.embedding_backward`.

    >>> embedding_backward(np.array([[1.0], [2.0], [4.0]]), np.array([1, 0, 1]), 3).tolist()
    [[2.0], [5.0], [0.0]]
    """
    check_ids("embedding_backward", "input_ids", input_ids, "dweight", num_embeddings)
    total = np.zeros((num_embeddings, dy.shape[1]), dy.dtype) if dweight is None else dweight
    for i, row in zip(input_ids.tolist(), dy, strict=True):  # with a model's row length, faster than np.add.at
        if i != padding_idx:
            total[i] += row
    return total


def check_ids(function: str, name: str, ids: IntArray, table: str, rows: int) -> None:
    """Raise ValueError for the first id outside `table`, which has `rows` rows."""
    wrong = (ids < 0) | (ids >= rows)
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(f"{function}: {name} must be in [0, {rows}), the rows of {table}, got {ids[i]} at index {i}")
