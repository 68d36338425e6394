"""The loss of a classifier, row by row."""

from __future__ import annotations

from fastattn import _core
from fastattn._types import DoubleArray, FloatArray, IntArray


def cross_entropy(
    logits: FloatArray, target: IntArray, *, ignore_index: int = -100, label_smoothing: float = 0.0
) -> tuple[FloatArray, DoubleArray]:
    """-log softmax(logits)[target] of every row.

    logits `[rows, classes]`, float32, with evenly spaced rows; target int64 `[rows]`: classes, or `ignore_index`. With
    `label_smoothing` e in [0, 1] the loss is (1 - e) times the target's loss plus e times the mean loss of all classes.

    Returns `(loss, lse)`, both `[rows]`. lse is the logarithm of the sum of the exponentials, for
    `cross_entropy_backward`. It is float64, since the logits of a row may share an offset that uses up the digits of a
    float32. Both are 0 in rows whose target is `ignore_index`.

    Raises TypeError for another dtype, ValueError for another target outside [0, classes), shapes that do not match, a
    strided last axis or a `label_smoothing` outside [0, 1].

    Source: Goodfellow, Bengio and Courville 2016, section 6.2.2.3; label smoothing: Szegedy et al. 2016
    (arXiv 1512.00567), section 7; one pass over the logits: Milakov and Gimelshein 2018 (arXiv 1805.02867).

    >>> import numpy as np
    >>> logits = np.log(np.array([[1, 3], [1, 1]], np.float32))
    >>> loss, lse = cross_entropy(logits, np.array([1, -100]))
    >>> [round(float(value), 4) for value in loss]
    [0.2877, 0.0]
    """
    return _core.cross_entropy(logits, target, ignore_index, label_smoothing)


def cross_entropy_backward(
    dloss: FloatArray,
    logits: FloatArray,
    target: IntArray,
    lse: DoubleArray,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    out: FloatArray | None = None,
) -> FloatArray:
    """The gradient of `cross_entropy` with respect to logits: dloss (softmax(logits) - the smoothed target).

    logits are `[rows, classes]`, float32, with evenly spaced rows. dloss `[rows]` is the gradient of the loss. target
    (int64 `[rows]`), `ignore_index` and `label_smoothing` are as in the forward call, which returned lse, float64
    `[rows]`. `out` may be logits.

    Returns `[rows, classes]`, 0 in rows whose target is `ignore_index`.

    Raises TypeError for another dtype, ValueError for another target outside [0, classes), shapes that do not match, a
    strided last axis, a `label_smoothing` outside [0, 1] or an `out` that cannot be written or overlaps an input
    otherwise.

    Source: Bridle 1990 (Neurocomputing, F 68), "Probabilistic interpretation of feedforward classification network
    outputs", section 3; label smoothing: Szegedy et al. 2016 (arXiv 1512.00567), section 7.

    >>> import numpy as np
    >>> logits, target = np.zeros((1, 2), np.float32), np.array([0])
    >>> loss, lse = cross_entropy(logits, target)
    >>> cross_entropy_backward(np.ones(1, np.float32), logits, target, lse).round(6).tolist()
    [[-0.5, 0.5]]
    """
    return _core.cross_entropy_backward(dloss, logits, target, lse, ignore_index, label_smoothing, out)
