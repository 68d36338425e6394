"""Reference of `adamw`: one step of AdamW, or of Adam."""

from __future__ import annotations

import math

import numpy as np

from fastattn._types import Floats

from ._blocks import flat_blocks


def adamw(
    param: Floats,
    grad: Floats,
    exp_avg: Floats,
    exp_avg_sq: Floats,
    *,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    decoupled: bool = True,
) -> None:
    """One step of AdamW, or of Adam with an L2 penalty, in place and in the order of PyTorch's operations.

    See `fastattn.kernels.adamw`.

    >>> param, exp_avg, exp_avg_sq = np.array([1.0, 1.0]), np.zeros(2), np.zeros(2)
    >>> adamw(param, np.array([0.5, -2.0]), exp_avg, exp_avg_sq, step=1, lr=0.1, weight_decay=0.0)
    >>> param.round(6).tolist(), exp_avg.round(6).tolist()
    ([0.9, 1.1], [0.05, -0.2])
    """
    if step < 1:
        raise ValueError(f"adamw: step must be at least 1, got {step}")
    lr, beta1, beta2, eps, decay = map(float, (lr, beta1, beta2, eps, weight_decay))  # NumPy's would widen float32
    step_size = lr / (1 - beta1**step)
    root = math.sqrt(1 - beta2**step)
    for p, g, m, v in flat_blocks(param, grad, exp_avg, exp_avg_sq):
        if decay and decoupled:
            p *= 1 - lr * decay
        elif decay:
            g = g + decay * p
        change = g - m
        change *= 1 - beta1
        m += change
        np.multiply(g, g, out=change)
        change *= 1 - beta2
        v *= beta2
        v += change
        np.sqrt(v, out=change)
        change /= root
        change += eps
        np.divide(m, change, out=change)
        change *= step_size
        p -= change
