"""What the language models share: their output, and the losses of words of a large vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import functional as F
from fastattn._core import run_pass
from fastattn._types import IntArray
from fastattn.autograd import Tensor
from fastattn.functional.losses import mean_loss
from fastattn.models.outputs import as_tensor
from fastattn.nn.parameter import Array


@dataclass(frozen=True)
class LanguageModelOutput:
    """The output of a language model.

    Attributes:
        loss: what training lowers, a Tensor of one number.
        forward_loss: the mean of -log p(next word), a Tensor of one number; None if the model does not read forward.
        backward_loss: the mean of -log p(previous word); None if the model does not read backward.
        state: the last states of each layer, `(h, c)` of the shape `[directions, batch, size]`, as the next call takes
            them: arrays, without gradients.
    """

    loss: Tensor
    forward_loss: Tensor | None
    backward_loss: Tensor | None
    state: list[tuple[NDArray[Any], NDArray[Any]]]


LOGITS = 1 << 26
"""The most scores that a frozen language model keeps at once, 256 MB: a line may be a whole book."""


def room_for_logits(tokens: int, words: int) -> Array:
    """An array for the scores of as many tokens as `LOGITS` has room for."""
    return np.empty((min(tokens, max(1, LOGITS // words)), words), np.float32)


def token_losses(score: Callable[..., Any], x: Array, target: IntArray, logits: Array) -> list[Array]:
    """The cross entropies of tokens, in parts of as many as `logits` has rows; `score(part, out=logits)` fills it."""
    rows = max(1, len(logits))
    parts = [slice(i, i + rows) for i in range(0, max(1, len(x)), rows)]
    scored = ((score(x[part], out=logits[: len(x[part])]), target[part]) for part in parts)
    return [F.cross_entropy(scores, wanted, reduction="none") for scores, wanted in scored]


def mean_of_losses(parts: list[Array], target: IntArray) -> Tensor:
    """The mean of `token_losses`, which a pass may have computed since."""
    run_pass()
    return as_tensor(mean_loss(parts[0] if len(parts) == 1 else np.concatenate(parts), target))
