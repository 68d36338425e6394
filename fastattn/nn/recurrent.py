"""Recurrent layers under PyTorch's names: LSTM and GRU, and their single steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastattn import functional as F
from fastattn import ragged
from fastattn._core import run_pass
from fastattn.autograd import record, values
from fastattn.checks import POSITIVE, PROBABILITY, boolean, integer, number, operand, shown
from fastattn.nn import init
from fastattn.nn.module import Module, Values
from fastattn.nn.parameter import Parameter

States = tuple[Any, ...]


class _Recurrent(Module, ABC):
    """A stack of layers of one kind: parameters, shapes and states."""

    _gates: int
    _parts: tuple[str, ...]  # the names of the weights in the order of `fastattn.functional`
    _states: tuple[str, ...]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        cell_clip: float | None = None,
        proj_clip: float | None = None,
        recompute: bool = False,
        weight_dropout: float = 0.0,
    ) -> None:
        name = type(self).__name__
        self.input_size = integer(f"{name}: input_size", input_size)
        self.hidden_size = integer(f"{name}: hidden_size", hidden_size)
        self.num_layers = integer(f"{name}: num_layers", num_layers)
        wanted = f"in [0, {hidden_size}), less than hidden_size"
        self.bias = bias = boolean(f"{name}: bias", bias, error=TypeError)
        self.batch_first = boolean(f"{name}: batch_first", batch_first, error=TypeError)
        self.dropout = number(f"{name}: dropout", dropout, **PROBABILITY)
        self.weight_dropout = number(f"{name}: weight_dropout", weight_dropout, **PROBABILITY)
        self.bidirectional = boolean(f"{name}: bidirectional", bidirectional, error=TypeError)
        self.proj_size = integer(f"{name}: proj_size", proj_size, 0, hidden_size, wanted)
        self.recompute = boolean(f"{name}: recompute", recompute, error=TypeError)
        self.cell_clip, self.proj_clip = cell_clip, proj_clip
        for option, clip in (("cell_clip", cell_clip), ("proj_clip", proj_clip)):
            if clip is not None:
                number(f"{name}: {option}", clip, **POSITIVE)
        for option, value in (("proj_size", proj_size or None), ("cell_clip", cell_clip)):
            if value is not None and "c_0" not in self._states:
                raise ValueError(f"{name}: {option} is for an LSTM alone, got {value}")
        if proj_clip is not None and not proj_size:
            raise ValueError(f"{name}: proj_clip must be None without proj_size, got {shown(proj_clip)}")
        for layer in range(num_layers):
            size = self._output_size if layer else input_size
            for suffix in self._suffixes(layer):
                _add_weights(self, suffix, self._gates, size, hidden_size, bias, proj_size)

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def _output_size(self) -> int:
        return self._directions * (self.proj_size or self.hidden_size)

    def _suffixes(self, layer: int) -> Iterator[str]:
        for reverse in ("", "_reverse")[: self._directions]:
            yield f"_l{layer}{reverse}"

    @abstractmethod
    def _layer(self, x: Values, cu_seqlens: ArrayLike, weights: list[Any], states: States | None) -> tuple[Any, States]:
        """Run one layer in all directions. Returns its output and its last states."""

    def _run(self, input: Values, states: States | None, cu_seqlens: ArrayLike | None) -> tuple[Any, States]:
        """Run all layers. Returns the output in the form of `input`, and the last states of all layers."""
        name = type(self).__name__
        shape = operand(f"{name}: input", input).shape
        if len(shape) not in (2, 3) or shape[-1] != self.input_size:
            raise ValueError(f"{name}: input must have shape (tokens, {self.input_size}) or three axes, got {shape}")
        if len(shape) == 3 and cu_seqlens is not None:
            raise ValueError(f"{name}: input must have shape (tokens, {self.input_size}) with cu_seqlens, got {shape}")
        turned = len(shape) == 3 and not self.batch_first
        single = len(shape) == 2 and cu_seqlens is None
        x = _turn(input) if turned else input
        batch, seq = (1, shape[0]) if single else x.shape[:2]
        named = f"{name}: cu_seqlens"
        offsets = ragged.uniform(batch, seq) if cu_seqlens is None else ragged.int32_offsets(cu_seqlens, named)
        x = x.reshape(-1, self.input_size) if len(shape) == 3 else x
        if states is not None:
            states = self._check_states(states, len(offsets) - 1, single)
        finals = []
        for layer in range(self.num_layers):
            if layer:
                x = F.dropout(x, self.dropout_rate(self.dropout))
            rows = slice(layer * self._directions, (layer + 1) * self._directions)
            given = states and tuple(None if state is None else state[rows] for state in states)
            weights = [self._weights(suffix) for suffix in self._suffixes(layer)]
            x, final = self._layer(x, offsets, weights, given)
            finals.append(final)
        if len(shape) == 3:
            x = x.reshape(batch, seq, self._output_size)
        last = tuple(parts[0] if len(parts) == 1 else F.cat(parts) for parts in zip(*finals, strict=True))
        if single:
            last = tuple(state.reshape(state.shape[0], state.shape[2]) for state in last)
        return _turn(x) if turned else x, last

    def _weights(self, suffix: str) -> tuple[Any, ...]:
        """The weights of one layer in one direction; dropout changes those that are not frozen."""
        weight_ih, weight_hh, *rest = _operands(self, suffix, self._parts)
        if not weight_hh.frozen:
            weight_hh = F.dropout(weight_hh, self.dropout_rate(self.weight_dropout))
        return weight_ih, weight_hh, *rest

    def extra_repr(self) -> str:
        names = ("num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size", "weight_dropout")
        usual = {"num_layers": 1, "bias": True}
        changed = [f"{name}={getattr(self, name)}" for name in names if getattr(self, name) != usual.get(name, False)]
        return ", ".join([str(self.input_size), str(self.hidden_size), *changed])

    def _check_states(self, states: States, batch: int, single: bool) -> States:
        """The states, checked, with an axis for the batch."""
        checked = []
        for name, state in zip(self._states, states, strict=True):
            size = (name == "h_0" and self.proj_size) or self.hidden_size
            wanted = (self.num_layers * self._directions, batch, size)
            shape = (wanted[0], size) if single else wanted
            if state is not None and operand(f"{type(self).__name__}: {name} of hx", state).shape != shape:
                raise ValueError(f"{type(self).__name__}: {name} of hx must have shape {shape}, got {state.shape}")
            checked.append(None if state is None else state.reshape(wanted))
        return tuple(checked)


class LSTM(_Recurrent):
    """Layers of long short-term memory, as `torch.nn.LSTM`: a stack of `num_layers`, each reading the one below.

    The first layer reads `input_size` features per token. Each layer has `hidden_size` cells, and with `bidirectional`
    as many that read from the end. With `proj_size` the state h is a projection to that size. `dropout` acts on the
    outputs between the layers while training. `batch_first` applies only to padded input. `bias=False` omits the
    biases. Beyond PyTorch, `cell_clip` and `proj_clip` keep cells and projections within +- their value, `recompute`
    computes the gates again in the backward pass instead of keeping them, and `weight_dropout` acts on the numbers of
    `weight_hh`, once a call, while training (Merity et al. 2018, section 2).

    Parameters have PyTorch's names and shapes, `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`,
    `weight_hr_l0`, `..._l0_reverse`. They are initialised uniformly within +-1 / sqrt(hidden_size). Raises ValueError
    for sizes less than 1, a dropout outside [0, 1), a `proj_size` that is not less than `hidden_size`, a clip that is
    not positive, and a `proj_clip` without `proj_size`.

    Source: Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000; projection: Sak et al. 2014.
    """

    _gates = 4
    _parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    _states = ("h_0", "c_0")

    def forward(
        self, input: Values, hx: tuple[Values, Values] | None = None, cu_seqlens: ArrayLike | None = None
    ) -> tuple[Any, tuple[Any, Any]]:
        """`(output, (h_n, c_n))`: the top layer's states at all tokens, and all layers' states after the last token.

        `input`, an array or a Tensor, has one of three forms. It is ragged, `[tokens, input_size]`, with `cu_seqlens`,
        integers `[batch + 1]`: sequence i is rows `cu_seqlens[i]` to `cu_seqlens[i + 1]`. It is padded, `[seq, batch,
        input_size]`, or `[batch, seq, input_size]` with `batch_first`, and the padding is computed too. Or it is one
        sequence, `[seq, input_size]`. `hx` is `(h_0, c_0)`, 0 by default, each `[num_layers * directions, batch,
        size]`, without the batch axis for one sequence. size is `hidden_size`; for h_0, `proj_size` if it is not 0.

        `output` has the form of `input` with `directions * size` features per token. `h_n` and `c_n` have the shapes of
        `hx`. Raises ValueError for another shape, TypeError for another type or dtype.

        >>> lstm = LSTM(3, 5, num_layers=2, bidirectional=True)
        >>> output, (h, c) = lstm(np.ones((7, 3), np.float32), cu_seqlens=np.array([0, 4, 7], np.int32))
        >>> output.shape, h.shape, c.shape
        ((7, 10), (4, 2, 5), (4, 2, 5))
        """
        if hx is not None and not (isinstance(hx, tuple | list) and len(hx) == 2):
            raise TypeError(f"LSTM: hx must be a tuple (h_0, c_0) or None, got {type(hx).__name__}")
        output, (h_n, c_n) = self._run(input, hx, cu_seqlens)
        return output, (h_n, c_n)

    def _layer(self, x: Values, cu_seqlens: ArrayLike, weights: list[Any], states: States | None) -> tuple[Any, States]:
        hx = None if states is None else (states[0], states[1])
        clips: dict[str, Any] = {"cell_clip": self.cell_clip, "proj_clip": self.proj_clip}
        return F.lstm(x, cu_seqlens, weights, hx, **clips, recompute=self.recompute)


class GRU(_Recurrent):
    """Layers of gated recurrent units, as `torch.nn.GRU`: a stack of `num_layers`, each reading the one below.

    Arguments, parameters and errors are as in `LSTM`, but without projections and clips. Raises ValueError for a
    `proj_size` or a `cell_clip`.

    Source: Cho et al. 2014, with the reset gate after the product (Chung et al. 2014), as in PyTorch.
    """

    _gates = 3
    _parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    _states = ("h_0",)

    def forward(self, input: Values, hx: Values | None = None, cu_seqlens: ArrayLike | None = None) -> tuple[Any, Any]:
        """`(output, h_n)`: the top layer's states at all tokens, and all layers' states after the last token.

        `hx` is h_0, `[num_layers * directions, batch, hidden_size]`, 0 by default. The rest is as in `LSTM`.

        >>> gru = GRU(3, 5, batch_first=True)
        >>> output, h = gru(np.ones((2, 4, 3), np.float32))
        >>> output.shape, h.shape
        ((2, 4, 5), (1, 2, 5))
        """
        output, (h_n,) = self._run(input, None if hx is None else (hx,), cu_seqlens)
        return output, h_n

    def _layer(self, x: Values, cu_seqlens: ArrayLike, weights: list[Any], states: States | None) -> tuple[Any, States]:
        output, h_n = F.gru(x, cu_seqlens, weights, None if states is None else states[0], recompute=self.recompute)
        return output, (h_n,)


class _Cell(Module):
    _layer: type[_Recurrent]

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        name = type(self).__name__
        input_size = integer(f"{name}: input_size", input_size)
        hidden_size = integer(f"{name}: hidden_size", hidden_size)
        bias = boolean(f"{name}: bias", bias, error=TypeError)
        _add_weights(self, "", self._layer._gates, input_size, hidden_size, bias)

    def _run(self, step: Callable[..., Any], input: Values, hx: Any) -> Any:
        """Run a step. An input without the batch axis is a batch of one."""
        weights = _operands(self, "", self._layer._parts)
        if len(input.shape) > 1:
            return step(input, hx, *weights)
        states = step(_row(input), tuple(map(_row, hx)) if isinstance(hx, tuple | list) else _row(hx), *weights)
        return tuple(x.reshape(-1) for x in states) if isinstance(states, tuple) else states.reshape(-1)


class LSTMCell(_Cell):
    """One step of an `LSTM`, as `torch.nn.LSTMCell`: from `input_size` to `hidden_size`, with or without `bias`.

    Parameters are `weight_ih`, `weight_hh`, `bias_ih` and `bias_hh`, as in a layer. Raises ValueError for sizes less
    than 1.
    """

    _layer = LSTM

    def forward(self, input: Values, hx: tuple[Values, Values] | None = None) -> tuple[Any, Any]:
        """The next `(h, c)`, from `input` `[batch, input_size]` and `hx` `(h, c)`. States are `[batch, hidden_size]`.

        `hx` is 0 by default. The batch axis may be omitted throughout.

        >>> h, c = LSTMCell(3, 5)(np.ones((2, 3), np.float32))
        >>> h.shape, c.shape
        ((2, 5), (2, 5))
        """
        h, c = self._run(F.lstm_cell, input, hx)
        return h, c


class GRUCell(_Cell):
    """One step of a `GRU`, as `torch.nn.GRUCell`. Arguments, parameters and errors are as in `LSTMCell`."""

    _layer = GRU

    def forward(self, input: Values, hx: Values | None = None) -> Any:
        """The next h, from `input` `[batch, input_size]` and `hx`. h and `hx` are `[batch, hidden_size]`.

        `hx` is 0 by default. The batch axis may be omitted throughout.

        >>> GRUCell(3, 5)(np.ones((2, 3), np.float32)).shape
        (2, 5)
        """
        return self._run(F.gru_cell, input, hx)


def _add_weights(
    module: Module, suffix: str, gates: int, input_size: int, hidden_size: int, bias: bool, proj_size: int = 0
) -> None:
    """Add the weights of one layer in one direction, in PyTorch's order."""
    first, rows = init.uniform(hidden_size**-0.5), gates * hidden_size
    weights = {
        "weight_ih": Parameter((rows, input_size), first, packed=True),
        "weight_hh": Parameter((rows, proj_size or hidden_size), first, packed=True, groups=gates),
    }
    if bias:
        weights["bias_ih"], weights["bias_hh"] = Parameter((rows,), first), Parameter((rows,), first)
    if proj_size:
        weights["weight_hr"] = Parameter((proj_size, hidden_size), first, packed=True)
    for name, parameter in weights.items():
        setattr(module, name + suffix, parameter)


def _operands(module: Module, suffix: str, parts: tuple[str, ...]) -> tuple[Any, ...]:
    """The weights of one layer in one direction as `fastattn.functional` takes them, None for a missing one."""
    parameters = vars(module)
    return tuple(parameters[name] if (name := part + suffix) in parameters else None for part in parts)


def _row(x: Values | None) -> Any:
    return None if x is None else x.reshape(1, -1)


def _turn(x: Values) -> Any:
    """`x` with its first two axes swapped."""
    (array,) = values(x)
    run_pass()
    y = np.ascontiguousarray(array.swapaxes(0, 1))
    return y if array is x else record(y, (x,), lambda dy: (dy.swapaxes(0, 1),))
