"""Reference of `gru`, `gru_backward` and `gru_cell`: gated recurrent units over ragged sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fastattn._types import Floats
from fastattn.errors import named

from ._recurrent import Schedule, collect_dx, directions, reserve_of, sigmoid
from .linear import Packed, _add


def gru(
    x: Floats | Sequence[Floats],
    cu_seqlens: npt.NDArray[np.int32],
    weights: Sequence[Any],
    h0: Floats | None = None,
    *,
    reverse: Sequence[bool] = (False, True),
    return_reserve: bool = False,
    recompute: bool = False,
) -> Any:
    """One layer over every sequence of a ragged batch, in one or two directions. See `fastattn.kernels.gru`.

    >>> weights = [(np.zeros((3, 1)), np.zeros((3, 1)), None, None)]
    >>> gru(np.zeros((2, 1)), np.array([0, 2], np.int32), weights, np.ones((1, 1, 1)))[0].tolist()
    [[0.5], [0.25]]
    """
    parts = directions("gru", x, cu_seqlens, weights, reverse)
    results = [_forward(*part, None if h0 is None else h0[d]) for d, part in enumerate(parts)]
    out = np.concatenate([result[0] for result in results], axis=1)
    h_n = np.stack([result[1] for result in results])
    if not return_reserve:
        return out, h_n
    kept = [(None, None, h) if recompute else (gates, hidden, h) for *_, gates, hidden, h in results]
    return out, h_n, replace(reserve_of("gru", parts, cu_seqlens, reverse, h0), kept=kept)


def gru_backward(
    dout: Floats | None,
    dh_n: Floats | None,
    x: Floats | Sequence[Floats],
    cu_seqlens: npt.NDArray[np.int32],
    weights: Sequence[Any],
    reserve: Any,
    h0: Floats | None = None,
    *,
    reverse: Sequence[bool] = (False, True),
    need_dx: bool = True,
    need_dweights: bool = True,
    dweights: Sequence[Any] | None = None,
) -> tuple[Any, Any, Floats]:
    """The gradients of `gru` with respect to x, weights and h0, by back-propagation through time.

    See `fastattn.kernels.gru_backward`.

    >>> x, cu, weights = np.ones((1, 1)), np.array([0, 1], np.int32), [(np.zeros((3, 1)), np.zeros((3, 1)), None, None)]
    >>> *_, reserve = gru(x, cu, weights, return_reserve=True)
    >>> dx, dweights, dh0 = gru_backward(np.ones((1, 1)), None, x, cu, weights, reserve)
    >>> dweights[0][0].tolist(), dh0.tolist()
    ([[0.0], [0.0], [0.5]], [[[0.5]]])
    """
    dxs: list[Floats] = []
    results, states = [], []
    offset = 0
    parts = directions("gru_backward", x, cu_seqlens, weights, reverse)
    kept = reserve_of("gru", parts, cu_seqlens, reverse, h0).of("gru_backward", reserve)
    for d, (a, w, schedule) in enumerate(parts):
        width = w[1].shape[1]
        piece = None if dout is None else dout[:, offset : offset + width]
        offset += width
        da, db, dh_0 = _steps_backward(piece, None if dh_n is None else dh_n[d], a, w, schedule, kept[d])
        states.append(schedule.restored(dh_0))
        if need_dx:
            dx = np.empty_like(a, order="C")
            dx[schedule.rows] = da @ w[0]
            dxs.append(dx)
        if need_dweights:
            given = (None,) * 4 if dweights is None else dweights[d]
            trainable = [isinstance(weight, np.ndarray) for weight in weights[d]]
            results.append(
                (
                    _add(given[0], da.T @ a[schedule.rows]) if trainable[0] else None,
                    _add(given[1], db.T @ kept[d][2][schedule.previous]) if trainable[1] else None,
                    _add(given[2], da.sum(axis=0)) if trainable[2] else None,
                    _add(given[3], db.sum(axis=0)) if trainable[3] else None,
                )
            )
    return collect_dx(x, dxs) if need_dx else None, tuple(results) if need_dweights else None, np.stack(states)


@named("gru", h0="h[None]")
def gru_cell(
    x: Floats,
    h: Floats,
    weight_ih: Floats | Packed,
    weight_hh: Floats | Packed,
    bias_ih: Floats | None = None,
    bias_hh: Floats | None = None,
) -> Any:
    """One step of `gru` for a batch. See `fastattn.kernels.gru_cell`.

    >>> gru_cell(np.ones((1, 1)), np.ones((1, 1)), np.zeros((3, 1)), np.zeros((3, 1))).tolist()
    [[0.5]]
    """
    cu_seqlens = np.arange(len(x) + 1, dtype=np.int32)
    _, h_n = gru(x, cu_seqlens, [(weight_ih, weight_hh, bias_ih, bias_hh)], h[None])
    return h_n[0]


def _plus(products: Floats, bias: Floats | None) -> Floats:
    if bias is not None:
        products += bias
    return products


def _gate(a: Floats, b: Floats) -> None:
    """r, z, n from the two sums, in place of the first."""
    hidden = a.shape[1] // 3
    r_z, n = a[:, : 2 * hidden], a[:, 2 * hidden :]
    r_z += b[:, : 2 * hidden]
    sigmoid(r_z)
    n += r_z[:, :hidden] * b[:, 2 * hidden :]
    np.tanh(n, out=n)


def _forward(x: Floats, weights: Any, schedule: Schedule, h0: Floats | None) -> tuple[Floats, ...]:
    """One direction: its part of out and h_n; and r z n, the last third of b, and h of all steps, time-major."""
    weight_hh = weights[1].T
    hidden = len(weight_hh)
    gates = _plus(x[schedule.rows] @ weights[0].T, weights[2])
    recurrent = np.empty((schedule.tokens, hidden), x.dtype)
    h = schedule.initial(h0, hidden, x.dtype)
    for rows, before in schedule.steps:
        step = gates[rows]
        b = _plus(h[before] @ weight_hh, weights[3])
        recurrent[rows] = b[:, 2 * hidden :]
        _gate(step, b)
        z, n = step[:, hidden : 2 * hidden], step[:, 2 * hidden :]
        now = np.multiply(1 - z, n, out=h[schedule.now(rows)])
        now += z * h[before]
    out = np.empty((schedule.tokens, hidden), x.dtype)
    out[schedule.rows] = h[schedule.batch :]
    return out, schedule.restored(h[schedule.last]), gates, recurrent, h


def _steps_backward(
    dout: Floats | None,
    dh_n: Floats | None,
    x: Floats,
    weights: Any,
    schedule: Schedule,
    reserve: Any,
) -> tuple[Floats, Floats, Floats]:
    """The gradients of a and b of all steps, time-major, and dh0 in `order`."""
    gates, recurrent, h = reserve
    weight_hh = weights[1]
    hidden = weight_hh.shape[1]
    before = h[schedule.previous]
    if gates is None:
        gates = _plus(x[schedule.rows] @ weights[0].T, weights[2])
        b = _plus(before @ weight_hh.T, weights[3])
        _gate(gates, b)
        recurrent = b[:, 2 * hidden :]
    r, z, n = (gates[:, k * hidden : (k + 1) * hidden] for k in range(3))
    # The factors of a step's dh, for all steps at once; then the gradients of its sums.
    slope_n = (1 - z) * (1 - n * n)
    da = np.empty((schedule.tokens, 3, hidden), x.dtype)
    da[:, 0] = slope_n * recurrent * r * (1 - r)
    da[:, 1] = (before - n) * z * (1 - z)
    da[:, 2] = slope_n
    db = da.copy()
    db[:, 2] *= r

    dhs = np.zeros((schedule.tokens, hidden), x.dtype) if dout is None else dout[schedule.rows]
    dh = schedule.ordered(dh_n, hidden, x.dtype)
    for rows, _ in reversed(schedule.steps):
        m = rows.stop - rows.start
        now = dhs[rows]
        now += dh[:m]
        da[rows] *= now[:, None]
        db[rows] *= now[:, None]
        np.matmul(db[rows].reshape(m, 3 * hidden), weight_hh, out=dh[:m])
        dh[:m] += now * z[rows]
    return da.reshape(-1, 3 * hidden), db.reshape(-1, 3 * hidden), dh
