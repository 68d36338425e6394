"""The gradient of a step: an ordered sum of the gradients of its micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastattn.autograd import Tensor


def checked_loss(loss: Any) -> Tensor:
    """A loss that a Trainer can use. Raises ValueError for None, TypeError for anything but a Tensor of one number."""
    if loss is None:
        raise ValueError("Trainer: the model gave no loss; do the batches have labels?")
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"shape {loss.shape}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TypeError(f"Trainer: the loss must be a Tensor of one number, got {got}")
    return loss


def add_gradients(loss: Tensor, parameters: Sequence[Any]) -> None:
    """Compute the gradients of a micro-batch, and add them to those that the parameters have.

    They are computed apart from the earlier ones: a weight that is used twice, or whose gradient is a sum over blocks,
    would otherwise get another rounding. So a sum has the same bits wherever its parts are computed.

    >>> import numpy as np
    >>> weight = Tensor(np.float32([1.0]), requires_grad=True)
    >>> for factor in (2.0, 3.0):
    ...     add_gradients((weight * factor).sum(), [weight])
    >>> weight.grad.tolist()
    [5.0]
    """
    before = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    loss.backward()
    for parameter, earlier in zip(parameters, before, strict=True):
        if earlier is None:
            continue
        gradient = parameter.grad
        if gradient is None:
            parameter.grad = earlier
        else:
            gradient += earlier
