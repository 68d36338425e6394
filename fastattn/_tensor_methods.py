"""What a Tensor has of an array: shape and dtype, and `+ - * / **`, `[]`, `reshape`, `sum`, `mean`, all recorded."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastattn import autograd  # which imports this file: its names are looked up when an operator runs

if TYPE_CHECKING:
    pass

Array = NDArray[Any]


class TensorMethods:
    """Methods of `autograd.Tensor`. Operands are Tensors, arrays of the same dtype or numbers, and they broadcast."""

    __slots__ = ()
    __array_ufunc__ = None  # array + Tensor is a Tensor
    data: Array
    requires_grad: bool

    @property
    def value(self) -> Any:
        """What the kernels take: `data`, or the packed form of a parameter."""
        return self.data

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    def numel(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    def item(self) -> float:
        """The number of a Tensor that holds one."""
        return float(self.data.item())

    __float__ = item

    def detach(self) -> Any:
        """A Tensor of the same array that is no part of the graph."""
        return autograd.Tensor(self.data)

    def numpy(self) -> Array:
        """`data`, cut off from the graph."""
        return self.data

    def __array__(self, *arguments: Any, **options: Any) -> Array:
        if self.requires_grad:
            raise TypeError("a Tensor that requires a gradient becomes an array by .numpy(), which cuts the graph")
        return np.array(self.data, *arguments, **options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.data!r}{', requires_grad=True' * self.requires_grad})"

    def reshape(self, *shape: Any) -> Any:
        """The same numbers in another shape, as `numpy.ndarray.reshape`."""
        x = self._array()
        before = x.shape
        return autograd.record(x.reshape(*shape), (self,), lambda dy: (dy.reshape(before),))

    def __getitem__(self, index: Any) -> Any:
        """A copy of a part: integers, slices and `...`. Rows by their numbers: `functional.gather_rows`."""
        for part in index if isinstance(index, tuple) else (index,):
            if not isinstance(part, int | np.integer | slice | type(...)) or isinstance(part, bool):
                raise TypeError(f"Tensor: index must be of integers, slices and ..., got {part!r}")
        x = self._array()
        shape = x.shape

        def backward(dy: Array) -> tuple[Array]:
            dx = np.zeros(shape, dy.dtype)
            dx[index] = dy
            return (dx,)

        return autograd.record(np.array(x[index], order="C"), (self,), backward)

    def sum(self) -> Any:
        """The sum of all elements, computed in float64."""
        x = self._array()
        shape = x.shape
        total = x.sum(dtype=np.float64).astype(x.dtype)
        return autograd.record(total, (self,), lambda dy: (np.full(shape, dy, dy.dtype),))

    def mean(self) -> Any:
        """The mean of all elements."""
        return self.sum() / max(self.data.size, 1)

    def __add__(self, other: Any) -> Any:
        a, b = self._pair(other)
        shapes = a.shape, b.shape
        return autograd.record(a + b, (self, other), lambda dy: [_unbroadcast(dy, shape) for shape in shapes])

    def __mul__(self, other: Any) -> Any:
        a, b = self._pair(other)
        wanted = autograd.needs(self, other)

        def backward(dy: Array) -> tuple[Array | None, Array | None]:
            da = _unbroadcast(dy * b, a.shape) if wanted[0] else None
            return da, _unbroadcast(dy * a, b.shape) if wanted[1] else None

        return autograd.record(a * b, (self, other), backward)

    def __truediv__(self, other: Any) -> Any:
        a, b = self._pair(other)
        y = a / b
        wanted = autograd.needs(self, other)

        def backward(dy: Array) -> tuple[Array, Array | None]:
            da = dy / b
            return _unbroadcast(da, a.shape), _unbroadcast(-da * y, b.shape) if wanted[1] else None

        return autograd.record(y, (self, other), backward)

    def __rtruediv__(self, other: Any) -> Any:
        return (self**-1.0).__mul__(other)

    def __pow__(self, exponent: float) -> Any:
        if not isinstance(exponent, int | float | np.number):  # a Tensor would get no gradient
            return NotImplemented
        x, p = self._array(), float(exponent)

        def backward(dy: Array) -> tuple[Array]:
            return (np.asarray(dy * p * x ** (p - 1), x.dtype) if p else np.zeros_like(x),)

        return autograd.record(np.asarray(x**p, x.dtype), (self,), backward)

    def __sub__(self, other: Any) -> Any:
        return self.__add__(-other if isinstance(other, TensorMethods) else -self._pair(other)[1])

    def __rsub__(self, other: Any) -> Any:
        return self.__neg__().__add__(other)

    def __neg__(self) -> Any:
        return self * -1.0

    __radd__ = __add__
    __rmul__ = __mul__

    def _array(self) -> Array:
        autograd.values(self)  # raises where the Tensor was recorded with other functions
        return self.data

    def _pair(self, other: Any) -> tuple[Array, Array]:
        a, b = self._array(), other._array() if isinstance(other, TensorMethods) else other
        if not isinstance(b, np.ndarray) or b.dtype.kind in "biu":
            b = np.asarray(b, a.dtype)
        if b.dtype != a.dtype:
            raise TypeError(f"Tensor: the other operand must be {a.dtype} too, got {b.dtype}")
        return a, b


def _unbroadcast(dy: Array, shape: tuple[int, ...]) -> Array:
    """`dy` summed over the axes along which `shape` was broadcast."""
    if dy.shape == shape:
        return dy
    extra = dy.ndim - len(shape)
    axes = tuple(i for i, n in enumerate(dy.shape) if i < extra or shape[i - extra] != n)
    summed: Array = dy.sum(axis=axes).reshape(shape)
    return summed
