"""Reference of `sgd`: one step of stochastic gradient descent with momentum."""

from __future__ import annotations

from fastattn._types import Floats

from ._blocks import flat_blocks


def sgd(
    param: Floats,
    grad: Floats,
    momentum_buffer: Floats | None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    first: bool = False,
) -> None:
    """One step of gradient descent with momentum, in place. See `fastattn.kernels.sgd`.

    >>> param, buffer = np.array([1.0, 2.0]), np.zeros(2)
    >>> sgd(param, np.array([1.0, -1.0]), buffer, lr=0.5, momentum=0.9, first=True)
    >>> sgd(param, np.array([1.0, -1.0]), buffer, lr=0.5, momentum=0.9)
    >>> param.round(6).tolist(), buffer.round(6).tolist()
    ([-0.45, 3.45], [1.9, -1.9])
    """
    if momentum and momentum_buffer is None:
        raise ValueError(f"sgd: momentum_buffer must be given with momentum {momentum}")
    lr, momentum, dampening, decay = map(float, (lr, momentum, dampening, weight_decay))  # NumPy's would widen float32
    for p, g, *buffers in flat_blocks(param, grad, *((momentum_buffer,) if momentum_buffer is not None else ())):
        if decay:
            g = g + decay * p
        if momentum:
            (buffer,) = buffers
            if first:
                buffer[...] = g
            else:
                buffer *= momentum
                buffer += (1 - dampening) * g
            g = g + momentum * buffer if nesterov else buffer
        p -= lr * g
