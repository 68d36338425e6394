"""Reference of `embedding`: word, token type and position rows summed, then layer-normalised."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .layer_norm import layer_norm

FloatArray = npt.NDArray[np.floating[Any]]
Ids = npt.NDArray[np.int64]


def embedding(
    input_ids: Ids,
    weight: FloatArray,
    *,
    position_ids: Ids | None = None,
    position_weight: FloatArray | None = None,
    token_type_ids: Ids | None = None,
    token_type_weight: FloatArray | None = None,
    norm_weight: FloatArray | None = None,
    norm_bias: FloatArray | None = None,
    eps: float = 1e-12,
    out: FloatArray | None = None,
) -> FloatArray:
    """The rows of up to three tables, summed as (word + token type) + position, then layer-normalised if
    asked.

    `input_ids`, `position_ids` and `token_type_ids` are int64 `[tokens]`; `weight`, `position_weight` and
    `token_type_weight` their tables, `[rows, D]` of one float dtype. With `norm_weight` and `norm_bias` `[D]`
    the sum is normalised, with `eps` under the root. Returns `[tokens, D]`, in `out` if given. Raises
    ValueError for ids outside their table, and for one of two arguments that go together.

    Source: Devlin et al. 2019, section 3 and figure 2; the order of the sum is that of Hugging Face's BERT.

    >>> table = np.array([[0.0, 1.0], [2.0, 3.0]])
    >>> embedding(np.array([1, 0, 1]), table).tolist()
    [[2.0, 3.0], [0.0, 1.0], [2.0, 3.0]]
    """
    y = np.empty((len(input_ids), weight.shape[1]), weight.dtype) if out is None else out
    _check_ids("input_ids", input_ids, "weight", weight)
    np.take(weight, input_ids, axis=0, out=y, mode="clip")  # they are checked, and "raise" would buffer `out`
    for name, ids, table in (
        ("token_type", token_type_ids, token_type_weight),
        ("position", position_ids, position_weight),
    ):
        if (ids is None) != (table is None):
            given, missing = ("weight", "ids") if ids is None else ("ids", "weight")
            raise ValueError(f"embedding: {name}_{missing} must be given with {name}_{given}")
        if ids is not None and table is not None:
            _check_ids(f"{name}_ids", ids, f"{name}_weight", table)
            y += np.take(table, ids, axis=0)
    if (norm_weight is None) != (norm_bias is None):
        raise ValueError("embedding: norm_weight and norm_bias must be given together")
    if norm_weight is not None:
        layer_norm(y, norm_weight, norm_bias, eps, out=y)
    return y


def _check_ids(name: str, ids: Ids, table_name: str, table: FloatArray) -> None:
    """Raise ValueError for the first id outside `table`."""
    rows = len(table)
    wrong = (ids < 0) | (ids >= rows)
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(
            f"embedding: {name} must be in [0, {rows}), the rows of {table_name}, got {ids[i]} at index {i}"
        )
