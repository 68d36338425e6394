"""Recorded versions of the array methods: shape, dtype, arithmetic, `@`, `[]`, reshaping and sums."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Axis = int | Sequence[int] | None


class TensorMethods:
    """Methods of `autograd.Tensor`. Operands are Tensors, arrays of the same dtype or numbers, and they broadcast."""

    __slots__ = ()
    __array_ufunc__ = None  # array + Tensor is a Tensor
    data: Array
    requires_grad: bool

    @abstractmethod
    def _record(self, data: Array, operands: Sequence[Any], backward: Callable[[Array], Sequence[Array | None]]) -> Any:
        """`autograd.record`."""

    @abstractmethod
    def _kernels(self, *operands: Any) -> Any:
        """The module of functions in use. Raises ValueError for an operand recorded with another one."""

    @property
    def value(self) -> Any:
        """The argument for kernels: `data`, or the packed form of a parameter."""
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
        """The number of elements."""
        return math.prod(self.shape)

    def item(self) -> float:
        """The value of a Tensor with one element, as a Python number."""
        return float(self.data.item())

    __float__ = item

    def tolist(self) -> Any:
        """The values as nested lists."""
        return self.data.tolist()

    def numpy(self) -> Array:
        """`data`, detached from the graph."""
        return self.data

    def __array__(self, *arguments: Any, **options: Any) -> Array:
        if self.requires_grad:
            raise TypeError("call .numpy() on a Tensor that requires a gradient: the array is cut from the graph")
        return np.array(self.data, *arguments, **options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.data!r}{', requires_grad=True' * self.requires_grad})"

    def __len__(self) -> int:
        """The size of the first axis."""
        if not self.shape:
            raise TypeError("len() of a Tensor without axes")
        return self.shape[0]

    def __bool__(self) -> bool:
        return bool(self.data)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __lt__(self, other: Any) -> Any:
        """A bool, or an array of them: comparisons have no gradient."""
        return self.data < getattr(other, "value", other)

    def __le__(self, other: Any) -> Any:
        return self.data <= getattr(other, "value", other)

    def __gt__(self, other: Any) -> Any:
        return self.data > getattr(other, "value", other)

    def __ge__(self, other: Any) -> Any:
        return self.data >= getattr(other, "value", other)

    def __iter__(self) -> Iterator[Any]:
        """The parts along the first axis."""
        return (self[i] for i in range(len(self)))

    def reshape(self, *shape: Any) -> Any:
        """The same values in another shape, as `numpy.ndarray.reshape`."""
        x = self._array()
        before = x.shape
        return self._record(x.reshape(*shape), (self,), lambda dy: (dy.reshape(before),))

    def permute(self, *dims: Any) -> Any:
        """The axes in the order `dims`, as `torch.Tensor.permute`. Raises ValueError for axes that do not exist."""
        order = tuple(dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims)
        y = np.ascontiguousarray(self._array().transpose(order))
        back = np.argsort([axis % y.ndim for axis in order])
        return self._record(y, (self,), lambda dy: (dy.transpose(back),))

    def transpose(self, dim0: int, dim1: int) -> Any:
        """Two axes swapped, as `torch.Tensor.transpose`. Raises IndexError for an axis that does not exist."""
        order = list(range(self.ndim))
        order[dim0], order[dim1] = order[dim1], order[dim0]
        return self.permute(order)

    @property
    def T(self) -> Any:
        """All axes in reverse order."""
        return self.permute(range(self.ndim)[::-1])

    def __getitem__(self, index: Any) -> Any:
        """A copy of a part, selected by integers, slices and `...`. To select rows by index see `gather_rows`."""
        for part in index if isinstance(index, tuple) else (index,):
            if not isinstance(part, int | np.integer | slice | type(...)) or isinstance(part, bool):
                raise TypeError(f"Tensor: index must consist of integers, slices and ..., got {part!r}")
        x = self._array()
        shape = x.shape

        def backward(dy: Array) -> tuple[Array]:
            dx = np.zeros(shape, dy.dtype)
            dx[index] = dy
            return (dx,)

        return self._record(np.array(x[index], order="C"), (self,), backward)

    def sum(self, axis: Axis = None, keepdims: bool = False, *, dim: Axis = None, keepdim: bool = False) -> Any:
        """The sum of all elements, or along one or several axes `axis`, computed in float64.

        `keepdims` keeps these axes with size 1. `dim` and `keepdim` are PyTorch's names for both. Raises
        numpy.exceptions.AxisError for an axis that does not exist.

        >>> from fastattn import Tensor
        >>> Tensor([[1.0, 2.0], [3.0, 4.0]]).sum(axis=1).numpy().tolist()
        [3.0, 7.0]
        """
        x = self._array()
        shape = x.shape
        given = axis if dim is None else dim
        axes = range(x.ndim) if given is None else (given,) if isinstance(given, int | np.integer) else given
        total = x.sum(axis=tuple(axes), dtype=np.float64, keepdims=keepdims or keepdim).astype(x.dtype)
        kept = list(shape)
        for i in axes:
            kept[i] = 1
        return self._record(total, (self,), lambda dy: (np.full(shape, dy.reshape(kept), dy.dtype),))

    def mean(self, axis: Axis = None, keepdims: bool = False, *, dim: Axis = None, keepdim: bool = False) -> Any:
        """The mean of all elements, or along `axis`; that of none is NaN. Arguments and errors are as in `sum`.

        >>> from fastattn import Tensor
        >>> Tensor([[1.0, 2.0], [3.0, 4.0]]).mean(axis=0).numpy().tolist()
        [2.0, 3.0]
        """
        total = self.sum(axis, keepdims, dim=dim, keepdim=keepdim)
        count = self.numel() // max(math.prod(total.shape), 1)
        return total / count if count else total * math.nan

    def __add__(self, other: Any) -> Any:
        a, b = self._pair(other)
        shapes = a.shape, b.shape
        return self._record(a + b, (self, other), lambda dy: [_unbroadcast(dy, shape) for shape in shapes])

    def __mul__(self, other: Any) -> Any:
        a, b = self._pair(other)
        need_da, need_db = self.requires_grad, _needed(other)

        def backward(dy: Array) -> tuple[Array | None, Array | None]:
            da = _unbroadcast(dy * b, a.shape) if need_da else None
            return da, _unbroadcast(dy * a, b.shape) if need_db else None

        return self._record(a * b, (self, other), backward)

    def __truediv__(self, other: Any) -> Any:
        a, b = self._pair(other)
        y = a / b
        need_db = _needed(other)

        def backward(dy: Array) -> tuple[Array, Array | None]:
            da = dy / b
            return _unbroadcast(da, a.shape), _unbroadcast(-da * y, b.shape) if need_db else None

        return self._record(y, (self, other), backward)

    def __rtruediv__(self, other: Any) -> Any:
        return (self**-1.0).__mul__(other)

    def __pow__(self, exponent: float) -> Any:
        if not isinstance(exponent, int | float | np.number):  # a Tensor would get no gradient
            return NotImplemented
        x, p = self._array(), float(exponent)

        def backward(dy: Array) -> tuple[Array]:
            return (np.asarray(dy * p * x ** (p - 1), x.dtype) if p else np.zeros_like(x),)

        return self._record(np.asarray(x**p, x.dtype), (self,), backward)

    def __sub__(self, other: Any) -> Any:
        return self.__add__(-other if isinstance(other, TensorMethods) else -self._pair(other)[1])

    def __rsub__(self, other: Any) -> Any:
        return self.__neg__().__add__(other)

    def __neg__(self) -> Any:
        return self * -1.0

    __radd__ = __add__
    __rmul__ = __mul__

    def __matmul__(self, other: Any) -> Any:
        """The matrix product of vectors, matrices, or batches of matrices, which broadcast, as `torch.matmul`.

        Raises ValueError for shapes that do not fit.
        """
        return self._product(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return self._product(other, self)

    def _product(self, left: Any, right: Any) -> Any:
        a, b = self._pair(right)
        if left is not self:
            b, a = self._pair(left)
        if not a.ndim or not b.ndim or a.shape[-1] != b.shape[-2:][0]:
            raise ValueError(f"Tensor: @ needs shapes (..., m, k) and (..., k, n), got {a.shape} and {b.shape}")
        if a.ndim == 1:
            y = left.reshape(1, -1) @ right
            return y.reshape(() if b.ndim == 1 else (*y.shape[:-2], *y.shape[-1:]))
        if b.ndim == 1:
            y = left @ right.reshape(-1, 1)
            return y.reshape(y.shape[:-1])
        if a.ndim > 2 and b.ndim == 2:  # all rows in one product
            return (left.reshape(-1, a.shape[-1]) @ right).reshape(*a.shape[:-1], b.shape[1])
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        xs = np.ascontiguousarray(np.broadcast_to(a, (*batch, *a.shape[-2:])))
        weights = np.ascontiguousarray(np.broadcast_to(b, (*batch, *b.shape[-2:])).swapaxes(-1, -2))
        products = np.empty((*batch, a.shape[-2], b.shape[-1]), a.dtype)
        ops, need_da, need_db = self._kernels(), _needed(left), _needed(right)
        for i in np.ndindex(batch):
            products[i] = ops.linear(xs[i], weights[i])

        def backward(dy: Array) -> tuple[Array | None, Array | None]:
            dxs, dweights = np.empty_like(xs), np.empty_like(weights)
            options = {"need_dx": need_da, "need_dweight": need_db, "need_dbias": False}
            for i in np.ndindex(batch):
                dx, dweight, _ = ops.linear_backward(dy[i], xs[i], weights[i], **options)
                if need_da:
                    dxs[i] = dx
                if need_db:
                    dweights[i] = dweight
            da = _unbroadcast(dxs, a.shape) if need_da else None
            return da, _unbroadcast(dweights.swapaxes(-1, -2), b.shape) if need_db else None

        return self._record(products, (left, right), backward)

    def _array(self) -> Array:
        self._kernels(self)  # raises if the Tensor was recorded with other functions
        return self.data

    def _pair(self, other: Any) -> tuple[Array, Array]:
        a, b = self._array(), other._array() if isinstance(other, TensorMethods) else other
        if not isinstance(b, np.ndarray) or b.dtype.kind in "biu":
            b = np.asarray(b, a.dtype)
        if b.dtype != a.dtype:
            raise TypeError(f"Tensor: the other operand must be {a.dtype} too, got {b.dtype}")
        return a, b


def _needed(operand: Any) -> bool:
    """Whether an operand gets a gradient."""
    return isinstance(operand, TensorMethods) and operand.requires_grad


def _unbroadcast(dy: Array, shape: tuple[int, ...]) -> Array:
    """`dy` summed over the axes along which `shape` was broadcast."""
    if dy.shape == shape:
        return dy
    extra = dy.ndim - len(shape)
    axes = tuple(i for i, n in enumerate(dy.shape) if i < extra or shape[i - extra] != n)
    summed: Array = dy.sum(axis=axes).reshape(shape)
    return summed
