"""Gated recurrent units over ragged sequences: a whole layer in one call, and a single step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastattn import _core
from fastattn._core import PackedMatrix, RecurrentReserve
from fastattn._types import FloatArray
from fastattn.errors import named

__all__ = ["gru", "gru_backward", "gru_cell"]

Weight = FloatArray | PackedMatrix


def gru(
    x: FloatArray | Sequence[FloatArray],
    cu_seqlens: npt.NDArray[np.int32],
    weights: Sequence[Any],
    h0: FloatArray | None = None,
    *,
    reverse: Sequence[bool] = (False, True),
    return_reserve: bool = False,
    recompute: bool = False,
) -> Any:
    """One layer over every sequence of a ragged batch, in one or two directions.

    x is `[tokens, I]` for all directions, or a tuple or list of one such array per direction. cu_seqlens, int32
    `[batch + 1]`, says where each sequence begins. For each of D = 1 or 2 directions, weights has a tuple (weight_ih
    `[3H, I]`, weight_hh `[3H, H]`, bias_ih `[3H]` or None, bias_hh `[3H]` or None). A weight that is used more than
    once may be a `PackedMatrix`, weight_hh with `groups=3`. h0 `[D, batch, H]` is the state before the first step, None
    for zeros. Floats are float32. A direction whose flag in `reverse` is True reads each sequence from its end. A step
    computes

    r, z = sigmoid of the first two thirds of x W_ih^T + bias_ih + h W_hh^T + bias_hh;
    n = tanh(x W_in^T + b_in + r (h W_hn^T + b_hn)) with the last thirds; h = (1 - z) n + z h.

    Returns (out `[tokens, D * H]`, h_n `[D, batch, H]`): h of every step and after the last one, which is h0 for a
    sequence without tokens. `return_reserve` adds a third item, which only `gru_backward` can read. With `recompute` it
    omits the gates, `[tokens, 4H]`, and the backward pass computes them again.

    The bits of a sequence's result do not depend on the other sequences. A sequence may be passed in parts, each with
    the final state of the previous part as h0, with the same bits. NaN stays in its sequence.

    Raises TypeError for another dtype, ValueError for shapes that do not match, a strided last axis, a `cu_seqlens`
    that does not start at 0, rise and end at the number of tokens, or a `PackedMatrix` with other groups.

    Source: Cho et al. 2014 (arXiv 1406.1078), with the reset gate after the product as in PyTorch and cuDNN.

    >>> import numpy as np
    >>> x, cu_seqlens = np.ones((3, 1), np.float32), np.array([0, 1, 3], np.int32)
    >>> weights = [(np.ones((3, 1), np.float32), np.zeros((3, 1), np.float32), None, None)]
    >>> out, h_n = gru(x, cu_seqlens, weights)
    >>> out.round(3).ravel().tolist(), h_n.round(3).ravel().tolist()
    ([0.20499999821186066, 0.20499999821186066, 0.35499998927116394], [0.20499999821186066, 0.35499998927116394])
    """
    return _core.gru(x, cu_seqlens, weights, h0, reverse, return_reserve, recompute)


def gru_backward(
    dout: FloatArray | None,
    dh_n: FloatArray | None,
    x: FloatArray | Sequence[FloatArray],
    cu_seqlens: npt.NDArray[np.int32],
    weights: Sequence[Any],
    reserve: RecurrentReserve,
    h0: FloatArray | None = None,
    *,
    reverse: Sequence[bool] = (False, True),
    need_dx: bool = True,
    need_dweights: bool = True,
    dweights: Sequence[Any] | None = None,
) -> tuple[Any, Any, FloatArray]:
    """The gradients of `gru`, from the gradients of its two results.

    dout `[tokens, D * H]` and dh_n `[D, batch, H]` are float32 or None for zeros. x, cu_seqlens, weights, h0 and
    reverse are the arguments of `gru`, and `reserve` is what it returned.

    Returns (dx, dweights, dh0). dx is an array or a tuple of arrays, like x. dweights has a tuple (dweight_ih,
    dweight_hh, dbias_ih, dbias_hh) for each direction, with None for a `PackedMatrix` and for a missing bias. dx is
    None if `need_dx` is False, and dweights is None if `need_dweights` is False. Gradients are added to the arrays in
    the argument `dweights`, which has the same structure; None there makes a new array. The bits do not depend on the
    number of threads.

    Raises the errors of `gru`, TypeError if `reserve` is not a reserve, and ValueError if it comes from another call: a
    call of `lstm`, a call with other sizes, `reverse` or `cu_seqlens`, or one with h0 where this call has none.

    Source: Werbos 1990 (Proceedings of the IEEE 78), back-propagation through time.

    >>> import numpy as np
    >>> x, cu_seqlens = np.ones((3, 1), np.float32), np.array([0, 1, 3], np.int32)
    >>> weights = [(np.ones((3, 1), np.float32), np.zeros((3, 1), np.float32), None, None)]
    >>> out, h_n, reserve = gru(x, cu_seqlens, weights, return_reserve=True)
    >>> dx, dweights, dh0 = gru_backward(np.ones_like(out), None, x, cu_seqlens, weights, reserve)
    >>> dx.round(3).ravel().tolist()
    [-0.03700000047683716, -0.06400000303983688, 0.003000000026077032]
    """
    return _core.gru_backward(
        dout, dh_n, x, cu_seqlens, weights, reserve, h0, reverse, need_dx, need_dweights, dweights
    )


@named("gru", h0="h[None]")
def gru_cell(
    x: FloatArray,
    h: FloatArray,
    weight_ih: Weight,
    weight_hh: Weight,
    bias_ih: FloatArray | None = None,
    bias_hh: FloatArray | None = None,
) -> FloatArray:
    """A single step of `gru` for each row: the new h.

    x is `[batch, I]` and h `[batch, H]`. weight_ih, weight_hh, bias_ih, bias_hh and errors are as in `gru`. Returns h
    `[batch, H]` with the bits of a step of `gru`.

    Source: as `gru`.

    >>> import numpy as np
    >>> one = np.ones((1, 1), np.float32)
    >>> gru_cell(one, one, np.zeros((3, 1), np.float32), np.zeros((3, 1), np.float32)).item()
    0.5
    """
    each_alone = np.arange(len(x) + 1, dtype=np.int32)
    _, h_n = gru(x, each_alone, [(weight_ih, weight_hh, bias_ih, bias_hh)], h[None])
    return h_n[0]  # type: ignore[no-any-return]
