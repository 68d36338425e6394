"""What the tests of `lstm` and `gru` share: a batch with its weights, both layers by hand, and checks.

>>> case = make_case("lstm", lengths=(3, 0, 5), inputs=7, hidden=4, directions=2)
>>> out, h_n, c_n = case.forward(kernels)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from helpers import assert_close, assert_same_bits, cumulative, double, normal

from fastattn import reference

KINDS = ("lstm", "gru")
VARIANTS: dict[str, dict[str, Any]] = {
    "forward": {},
    "reversed": {"reverse": (True,)},
    "both": {"directions": 2},
    "both forward": {"directions": 2, "reverse": (False, False)},
    "separate": {"directions": 2, "separate": True},
    "one in a tuple": {"separate": True},
    "no bias": {"bias": False, "directions": 2},
    "from 0": {"states": False, "directions": 2},
}
"""Options of `make_case`, by the name of what is special."""
SHAPES = [
    ((1,), 1, 1),
    ((2, 5), 3, 7),
    ((3, 0, 7, 1, 4), 9, 8),
    (tuple(i % 5 for i in range(33)), 17, 15),
    ((4, 4), 5, 16),
    ((1, 0, 2, 6, 3), 31, 17),
    ((5, 2, 3), 65, 33),
    ((3, 1, 6, 2, 2), 33, 64),
    ((100,), 3, 20),  # many steps,
    ((2,) * 140, 5, 9),  # many sequences,
    ((2, 3), 1100, 8),  # more than one depth block of the input's product
]
"""lengths, I, H."""


@dataclass(frozen=True)
class Case:
    """The arguments of `lstm` or `gru`."""

    kind: str
    x: Any  # an array, or a tuple of one for each direction
    cu_seqlens: Any
    weights: Any
    states: tuple[Any, ...]  # (h0, c0) or (h0,)
    options: dict[str, Any]

    def forward(self, module: Any, **more: Any) -> Any:
        """(out, h_n, c_n) or (out, h_n), then the reserve if it is asked for; `module` is kernels or reference."""
        call = getattr(module, self.kind)
        return call(self.x, self.cu_seqlens, self.weights, *self.states, **self.options, **more)

    def backward(self, module: Any, gradients: Sequence[Any], reserve: Any, **more: Any) -> Any:
        """(dx, dweights, dh0, dc0) or (dx, dweights, dh0) for the gradients of out, h_n and c_n."""
        call = getattr(module, f"{self.kind}_backward")
        return call(*gradients, self.x, self.cu_seqlens, self.weights, reserve, *self.states, **self.options, **more)

    def both(self, module: Any, gradients: Sequence[Any], recompute: bool = False, **more: Any) -> Any:
        """What `backward` gives after `forward`."""
        *_, reserve = self.forward(module, return_reserve=True, recompute=recompute)
        return self.backward(module, gradients, reserve, **more)

    def mapped(self, change: Any) -> Case:
        """The case with `change(array)` in the place of each array of floats."""
        x = tuple(map(change, self.x)) if isinstance(self.x, tuple) else change(self.x)
        weights = [tuple(None if w is None else change(w) for w in own) for own in self.weights]
        states = tuple(None if state is None else change(state) for state in self.states)
        return replace(self, x=x, weights=weights, states=states)

    def double(self) -> Case:
        """The case in float64."""
        return self.mapped(double)

    def of(self, sequences: Sequence[int]) -> Case:
        """These sequences alone, in this order."""
        rows = self.tokens(sequences)
        x = tuple(a[rows] for a in self.x) if isinstance(self.x, tuple) else self.x[rows]
        states = tuple(None if s is None else np.ascontiguousarray(s[:, list(sequences)]) for s in self.states)
        return replace(self, x=x, cu_seqlens=cumulative(np.diff(self.cu_seqlens)[list(sequences)]), states=states)

    def tokens(self, sequences: Sequence[int]) -> Any:
        """The rows of these sequences, one after the other."""
        spans = [np.arange(*self.cu_seqlens[s : s + 2]) for s in sequences]
        return np.concatenate([np.zeros(0, np.int64), *spans])

    def shapes(self) -> list[tuple[int, ...]]:
        """Those of out, h_n and, for an LSTM, c_n."""
        tokens, batch, directions = int(self.cu_seqlens[-1]), len(self.cu_seqlens) - 1, len(self.weights)
        p, h = self.weights[0][1].shape[1], self.weights[0][0].shape[0] // (4 if self.kind == "lstm" else 3)
        shapes = [(tokens, directions * p), (directions, batch, p), (directions, batch, h)]
        return shapes[: 1 + len(self.states)]

    def gradients(self, seed: int = 7) -> list[Any]:
        """Random ones of out, h_n and c_n."""
        rng = np.random.default_rng(seed)
        return [normal(rng, *shape) for shape in self.shapes()]

    def length(self) -> int:
        """The terms that a step sums. Steps do not count: what one rounds, the gates let the next ones forget."""
        return sum(w.shape[1] for w in self.weights[0] if w is not None and w.ndim == 2)

    def backward_length(self) -> int:
        """The same for the backward pass, which sums over the gates too, and over the tokens in the end."""
        return self.length() + self.weights[0][0].shape[0] + int(self.cu_seqlens[-1])

    def check_forward(self, results: Sequence[Any], expected: Sequence[Any], magnitude: float = 0.0) -> None:
        for result, ideal in zip(results, expected, strict=True):
            assert_close(result, ideal, self.length(), c=4, magnitude=magnitude)

    def check_backward(self, gradients: Any, expected: Any) -> None:
        """Of 1, the magnitude of what `gradients` gives, few saturated units leave little; but all of its rounding."""
        for gradient, ideal in zip(flat(gradients), flat(expected), strict=True):
            if ideal is None:
                assert gradient is None
            else:
                assert_close(gradient, ideal, self.backward_length(), c=4, magnitude=1.0)


def make_case(
    kind: str,
    lengths: Sequence[int] = (3, 0, 5, 1),
    inputs: int = 5,
    hidden: int = 4,
    *,
    directions: int = 1,
    bias: bool = True,
    states: bool = True,
    projection: int = 0,
    separate: bool = False,
    seed: int = 1,
    **options: Any,
) -> Case:
    """A random case in float32. `separate`: an input for each direction, columns of one array; `projection`: LSTM."""
    rng = np.random.default_rng(seed)
    tokens, batch, p = sum(lengths), len(lengths), projection or hidden
    rows = (4 if kind == "lstm" else 3) * hidden

    def matrix(m: int, n: int) -> Any:
        return normal(rng, m, n) / np.float32(n**0.5)

    def vector() -> Any:
        return normal(rng, rows) if bias else None

    weights: list[tuple[Any, ...]] = []
    for _ in range(directions):
        last = vector if kind == "gru" else lambda: matrix(p, hidden) if projection else None
        weights.append((matrix(rows, inputs), matrix(rows, p), vector(), last()))
    x: Any = normal(rng, tokens, inputs)
    if separate:
        wide = normal(rng, tokens, directions * inputs)
        x = tuple(wide[:, d * inputs : (d + 1) * inputs] for d in range(directions))
    widths = (p, hidden) if kind == "lstm" else (hidden,)
    start = tuple(normal(rng, directions, batch, width) if states else None for width in widths)
    return Case(kind, x, cumulative(lengths), weights, start, options)


def flat(results: Any) -> list[Any]:
    """The arrays of nested tuples, in order; None stays None."""
    if isinstance(results, (tuple, list)):
        return [array for result in results for array in flat(result)]
    return [results]


def same_bits(results: Any, expected: Any) -> None:
    for result, other in zip(flat(results), flat(expected), strict=True):
        if other is None:
            assert result is None
        else:
            assert_same_bits(result, other)


def by_hand(case: Case) -> tuple[list[Any], float]:
    """What `forward` gives, token by token in float64; and how near to a clip any value came that is clipped there."""
    case = case.double()
    results = [np.full(shape, np.nan) for shape in case.shapes()]
    cell_clip, proj_clip = (case.options.get(name) for name in ("cell_clip", "proj_clip"))
    margins = [np.inf]

    def clip(values: Any, limit: float | None) -> Any:
        if limit is None:
            return values
        margins.append(np.abs(np.abs(values) - limit).min())
        return np.minimum(np.maximum(values, -limit), limit)

    def sigmoid(values: Any) -> Any:
        return 1 / (1 + np.exp(-values))

    def lstm_step(x: Any, w: Any, h: Any, c: Any) -> tuple[Any, Any]:
        i, f, g, o = np.split(w[0] @ x + w[1] @ h + (0 if w[2] is None else w[2]), 4)
        c = clip(sigmoid(f) * c + sigmoid(i) * np.tanh(g), cell_clip)
        h = sigmoid(o) * np.tanh(c)
        return (h if w[3] is None else clip(w[3] @ h, proj_clip)), c

    def gru_step(x: Any, w: Any, h: Any) -> tuple[Any]:
        a_r, a_z, a_n = np.split(w[0] @ x + (0 if w[2] is None else w[2]), 3)
        b_r, b_z, b_n = np.split(w[1] @ h + (0 if w[3] is None else w[3]), 3)
        z = sigmoid(a_z + b_z)
        return ((1 - z) * np.tanh(a_n + sigmoid(a_r + b_r) * b_n) + z * h,)

    step: Any = lstm_step if case.kind == "lstm" else gru_step
    p = case.weights[0][1].shape[1]
    for d, weights in enumerate(case.weights):
        x = case.x[d] if isinstance(case.x, tuple) else case.x
        for s in range(len(case.cu_seqlens) - 1):
            state = [
                np.zeros(result.shape[-1]) if first is None else first[d, s]
                for first, result in zip(case.states, results[1:], strict=True)
            ]
            tokens = list(range(*case.cu_seqlens[s : s + 2]))
            for t in tokens[::-1] if case.options.get("reverse", (False, True))[d] else tokens:
                state = list(step(x[t], weights, *state))
                results[0][t, d * p : (d + 1) * p] = state[0]
            for result, last in zip(results[1:], state, strict=True):
                result[d, s] = last
    return results, float(min(margins))


def expected_backward(case: Case, gradients: Sequence[Any], **more: Any) -> Any:
    """The reference's gradients in float64."""
    return case.double().both(reference, [double(g) for g in gradients], **more)


TORCH_CASES: dict[str, dict[str, Any]] = {
    "lstm": {"kind": "lstm"},
    "lstm both": {"kind": "lstm", "directions": 2},
    "lstm both no bias": {"kind": "lstm", "directions": 2, "bias": False},
    "lstm projected": {"kind": "lstm", "projection": 3},
    "lstm both projected": {"kind": "lstm", "directions": 2, "projection": 3},
    "gru": {"kind": "gru"},
    "gru both": {"kind": "gru", "directions": 2},
    "gru both no bias": {"kind": "gru", "directions": 2, "bias": False},
}
"""What torch can do too."""


def golden_case(name: str) -> tuple[Case, list[Any]]:
    """A small case and gradients of its results, the same with every version of NumPy."""
    rng = np.random.RandomState(4)

    def values(shape: Any) -> Any:
        return rng.normal(0, 0.6, shape).astype(np.float32)

    case = make_case(lengths=(3, 1, 6, 2), inputs=5, hidden=7, **TORCH_CASES[name])
    case = case.mapped(lambda a: values(a.shape))
    return case, [values(shape) for shape in case.shapes()]


def named(case: Case, results: Sequence[Any], gradients: Any) -> dict[str, Any]:
    """All results and gradients, by name; what is None is left out."""
    lstm = case.kind == "lstm"
    states = ("h", "c") if lstm else ("h",)
    weights = ("weight_ih", "weight_hh", "bias" if lstm else "bias_ih", "weight_hr" if lstm else "bias_hh")
    own = [f"d{weight}_{d}" for d in range(len(case.weights)) for weight in weights]
    names = ("out", *(f"{s}_n" for s in states), "dx", *own, *(f"d{s}0" for s in states))
    arrays = dict(zip(names, flat((list(results), gradients)), strict=True))
    return {name: array for name, array in arrays.items() if array is not None}


def split_gradients(arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `named` gave, as results and gradients."""
    results = {name: a for name, a in arrays.items() if name in ("out", "h_n", "c_n")}
    return results, {name: a for name, a in arrays.items() if name not in results}
