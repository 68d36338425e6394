"""Losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn._core import run_pass
from fastattn.autograd import mode, needs, record, values
from fastattn.checks import choice, integer, integers, operand
from fastattn.errors import named
from fastattn.functional._common import Array, Values, gradient, like, target_like
from fastattn.random import next_seed

IGNORE_INDEX = -100
"""The label of rows that the loss ignores."""


@named("log_softmax", logits="input")
def cross_entropy(
    input: Values,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    ignore_index: int = IGNORE_INDEX,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """`-weight[target] * log_softmax(input)[target]` of each row, as in PyTorch.

    `input` is `[rows, classes]` or `[batch, classes, ...]` and `target` holds integers `[rows]` or `[batch, ...]`.
    `weight` `[classes]`, 1 by default, is an array and gets no gradient. Rows whose target is `ignore_index` are
    ignored. `reduction` is "mean" (the sum divided by the total weight of the targets that count), "sum" or "none" (the
    shape of `target`, 0 where ignored). `label_smoothing` is the part of the target spread over all classes.

    Raises TypeError if `target` does not hold integers; ValueError for another shape, a class outside [0, classes),
    another `reduction`, and a "mean" of no rows or of weights that are 0.

    >>> logits = np.log(np.array([[1.0, 3.0], [1.0, 1.0]], np.float32))
    >>> np.exp(-cross_entropy(logits, np.array([1, 0]), reduction="none")).round(4).tolist()
    [0.75, 0.5]
    """
    if len(operand("cross_entropy: input", input).shape) < 2:
        raise ValueError(f"cross_entropy: input must have shape (rows, classes), got {input.shape}")
    shape = (input.shape[0], *input.shape[2:])
    ids = integers("cross_entropy: target", target, shape).reshape(-1)
    logits: Any = input
    if len(input.shape) > 2:  # the classes are the second axis
        logits = _last(input).reshape(-1, input.shape[1])
    ops = mode.ops
    (x,) = values(logits)
    options: dict[str, Any] = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    rows, lse = ops.cross_entropy(x, ids, **options)
    counts = ids != ignore_index
    count: float = int(np.count_nonzero(counts))
    own = spread = None
    if weight is not None:
        classes = like("cross_entropy: weight", weight, x)
        if classes.shape != x.shape[1:]:
            raise ValueError(f"cross_entropy: weight must have shape {x.shape[1:]}, got {classes.shape}")
        own = np.where(counts, classes[np.where(counts, ids, 0)], x.dtype.type(0))
        count = float(own.sum(dtype=np.float64))
        if label_smoothing:  # the kernel's smoothing knows no weights
            options["label_smoothing"] = 0.0
            rows, own = ops.cross_entropy(x, ids, **options)[0], own * x.dtype.type(1 - label_smoothing)
            spread, logs = counts * x.dtype.type(label_smoothing / x.shape[1]), ops.log_softmax(x)
        run_pass()
        rows = rows * own
        if spread is not None:
            smoothed = ops.linear(logs, classes[None])[:, 0]
            run_pass()
            rows -= spread * smoothed

    def backward(dloss: Array) -> tuple[Array]:
        d = dloss.reshape(-1)
        dx = ops.cross_entropy_backward(d if own is None else d * own, x, ids, lse, **options)
        if spread is not None:
            dx -= ops.log_softmax_backward((d * spread)[:, None] * classes, logs)
        return (dx,)

    return reduced("cross_entropy", (logits,), rows.reshape(shape), count, reduction, backward)


@named()
def mse_loss(input: Values, target: Values | ArrayLike, *, reduction: str = "mean") -> Any:
    """`(input - target)^2` of each element. `target` is an array or a Tensor of `input`'s shape; both have gradients.

    `reduction` is "mean", "sum" or "none" (`input`'s shape). Raises ValueError for another shape or `reduction`, and a
    "mean" of no elements.

    >>> from fastattn import Tensor
    >>> x = Tensor([1.0, 5.0], requires_grad=True)
    >>> loss = mse_loss(x, [0.0, 3.0])
    >>> loss.backward()
    >>> loss.item(), x.grad.tolist()
    (2.5, [1.0, 2.0])
    """
    x, t = values(operand("mse_loss: input", input), target)
    run_pass()
    if x.dtype.kind != "f":
        raise TypeError(f"mse_loss: input must be floating point, got {x.dtype}")
    difference = x - target_like("mse_loss", t, x)
    terms = difference * difference
    wanted = needs(input, target)

    def backward(dy: Array) -> tuple[Array | None, Array | None]:
        dx = 2 * difference * dy
        return dx, -dx if wanted[1] else None

    return reduced("mse_loss", (input, target), terms, terms.size, reduction, backward)


@named("log_softmax", x="input")
def binary_cross_entropy_with_logits(
    input: Values,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    reduction: str = "mean",
    pos_weight: ArrayLike | None = None,
) -> Any:
    """`-weight * (pos_weight * target * log s + (1 - target) * log(1 - s))` with `s = 1 / (1 + exp(-input))`.

    `target`, an array of `input`'s shape, holds probabilities. `weight` and `pos_weight`, arrays that broadcast to this
    shape, are 1 by default and get no gradient. `reduction` is "mean", "sum" or "none" (`input`'s shape). Raises
    ValueError for another shape or `reduction`, and a "mean" of no elements.

    >>> logits = np.log(np.array([3.0, 1.0], np.float32))  # s is 0.75 and 0.5
    >>> np.exp(-binary_cross_entropy_with_logits(logits, [1, 0], reduction="none")).round(4).tolist()
    [0.75, 0.5]
    """
    name = "binary_cross_entropy_with_logits"
    ops = mode.ops
    (x,) = values(operand(f"{name}: input", input))
    t = target_like(name, target, x)
    run_pass()
    pairs = np.stack([x, np.zeros_like(x)], axis=-1)  # log s and log(1 - s) are the log-softmax of (x, 0)
    logs = ops.log_softmax(pairs)
    run_pass()
    given = {"weight": weight, "pos_weight": pos_weight}
    factors = [like(f"{name}: {key}", 1 if value is None else value, x) for key, value in given.items()]
    for argument, factor in zip(given, factors, strict=True):
        if np.broadcast_shapes(factor.shape, x.shape) != x.shape:
            raise ValueError(f"{name}: {argument} must have a shape that broadcasts to {x.shape}, got {factor.shape}")
    scale, positive = factors
    terms = -scale * (positive * t * logs[..., 0] + (1 - t) * logs[..., 1])

    def backward(dy: Array) -> tuple[Array]:
        s = ops.softmax(pairs)
        if pos_weight is None:
            return (scale * (s[..., 0] - t) * dy,)
        return (scale * ((1 - t) * s[..., 0] - positive * t * s[..., 1]) * dy,)

    return reduced(name, (input,), terms, terms.size, reduction, backward)


@named("linear", "cross_entropy", "gather_rows", x="input")
def sampled_softmax_loss(
    input: Values,
    target: ArrayLike,
    weight: Values,
    bias: Values,
    num_sampled: int,
    *,
    reduction: str = "mean",
) -> Any:
    """`cross_entropy(input weight^T + bias, target)` estimated from the targets and `num_sampled` other classes.

    `input` is `[rows, dim]`, `target` holds integers `[rows]`, `weight` is `[classes, dim]` and `bias` `[classes]`.
    Only the rows of `weight` and `bias` for targets and drawn classes are read and get a gradient. Each call draws
    distinct classes, shared by all rows. A try draws class k with probability log((k + 2) / (k + 1)) / log(classes +
    1), so frequent words must have low indices. The logarithm of a class's expected number of draws is subtracted from
    its logits, and a drawn class does not count in rows where it is the target. This loss is for training: a model's
    perplexity needs the full softmax. `reduction` is "mean", "sum" or "none" (`[rows]`).

    Raises TypeError for a `target` that does not hold integers or a packed `weight`; ValueError for shapes that do not
    fit, a class outside [0, classes), a `num_sampled` outside [1, classes], another `reduction`, and a "mean" of no
    rows.

    Source: Jean et al. 2015 (arXiv 1412.2007), section 3; TensorFlow's `tf.nn.sampled_softmax_loss` with its
    log-uniform candidates.

    With as many draws as classes it comes close to the full softmax:

    >>> from fastattn import manual_seed
    >>> manual_seed(1)
    >>> weight, bias, target = np.eye(4, dtype=np.float32), np.zeros(4, np.float32), np.arange(4)
    >>> loss = sampled_softmax_loss(weight, target, weight, bias, num_sampled=4)
    >>> round(float(loss), 2), round(float(cross_entropy(weight, target)), 2)
    (0.75, 0.74)
    """
    ops = mode.ops
    operands = (input, weight, bias)
    x, w, b = values(*operands)
    ids = _check_sampled(x, target, w, b, num_sampled)
    classes = len(w)
    drawn, tries = _draw_classes(classes, num_sampled)
    # Column 0 of the logits is the target's. Until then it is a product with a row of zeros.
    rows, biases = np.zeros((num_sampled + 1, w.shape[1]), w.dtype), np.zeros(num_sampled + 1, w.dtype)
    ops.embedding(drawn, w, out=rows[1:])
    biases[1:] = b[drawn] - _log_expected(drawn, tries, classes)
    wanted = ops.embedding(ids, w)
    logits = ops.linear(x, rows, biases)
    logits[:, 0] = (x * wanted).sum(axis=1) + (b[ids] - _log_expected(ids, tries, classes))
    order = drawn.argsort()
    columns = order[np.minimum(drawn.searchsorted(ids, sorter=order), num_sampled - 1)]
    hits = (drawn[columns] == ids).nonzero()[0]
    logits[hits, 1 + columns[hits]] = np.finfo(logits.dtype).min
    first = np.zeros(len(ids), np.int64)
    terms, lse = ops.cross_entropy(logits, first)
    need_dx, need_dweight, need_dbias = needs(*operands)

    def backward(dloss: Array) -> tuple[Array | None, Array | None, Array | None]:
        d = ops.cross_entropy_backward(dloss, logits, first, lse, out=logits)
        own = d[:, :1]
        dx, drows, dbiases = ops.linear_backward(
            d, x, rows, need_dx=need_dx, need_dweight=need_dweight, need_dbias=need_dbias
        )
        dweight = dbias = None
        touched = np.concatenate([ids, drawn])
        if need_dx:
            dx += own * wanted
        if need_dweight:
            parts = np.concatenate([own * x, drows[1:]])
            dweight = ops.embedding_backward(parts, touched, classes, dweight=gradient(weight))
        if need_dbias:
            total = gradient(bias)
            dbias = np.zeros_like(b) if total is None else total
            np.add.at(dbias, touched, np.concatenate([own[:, 0], dbiases[1:]]))
        return dx, dweight, dbias

    return reduced("sampled_softmax_loss", operands, terms, len(terms), reduction, backward)


def _check_sampled(x: Array, target: ArrayLike, w: Array, b: Array, num_sampled: int) -> NDArray[np.int64]:
    """The target as int64, after all arguments are checked."""
    name = "sampled_softmax_loss"
    for argument, value in (("input", x), ("weight", w), ("bias", b)):
        operand(f"{name}: {argument}", value)
    if w.ndim != 2:
        raise ValueError(f"{name}: weight must have shape (classes, dim), got {w.shape}")
    classes, dim = w.shape
    if x.ndim != 2 or x.shape[1] != dim:
        raise ValueError(f"{name}: input must have shape (rows, {dim}), got {x.shape}")
    ids = integers(f"{name}: target", target, x.shape[:1])
    if np.shape(b) != (classes,):
        raise ValueError(f"{name}: bias must have shape {(classes,)}, got {np.shape(b)}")
    wanted = f"in [1, {classes}], the classes"
    integer(f"{name}: num_sampled", num_sampled, 1, classes + 1, wanted, error=ValueError)
    wrong = (ids < 0) | (ids >= classes)
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(f"{name}: target must be in [0, {classes}), got {ids[i]} at index {i}")
    return ids


def _draw_classes(classes: int, count: int) -> tuple[NDArray[np.int64], int]:
    """`count` distinct log-uniformly distributed classes in the order of the draws, and the number of tries."""
    generator = np.random.Generator(np.random.PCG64(next_seed()))
    tried = np.zeros(0, np.int64)
    while True:
        more = np.exp(generator.random(max(2 * count, len(tried))) * math.log(classes + 1)).astype(np.int64) - 1
        tried = np.concatenate([tried, np.minimum(more, classes - 1)])  # rounding may reach `classes`
        firsts = np.sort(np.unique(tried, return_index=True)[1])
        if len(firsts) >= count:
            return tried[firsts[:count]], int(firsts[count - 1]) + 1


def _log_expected(ids: NDArray[np.int64], tries: int, classes: int) -> NDArray[np.float64]:
    """The log of the expected count of each class in `tries` tries; a class counts at most once."""
    p = np.log1p(1 / (ids + 1.0)) / math.log(classes + 1)
    with np.errstate(divide="ignore"):  # a single class has p = 1
        expected: NDArray[np.float64] = np.log(-np.expm1(tries * np.log1p(-p)))
    return expected


def _last(x: Values) -> Any:
    """`x` with its second axis moved to the end."""
    (array,) = values(x)
    run_pass()
    y = np.ascontiguousarray(np.moveaxis(array, 1, -1))
    return record(y, (x,), lambda dy: (np.moveaxis(dy, -1, 1),))


def reduced(
    name: str,
    operands: Sequence[Any],
    terms: Array,
    count: float,
    reduction: str,
    backward: Callable[[Array], Sequence[Array | None]],
) -> Any:
    """The terms, their sum, or the sum over `count`. `backward` maps the terms' gradient to the operands' gradients."""
    choice(f"{name}: reduction", reduction, ("mean", "sum", "none"))
    if reduction == "none":
        return record(terms, operands, backward)
    divisor = count if reduction == "mean" else 1
    total, shape = _quotient(name, terms, divisor), terms.shape
    return record(total, operands, lambda dy: backward(np.full(shape, dy / divisor, dy.dtype)))


def mean_loss(terms: Array, target: NDArray[np.integer[Any]]) -> Array:
    """The mean of `cross_entropy`'s terms, which a pass may have computed since, over the targets that count."""
    return _quotient("cross_entropy", terms, int(np.count_nonzero(target != IGNORE_INDEX)))


def _quotient(name: str, terms: Array, divisor: float) -> Array:
    """The sum of the terms of loss `name` over `divisor`. Raises ValueError, as for a mean, if this is 0."""
    if divisor == 0:
        raise ValueError(f"{name}: target must have an entry that counts, for a mean, got none")
    run_pass()
    return np.asarray(terms.sum(dtype=np.float64) / divisor, terms.dtype)
