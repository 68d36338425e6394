"""Modules: a plain tree of layers, and the parameters in it under the names of their checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.kernels import PackedMatrix

Array = NDArray[np.float32]


class Parameter:
    """One array of a model, frozen: loaded once, then only read, by any number of threads.

    `value` is what kernels take: a `PackedMatrix` for a packed parameter, the matrix of a linear layer, of
    which that is the only copy, and a read-only array for any other. It exists once `load` was called;
    `shape` always does.
    """

    __slots__ = ("packed", "shape", "value")

    def __init__(self, shape: tuple[int, ...], *, packed: bool = False) -> None:
        self.shape = shape
        self.packed = packed
        self.value: Any

    def load(self, array: Array) -> None:
        """Take the values of a float32 array of this shape. Raises TypeError or ValueError for another."""
        if array.dtype != np.float32:
            raise TypeError(f"Parameter: array must be float32, got {array.dtype}")
        if array.shape != self.shape:
            raise ValueError(f"Parameter: array must have shape {self.shape}, got {array.shape}")
        if self.packed:
            self.value = PackedMatrix(np.ascontiguousarray(array))
        else:
            self.value = np.ascontiguousarray(array).view()
            self.value.flags.writeable = False

    @property
    def data(self) -> Array:
        """The values as a read-only array, a new one for a packed parameter."""
        array: Array = self.value.unpack() if self.packed else self.value
        return array


class ParameterRows:
    """Some rows of a parameter, which a checkpoint knows as a parameter of their own."""

    __slots__ = ("_rows", "_whole", "shape")

    def __init__(self, whole: Parameter, start: int, stop: int) -> None:
        self.shape = (stop - start, *whole.shape[1:])
        self._whole = whole
        self._rows = slice(start, stop)

    @property
    def data(self) -> Array:
        """The values as a read-only array."""
        return self._whole.data[self._rows]


class Module:
    """A layer or a model: its attributes are its parameters and its child modules, or lists of these.

    A module whose checkpoint has other names for its parts overrides `children`. Modules hold parameters
    and settings, never an activation, so one of them can be called from many threads at once.
    """

    def children(self) -> Iterator[tuple[str, Module]]:
        """The child modules by name; those of a list are numbered."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, list):
                yield from ((f"{name}.{i}", child) for i, child in enumerate(value))

    def own_parameters(self) -> Iterator[tuple[str, Parameter | ParameterRows]]:
        """The parameters of this module without those of its children."""
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield name, value

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter | ParameterRows]]:
        """All parameters of the tree with their full names, each beginning with `prefix`."""
        for name, parameter in self.own_parameters():
            yield prefix + name, parameter
        for name, child in self.children():
            yield from child.named_parameters(f"{prefix}{name}.")

    def state_dict(self) -> dict[str, Array]:
        """All parameters of the tree as read-only arrays by name."""
        return {name: parameter.data for name, parameter in self.named_parameters()}

    def load_state_dict(self, tensors: Mapping[str, Array], prefix: str = "") -> None:
        """Load every parameter of the tree from the tensor of its name, one after the other.

        Raises KeyError for a tensor that is missing, TypeError or ValueError for one that does not fit.
        """
        for name, parameter in self.own_parameters():
            if isinstance(parameter, Parameter):
                parameter.load(tensors[prefix + name])
        for name, child in self.children():
            child.load_state_dict(tensors, f"{prefix}{name}.")
