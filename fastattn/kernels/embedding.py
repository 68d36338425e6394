"""BERT's input layer: the normalised sum of word, token type and position rows."""

from __future__ import annotations

from fastattn import _core
from fastattn._types import FloatArray, IntArray


def embedding(
    input_ids: IntArray,
    weight: FloatArray,
    *,
    position_ids: IntArray | None = None,
    position_weight: FloatArray | None = None,
    token_type_ids: IntArray | None = None,
    token_type_weight: FloatArray | None = None,
    scale: float = 1.0,
    norm_weight: FloatArray | None = None,
    norm_bias: FloatArray | None = None,
    eps: float = 1e-12,
    out: FloatArray | None = None,
) -> FloatArray:
    """LayerNorm(weight[input_ids] * scale + token_type_weight[token_type_ids] + position_weight[position_ids]).

    Ids are int64 `[tokens]`, each kind with a table float32 `[rows, D]`. scale is positive. norm_weight and norm_bias
    are float32 `[D]`; without norm_weight the sum is not normalised. eps is added to the variance. Returns
    `[tokens, D]`.

    Raises TypeError for another dtype, ValueError for an id outside its table (naming it and its position), ids without
    their table or a table without its ids, norm_bias without norm_weight, shapes that do not match, or an `out` that
    overlaps an input.

    Source: Devlin et al. 2019 (arXiv 1810.04805), figure 2.

    >>> import numpy as np
    >>> table = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)
    >>> embedding(np.array([1, 0, 1]), table).tolist()
    [[2.0, 3.0], [0.0, 1.0], [2.0, 3.0]]
    """
    return _core.embedding(
        input_ids,
        weight,
        position_ids,
        position_weight,
        token_type_ids,
        token_type_weight,
        scale,
        norm_weight,
        norm_bias,
        eps,
        out,
    )


def embedding_backward(
    dy: FloatArray,
    input_ids: IntArray,
    num_embeddings: int,
    *,
    padding_idx: int | None = None,
    dweight: FloatArray | None = None,
) -> FloatArray:
    """The gradient of one table of `embedding` (without its LayerNorm): row i is the sum of the rows of dy with id i.

    dy `[tokens, D]`, float32, with evenly spaced rows; input_ids int64 `[tokens]`, in [0, num_embeddings). Tokens whose
    id is `padding_idx` add nothing.

    Returns `[num_embeddings, D]`: a new array, or `dweight`, to which the sums are added. Sums follow the order of the
    tokens, so their bits do not depend on the number of threads.

    Raises TypeError for another dtype, ValueError for an id or `padding_idx` out of range, shapes that do not match or
    a `dweight` that cannot be written, is not contiguous or overlaps an input.

    Source: the transpose of the selection in Devlin et al. 2019 (arXiv 1810.04805), section 3.

    >>> import numpy as np
    >>> dy = np.array([[1.0], [2.0], [4.0]], np.float32)
    >>> embedding_backward(dy, np.array([1, 0, 1]), 3).tolist()
    [[2.0], [5.0], [0.0]]
    """
    return _core.embedding_backward(dy, input_ids, num_embeddings, padding_idx, dweight)
