"""Choosing and combining rows: embedding tables, pooling, and the tokens of ragged batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastattn import autograd
from fastattn._core import run_pass
from fastattn._types import IntArray
from fastattn.autograd import Tensor, needs, record, values
from fastattn.checks import integers, operand
from fastattn.errors import named
from fastattn.functional._common import Array, Values, gradient, plain, reshape_out
from fastattn.functional.layers import layer_norm
from fastattn.ragged import int32_offsets


@named("embedding_sum", input_ids="input")
def embedding(input: ArrayLike, weight: Values, padding_idx: int | None = None, *, out: Array | None = None) -> Any:
    """The rows of `weight` `[rows, dim]` at the integer indices `input` `[...]`: `[..., dim]`.

    The row `padding_idx` gets no gradient. `out`, an array, is written and returned. Raises TypeError if `input` does
    not hold integers, ValueError for an index outside `weight`.

    >>> embedding(np.array([2, 0]), np.array([[1.0], [2.0], [3.0]], np.float32)).tolist()
    [[3.0], [1.0]]
    """
    ids = integers("embedding: input", input)
    weight = _with_rows(weight, ids)
    arrays = plain("embedding", out, weight)
    if arrays is None:
        y = embedding_sum(ids.reshape(-1), weight, padding_idx=padding_idx)
        return y.reshape(*ids.shape, y.shape[-1])
    table = operand("embedding: weight", arrays[0])
    shape = (*ids.shape, table.shape[-1])
    rows = None if out is None else reshape_out("embedding", out, shape, (ids.size, shape[-1]))
    y = autograd.mode.ops.embedding(ids.reshape(-1), table, out=rows)
    return y.reshape(shape) if out is None else out


@named("embedding")
def embedding_sum(
    input_ids: IntArray,
    weight: Values,
    *,
    position_ids: IntArray | None = None,
    position_weight: Values | None = None,
    token_type_ids: IntArray | None = None,
    token_type_weight: Values | None = None,
    scale: float = 1.0,
    norm_weight: Values | None = None,
    norm_bias: Values | None = None,
    eps: float = 1e-12,
    padding_idx: int | None = None,
    position_padding_idx: int | None = None,
    out: Array | None = None,
) -> Any:
    """Word rows times `scale`, token type and position rows, summed, then layer-normalised if `norm_weight` is given.

    `input_ids`, `token_type_ids` and `position_ids` are int64 `[tokens]`. `weight`, `token_type_weight` and
    `position_weight` are their tables, `[rows, dim]`; ids and their table are given together. Rows of `weight` are
    multiplied by `scale` first. `norm_weight` and `norm_bias` are `[dim]`; `eps` is added to the variance. Returns
    `[tokens, dim]`, in `out` if given. The row `padding_idx` of `weight` and the row
    `position_padding_idx` of `position_weight` get no gradient. Raises the errors of `fastattn.kernels.embedding`.

    >>> words, places = np.array([[10.0], [20.0]], np.float32), np.array([[1.0], [2.0], [3.0]], np.float32)
    >>> ids, position_ids = np.array([1, 1, 0]), np.array([0, 1, 2])
    >>> embedding_sum(ids, words, position_ids=position_ids, position_weight=places).tolist()
    [[21.0], [22.0], [13.0]]
    """
    ops = autograd.mode.ops
    weight = _with_rows(weight, input_ids)
    ids: dict[str, Any] = {"position_ids": position_ids, "token_type_ids": token_type_ids}
    operands = (weight, position_weight, token_type_weight)
    arrays = plain("embedding_sum", out, *operands, norm_weight, norm_bias)
    if arrays is not None:
        return ops.embedding(
            input_ids,
            arrays[0],
            position_weight=arrays[1],
            token_type_weight=arrays[2],
            scale=scale,
            norm_weight=arrays[3],
            norm_bias=arrays[4],
            eps=eps,
            out=out,
            **ids,
        )
    tables = values(*operands)
    y = ops.embedding(input_ids, tables[0], position_weight=tables[1], token_type_weight=tables[2], scale=scale, **ids)
    sizes = [0 if table is None else len(table) for table in tables]
    wanted = needs(*operands)

    def backward(dy: Array) -> list[Array | None]:
        rows = (input_ids, position_ids, token_type_ids), (padding_idx, position_padding_idx, None)
        parts = zip(wanted, *rows, sizes, operands, strict=True)
        return [
            ops.embedding_backward(
                dy * scale if i == 0 and scale != 1.0 else dy,
                ids,
                size,
                padding_idx=padding,
                dweight=gradient(table),
            )
            if need
            else None
            for i, (need, ids, padding, size, table) in enumerate(parts)
        ]

    summed = record(y, operands, backward)
    if norm_weight is None:
        return summed
    return layer_norm(summed, y.shape[1:], norm_weight, norm_bias, eps)


def _with_rows(weight: Values, ids: Any) -> Values:
    """The array of a frozen table of which rows are in a file, with the rows at `ids`; any other weight as it is."""
    if isinstance(weight, Tensor) and weight.stored is not None:
        rows: Array = weight.stored.read(ids)
        return rows
    return weight


@named(x="input")
def pooling(input: Values, cu_seqlens: ArrayLike, mode: str = "mean", *, out: Array | None = None) -> Any:
    """One row per sequence: from `input` `[tokens, dim]` to `[batch, dim]`, zeros for an empty sequence.

    Sequence i is the rows from `cu_seqlens[i]` to `cu_seqlens[i + 1]`, integers `[batch + 1]`. `mode` is "mean", "cls"
    (the first row), "max", "last", "mean_sqrt_len" or "weighted_mean". `out`, an array, is written and returned.
    Raises the errors of `fastattn.kernels.pooling`.

    >>> rows = np.array([[1.0], [3.0], [7.0]], np.float32)
    >>> pooling(rows, np.array([0, 2, 2, 3], np.int32)).tolist()
    [[2.0], [0.0], [7.0]]
    """
    ops = autograd.mode.ops  # `mode` is the argument here
    cu_seqlens = int32_offsets(cu_seqlens, "pooling: cu_seqlens")
    arrays = plain("pooling", out, input)
    if arrays is not None:
        return ops.pooling(arrays[0], cu_seqlens, mode, out=out)
    (x,) = values(input)
    y = ops.pooling(x, cu_seqlens, mode)
    return record(y, (input,), lambda dy: (ops.pooling_backward(dy, x, cu_seqlens, mode),))


@named("embedding_sum", weight="input", input_ids="rows")
def gather_rows(input: Values, rows: IntArray) -> Any:
    """The rows of `input` `[tokens, dim]` at the indices `rows`, int64 `[n]`: `[n, dim]`, in that order.

    Raises ValueError for an index outside `input`.

    >>> from fastattn import Tensor
    >>> x = Tensor([[1.0], [2.0], [3.0]], requires_grad=True)
    >>> y = gather_rows(x, np.array([2, 2, 0]))
    >>> y.numpy().tolist()
    [[3.0], [3.0], [1.0]]
    >>> y.sum().backward()
    >>> x.grad.tolist()
    [[1.0], [0.0], [2.0]]
    """
    return embedding_sum(rows, input)


@named(x="input", into="the result")
def scatter_rows(input: Values, rows: IntArray, num_rows: int, fill: float = 0.0) -> Any:
    """`[num_rows, dim]`, with the rows of `input` `[n, dim]` at the distinct indices `rows`, int64 `[n]`.

    The other rows are `fill`. A ragged batch is padded this way. Raises ValueError for an index outside `num_rows`, and
    for indices that are not distinct.

    >>> scatter_rows(np.array([[1.0], [2.0]], np.float32), np.array([3, 0]), 4).tolist()
    [[2.0], [0.0], [0.0], [1.0]]
    """
    (x,) = values(operand("scatter_rows: input", input))
    y = np.full((num_rows, *x.shape[1:]), fill, x.dtype)
    autograd.mode.ops.scatter_rows(x, rows, y)
    return record(y, (input,), lambda dy: (dy.take(rows, axis=0),))


@named()
def cat(tensors: Sequence[Values], dim: int = 0) -> Any:
    """`tensors`, arrays or Tensors, joined along the axis `dim`; the other axes have equal sizes.

    Raises ValueError for an empty sequence or shapes that do not fit, TypeError for arrays of several dtypes.

    >>> cat([np.ones((1, 2), np.float32), np.zeros((1, 1), np.float32)], dim=1).tolist()
    [[1.0, 1.0, 0.0]]
    """
    return _join("cat", np.concatenate, tensors, dim)


@named()
def stack(tensors: Sequence[Values], dim: int = 0) -> Any:
    """`tensors`, arrays or Tensors of one shape, side by side along a new axis `dim`.

    Raises ValueError for an empty sequence or several shapes, TypeError for arrays of several dtypes.

    >>> stack([np.ones(2, np.float32), np.zeros(2, np.float32)]).tolist()
    [[1.0, 1.0], [0.0, 0.0]]
    """
    return _join("stack", np.stack, tensors, dim)


def _join(name: str, join: Callable[..., Array], tensors: Sequence[Values], dim: int) -> Any:
    tensors = tuple(tensors)
    arrays = values(*tensors)
    run_pass()
    dtypes = {np.asarray(array).dtype for array in arrays}
    if len(dtypes) > 1:
        raise TypeError(f"{name}: tensors must have one dtype, got {', '.join(sorted(map(str, dtypes)))}")
    try:
        y = join(arrays, axis=dim)
    except ValueError as error:  # NumPy's message does not name our function
        raise ValueError(f"{name}: {error}") from None

    def backward(dy: Array) -> list[Array]:
        if name == "stack":
            return list(np.moveaxis(dy, dim, 0))
        return np.split(dy, np.cumsum([array.shape[dim] for array in arrays])[:-1], axis=dim)

    return record(y, tensors, backward)
