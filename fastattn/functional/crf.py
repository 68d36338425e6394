"""The log-likelihood of tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastattn._core import run_pass
from fastattn.autograd import mode, values
from fastattn.checks import choice, integers, operand, sequence
from fastattn.errors import named
from fastattn.functional._common import Array, Values
from fastattn.functional.losses import reduced
from fastattn.ragged import int32_offsets

SCORES = ("transitions", "start_transitions", "end_transitions")


@named(target="tags")
def crf(
    emissions: Values,
    tags: ArrayLike,
    cu_seqlens: ArrayLike,
    transitions: Values,
    start_transitions: Values,
    end_transitions: Values,
    *,
    constraints: Sequence[ArrayLike] | None = None,
    reduction: str = "sum",
) -> Any:
    """The log-likelihood of `tags` under a linear-chain conditional random field, which training makes larger.

    `emissions` `[tokens, num_tags]` are the scores of a network and `tags` integers `[tokens]`; sequence i is the rows
    from `cu_seqlens[i]` to `cu_seqlens[i + 1]`, integers `[batch + 1]`. `transitions` `[num_tags, num_tags]` has the
    score of each step, from the tag of the row to the tag of the column; `start_transitions` and `end_transitions`
    `[num_tags]` have those of the first and the last tag. All four scores have gradients; the names are pytorch-crf's.
    `constraints` are three masks of the shapes of the last three, True where allowed: what they forbid has the
    probability and the gradient 0, whatever its score. `fastattn.text.crf_constraints` makes them.

    `reduction` is "sum", "mean" (of the sequences), "token_mean" or "none" (`[batch]`). An empty sequence has 0.

    Raises TypeError if `tags` does not hold integers or a mask is not bool; ValueError for `tags` that the constraints
    forbid, a tag outside [0, num_tags), shapes that do not match, another `reduction`, and a mean of nothing.

    >>> emissions, zeros = np.log(np.array([[1, 3], [1, 1]], np.float32)), np.zeros(2, np.float32)
    >>> scores = (np.zeros((2, 2), np.float32), zeros, zeros)
    >>> round(float(np.exp(crf(emissions, [1, 1], [0, 2], *scores))), 4)  # 3 of 1 + 1 + 3 + 3
    0.375
    >>> allowed = ([[True, False], [True, True]], [True, True], [True, True])  # 1 must not follow 0
    >>> round(float(np.exp(crf(emissions, [1, 1], [0, 2], *scores, constraints=allowed))), 4)  # 3 of 1 + 3 + 3
    0.4286
    """
    choice("crf: reduction", reduction, ("sum", "mean", "token_mean", "none"))
    operands = (emissions, transitions, start_transitions, end_transitions)
    x, *scores = values(*map(operand, (f"crf: {name}" for name in ("emissions", *SCORES)), operands))
    ids, offsets = integers("crf: tags", tags), int32_offsets(cu_seqlens, "crf: cu_seqlens")
    masks = bool_masks("crf", scores, constraints)
    scores = forbid(scores, masks)
    ops = mode.ops
    terms, alpha = ops.crf(x, ids, offsets, *scores)
    if masks:
        _check_allowed(ids, offsets, *masks)
    given = (x, ids, offsets, *scores, terms, alpha)
    return reduced(
        "crf",
        operands,
        terms,
        len(x) if reduction == "token_mean" else len(terms),
        reduction.removeprefix("token_"),
        lambda dy: ops.crf_backward(dy, *given),
    )


def bool_masks(name: str, scores: Sequence[Any], constraints: Sequence[ArrayLike] | None) -> list[Array]:
    """The constraints as arrays of the shapes of these scores, those of `SCORES`; an empty list for None."""
    if constraints is None:
        return []
    given = list(sequence(f"{name}: constraints", constraints, "masks"))
    if len(given) != 3:
        raise ValueError(f"{name}: constraints must be three masks, of {', '.join(SCORES)}, got {len(given)}")
    masks = []
    for i, (rows, score) in enumerate(zip(given, scores, strict=True)):
        wanted = f"the shape of {SCORES[i]}, {score.shape}"
        try:
            mask = np.asarray(rows)
        except ValueError:  # NumPy's message says neither what nor where
            raise ValueError(f"{name}: constraints[{i}] must have {wanted}, got rows of different lengths") from None
        if mask.dtype != np.bool_:
            raise TypeError(f"{name}: constraints[{i}] must be bool, got {mask.dtype}")
        if mask.shape != score.shape:
            raise ValueError(f"{name}: constraints[{i}] must have {wanted}, got {mask.shape}")
        masks.append(mask)
    return masks


def forbid(scores: Sequence[Array], masks: Sequence[Array]) -> list[Array]:
    """The scores, -inf where a mask is False."""
    if not masks:
        return [*scores]
    run_pass()
    return [np.where(mask, score, score.dtype.type(-np.inf)) for mask, score in zip(masks, scores, strict=True)]


def _check_allowed(tags: Array, cu_seqlens: Array, steps: Array, first: Array, last: Array) -> None:
    """Raises ValueError for the first tag that the masks forbid where it is."""
    filled = cu_seqlens[1:] > cu_seqlens[:-1]
    begins, ends = cu_seqlens[:-1][filled], cu_seqlens[1:][filled] - 1
    into = np.ones(len(tags), bool)
    into[1:] = steps[tags[:-1], tags[1:]]
    into[begins] = first[tags[begins]]
    allowed = into.copy()
    allowed[ends] &= last[tags[ends]]
    if not allowed.all():
        i = int(allowed.argmin())
        where = f"after {tags[i - 1]}"
        if into[i] or i in begins:
            where = f"at the {'end' if into[i] else 'start'} of a sequence"
        raise ValueError(f"crf: tags must follow the constraints, got {tags[i]} {where}, at index {i}")
