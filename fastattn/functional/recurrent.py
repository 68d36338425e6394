"""Recurrent layers over ragged sequences, and their single steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastattn import ragged
from fastattn._types import CuSeqlens
from fastattn.autograd import Tensor, mode, needs, record, recording, tensors, values
from fastattn.errors import named
from fastattn.functional._common import Array, Values, Weights, gradient

Direction = Sequence[Weights | None]


@named(x="input", h0="h_0 of hx", c0="c_0 of hx")
def lstm(
    input: Values | Sequence[Values],
    cu_seqlens: ArrayLike,
    weights: Sequence[Direction],
    hx: tuple[Values | None, Values | None] | None = None,
    *,
    reverse: Sequence[bool] = (False, True),
    cell_clip: float | None = None,
    proj_clip: float | None = None,
    recompute: bool = False,
    residual: Values | None = None,
) -> tuple[Any, tuple[Any, Any]]:
    """One layer of long short-term memory over a ragged batch, in one or two directions: `(output, (h_n, c_n))`.

    `input` is `[tokens, I]`, or one array per direction. Sequence i is rows `cu_seqlens[i]` to `cu_seqlens[i + 1]`;
    `cu_seqlens` is integers `[batch + 1]`. For each direction, `weights` has `(weight_ih [4H, I], weight_hh [4H, P],
    bias_ih [4H], bias_hh [4H], weight_hr [P, H])`, gates in the order i, f, g, o. Biases and `weight_hr` may be None,
    and P is H without a projection. Matrices are arrays, Tensors or `PackedMatrix`, which has no gradient. `hx` is
    `(h_0 [D, batch, P], c_0 [D, batch, H])`, 0 where None.

    Returns `output` `[tokens, D * P]` and the states after the last step of each sequence, in the shapes of `hx`. All
    three have gradients. A direction whose flag in `reverse` is True reads each sequence from its end. Cells are
    clipped to +-`cell_clip` and projections to +-`proj_clip`, and clipped values pass no gradient. With `recompute` the
    gates are not kept for the backward pass, which computes them again. `residual` `[tokens, D * P]` is added to
    `output`. Raises the errors of `fastattn.kernels.lstm`, and ValueError for a direction without five weights or with
    biases of two shapes.

    >>> weights = [(np.zeros((4, 1), np.float32), np.zeros((4, 1), np.float32), None, None, None)]
    >>> state = (None, np.full((1, 1, 1), 4.0, np.float32))
    >>> output, (h, c) = lstm(np.zeros((2, 1), np.float32), np.array([0, 2], np.int32), weights, state)
    >>> [round(number, 3) for number in output.ravel().tolist()], c.tolist()
    ([0.482, 0.381], [[[1.0]]])
    """
    ops, cu_seqlens = mode.ops, ragged.int32_offsets(cu_seqlens, "lstm: cu_seqlens")
    h_0, c_0 = _pair("lstm", hx)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    inputs, flat = _inputs(input), _flat("lstm", weights, names)
    operands, count = (*inputs, h_0, c_0, residual, *flat), len(inputs)
    arrays = values(*operands)
    h, c, added = arrays[count : count + 3]
    x = arrays[0] if isinstance(input, np.ndarray | Tensor) else tuple(arrays[:count])
    w = [(ih, hh, _bias(b_ih, b_hh), hr) for ih, hh, b_ih, b_hh, hr in _parts(arrays[count + 3 :], 5)]
    need_dx, trained = any(needs(*inputs)), needs(*flat)
    options: dict[str, Any] = {"reverse": reverse, "cell_clip": cell_clip, "proj_clip": proj_clip}
    if not recording(*operands):
        output, h_n, c_n = ops.lstm(x, cu_seqlens, w, h, c, residual=added, **options)
        if not tensors(*operands):
            return output, (h_n, c_n)
        reserve = None
    else:
        output, h_n, c_n, reserve = ops.lstm(
            x, cu_seqlens, w, h, c, return_reserve=True, recompute=recompute, residual=added, **options
        )

    def backward(doutput: Array | None, dh_n: Array | None, dc_n: Array | None) -> Sequence[Array | None]:
        totals = [(ih, hh, None, hr) for ih, hh, _, _, hr in _parts(_totals(flat, trained), 5)]
        dx, dweights, dh, dc = ops.lstm_backward(
            doutput,
            dh_n,
            dc_n,
            x,
            cu_seqlens,
            w,
            reserve,
            h,
            c,
            need_dx=need_dx,
            need_dweights=any(trained),
            dweights=totals if any(trained) else None,
            **options,
        )
        results = [*_inputs(dx, count), dh, dc, doutput if doutput is None else doutput.view()]
        for ih, hh, bias, hr in dweights or [(None,) * 4] * len(w):
            results += [ih, hh, bias, bias, hr]  # one gradient of two biases: the walk copies or adds it
        return results

    output, h_n, c_n = _record((output, h_n, c_n), operands, backward)
    return output, (h_n, c_n)


@named(x="input", h0="hx")
def gru(
    input: Values | Sequence[Values],
    cu_seqlens: ArrayLike,
    weights: Sequence[Direction],
    hx: Values | None = None,
    *,
    reverse: Sequence[bool] = (False, True),
    recompute: bool = False,
) -> tuple[Any, Any]:
    """One layer of gated recurrent units over a ragged batch, in one or two directions: `(output, h_n)`.

    `input` is `[tokens, I]`, or one array per direction. Sequence i is rows `cu_seqlens[i]` to `cu_seqlens[i + 1]`;
    `cu_seqlens` is integers `[batch + 1]`. For each direction, `weights` has `(weight_ih [3H, I], weight_hh [3H, H],
    bias_ih [3H], bias_hh [3H])`, gates in the order r, z, n. Biases may be None; matrices are arrays, Tensors or
    `PackedMatrix`, which has no gradient. `hx` is h_0 `[D, batch, H]`, 0 by default.

    Returns `output` `[tokens, D * H]` and h_n `[D, batch, H]`, the states after the last step of each sequence; both
    have gradients. A direction whose flag in `reverse` is True reads each sequence from its end. With `recompute` the
    gates are not kept for the backward pass, which computes them again. Raises the errors of `fastattn.kernels.gru`,
    and ValueError for a direction without four weights.

    >>> weights = [(np.zeros((3, 1), np.float32), np.zeros((3, 1), np.float32), None, None)]
    >>> offsets, state = np.array([0, 2], np.int32), np.ones((1, 1, 1), np.float32)
    >>> output, h = gru(np.zeros((2, 1), np.float32), offsets, weights, state)
    >>> output.tolist(), h.tolist()
    ([[0.5], [0.25]], [[[0.25]]])
    """
    ops, cu_seqlens = mode.ops, ragged.int32_offsets(cu_seqlens, "gru: cu_seqlens")
    inputs, flat = _inputs(input), _flat("gru", weights, ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    operands, count = (*inputs, hx, *flat), len(inputs)
    arrays = values(*operands)
    h, w = arrays[count], _parts(arrays[count + 1 :], 4)
    x = arrays[0] if isinstance(input, np.ndarray | Tensor) else tuple(arrays[:count])
    need_dx, trained = any(needs(*inputs)), needs(*flat)
    if not recording(*operands):
        output, h_n = ops.gru(x, cu_seqlens, w, h, reverse=reverse)
        if not tensors(*operands):
            return output, h_n
        reserve = None
    else:
        output, h_n, reserve = ops.gru(x, cu_seqlens, w, h, reverse=reverse, return_reserve=True, recompute=recompute)

    def backward(doutput: Array | None, dh_n: Array | None) -> Sequence[Array | None]:
        dx, dweights, dh = ops.gru_backward(
            doutput,
            dh_n,
            x,
            cu_seqlens,
            w,
            reserve,
            h,
            reverse=reverse,
            need_dx=need_dx,
            need_dweights=any(trained),
            dweights=_parts(_totals(flat, trained), 4) if any(trained) else None,
        )
        results = [*_inputs(dx, count), dh]
        for gradients in dweights or [(None,) * 4] * len(w):
            results += gradients
        return results

    output, h_n = _record((output, h_n), operands, backward)
    return output, h_n


@named("lstm")
def lstm_cell(
    input: Values,
    hx: tuple[Values | None, Values | None] | None,
    weight_ih: Weights,
    weight_hh: Weights,
    bias_ih: Values | None = None,
    bias_hh: Values | None = None,
    weight_hr: Weights | None = None,
    *,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
) -> tuple[Any, Any]:
    """One step of `lstm` for a batch: `(h, c)`, with the same bits.

    `input` is `[batch, I]`, `hx` `(h [batch, P], c [batch, H])`, 0 where None. `weight_ih` `[4H, I]`, `weight_hh`
    `[4H, P]`, `bias_ih` and `bias_hh` `[4H]`, `weight_hr` `[P, H]`, `cell_clip`, `proj_clip` and errors: see `lstm`.

    >>> h, c = lstm_cell(np.ones((2, 3), np.float32), None, np.ones((4, 3), np.float32), np.ones((4, 1), np.float32))
    >>> [round(number, 4) for number in c.ravel().tolist()]
    [0.9479, 0.9479]
    """
    h_0, c_0 = (None if state is None else state.reshape(1, *state.shape) for state in _pair("lstm_cell", hx))
    weights = [(weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)]
    h, (_, c) = lstm(input, _steps(input), weights, (h_0, c_0), cell_clip=cell_clip, proj_clip=proj_clip)
    return h, c.reshape(c.shape[1:])


@named("gru")
def gru_cell(
    input: Values,
    hx: Values | None,
    weight_ih: Weights,
    weight_hh: Weights,
    bias_ih: Values | None = None,
    bias_hh: Values | None = None,
) -> Any:
    """One step of `gru` for a batch: h `[batch, H]`, with the same bits.

    `input` is `[batch, I]`, `hx` `[batch, H]`, 0 if None. `weight_ih` `[3H, I]`, `weight_hh` `[3H, H]`, `bias_ih` and
    `bias_hh` `[3H]` and errors: see `gru`.

    >>> h = np.ones((1, 1), np.float32)
    >>> gru_cell(np.ones((1, 2), np.float32), h, np.zeros((3, 2), np.float32), np.zeros((3, 1), np.float32)).tolist()
    [[0.5]]
    """
    if hx is not None and not isinstance(hx, np.ndarray | Tensor):
        raise TypeError(f"gru_cell: hx must be an array, a Tensor or None, got {type(hx).__name__}")
    state = None if hx is None else hx.reshape(1, *hx.shape)
    return gru(input, _steps(input), [(weight_ih, weight_hh, bias_ih, bias_hh)], state)[0]


def _pair(name: str, hx: Any) -> tuple[Any, Any]:
    """Both states of an LSTM, None where not given."""
    if hx is None:
        return None, None
    if not (isinstance(hx, tuple | list) and len(hx) == 2):
        raise TypeError(f"{name}: hx must be a tuple (h_0, c_0) or None, got {type(hx).__name__}")
    for part, state in zip(("h_0", "c_0"), hx, strict=True):
        if state is not None and not isinstance(state, np.ndarray | Tensor):
            raise TypeError(f"{name}: {part} of hx must be an array or a Tensor, got {type(state).__name__}")
    return hx[0], hx[1]


def _steps(input: Values) -> CuSeqlens:
    """Sequences of one token."""
    return ragged.uniform(input.shape[0], 1)


def _inputs(input: Any, count: int = 1) -> tuple[Any, ...]:
    """The inputs as a tuple: one for all directions, or one for each; `count` times None for None."""
    if input is None:
        return (None,) * count
    return (input,) if isinstance(input, np.ndarray | Tensor) else tuple(input)


def _flat(name: str, weights: Sequence[Direction], names: tuple[str, ...]) -> list[Any]:
    """The weights of all directions, one after the other."""
    wanted = ", ".join(names)
    for i, direction in enumerate(weights):
        if not isinstance(direction, tuple | list):
            raise TypeError(f"{name}: weights[{i}] must be a sequence ({wanted}), got {type(direction).__name__}")
        if len(direction) != len(names):
            raise ValueError(f"{name}: weights must have ({wanted}) for each direction, got {len(direction)} of them")
    return [weight for direction in weights for weight in direction]


def _parts(flat: Sequence[Any], size: int) -> list[tuple[Any, ...]]:
    """`_flat` undone: a tuple for each direction."""
    return [tuple(flat[i : i + size]) for i in range(0, len(flat), size)]


def _bias(bias_ih: Array | None, bias_hh: Array | None) -> Array | None:
    if bias_ih is None or bias_hh is None:
        return bias_hh if bias_ih is None else bias_ih
    if bias_ih.shape != bias_hh.shape:
        raise ValueError(f"lstm: bias_hh must have shape {bias_ih.shape}, got {bias_hh.shape}")
    return bias_ih + bias_hh


def _totals(weights: Sequence[Any], trained: Sequence[bool]) -> list[Array | None]:
    """The array to which the kernel adds each gradient, listed once for a weight that two directions share."""
    totals: list[Array | None] = []
    for weight, need in zip(weights, trained, strict=True):
        total = gradient(weight) if need else None
        totals.append(None if any(total is other for other in totals) else total)
    return totals


def _record(outputs: Sequence[Array], operands: Sequence[Any], backward: Callable[..., Any]) -> list[Tensor]:
    """The Tensors of several outputs of one computation; `backward` maps their gradients to the operands' gradients.

    A node has one gradient, so the computation has a node of its own. Each output's node stores its gradient for it.
    The computation's node is older and runs after them, with None for an output that was not used.
    """
    gradients: list[Array | None] = [None] * len(outputs)

    def complete(_: Array) -> Any:
        given = list(gradients)
        gradients[:] = [None] * len(given)  # a Tensor that lives on must not keep them alive
        return backward(*given)

    computation = record(np.zeros(1, outputs[0].dtype), operands, complete)

    def output(i: int) -> Any:
        def hand_over(dy: Array) -> tuple[Array]:
            gradients[i] = dy
            return (np.zeros(1, dy.dtype),)

        return record(outputs[i], (computation,), hand_over)

    return [output(i) for i in range(len(outputs))]
