"""One step of AdamW, or of Adam."""

from __future__ import annotations

from fastattn import _core
from fastattn._types import FloatArray


def adamw(
    param: FloatArray,
    grad: FloatArray,
    exp_avg: FloatArray,
    exp_avg_sq: FloatArray,
    *,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    decoupled: bool = True,
) -> None:
    """One step, in place, in one pass over the arrays.

    param, grad, exp_avg and exp_avg_sq are float32, contiguous, of one shape, and must not overlap. All except grad are
    written. exp_avg and exp_avg_sq start as zeros. They are running means of grad and of grad squared, with the factors
    `beta1` and `beta2` in [0, 1). `step` counts from 1. With the means divided by 1 - beta^step,

        param -= lr * weight_decay * param + lr * exp_avg / (sqrt(exp_avg_sq) + eps)

    If `decoupled` is False (Adam), weight_decay * param is added to the gradient instead.

    Raises TypeError for another dtype, ValueError for shapes that differ, arrays that are not contiguous, cannot be
    written or overlap, a step below 1, a beta outside [0, 1), or a negative lr, eps or weight_decay.

    Source: Loshchilov and Hutter 2019 (arXiv 1711.05101), algorithm 2; Kingma and Ba 2015 (arXiv 1412.6980),
    algorithm 1.

    >>> import numpy as np
    >>> param, exp_avg, exp_avg_sq = np.ones(2, np.float32), np.zeros(2, np.float32), np.zeros(2, np.float32)
    >>> adamw(param, np.array([0.5, -2.0], np.float32), exp_avg, exp_avg_sq, step=1, lr=0.5, weight_decay=0.0)
    >>> param.round(4).tolist()
    [0.5, 1.5]
    """
    _core.adamw(param, grad, exp_avg, exp_avg_sq, step, lr, beta1, beta2, eps, weight_decay, decoupled)
