"""Losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn.autograd import mode, record, values
from fastattn.functional._common import Array, Values, tensors

IGNORE_INDEX = -100
"""The label that counts for nothing."""


def cross_entropy(
    input: Values,
    target: NDArray[np.integer[Any]],
    *,
    ignore_index: int = IGNORE_INDEX,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """`-log softmax(input)[target]` of each row: `input` `[rows, classes]`, `target` integers `[rows]`.

    Rows whose target is `ignore_index` count for nothing. `reduction` is "mean" (over the rows that count), "sum" or
    "none" (`[rows]`, 0 where ignored); `label_smoothing` is the part of the target spread over all classes.

    Raises TypeError for a `target` that does not hold integers; ValueError for another shape, a class outside
    [0, classes), another `reduction`, and a "mean" of no rows.

    >>> logits = np.log(np.array([[1.0, 3.0], [1.0, 1.0]], np.float32))
    >>> np.exp(-cross_entropy(logits, np.array([1, 0]), reduction="none")).round(4).tolist()
    [0.75, 0.5]
    """
    ops = mode.ops
    (x,) = values(input)
    ids = np.asarray(target)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: target must be an integer array, got {ids.dtype}")
    if x.ndim != 2:
        raise ValueError(f"cross_entropy: input must have shape (rows, classes), got {x.shape}")
    if ids.shape != x.shape[:1]:
        raise ValueError(f"cross_entropy: target must have shape {x.shape[:1]}, got {ids.shape}")
    ids = np.ascontiguousarray(ids, np.int64)
    options: dict[str, Any] = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    rows, lse = ops.cross_entropy(x, ids, **options)
    count = int(np.count_nonzero(ids != ignore_index))

    def backward(dloss: Array) -> Array:
        dx: Array = ops.cross_entropy_backward(dloss, x, ids, lse, **options)
        return dx

    return _reduce("cross_entropy", input, rows, count, reduction, backward)


def mse_loss(input: Values, target: ArrayLike, *, reduction: str = "mean") -> Any:
    """`(input - target)^2` of each element, `target` being an array of `input`'s shape.

    `reduction` is "mean", "sum" or "none" (`input`'s shape). Raises ValueError for another shape or `reduction`, and a
    "mean" of no elements.

    >>> from fastattn import Tensor
    >>> x = Tensor([1.0, 5.0], requires_grad=True)
    >>> loss = mse_loss(x, [0.0, 3.0])
    >>> loss.backward()
    >>> loss.item(), x.grad.tolist()
    (2.5, [1.0, 2.0])
    """
    (x,) = values(input)
    difference = x - _target("mse_loss", target, x)
    terms = difference * difference
    return _reduce("mse_loss", input, terms, terms.size, reduction, lambda dy: 2 * difference * dy)


def binary_cross_entropy_with_logits(input: Values, target: ArrayLike, *, reduction: str = "mean") -> Any:
    """`-(target log s + (1 - target) log(1 - s))` of each element, s being `1 / (1 + exp(-input))`.

    `target`, an array of `input`'s shape, has probabilities; `reduction` is "mean", "sum" or "none" (`input`'s shape).
    Raises ValueError for another shape or `reduction`, and a "mean" of no elements.

    >>> logits = np.log(np.array([3.0, 1.0], np.float32))  # s is 0.75 and 0.5
    >>> np.exp(-binary_cross_entropy_with_logits(logits, [1, 0], reduction="none")).round(4).tolist()
    [0.75, 0.5]
    """
    ops = mode.ops
    (x,) = values(input)
    t = _target("binary_cross_entropy_with_logits", target, x)
    pairs = np.stack([x, np.zeros_like(x)], axis=-1)  # log s and log(1 - s) are the log-softmax of (x, 0)
    logs = ops.log_softmax(pairs)
    terms = -(t * logs[..., 0] + (1 - t) * logs[..., 1])

    def backward(dy: Array) -> Array:
        gradient: Array = (ops.softmax(pairs)[..., 0] - t) * dy
        return gradient

    return _reduce("binary_cross_entropy_with_logits", input, terms, terms.size, reduction, backward)


def _target(name: str, target: ArrayLike, x: Array) -> Array:
    array = np.asarray(target, x.dtype)
    if array.shape != x.shape:
        raise ValueError(f"{name}: target must have shape {x.shape}, got {array.shape}")
    return array


def _reduce(
    name: str, input: Values, terms: Array, count: int, reduction: str, backward: Callable[[Array], Array]
) -> Any:
    """The terms, their sum, or their sum over `count`; `backward` maps the gradient of the terms to that of `input`."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{name}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if reduction == "mean" and count == 0:
        raise ValueError(f"{name}: target must have something that counts for a mean, got nothing")
    if reduction == "none":
        return record(terms, (input,), lambda dy: (backward(dy),)) if tensors(input) else terms
    divisor = count if reduction == "mean" else 1
    total = np.asarray(terms.sum(dtype=np.float64) / divisor, terms.dtype)
    if not tensors(input):
        return total
    shape = terms.shape
    return record(total, (input,), lambda dy: (backward(np.full(shape, dy / divisor, dy.dtype)),))
