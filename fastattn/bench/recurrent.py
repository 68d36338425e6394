"""lstm and gru: a whole layer forward and backward, and a single step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .case import FLOAT, Arguments, KernelCase, cu_seqlens, normal

GATES = {"lstm": 4, "gru": 3}
Sizes = tuple[int, int, int]  # inputs, hidden and projection, which is 0 where there is none


def _weights(kind: str, sizes: Sizes, rng: np.random.Generator) -> tuple[Any, ...]:
    """Of one direction, as the kernels take them."""
    inputs, hidden, projection = sizes
    rows, scale = GATES[kind] * hidden, hidden**-0.5
    matrices = (normal(rng, rows, each, scale=scale) for each in (inputs, projection or hidden))
    bias = normal(rng, rows, scale=scale)
    if kind == "gru":
        return (*matrices, bias, normal(rng, rows, scale=scale))
    return (*matrices, bias, normal(rng, projection, hidden, scale=scale) if projection else None)


def _make_layer(
    kind: str, sizes: Sizes, lengths: tuple[int, ...], directions: int, rng: np.random.Generator
) -> Arguments:
    return {
        "x": normal(rng, sum(lengths), sizes[0]),
        "cu_seqlens": cu_seqlens(lengths),
        "weights": [_weights(kind, sizes, rng) for _ in range(directions)],
    }


def _with_gradient(kind: str, arguments: Arguments, module: Any, dout: np.ndarray) -> Arguments:
    """The arguments of the backward kernel of a module, which has its own reserve."""
    _, *states, reserve = getattr(module, kind)(**arguments, return_reserve=True)
    none = dict.fromkeys(("dh_n", "dc_n")[: len(states)])
    return {"dout": dout, **none, **arguments, "reserve": reserve}


def _make_backward(
    kind: str, sizes: Sizes, lengths: tuple[int, ...], directions: int, rng: np.random.Generator
) -> Arguments:
    from fastattn import reference

    arguments = _make_layer(kind, sizes, lengths, directions, rng)
    dout = normal(rng, sum(lengths), directions * (sizes[2] or sizes[1]))
    return _with_gradient(kind, arguments, reference, dout)


def _prepare_backward(kind: str, arguments: Arguments) -> Arguments:
    from fastattn import kernels

    forward = {name: arguments[name] for name in ("x", "cu_seqlens", "weights")}
    return _with_gradient(kind, forward, kernels, arguments["dout"])


def _pack(kind: str, weights: tuple[Any, ...]) -> tuple[Any, ...]:
    from fastattn.kernels import PackedMatrix

    weight_ih, weight_hh, *rest = weights
    more = [each if each is None or each.ndim == 1 else PackedMatrix(each) for each in rest]
    return PackedMatrix(weight_ih), PackedMatrix(weight_hh, groups=GATES[kind]), *more


def _pack_layer(kind: str, arguments: Arguments) -> Arguments:
    return {**arguments, "weights": [_pack(kind, own) for own in arguments["weights"]]}


CELL_WEIGHTS = {
    "lstm": ("weight_ih", "weight_hh", "bias", "weight_hr"),
    "gru": ("weight_ih", "weight_hh", "bias_ih", "bias_hh"),
}


def _make_cell(
    kind: str, sizes: Sizes, lengths: tuple[int, ...], directions: int, rng: np.random.Generator
) -> Arguments:
    inputs, hidden, projection = sizes
    states = {"h": normal(rng, len(lengths), projection or hidden)}
    if kind == "lstm":
        states["c"] = normal(rng, len(lengths), hidden)
    weights = zip(CELL_WEIGHTS[kind], _weights(kind, sizes, rng), strict=True)
    return {"x": normal(rng, len(lengths), inputs), **states, **dict(weights)}


def _pack_cell(kind: str, arguments: Arguments) -> Arguments:
    names = CELL_WEIGHTS[kind]
    packed = _pack(kind, tuple(arguments[name] for name in names))
    return {**arguments, **dict(zip(names, packed, strict=True))}


# What comes after "lstm" or "gru" in a kernel's name: how its arguments are made, and prepared for the compiled one.
_VARIANTS: dict[str, tuple[Callable[..., Arguments], Callable[..., Arguments]]] = {
    "": (_make_layer, _pack_layer),
    "backward": (_make_backward, _prepare_backward),
    "cell": (_make_cell, _pack_cell),
}


def _case(kernel: str, model: str, sizes: Sizes, lengths: tuple[int, ...], directions: int = 1) -> KernelCase:
    """Of a whole layer, or of one step of as many sequences, whose lengths are 1 then."""
    kind, _, variant = kernel.partition("_")
    make, prepare = _VARIANTS[variant]
    inputs, hidden, projection = sizes
    output, tokens = projection or hidden, sum(lengths)
    batch = f"{len(lengths)}x{lengths[0]}"
    if len(set(lengths)) > 1:
        batch = f"ragged {min(lengths)}..{max(lengths)} {tokens}"
    numbers = GATES[kind] * hidden * (inputs + output) + projection * hidden  # of a direction's weights
    passes = 2 if variant == "backward" else 1
    return KernelCase(
        kernel=kernel,
        shape_name=f"{model}{'-'.join(str(each) for each in sizes if each)} {batch}{' both ways' * (directions - 1)}",
        make=partial(make, kind, sizes, lengths, directions),
        flops=2 * passes * directions * tokens * numbers,
        bytes=FLOAT * passes * (directions * numbers + tokens * (inputs + directions * output)),
        length=max(inputs + output, tokens if passes == 2 else 0),
        prepare=partial(prepare, kind),
    )


ELMO, LARGE, SMALL = (512, 4096, 512), (1024, 1024, 0), (256, 256, 0)
RAGGED = (8, 12, 15, 20, 24, 33, 47, 97)
CASES = [
    _case("lstm", "ELMo ", ELMO, (20,) * 32),
    _case("lstm", "", LARGE, (35,) * 32),
    _case("lstm", "", SMALL, (50,) * 32),
    _case("lstm", "", SMALL, RAGGED, 2),
    _case("lstm_backward", "", LARGE, (35,) * 32),
    _case("lstm_backward", "", SMALL, RAGGED, 2),
    _case("lstm_cell", "ELMo ", ELMO, (1,) * 32),
    _case("gru", "", LARGE, (35,) * 32),
    _case("gru", "", SMALL, (50,) * 32),
    _case("gru_backward", "", SMALL, (50,) * 32),
    _case("gru_cell", "", LARGE, (1,) * 32),
]
