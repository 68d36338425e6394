"""Long short-term memory over ragged sequences: a whole layer in one call, and a single step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastattn import _core
from fastattn._core import PackedMatrix, RecurrentReserve
from fastattn._types import FloatArray
from fastattn.errors import named

__all__ = ["lstm", "lstm_backward", "lstm_cell"]

Weight = FloatArray | PackedMatrix


def lstm(
    x: FloatArray | Sequence[FloatArray],
    cu_seqlens: npt.NDArray[np.int32],
    weights: Sequence[Any],
    h0: FloatArray | None = None,
    c0: FloatArray | None = None,
    *,
    reverse: Sequence[bool] = (False, True),
    cell_clip: float | None = None,
    proj_clip: float | None = None,
    return_reserve: bool = False,
    recompute: bool = False,
    residual: FloatArray | None = None,
) -> Any:
    """One layer over every sequence of a ragged batch, in one or two directions.

    x is `[tokens, I]` for all directions, or a tuple or list of one such array per direction. cu_seqlens, int32
    `[batch + 1]`, says where each sequence begins. For each of D = 1 or 2 directions, weights has a tuple (weight_ih
    `[4H, I]`, weight_hh `[4H, P]`, bias `[4H]` or None, weight_hr `[P, H]` or None). A weight that is used more than
    once may be a `PackedMatrix`, weight_hh with `groups=4`. P is H without the projection weight_hr. h0 `[D, batch, P]`
    and c0 `[D, batch, H]` are the states before the first step, None for zeros. Floats are float32. A direction whose
    flag in `reverse` is True reads each sequence from its end. A step computes

    i, f, g, o = the quarters of x W_ih^T + bias + h W_hh^T, through sigmoid, sigmoid, tanh and sigmoid;
    c = clip(f c + i g, ±cell_clip); h = o tanh(c), or with a projection clip((o tanh(c)) W_hr^T, ±proj_clip).

    Returns (out `[tokens, D * P]`, h_n `[D, batch, P]`, c_n `[D, batch, H]`): h of every step, and both states after
    the last one, which are h0 and c0 for a sequence without tokens. `return_reserve` adds a fourth item, which only
    `lstm_backward` can read. With `recompute` it omits the gates, `[tokens, 4H]`, and the backward pass computes them
    again. `residual` `[tokens, D * P]` is added to out, and to out alone.

    The bits of a sequence's result do not depend on the other sequences. A sequence may be passed in parts, each with
    the final states of the previous part as h0 and c0, with the same bits. NaN stays in its sequence.

    Raises TypeError for another dtype, ValueError for shapes that do not match, a strided last axis, a `cu_seqlens`
    that does not start at 0, rise and end at the number of tokens, a `PackedMatrix` with other groups, a clip that is
    not positive, or a `proj_clip` without a projection.

    Source: Hochreiter and Schmidhuber 1997 (Neural Computation 9) with the forget gate of Gers et al. 2000, as in
    PyTorch; projection and its clip: Sak et al. 2014 (arXiv 1402.1128).

    >>> import numpy as np
    >>> x, cu_seqlens = np.ones((3, 1), np.float32), np.array([0, 1, 3], np.int32)
    >>> weights = [(np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32), None, None)]
    >>> out, h_n, c_n = lstm(x, cu_seqlens, weights)
    >>> out.round(3).ravel().tolist(), c_n.round(3).ravel().tolist()
    ([0.3700000047683716, 0.3700000047683716, 0.5450000166893005], [0.5569999814033508, 0.9639999866485596])
    """
    return _core.lstm(
        x, cu_seqlens, weights, h0, c0, reverse, cell_clip, proj_clip, return_reserve, recompute, residual
    )


def lstm_backward(
    dout: FloatArray | None,
    dh_n: FloatArray | None,
    dc_n: FloatArray | None,
    x: FloatArray | Sequence[FloatArray],
    cu_seqlens: npt.NDArray[np.int32],
    weights: Sequence[Any],
    reserve: RecurrentReserve,
    h0: FloatArray | None = None,
    c0: FloatArray | None = None,
    *,
    reverse: Sequence[bool] = (False, True),
    cell_clip: float | None = None,
    proj_clip: float | None = None,
    need_dx: bool = True,
    need_dweights: bool = True,
    dweights: Sequence[Any] | None = None,
) -> tuple[Any, Any, FloatArray, FloatArray]:
    """The gradients of `lstm`, from the gradients of its three results.

    dout `[tokens, D * P]`, dh_n `[D, batch, P]` and dc_n `[D, batch, H]` are float32 or None for zeros. x, cu_seqlens,
    weights, h0, c0, reverse, cell_clip and proj_clip are the arguments of `lstm`, and `reserve` is what it returned.

    Returns (dx, dweights, dh0, dc0). dx is an array or a tuple of arrays, like x. dweights has a tuple (dweight_ih,
    dweight_hh, dbias, dweight_hr) for each direction, with None for a `PackedMatrix` and for a missing bias or
    projection. dx is None if `need_dx` is False, and dweights is None if `need_dweights` is False. Gradients are added
    to the arrays in the argument `dweights`, which has the same structure; None there makes a new array. Clipped values
    have no gradient. The bits do not depend on the number of threads.

    Raises the errors of `lstm`, TypeError if `reserve` is not a reserve, and ValueError if it comes from another call:
    a call of `gru`, one with other sizes, `reverse`, `cu_seqlens` or clips, or one with h0 where this call has none.

    Source: Werbos 1990 (Proceedings of the IEEE 78), back-propagation through time.

    >>> import numpy as np
    >>> x, cu_seqlens = np.ones((3, 1), np.float32), np.array([0, 1, 3], np.int32)
    >>> weights = [(np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32), None, None)]
    >>> out, h_n, c_n, reserve = lstm(x, cu_seqlens, weights, return_reserve=True)
    >>> dx, dweights, dh0, dc0 = lstm_backward(np.ones_like(out), None, None, x, cu_seqlens, weights, reserve)
    >>> dx.round(3).ravel().tolist()
    [0.3479999899864197, 0.4560000002384186, 0.33000001311302185]
    """
    gradients: tuple[Any, Any, FloatArray, FloatArray] = _core.lstm_backward(
        dout,
        dh_n,
        dc_n,
        x,
        cu_seqlens,
        weights,
        reserve,
        h0,
        c0,
        reverse,
        cell_clip,
        proj_clip,
        need_dx,
        need_dweights,
        dweights,
    )
    return gradients


@named("lstm", h0="h[None]", c0="c[None]")
def lstm_cell(
    x: FloatArray,
    h: FloatArray,
    c: FloatArray,
    weight_ih: Weight,
    weight_hh: Weight,
    bias: FloatArray | None = None,
    weight_hr: Weight | None = None,
    *,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
) -> tuple[FloatArray, FloatArray]:
    """A single step of `lstm` for each row: the new h and c.

    x is `[batch, I]`, h `[batch, P]` and c `[batch, H]`. weight_ih, weight_hh, bias, weight_hr, cell_clip, proj_clip
    and errors are as in `lstm`. Returns (h `[batch, P]`, c `[batch, H]`) with the bits of a step of `lstm`.

    Source: as `lstm`.

    >>> import numpy as np
    >>> one, zero = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
    >>> h, c = lstm_cell(one, zero, one, np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32))
    >>> h.round(3).item(), c.round(3).item()
    (0.628000020980835, 1.2879999876022339)
    """
    each_alone = np.arange(len(x) + 1, dtype=np.int32)
    weights = [(weight_ih, weight_hh, bias, weight_hr)]
    _, h_n, c_n = lstm(x, each_alone, weights, h[None], c[None], cell_clip=cell_clip, proj_clip=proj_clip)
    return h_n[0], c_n[0]
