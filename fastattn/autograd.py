"""The tape: a Tensor remembers which kernel made it, and `backward()` runs the backward kernels, youngest first.

    >>> import numpy as np
    >>> from fastattn import functional as F
    >>> weight = Tensor(np.array([[1.0, 2.0]], np.float32), requires_grad=True)
    >>> loss = F.linear(np.array([[3.0, 4.0]], np.float32), weight).sum()
    >>> loss.backward()
    >>> loss.item(), weight.grad.tolist()
    (11.0, [[3.0, 4.0]])

A graph consists of nodes that know their parents. Only the computed Tensors keep it alive, and `backward()` frees it
piece by piece. Models are written in terms of `fastattn.functional`, whose functions call `record`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import _core, kernels
from fastattn._tensor_methods import TensorMethods
from fastattn.random import record_seeds, replay_seeds

__all__ = [
    "Tensor",
    "checkpoint",
    "is_grad_enabled",
    "needs",
    "no_grad",
    "record",
    "tensors",
    "use_reference",
    "values",
]

Array = NDArray[Any]
Backward = Callable[[Array], "Sequence[Array | None] | Tensor"]

_order = itertools.count()


class _Mode(threading.local):
    """The settings of a thread. `grad` is False within `no_grad`. `record` is False during the first run of a
    checkpoint, which computes everything as if it were recorded. `ops` is the module that computes."""

    grad = True
    record = True
    ops: Any = kernels


mode = _Mode()


@contextmanager
def setting(**changes: Any) -> Iterator[None]:
    """Change parts of this thread's `mode` within the block."""
    before = {name: getattr(mode, name) for name in changes}
    mode.__dict__.update(changes)
    try:
        yield
    finally:
        mode.__dict__.update(before)


class Node:
    """One computation in the graph: its parents, and the function that maps its gradient to their gradients."""

    __slots__ = ("backward", "ops", "order", "parents")

    def __init__(self, parents: tuple[Node | Tensor | None, ...], backward: Backward) -> None:
        self.order = next(_order)  # a parent is older than its children, so the youngest node is always ready
        self.parents = parents
        self.backward: Backward | None = backward
        self.ops = mode.ops


def _as_array(data: Any) -> Array:
    """The array of a Tensor. Numbers and lists of them become float32."""
    if isinstance(data, np.ma.MaskedArray):
        raise TypeError("Tensor: data must be a plain array, got a MaskedArray")
    array = np.asarray(data)
    listed = not isinstance(data, np.ndarray | np.generic) and array.dtype.kind in "biuf"
    return array.astype(np.float32) if listed else array


class Tensor(TensorMethods):
    """An array whose computations are recorded.

    `data` is the array. With `requires_grad`, `backward()` of a result adds the gradient, an array of this shape and
    dtype, to `grad`. Numbers and lists become float32. Raises TypeError for data that is not floating point.
    """

    __slots__ = ("__weakref__", "_node", "data", "grad", "requires_grad")
    data: Array
    grad: Array | None
    requires_grad: bool
    frozen = False
    stored: Any = None
    """What reads the rows of a table that are still in a file."""

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self.data = data if type(data) is np.ndarray else _as_array(data)
        if self.data.dtype.kind != "f":
            raise TypeError(f"Tensor: data must be floating point, got {self.data.dtype}")
        self.grad = None
        self.requires_grad = requires_grad
        self._node: Node | None = None

    def origin(self) -> Node | Tensor:
        """Where the gradient goes: the computation that made this Tensor, or the Tensor itself."""
        return self._node or self

    def detach(self) -> Tensor:
        """A Tensor with the same array, outside the graph."""
        return Tensor(self.data)

    def _record(self, data: Array, operands: Sequence[Any], backward: Backward) -> Any:
        return record(data, operands, backward)

    def _kernels(self, *operands: Any) -> Any:
        values(*operands)  # raises if one was recorded with other functions
        return mode.ops

    def backward(self, gradient: Array | None = None) -> None:
        """Add the gradient of this Tensor to the `grad` of every leaf that it was computed from.

        `gradient` is the gradient of the loss with respect to this Tensor, with the same shape and dtype. It defaults
        to 1 for a single number. The graph's arrays are freed on the way. Raises RuntimeError if nothing requires a
        gradient or the graph was used before, ValueError or TypeError for another shape or dtype of `gradient`.
        """
        if not self.requires_grad:
            raise RuntimeError("backward: nothing that this Tensor was computed from requires a gradient")
        if gradient is None:
            if self.data.size != 1:
                raise RuntimeError(f"backward: gradient must be given for a Tensor of shape {self.shape}")
            gradient = np.ones_like(self.data)
        if not isinstance(gradient, np.ndarray | np.generic):
            raise TypeError(f"backward: gradient must be an array, got {type(gradient).__name__}")
        if gradient.dtype != self.dtype:
            raise TypeError(f"backward: gradient must be {self.dtype}, got {gradient.dtype}")
        if gradient.shape != self.shape:
            raise ValueError(f"backward: gradient must have shape {self.shape}, got {gradient.shape}")
        _core.keep_memory()
        _walk(self, np.asarray(gradient, order="C"))


def needs(*operands: Any) -> list[bool]:
    """Which operands are Tensors that require a gradient."""
    return [isinstance(x, Tensor) and x.requires_grad for x in operands]


def recording(*operands: Any) -> bool:
    """Whether a computation with these operands is recorded now."""
    return mode.grad and mode.record and any(needs(*operands))


def values(*operands: Any) -> list[Any]:
    """The operands as kernels take them: the value of a Tensor, anything else as it is.

    Raises ValueError for a Tensor recorded within `use_reference` and used outside it, or the other way round.
    """
    found = []
    for x in operands:
        if isinstance(x, Tensor):
            if x._node is not None and x._node.ops is not mode.ops:
                here, there = mode.ops.__name__, x._node.ops.__name__
                raise ValueError(
                    f"a Tensor recorded with {there} cannot be used with {here}: see fastattn.use_reference"
                )
            x = x.value
        found.append(x)
    return found


def tensors(*operands: Any) -> bool:
    """Whether one of the operands makes the result a Tensor. Any Tensor does, except a frozen parameter."""
    for x in operands:  # noqa: SIM110 - any() of a generator takes three times as long
        if isinstance(x, Tensor) and not x.frozen:
            return True
    return False


def record(data: Array, operands: Sequence[Any], backward: Backward) -> Any:
    """The Tensor of `data`, computed from `operands`, or `data` itself if none of them makes the result a Tensor.

    `backward` maps the gradient of `data` to the gradients of the operands, in order, with None where there is none. It
    is called once. Each gradient is new, a view of the gradient passed in, or an operand's own `grad` if `backward` has
    added to it. `backward` must not hold the Tensor returned here: such a cycle keeps all arrays of the graph alive
    until the garbage collector finds it.
    """
    wanted = needs(*operands)
    required = any(wanted)
    if not required and not tensors(*operands):
        return data
    result = Tensor(np.asarray(data, order="C"))
    result.requires_grad = mode.grad and required
    if result.requires_grad and mode.record:
        parents = zip(operands, wanted, strict=True)
        result._node = Node(tuple(x.origin() if need else None for x, need in parents), backward)
    return result


def checkpoint(fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)`, a Tensor, without its intermediate results: `backward()` runs `fn` again, with the same dropout.

    This saves memory and computes everything twice. Gradients have the same bits. `fn` may use parameters and
    checkpoints of its own, and must compute the same both times. Raises TypeError if `fn` returns neither a Tensor nor,
    if nothing is recorded, an array. `backward()` raises RuntimeError if the second run draws more or fewer random
    numbers than the first.
    """
    seeds: list[int] | None = None
    if mode.grad and mode.record:
        with setting(record=False), record_seeds() as seeds:
            first = fn(*args)
    else:
        first = fn(*args)
    if not isinstance(first, Tensor) and (recording(*args) or not isinstance(first, np.ndarray)):
        raise TypeError(f"checkpoint: fn must return a Tensor, got {type(first).__name__}")
    if seeds is None or not isinstance(first, Tensor) or not first.requires_grad:
        return first
    ops = mode.ops

    def backward(dy: Array) -> Tensor:
        with setting(grad=True, record=True, ops=ops), replay_seeds(seeds):
            again = fn(*args)
        return again if isinstance(again, Tensor) else Tensor(again)

    result = Tensor(first.data, requires_grad=True)
    result._node = Node((), backward)
    return result


@contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing that this thread computes within a `with` block, or in a function decorated with `@no_grad()`."""
    with setting(grad=False):
        yield


def is_grad_enabled() -> bool:
    """Whether this thread records. It does not within `no_grad`."""
    return mode.grad


@contextmanager
def use_reference() -> Iterator[None]:
    """Make `fastattn.functional` compute with `fastattn.reference`, in any float dtype: for checks in float64.

    This applies to the current thread. `backward()` uses the functions that recorded the graph.
    """
    from fastattn import reference

    with setting(ops=reference):
        yield


def _walk(root: Tensor, gradient: Array) -> None:
    """Run the nodes below `root`, youngest first, each once its gradient is complete."""
    import heapq

    ready: list[tuple[int, Node]] = []  # a heap
    gradients: dict[Node, tuple[Array, bool]] = {}  # with a flag: nothing else holds the array

    def give(target: Node | Tensor, gradient: Array, own: bool) -> None:
        if isinstance(target, Tensor):
            if target.grad is None:
                target.grad = gradient if own else gradient.copy()
            elif target.grad is not gradient:
                target.grad += gradient
        elif target not in gradients:
            heapq.heappush(ready, (-target.order, target))
            gradients[target] = gradient, own
        else:
            total, own = gradients[target]
            gradients[target] = np.asarray(np.add(total, gradient, out=total if own else None)), True

    give(root.origin(), gradient, False)
    while ready:
        node = heapq.heappop(ready)[1]
        dy, _ = gradients.pop(node)
        backward, parents = node.backward, node.parents
        if backward is None:
            raise RuntimeError("backward: this graph was used before and its arrays are freed; compute the loss again")
        node.backward, node.parents = None, ()
        results = backward(dy)
        del backward
        if isinstance(results, Tensor):  # a checkpoint: its second run is part of the graph now
            parents, results = (results.origin() if results.requires_grad else None,), (dy,)
        for parent, result in zip(parents, results, strict=True):
            if parent is not None and result is not None:
                array = np.asarray(result, order="C")
                own = not isinstance(array.base, np.ndarray) and array is not dy
                give(parent, array, own and sum(result is other for other in results) == 1)
