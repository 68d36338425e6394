"""One step of stochastic gradient descent."""

from __future__ import annotations

from fastattn import _core
from fastattn._types import FloatArray


def sgd(
    param: FloatArray,
    grad: FloatArray,
    momentum_buffer: FloatArray | None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    first: bool = False,
) -> None:
    """One step, in place, in one pass over the arrays.

    param, grad and momentum_buffer are float32, contiguous, of one shape, and must not overlap. param and
    momentum_buffer are written. With g = grad + weight_decay * param,

        momentum_buffer = momentum * momentum_buffer + (1 - dampening) * g, or g in the `first` step
        param -= lr * (g + momentum * momentum_buffer if nesterov else momentum_buffer)

    Without `momentum` the step is lr * g, and momentum_buffer is not used and may be None.

    Raises TypeError for another dtype, ValueError for shapes that differ, arrays that are not contiguous, cannot be
    written or overlap, a negative number, or a momentum without a momentum_buffer.

    Source: Sutskever, Martens, Dahl and Hinton 2013 (ICML), equations 1 to 4, with lr outside the buffer as in
    `torch.optim.SGD`.

    >>> import numpy as np
    >>> param, buffer = np.zeros(1, np.float32), np.zeros(1, np.float32)
    >>> for step in range(2):
    ...     sgd(param, np.ones(1, np.float32), buffer, lr=0.5, momentum=0.5, first=step == 0)
    >>> param.tolist(), buffer.tolist()
    ([-1.25], [1.5])
    """
    _core.sgd(param, grad, momentum_buffer, lr, momentum, dampening, weight_decay, nesterov, first)
