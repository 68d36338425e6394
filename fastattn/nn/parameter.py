"""Parameters: the arrays of a model, trainable or frozen."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.autograd import Node, Tensor
from fastattn.checks import operand
from fastattn.kernels import PackedMatrix
from fastattn.nn import quantization
from fastattn.nn.init import Init, skipped, zeros

Array = NDArray[Any]


class Parameter(Tensor):
    """One array of a model.

    A trainable parameter has a writable float32 array, is recorded, and gets a `grad`. A frozen parameter is loaded
    once and then only read, by any number of threads. It is never recorded. `value` is what kernels take: the array,
    read-only if frozen. A frozen parameter with `packed` (a matrix, or filters as its rows) has only a `PackedMatrix`
    with `groups`. A trainable parameter with `requires_grad = False` gets no gradient.

    `data` is a writable array of floats, which the parameter takes over, or the shape of a new parameter. `init` makes
    the initial values of a new one. Within `nn.init.uninitialized()` it has only a shape until `load` or `initialize`.
    A pickle has the plain values; a frozen parameter is packed again on unpickling.

    >>> weight = Parameter(np.ones(2, np.float32))
    >>> (weight * 3.0).sum().backward()
    >>> weight.grad.tolist()
    [3.0, 3.0]
    """

    __slots__ = ("_init", "_requires_grad", "frozen", "groups", "packed", "shape", "value")
    shape: tuple[int, ...]
    value: Any
    weights: Any = "float32"

    def __init__(
        self, data: Array | tuple[int, ...], init: Init = zeros, *, packed: bool = False, groups: int = 1
    ) -> None:
        self.grad = None
        self.frozen = False
        self.packed = packed
        self.groups = groups
        self._init = init
        self._node = None
        self._requires_grad = True
        if isinstance(data, tuple):
            self.shape = data
            self.value = None
            self.initialize()
        else:
            if operand("Parameter: data", data).dtype.kind != "f":
                raise TypeError(f"Parameter: data must be floating point, got {data.dtype}")
            self.shape = data.shape
            self.value = np.require(data, None, ["C", "W"])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32) if self.frozen or self.value is None else self.value.dtype

    @property
    def held(self) -> Any:
        """`value` as far as it is in memory."""
        return self.value

    @property
    def nbytes(self) -> int:
        """The memory of the values."""
        return 0 if self.held is None else int(self.held.nbytes)

    @property
    def data(self) -> Array:
        """The values: the array itself, or a read-only copy of a packed matrix."""
        value = self.value
        array: Array = value.unpack().reshape(self.shape) if isinstance(value, PackedMatrix) else value
        return array

    @data.setter
    def data(self, array: Array) -> None:
        _check_data(self, array)
        self.value = array

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, requires_grad: bool) -> None:
        if requires_grad and self.frozen:
            raise ValueError("Parameter: requires_grad of a frozen parameter stays False; load it with trainable=True")
        self._requires_grad = requires_grad

    def initialize(self) -> None:
        """Draw initial values if the parameter has none."""
        if self.held is None and not skipped():
            self.value = self._init(self.shape)

    def load(self, array: Array) -> None:
        """Take the values of a float32 array of this shape. A parameter without values keeps the array itself.

        Raises TypeError for another dtype, ValueError for another shape and for a parameter of fewer bits.
        """
        self._check(array, self.shape)
        if self.frozen:
            self.value = self._freeze(array)
        elif self.value is None:
            self.value = np.require(array, None, ["C", "W"])
        else:
            self.value[...] = array

    def load_rows(self, rows: slice, array: Array) -> None:
        """`load` some of the rows. If there were no values before, the other rows are undefined."""
        self._check(array, (rows.stop - rows.start, *self.shape[1:]))
        if self.value is None:
            self.value = np.empty(self.shape, np.float32)
        whole = self.data.copy() if self.frozen else self.value
        whole[rows] = array
        if self.frozen:
            self.value = self._freeze(whole)

    def freeze(self, weights: str = "float32", sizes: Array | None = None, rows: slice = slice(None)) -> None:
        """Freeze, for good, and remove the gradient. `weights` is what the matrix of a linear layer becomes, see
        `Module.freeze`; `sizes` and `rows` are as in `fastattn.nn.quantization.packed`."""
        if not self.frozen:
            self.initialize()
            self.value = self._freeze(self.value)
            self.frozen, self._requires_grad, self.grad = True, False, None

    def numbers(self, name: str) -> dict[str, Array]:
        """What a file holds of the parameter called `name`: its values, or the `numbers` of a `PackedMatrix` of fewer
        bits, the scales as `{name}_scales` and `{name}_input_scales`."""
        return {name: self.data}

    def __getstate__(self) -> dict[str, Any]:
        """The state to pickle: the plain array of a packed value, and an `init` only if it is still needed."""
        state = {name: getattr(self, name) for name in ("_node", "grad", *Parameter.__slots__)}
        if self.value is not None:
            state["value"], state["_init"] = self.data, zeros
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        if self.frozen:
            self.value = self._freeze(self.value)

    def __copy__(self) -> Parameter:
        new = object.__new__(type(self))
        for name in ("_node", "grad", *Parameter.__slots__):
            setattr(new, name, getattr(self, name))
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        new = copy.copy(self)
        if not self.frozen:  # a frozen value is never written to and can be shared
            new.value, new.grad = copy.deepcopy(self.value), copy.deepcopy(self.grad)
        return new

    def _freeze(self, array: Array) -> Any:
        if isinstance(array, PackedMatrix):
            return array
        if self.packed:
            return PackedMatrix(np.ascontiguousarray(array).reshape(len(array), -1), self.groups)
        array = np.ascontiguousarray(array).view()
        array.flags.writeable = False
        return array

    def _check(self, array: Array, shape: tuple[int, ...]) -> None:
        if self.weights != "float32":
            raise ValueError(f"Parameter: weights of {self.weights} stay what they are; load a model in float32")
        if operand("Parameter: array", array).dtype != self.dtype:
            raise TypeError(f"Parameter: array must be {self.dtype}, got {array.dtype}")
        if array.shape != shape:
            raise ValueError(f"Parameter: array must have shape {shape}, got {array.shape}")


class Matrix(Parameter):
    """The matrix `[out, in]` of a linear layer, which may be frozen in fewer bits."""

    __slots__ = ()

    def __init__(self, data: Array | tuple[int, ...], init: Init = zeros) -> None:
        super().__init__(data, init, packed=True)

    @property
    def weights(self) -> str:
        """What it is held as: "float32", "bfloat16" or "int8"."""
        return self.value.dtype if isinstance(self.value, PackedMatrix) else "float32"

    def freeze(self, weights: str = "float32", sizes: Array | None = None, rows: slice = slice(None)) -> None:
        """As for every parameter. A frozen float32 matrix still becomes one of fewer bits, which stays what it is."""
        if weights != "float32" and self.weights == "float32":
            self.initialize()
            self.value = quantization.packed(self.data, weights, sizes, rows)
            self.frozen, self._requires_grad, self.grad = True, False, None
        super().freeze()

    def numbers(self, name: str) -> dict[str, Array]:
        if self.weights == "float32":
            return super().numbers(name)
        return {name if part == "weight" else f"{name}_{part}": x for part, x in self.value.numbers().items()}

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return state if self.weights == "float32" else {**state, "value": self.value.numbers()}

    def _freeze(self, array: Any) -> Any:
        return PackedMatrix.of_numbers(**array) if isinstance(array, dict) else super()._freeze(array)


class Table(Parameter):
    """A matrix of which layers take rows. Rows of a large frozen one may still be in its file: `stored.read(ids)` has
    those at some ids, `value` has all. `matrix` is for a table that is also the matrix of a product; `weights` is what
    that becomes if the table is frozen. With fewer bits, the rows of a large one are those of bfloat16: int8 would
    round them more coarsely than a product does."""

    __slots__ = ("_matrix", "_sizes", "_value", "stored", "weights")

    def __init__(self, data: Array | tuple[int, ...], init: Init = zeros) -> None:
        self.weights = "float32"
        self._sizes: Array | None = None
        super().__init__(data, init)

    @property
    def value(self) -> Any:
        return self._value if self.stored is None else self.stored.read_all()

    @value.setter
    def value(self, value: Any) -> None:
        self._value, self.stored = value, None
        self._matrix: PackedMatrix | None = None

    @property
    def held(self) -> Any:
        return self._value

    @property
    def matrix(self) -> PackedMatrix:
        """The values, packed. A frozen table packs them once and keeps them."""
        if not self.frozen:
            return PackedMatrix(self.value)
        matrix = self._matrix or quantization.packed(self.value, self.weights, self._sizes)
        self._matrix = matrix
        return matrix

    @property
    def nbytes(self) -> int:
        """The memory of the values, and of `matrix` once it is packed."""
        return super().nbytes + (0 if self._matrix is None else self._matrix.nbytes)

    def freeze(self, weights: str = "float32", sizes: Array | None = None, rows: slice = slice(None)) -> None:
        """As for every parameter: `weights` is what `matrix` and the rows become. Those of fewer bits stay."""
        if weights != "float32" and self.weights == "float32":
            self.initialize()
            if self.large and self.stored is not None and self.stored.unread:
                self.load_stored(self.stored.again(quantization.round_rows))  # a copy of the model has the others
            elif self.large:
                table = self.value.copy() if self.frozen else self.value
                quantization.round_rows(table)
                self.value = self._freeze(table)
            self.weights, self._sizes, self._matrix = weights, sizes, None
        super().freeze()

    @property
    def large(self) -> bool:
        """Whether its rows are worth fewer bits."""
        return math.prod(self.shape) >= quantization.LARGE

    def numbers(self, name: str) -> dict[str, Array]:
        if self.weights == "float32" or not self.large:
            return super().numbers(name)
        return {name: quantization.bfloat16_bits(self.data)}

    def load_stored(self, stored: Any) -> None:
        """Take a `formats.stored.StoredRows`, and freeze."""
        self.frozen, self._requires_grad, self.grad = True, False, None
        self._value, self.stored, self._matrix = stored.table, stored, None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "weights": self.weights, "_sizes": self._sizes}

    def __copy__(self) -> Parameter:
        new = object.__new__(type(self))
        plain = (name for name in Parameter.__slots__ if name != "value")
        for name in ("_node", "grad", *plain, *Table.__slots__):
            setattr(new, name, getattr(self, name))
        return new


class ParameterRows(Tensor):
    """Some rows of a parameter, which checkpoints and optimizers treat as a parameter.

    `data` and `grad` are views into the whole parameter; setting `grad` to None removes the gradient of the whole.
    `requires_grad` applies to these rows alone; the whole is recorded if any of its rows require a gradient.
    """

    __slots__ = ("_rows", "_trained", "_whole", "shape")
    shape: tuple[int, ...]

    def __init__(self, whole: Parameter, start: int, stop: int, trained: set[int]) -> None:
        """Rows `start` to `stop`. `trained`, shared by all parts of `whole`, holds the `start` of each trained part."""
        self._node = None
        self.shape = (stop - start, *whole.shape[1:])
        self._whole = whole
        self._rows = slice(start, stop)
        self._trained = trained
        trained.add(start)

    def origin(self) -> Node:
        """A node of its own, which adds its gradient to these rows of the whole parameter's gradient."""
        whole, rows = self._whole, self._rows

        def backward(dy: Array) -> tuple[Array]:
            total = np.zeros(whole.shape, dy.dtype) if whole.grad is None else whole.grad
            total[rows] += dy
            return (total,)

        return Node((whole,), backward)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._whole.dtype

    @property
    def frozen(self) -> bool:  # type: ignore[override]  # of a class attribute, which is faster to read
        return self._whole.frozen

    @property
    def data(self) -> Array:
        """The values, read-only if frozen. Setting them writes into the whole parameter."""
        return self._whole.data[self._rows]

    @data.setter
    def data(self, array: Array) -> None:
        _check_data(self, array)
        self._whole.data[self._rows] = array

    @property
    def grad(self) -> Array | None:
        """The gradient of these rows."""
        grad = self._whole.grad
        return None if grad is None or not self.requires_grad else grad[self._rows]

    @grad.setter
    def grad(self, grad: Array | None) -> None:
        if grad is None:
            self._whole.grad = None
            return
        if self._whole.grad is None:
            self._whole.grad = np.zeros_like(self._whole.data)
        self._whole.grad[self._rows] = grad

    @property
    def requires_grad(self) -> bool:
        return self._whole.requires_grad and self._rows.start in self._trained

    @requires_grad.setter
    def requires_grad(self, requires_grad: bool) -> None:
        (self._trained.add if requires_grad else self._trained.discard)(self._rows.start)
        self._whole.requires_grad = bool(self._trained)

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        return None, {name: getattr(self, name) for name in ("_node", *ParameterRows.__slots__)}

    def load(self, array: Array) -> None:
        """Take the values of a float32 array of this shape. Raises TypeError or ValueError for another."""
        self._whole.load_rows(self._rows, array)

    def numbers(self, name: str) -> dict[str, Array]:
        """What a file holds of these rows, as `Parameter.numbers`."""
        whole, common = self._whole.numbers(name), f"{name}_input_scales"
        return {part: array if part == common else array[self._rows] for part, array in whole.items()}


AnyParameter = Parameter | ParameterRows


def load_frozen(
    parts: Sequence[tuple[AnyParameter, str]], state: Any, tables: set[int], weights: str = "float32"
) -> set[int]:
    """Load parameters that are frozen next from the tensors of a `StateDict` with the given names: matrices to be
    packed, all at once, and those of `tables`, by `id`, that are large. Returns the ids of those that are loaded.

    A `Matrix` that becomes one of fewer bits is loaded only if it has been stored as such.
    """
    wholes: dict[int, tuple[Parameter, list[tuple[AnyParameter, str]]]] = {}
    for parameter, name in parts:
        wholes.setdefault(id(whole := whole_of(parameter)), (whole, []))[1].append((parameter, name))
    loaded: set[int] = set()
    matrices: list[tuple[Parameter, list[str]]] = []
    for whole, found in wholes.values():
        rows = [part._rows.start if isinstance(part, ParameterRows) else 0 for part, _ in found]
        ends = [start + part.shape[0] for start, (part, _) in zip(rows, found, strict=True) if part.shape]
        if whole.packed and not whole.frozen and whole.value is None and [*rows, whole.shape[0]] == [0, *ends]:
            names = [name for _, name in found]
            if weights == "float32" or not isinstance(whole, Matrix):
                matrices.append((whole, names))
            elif (matrix := state.matrix(names, weights)) is not None:
                whole.value = matrix
            else:
                continue
        elif isinstance(whole, Table) and id(whole) in tables and (stored := state.rows(found[0][1])) is not None:
            whole.load_stored(stored)
        else:
            continue
        loaded.update(id(part) for part, _ in found)
    packed = state.packed([(names, whole.groups) for whole, names in matrices])
    for (whole, _), matrix in zip(matrices, packed, strict=True):
        if matrix.shape != (whole.shape[0], math.prod(whole.shape[1:])):
            raise ValueError(f"Parameter: array must have shape {whole.shape}, got {matrix.shape}")
        whole.value = matrix
    return loaded


def whole_of(parameter: AnyParameter) -> Parameter:
    """The parameter itself, or the one that it is rows of."""
    return parameter._whole if isinstance(parameter, ParameterRows) else parameter


def _check_data(parameter: Parameter | ParameterRows, array: Array) -> None:
    if parameter.frozen:
        raise ValueError("Parameter: data of a frozen parameter cannot be set")
    if operand("Parameter: data", array).shape != parameter.shape:
        raise ValueError(f"Parameter: data must have shape {parameter.shape}, got {array.shape}")
