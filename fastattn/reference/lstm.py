"""Reference of `lstm`, `lstm_backward` and `lstm_cell`: long short-term memory over ragged sequences."""

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


def lstm(
    x: Floats | Sequence[Floats],
    cu_seqlens: npt.NDArray[np.int32],
    weights: Sequence[Any],
    h0: Floats | None = None,
    c0: Floats | None = None,
    *,
    reverse: Sequence[bool] = (False, True),
    cell_clip: float | None = None,
    proj_clip: float | None = None,
    return_reserve: bool = False,
    recompute: bool = False,
    residual: Floats | None = None,
) -> Any:
    """One layer over every sequence of a ragged batch, in one or two directions. See `fastattn.kernels.lstm`.

    >>> weights = [(np.zeros((4, 1)), np.zeros((4, 1)), None, None)]
    >>> out, h_n, c_n = lstm(np.zeros((2, 1)), np.array([0, 2], np.int32), weights, c0=np.full((1, 1, 1), 4.0))
    >>> out.round(3).tolist(), c_n.tolist()
    ([[0.482], [0.381]], [[[1.0]]])
    """
    _check_clips("lstm", weights, cell_clip, proj_clip)
    parts = directions("lstm", x, cu_seqlens, weights, reverse)
    results = [_forward(*part, _of(h0, d), _of(c0, d), cell_clip, proj_clip) for d, part in enumerate(parts)]
    out = np.concatenate([result[0] for result in results], axis=1)
    if residual is not None:
        out += residual
    h_n, c_n = (np.stack([result[i] for result in results]) for i in (1, 2))
    if not return_reserve:
        return out, h_n, c_n
    kept = [(None if recompute else gates, h, c) for *_, gates, h, c in results]
    clips = {"cell_clip": cell_clip, "proj_clip": proj_clip}
    return out, h_n, c_n, replace(reserve_of("lstm", parts, cu_seqlens, reverse, h0, **clips), kept=kept)


def lstm_backward(
    dout: Floats | None,
    dh_n: Floats | None,
    dc_n: Floats | None,
    x: Floats | Sequence[Floats],
    cu_seqlens: npt.NDArray[np.int32],
    weights: Sequence[Any],
    reserve: Any,
    h0: Floats | None = None,
    c0: Floats | None = None,
    *,
    reverse: Sequence[bool] = (False, True),
    cell_clip: float | None = None,
    proj_clip: float | None = None,
    need_dx: bool = True,
    need_dweights: bool = True,
    dweights: Sequence[Any] | None = None,
) -> tuple[Any, Any, Floats, Floats]:
    """The gradients of `lstm` with respect to x, weights, h0 and c0, by back-propagation through time.

    See `fastattn.kernels.lstm_backward`.

    >>> x, cu, weights = np.ones((1, 1)), np.array([0, 1], np.int32), [(np.zeros((4, 1)), np.zeros((4, 1)), None, None)]
    >>> *_, reserve = lstm(x, cu, weights, return_reserve=True)
    >>> dx, dweights, dh0, dc0 = lstm_backward(np.ones((1, 1)), None, None, x, cu, weights, reserve)
    >>> dweights[0][0].tolist(), dc0.tolist()
    ([[0.0], [0.0], [0.25], [0.0]], [[[0.25]]])
    """
    _check_clips("lstm_backward", weights, cell_clip, proj_clip)
    dxs: list[Floats] = []
    results, states = [], []
    offset = 0
    parts = directions("lstm_backward", x, cu_seqlens, weights, reverse)
    clips = {"cell_clip": cell_clip, "proj_clip": proj_clip}
    kept = reserve_of("lstm", parts, cu_seqlens, reverse, h0, **clips).of("lstm_backward", reserve)
    for d, (a, w, schedule) in enumerate(parts):
        width = w[1].shape[1]
        piece = None if dout is None else dout[:, offset : offset + width]
        offset += width
        dgates, dh, m, dh_0, dc_0 = _steps_backward(
            piece, _of(dh_n, d), _of(dc_n, d), a, w, schedule, kept[d], cell_clip, proj_clip
        )
        states.append((schedule.restored(dh_0), schedule.restored(dc_0)))
        if need_dx:
            dx = np.empty_like(a, order="C")
            dx[schedule.rows] = dgates @ w[0]
            dxs.append(dx)
        if need_dweights:
            given = (None,) * 4 if dweights is None else dweights[d]
            trainable = [isinstance(weight, np.ndarray) for weight in weights[d]]
            results.append(
                (
                    _add(given[0], dgates.T @ a[schedule.rows]) if trainable[0] else None,
                    _add(given[1], dgates.T @ kept[d][1][schedule.previous]) if trainable[1] else None,
                    _add(given[2], dgates.sum(axis=0)) if trainable[2] else None,
                    _add(given[3], dh.T @ m) if trainable[3] else None,
                )
            )
    dh0, dc0 = (np.stack([state[i] for state in states]) for i in (0, 1))
    return collect_dx(x, dxs) if need_dx else None, tuple(results) if need_dweights else None, dh0, dc0


@named("lstm", h0="h[None]", c0="c[None]")
def lstm_cell(
    x: Floats,
    h: Floats,
    c: Floats,
    weight_ih: Floats | Packed,
    weight_hh: Floats | Packed,
    bias: Floats | None = None,
    weight_hr: Floats | Packed | None = None,
    *,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
) -> tuple[Any, Any]:
    """One step of `lstm` for a batch. See `fastattn.kernels.lstm_cell`.

    >>> h, c = lstm_cell(np.ones((1, 1)), np.ones((1, 1)), np.ones((1, 1)), np.zeros((4, 1)), np.zeros((4, 1)))
    >>> c.tolist()
    [[0.5]]
    """
    cu_seqlens = np.arange(len(x) + 1, dtype=np.int32)
    weights = [(weight_ih, weight_hh, bias, weight_hr)]
    _, h_n, c_n = lstm(x, cu_seqlens, weights, h[None], c[None], cell_clip=cell_clip, proj_clip=proj_clip)
    return h_n[0], c_n[0]


def _check_clips(function: str, weights: Sequence[Any], cell_clip: float | None, proj_clip: float | None) -> None:
    for name, clip in (("cell_clip", cell_clip), ("proj_clip", proj_clip)):
        if clip is not None and not 0 < clip < np.inf:
            raise ValueError(f"{function}: {name} must be positive and finite, got {clip}")
    if proj_clip is not None and any(own[3] is None for own in weights):
        raise ValueError(f"{function}: proj_clip clips a projection, and weight_hr is None")


def _of(state: Floats | None, direction: int) -> Floats | None:
    return None if state is None else state[direction]


def _activate(gates: Floats) -> None:
    """i, f, g, o from the sums, in place."""
    hidden = gates.shape[1] // 4
    sigmoid(gates[:, : 2 * hidden])
    np.tanh(gates[:, 2 * hidden : 3 * hidden], out=gates[:, 2 * hidden : 3 * hidden])
    sigmoid(gates[:, 3 * hidden :])


def _input_gates(x: Floats, weights: Any, schedule: Schedule) -> Floats:
    """x W_ih^T + bias of all tokens, time-major."""
    gates = np.asarray(x[schedule.rows] @ weights[0].T)
    if weights[2] is not None:
        gates += weights[2]
    return gates


def _forward(
    x: Floats,
    weights: Any,
    schedule: Schedule,
    h0: Floats | None,
    c0: Floats | None,
    cell_clip: float | None,
    proj_clip: float | None,
) -> tuple[Floats, ...]:
    """One direction: its part of out, h_n and c_n; and the activated gates, h and c of all steps, time-major."""
    weight_hh = weights[1].T
    weight_hr = None if weights[3] is None else weights[3].T
    hidden = weight_hh.shape[1] // 4
    gates = _input_gates(x, weights, schedule)
    h = schedule.initial(h0, weight_hh.shape[0], x.dtype)
    c = schedule.initial(c0, hidden, x.dtype)
    for rows, before in schedule.steps:
        step = gates[rows]
        step += h[before] @ weight_hh
        _activate(step)
        i, f, g, o = (step[:, k * hidden : (k + 1) * hidden] for k in range(4))
        now = schedule.now(rows)
        cell = np.multiply(f, c[before], out=c[now])
        cell += i * g
        if cell_clip is not None:
            np.clip(cell, -cell_clip, cell_clip, out=cell)
        m = np.tanh(cell)
        m *= o
        if weight_hr is None:
            h[now] = m
        else:
            np.matmul(m, weight_hr, out=h[now])
            if proj_clip is not None:
                np.clip(h[now], -proj_clip, proj_clip, out=h[now])
    out = np.empty((schedule.tokens, h.shape[1]), x.dtype)
    out[schedule.rows] = h[schedule.batch :]
    h_n, c_n = (schedule.restored(state[schedule.last]) for state in (h, c))
    return out, h_n, c_n, gates, h, c


def _steps_backward(
    dout: Floats | None,
    dh_n: Floats | None,
    dc_n: Floats | None,
    x: Floats,
    weights: Any,
    schedule: Schedule,
    reserve: Any,
    cell_clip: float | None,
    proj_clip: float | None,
) -> tuple[Floats, ...]:
    """The gradients of all steps' sums and projections, and what was projected, time-major; dh0 and dc0 in `order`."""
    gates, h, c = reserve
    weight_hh = weights[1]
    weight_hr = None if weights[3] is None else weights[3]
    if gates is None:
        gates = _input_gates(x, weights, schedule)
        gates += h[schedule.previous] @ weight_hh.T
        _activate(gates)
    hidden = c.shape[1]
    i, f, g, o = (gates[:, k * hidden : (k + 1) * hidden] for k in range(4))
    tanh_c = np.tanh(c[schedule.batch :])
    m = o * tanh_c
    through = o * (1 - tanh_c * tanh_c)  # dc of dm
    # The factors of a step's dc (o: dm), for all steps at once; then the gradients of its sums.
    dgates = np.empty((schedule.tokens, 4, hidden), x.dtype)
    dgates[:, 0] = g * i * (1 - i)
    dgates[:, 1] = c[schedule.previous] * f * (1 - f)
    dgates[:, 2] = i * (1 - g * g)
    dgates[:, 3] = m * (1 - o)

    dhs = np.zeros((schedule.tokens, h.shape[1]), x.dtype) if dout is None else dout[schedule.rows]
    dh = schedule.ordered(dh_n, h.shape[1], x.dtype)
    dc = schedule.ordered(dc_n, hidden, x.dtype)
    for rows, _ in reversed(schedule.steps):
        n = rows.stop - rows.start
        now = schedule.now(rows)
        dm = dhs[rows]
        dm += dh[:n]
        if weight_hr is not None:
            if proj_clip is not None:
                dm[np.abs(h[now]) == proj_clip] = 0
            dm = dm @ weight_hr
        dcell = dc[:n]
        dcell += dm * through[rows]
        if cell_clip is not None:
            dcell[np.abs(c[now]) == cell_clip] = 0
        dgates[rows, :3] *= dcell[:, None]
        dgates[rows, 3] *= dm
        dcell *= f[rows]
        np.matmul(dgates[rows].reshape(n, 4 * hidden), weight_hh, out=dh[:n])
    return dgates.reshape(schedule.tokens, 4 * hidden), dhs, m, dh, dc
