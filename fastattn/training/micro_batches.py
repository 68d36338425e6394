"""The gradient of a step: an ordered sum of the gradients of its micro-batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fastattn.autograd import Tensor


class NonFiniteLossError(ValueError):
    """The loss, the norm of the gradients, or a weight is NaN or infinite; the message names the last good state."""


def add_gradients(loss: Any, parameters: Sequence[Any], count: int = 1) -> float:
    """Add the gradients of a micro-batch, one of `count`, to those that the parameters have.

    They are computed apart from the earlier ones: a weight that is used twice, or whose gradient is a sum over blocks,
    would otherwise get another rounding. So a sum has the same bits wherever its parts are computed.

    Returns the loss divided by `count`. Raises ValueError for None, TypeError for anything but a Tensor of one number,
    and NonFiniteLossError.

    >>> import numpy as np
    >>> weight = Tensor(np.float32([1.0]), requires_grad=True)
    >>> for factor in (2.0, 3.0):
    ...     share = add_gradients((weight * factor).sum(), [weight], count=2)
    >>> share, weight.grad.tolist()
    (1.5, [2.5])
    """
    if loss is None:
        raise ValueError("Trainer: the model gave no loss; do the batches have labels?")
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"shape {loss.shape}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TypeError(f"Trainer: the loss must be a Tensor of one number, got {got}")
    share = loss if count == 1 else loss / count
    value = float(share.item())
    if not math.isfinite(value):
        raise NonFiniteLossError(f"the loss is {value}")
    before = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    share.backward()
    for parameter, earlier in zip(parameters, before, strict=True):
        if earlier is None:
            continue
        gradient = parameter.grad
        if gradient is None:
            parameter.grad = earlier
        else:
            gradient += earlier
    return value
