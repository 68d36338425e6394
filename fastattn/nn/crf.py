"""A linear-chain conditional random field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import autograd
from fastattn import functional as F
from fastattn.autograd import values
from fastattn.checks import integer, operand
from fastattn.errors import named
from fastattn.functional.crf import bool_masks, forbid
from fastattn.nn import init
from fastattn.nn.module import Module, Values
from fastattn.nn.parameter import Array, Parameter
from fastattn.ragged import int32_offsets


class CRF(Module):
    """A linear-chain conditional random field over `num_tags` tags: the log-likelihood of tags, and the best ones.

    Parameters have pytorch-crf's names: `transitions` `[num_tags, num_tags]`, from the tag of the row to the tag of the
    column, `start_transitions` and `end_transitions` `[num_tags]`. New ones are uniform within +-0.1. `constraints`, as
    for `fastattn.functional.crf`, forbid some steps whatever their parameters are. Raises ValueError for a `num_tags`
    less than 1 and masks of another shape, TypeError for masks that are not bool.

    Source: Lample et al. 2016 (arXiv 1603.01360), section 2.2.
    """

    def __init__(self, num_tags: int, constraints: Sequence[ArrayLike] | None = None) -> None:
        num_tags = integer("CRF: num_tags", num_tags)
        self.num_tags = num_tags
        self.transitions = Parameter((num_tags, num_tags), init.uniform(0.1))
        self.start_transitions = Parameter((num_tags,), init.uniform(0.1))
        self.end_transitions = Parameter((num_tags,), init.uniform(0.1))
        self.constraints = None
        if constraints is not None:
            scores = (self.transitions, self.start_transitions, self.end_transitions)
            self.constraints = [mask.copy() for mask in bool_masks("CRF", scores, constraints)]

    def forward(self, emissions: Values, tags: ArrayLike, cu_seqlens: ArrayLike, reduction: str = "sum") -> Any:
        """The log-likelihood of `tags`, as `fastattn.functional.crf` has it; its negative is the loss.

        >>> layer = CRF(3)
        >>> layer(np.zeros((4, 3), np.float32), [0, 2, 1, 1], [0, 1, 4], reduction="none").shape
        (2,)
        """
        scores = (self.transitions, self.start_transitions, self.end_transitions)
        return F.crf(emissions, tags, cu_seqlens, *scores, constraints=self.constraints, reduction=reduction)

    @named("crf_viterbi")
    def decode(self, emissions: Values, cu_seqlens: ArrayLike, n: int = 1) -> tuple[NDArray[np.int64], Array]:
        """The `n` best tag sequences and their scores, int64 `[n, tokens]` and `[batch, n]`, the best first.

        They are arrays. `fastattn.kernels.crf_viterbi` says what equal scores and too few sequences give.

        >>> layer = CRF(2)
        >>> tags, scores = layer.decode(np.array([[9, 0], [0, 9], [9, 0]], np.float32), [0, 3])
        >>> tags.tolist(), scores.shape
        ([[0, 1, 0]], (1, 1))
        """
        x, offsets, *scores = self._arrays_of("decode", emissions, cu_seqlens)
        found: tuple[NDArray[np.int64], Array] = autograd.mode.ops.crf_viterbi(x, offsets, *scores, n)
        return found

    @named("crf_viterbi")
    def marginals(self, emissions: Values, cu_seqlens: ArrayLike) -> Array:
        """The probability of each tag at each token, over all tag sequences: an array `[tokens, num_tags]`.

        It is the gradient of the log of the sum over all sequences. Raises ValueError if the constraints allow none.

        >>> layer = CRF(2)
        >>> layer.marginals(np.array([[9, 0], [0, 9], [9, 0]], np.float32), [0, 3]).argmax(axis=1).tolist()
        [0, 1, 0]
        """
        x, offsets, *scores = self._arrays_of("marginals", emissions, cu_seqlens)
        ops = autograd.mode.ops
        tags = ops.crf_viterbi(x, offsets, *scores, 1)[0][0]
        if len(tags) and tags.min() < 0:
            raise ValueError("marginals: constraints must allow a sequence of this length")
        given = (x, tags, offsets, *scores)
        log_likelihood, alpha = ops.crf(*given)
        found = -ops.crf_backward(np.ones_like(log_likelihood), *given, log_likelihood, alpha)[0]
        found[np.arange(len(tags)), tags] += 1
        return np.asarray(found.clip(0, 1))

    def _arrays_of(self, name: str, emissions: Values, cu_seqlens: ArrayLike) -> tuple[Any, ...]:
        """Emissions, offsets and the scores of steps, as the kernels take them."""
        parameters = (self.transitions, self.start_transitions, self.end_transitions)
        x, *scores = values(operand(f"{name}: emissions", emissions), *parameters)
        scores = forbid(scores, bool_masks(name, scores, self.constraints))
        return x, int32_offsets(cu_seqlens, f"{name}: cu_seqlens"), *scores

    def extra_repr(self) -> str:
        return f"num_tags={self.num_tags}, constraints={self.constraints is not None}"
