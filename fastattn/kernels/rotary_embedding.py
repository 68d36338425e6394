"""Rotary positions: queries and keys are turned by an angle that grows with their position."""

from __future__ import annotations

from fastattn import _core
from fastattn._types import FloatArray, IntArray


def rotary_embedding(
    x: FloatArray, position_ids: IntArray, table: FloatArray, *, out: FloatArray | None = None
) -> FloatArray:
    """The queries and the keys of x, turned by their positions. Other parts, such as the values, stay as they are.

    x `[tokens, parts, heads, D]`, float32, of any strides but the last; D is even. Parts 0 and 1 are the queries and
    the keys. position_ids int64 `[tokens]` are rows of table, float32 `[positions, D]`: the D / 2 sines of the angles
    of a position, then their cosines. Element i of a head and element i + D / 2, a and b, become a cos_i - b sin_i and
    b cos_i + a sin_i. `out` may be x if x is contiguous. Returns an array of x's shape.

    Raises TypeError for another dtype, ValueError for a position outside the table, shapes that do not fit, a strided
    last axis or an `out` that overlaps an input otherwise.

    Source: Su et al. 2021 (arXiv 2104.09864), section 3.2.2, with the two elements of a pair half a head apart.

    >>> import numpy as np
    >>> quarter = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)  # turns by nothing, and by 90 degrees
    >>> x = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]], np.float32).reshape(1, 3, 1, 2)
    >>> rotary_embedding(x, np.array([1]), quarter)[0, :, 0].tolist()
    [[0.0, 1.0], [-2.0, 0.0], [3.0, 4.0]]
    """
    return _core.rotary_embedding(x, position_ids, table, out)


def rotary_embedding_backward(
    dy: FloatArray, position_ids: IntArray, table: FloatArray, *, out: FloatArray | None = None
) -> FloatArray:
    """The gradient of `rotary_embedding` with respect to x: dy, turned back.

    dy `[tokens, parts, heads, D]`, float32; `position_ids` and `table` are those of the forward call, and `out` may be
    dy. Returns an array of dy's shape.

    Raises what `rotary_embedding` raises.

    >>> import numpy as np
    >>> quarter = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    >>> dy = np.array([[0.0, 1.0], [-2.0, 0.0], [3.0, 4.0]], np.float32).reshape(1, 3, 1, 2)
    >>> rotary_embedding_backward(dy, np.array([1]), quarter)[0, :, 0].tolist()
    [[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]
    """
    return _core.rotary_embedding_backward(dy, position_ids, table, out)
