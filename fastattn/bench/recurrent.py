"""lstm and gru: a whole layer forward and backward, and a single step."""

from __future__ import annotations

from typing import Any

import numpy as np

from .case import FLOAT, Arguments, KernelCase, cu_seqlens, normal

GATES = {"lstm": 4, "gru": 3}
CELL_WEIGHTS = {
    "lstm": ("weight_ih", "weight_hh", "bias", "weight_hr"),
    "gru": ("weight_ih", "weight_hh", "bias_ih", "bias_hh"),
}
Sizes = tuple[int, int, int]  # inputs, hidden and projection; 0 is no projection


def _weights(kind: str, sizes: Sizes, rng: np.random.Generator) -> tuple[Any, ...]:
    """The weights of one direction, as the kernels take them."""
    inputs, hidden, projection = sizes
    rows, scale = GATES[kind] * hidden, hidden**-0.5
    matrices = (normal(rng, rows, each, scale=scale) for each in (inputs, projection or hidden))
    bias = normal(rng, rows, scale=scale)
    if kind == "gru":
        return (*matrices, bias, normal(rng, rows, scale=scale))
    return (*matrices, bias, normal(rng, projection, hidden, scale=scale) if projection else None)


def _pack(kind: str, weights: tuple[Any, ...]) -> tuple[Any, ...]:
    from fastattn.kernels import PackedMatrix

    weight_ih, weight_hh, *rest = weights
    more = [each if each is None or each.ndim == 1 else PackedMatrix(each) for each in rest]
    return PackedMatrix(weight_ih), PackedMatrix(weight_hh, groups=GATES[kind]), *more


def _with_gradient(kind: str, module: Any, arguments: Arguments, dout: np.ndarray) -> Arguments:
    """The arguments of a module's backward kernel. Each module has its own kind of reserve."""
    _, *states, reserve = getattr(module, kind)(**arguments, return_reserve=True)
    none = dict.fromkeys(("dh_n", "dc_n")[: len(states)])
    return {"dout": dout, **none, **arguments, "reserve": reserve}


def _case(kernel: str, model: str, sizes: Sizes, lengths: tuple[int, ...], directions: int = 1) -> KernelCase:
    """A whole layer, or a single step of the same number of sequences, whose lengths are then 1."""
    kind, _, variant = kernel.partition("_")
    inputs, hidden, projection = sizes
    output, tokens, names = projection or hidden, sum(lengths), CELL_WEIGHTS[kind]

    def make(rng: np.random.Generator) -> Arguments:
        x, weights = normal(rng, tokens, inputs), [_weights(kind, sizes, rng) for _ in range(directions)]
        return {"x": x, "cu_seqlens": cu_seqlens(lengths), "weights": weights}

    def pack(arguments: Arguments) -> Arguments:
        return {**arguments, "weights": [_pack(kind, own) for own in arguments["weights"]]}

    def make_backward(rng: np.random.Generator) -> Arguments:
        from fastattn import reference

        return _with_gradient(kind, reference, make(rng), normal(rng, tokens, directions * output))

    def prepare_backward(arguments: Arguments) -> Arguments:
        from fastattn import kernels

        forward = {name: arguments[name] for name in ("x", "cu_seqlens", "weights")}
        return _with_gradient(kind, kernels, forward, arguments["dout"])

    def make_cell(rng: np.random.Generator) -> Arguments:
        states = {"h": normal(rng, tokens, output)} | ({"c": normal(rng, tokens, hidden)} if kind == "lstm" else {})
        weights = zip(names, _weights(kind, sizes, rng), strict=True)
        return {"x": normal(rng, tokens, inputs), **states, **dict(weights)}

    def pack_cell(arguments: Arguments) -> Arguments:
        packed = _pack(kind, tuple(arguments[name] for name in names))
        return {**arguments, **dict(zip(names, packed, strict=True))}

    variants = {"": (make, pack), "backward": (make_backward, prepare_backward), "cell": (make_cell, pack_cell)}
    batch = f"{len(lengths)}x{lengths[0]}"
    if len(set(lengths)) > 1:
        batch = f"ragged {min(lengths)}..{max(lengths)} {tokens}"
    numbers = GATES[kind] * hidden * (inputs + output) + projection * hidden  # of a direction's weights
    passes = 2 if variant == "backward" else 1
    return KernelCase(
        kernel,
        f"{model}{'-'.join(str(each) for each in sizes if each)} {batch}{' both ways' * (directions - 1)}",
        variants[variant][0],
        bytes=FLOAT * passes * (directions * numbers + tokens * (inputs + directions * output)),
        length=max(inputs + output, tokens if passes == 2 else 0),
        flops=2 * passes * directions * tokens * numbers,
        prepare=variants[variant][1],
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
