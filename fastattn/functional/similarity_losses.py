"""Losses of similarities, which train encoders of sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastattn.autograd import mode, needs, record, values
from fastattn.checks import POSITIVE, integers, number, operand
from fastattn.errors import named
from fastattn.functional._common import Array, Values, along, target_like
from fastattn.functional.elementwise import normalize
from fastattn.functional.layers import linear
from fastattn.functional.losses import cross_entropy

NEVER = -1e30
"""The logit of a candidate that does not count, finite so that its gradient is 0."""


@named("normalize", input="x1")
def cosine_similarity(x1: Values, x2: Values, dim: int = 1, eps: float = 1e-8) -> Any:
    """The cosine of the angle between `x1` and `x2` `[..., D, ...]` along axis `dim`, `[..., ...]`, as in PyTorch.

    Both have one shape, and gradients. A length below `eps` counts as `eps`. Raises ValueError for other shapes.

    >>> cosine_similarity(np.array([[3.0, 4.0]], np.float32), np.array([[6.0, 8.0]], np.float32)).round(4).tolist()
    [1.0]
    """
    arrays = values(*(operand(f"cosine_similarity: {name}", x) for name, x in (("x1", x1), ("x2", x2))))
    if arrays[0].shape != arrays[1].shape:
        shapes = " and ".join(str(x.shape) for x in arrays)
        raise ValueError(f"cosine_similarity: x1 and x2 must have one shape, got {shapes}")
    ops = mode.ops
    units = [normalize(x, dim=dim, eps=eps) for x in arrays]
    wanted = needs(x1, x2)

    def backward(dy: Array) -> list[Array | None]:
        dunits = [np.expand_dims(dy, dim) * unit for unit in units[::-1]]
        return [
            along("normalize", lambda d, x, out=None: ops.l2_normalize_backward(d, x, eps), dim, None, d, x)
            if need
            else None
            for d, x, need in zip(dunits, arrays, wanted, strict=True)
        ]

    return record((units[0] * units[1]).sum(axis=dim), (x1, x2), backward)


@named("linear", "cross_entropy", x="input")
def multiple_negatives_ranking_loss(
    input: Values, candidates: Values, scale: float = 20.0, *, ids: ArrayLike | None = None
) -> Any:
    """The mean of `-log_softmax(scale * cos(input[i], candidates))[i]`: candidate i is the one that belongs to row i.

    `input` is `[rows, dim]` and `candidates` `[rows or more, dim]`: first the positives, then any hard negatives. Every
    row is compared with all of them. `ids`, integers `[candidates]`, tell which candidates are the same text: those
    with the id of a row's positive are no negatives of this row.

    Raises ValueError for shapes that do not fit and a `scale` that is not above 0, TypeError for `ids` that are not
    integers.

    Source: Henderson et al. 2017 (arXiv 1705.00652), section 4; `MultipleNegativesRankingLoss` of
    sentence-transformers.

    >>> pairs = np.eye(2, dtype=np.float32)
    >>> round(float(multiple_negatives_ranking_loss(pairs, pairs, scale=1.0)), 4)
    0.3133
    """
    name = "multiple_negatives_ranking_loss"
    scale = number(f"{name}: scale", scale, **POSITIVE)
    a, c = (operand(f"{name}: {key}", x) for key, x in (("input", input), ("candidates", candidates)))
    rows = a.shape[0] if a.shape else 0
    if len(a.shape) != 2 or len(c.shape) != 2 or a.shape[1] != c.shape[1] or c.shape[0] < rows:
        raise ValueError(
            f"{name}: input must have shape (rows, dim) and candidates (rows or more, dim), got {a.shape} and {c.shape}"
        )
    logits = linear(normalize(a), normalize(c)) * scale
    if ids is not None:
        texts = integers(f"{name}: ids", ids, (c.shape[0],))
        same = texts[:rows, None] == texts
        np.fill_diagonal(same, False)
        if same.any():
            logits = logits + np.where(same, NEVER, 0).astype(logits.dtype)
    return cross_entropy(logits, np.arange(rows))


@named()
def cosent_loss(input: Values, target: ArrayLike, scale: float = 20.0) -> Any:
    """`log(1 + sum(exp(scale * (input[j] - input[i]))))` over all i and j with `target[i] > target[j]`.

    `input` `[n]` are similarities, and `target` an array of as many numbers, of which only the order counts. Sums are
    in float64, and take O(n log n) steps. Raises ValueError for other shapes and a `scale` that is not above 0.

    Source: Huang et al. 2024, CoSENT; `CoSENTLoss` of sentence-transformers.

    >>> round(float(cosent_loss(np.array([0.5, 0.5], np.float32), [1, 0])), 4)
    0.6931
    """
    scale = number("cosent_loss: scale", scale, **POSITIVE)
    (x,) = values(operand("cosent_loss: input", input))
    if x.ndim != 1 or x.dtype.kind != "f":
        raise ValueError(f"cosent_loss: input must be floating point of shape (n,), got {x.dtype} of shape {x.shape}")
    wanted = target_like("cosent_loss", target, x)
    order = wanted.argsort(kind="stable")
    labels, s = wanted[order], scale * x[order].astype(np.float64)
    below, above = labels.searchsorted(labels, "left"), labels.searchsorted(labels, "right")
    # log of the sum of exp(-s) from each place to the end, and of exp(s) up to each place
    rest = np.append(np.logaddexp.accumulate(-s[::-1])[::-1], -np.inf)
    before = np.append(-np.inf, np.logaddexp.accumulate(s))
    terms = s + rest[above]
    loss = np.logaddexp.reduce(terms, initial=0.0)

    def backward(dloss: Array) -> tuple[Array]:
        dx = np.empty_like(x)
        dx[order] = scale * dloss * (np.exp(terms - loss) - np.exp(before[below] - s - loss))
        return (dx,)

    return record(np.asarray(loss, x.dtype), (input,), backward)
