"""Modules: a plain tree of layers, and its parameters under the names used in the checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial, wraps
from itertools import groupby
from operator import attrgetter
from textwrap import indent
from types import CellType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fastattn import _core, checks
from fastattn.autograd import Tensor, is_grad_enabled
from fastattn.checks import listed, shown
from fastattn.nn.parameter import AnyParameter, Array, Matrix, Parameter, ParameterRows, Table, load_frozen
from fastattn.nn.quantization import Normed

Values = Array | Tensor
Self = TypeVar("Self", bound="Module")


class Module:
    """A layer or a model. Its attributes are its parameters and child modules, or lists, tuples and dicts of these.

    A subclass defines `forward`; calling the module runs it. Modules hold parameters and settings, never an activation,
    so many threads may call one at once. They take Tensors or arrays. Dropout applies to both, only while `training`.

    The result type depends on the module. A module with trainable parameters returns Tensors, even within `no_grad` and
    if some have `requires_grad=False`. A frozen module returns arrays, and a Tensor for a Tensor. A module without
    parameters returns an array for an array and a Tensor for a Tensor.

    >>> from fastattn import nn
    >>> from fastattn import functional as F
    >>> class Perceptron(nn.Module):
    ...     def __init__(self, sizes):
    ...         self.layers = [nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])]
    ...
    ...     def forward(self, x):
    ...         for layer in self.layers[:-1]:
    ...             x = F.relu(layer(x))
    ...         return self.layers[-1](x)
    >>> model = Perceptron([4, 16, 3])
    >>> [name for name, _ in model.named_parameters()]
    ['layers.0.weight', 'layers.0.bias', 'layers.1.weight', 'layers.1.bias']
    >>> x = np.ones((2, 4), np.float32)
    >>> F.cross_entropy(model(x), np.array([2, 0])).backward()
    >>> model.layers[0].weight.grad.shape
    (16, 4)
    >>> type(model.freeze()(x)).__name__
    'ndarray'
    """

    training = True
    frozen = False
    checkpoint_names: Mapping[str, str] = {}
    """Maps dotted paths of parts of this module to their names in the checkpoint, with `{}` for list indices:
    `{"layers.{}.fc1": "encoder.layer.{}.intermediate.dense"}`."""

    def _no_forward(self, *arguments: Any, **options: Any) -> Any:
        raise TypeError(f"{type(self).__name__}: this module has no forward and cannot be called")

    forward: Callable[..., Any] = _no_forward
    """What a subclass computes."""

    if TYPE_CHECKING:

        def __call__(self, *arguments: Any, **options: Any) -> Any:
            """Run `forward`."""
    else:
        __call__ = property(attrgetter("forward"))  # a function that passes its arguments on takes 0.1 to 0.3 us more

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "forward" in vars(cls) and not cls.__module__.startswith("fastattn."):
            cls.forward = _without_pass(cls.forward)

    def __setattr__(self, name: str, value: Any) -> None:
        before = vars(self).get(name)
        if before is not None and value is not None:
            kind = _kinds[type(before)]
            if kind in _PARTS and _kinds[type(value)] != kind:
                raise TypeError(
                    f"{type(self).__name__}: {name} must be a {_PARTS[kind]} or None, got {type(value).__name__}"
                    f"{'; its values are set by its data' * (kind == _PARAMETER)}"
                )
        super().__setattr__(name, value)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The child modules by name. Modules in a list or tuple are numbered, modules in a dict are named by its keys.

        Raises TypeError for an attribute that holds a module where it cannot be found, such as in a set.
        """
        yield from self._named_parts()[1]

    def children(self) -> Iterator[Module]:
        """The child modules."""
        yield from (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Module]]:
        """This module and all modules below it, each once, by their dotted paths, which begin with `prefix`.

        Modules whose ids are in `seen` are skipped.
        """
        seen = set() if seen is None else seen
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, child in self._members()[1]:
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        """This module and all modules below it, each once."""
        found: dict[int, Module] = {}
        self._add_modules(found)
        return iter(found.values())

    def apply(self: Self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` with every module of the tree, children first. Returns the module."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def extra_repr(self) -> str:
        """What `repr` shows of this module besides its children."""
        return ""

    def __repr__(self) -> str:
        """The tree. Consecutive equal modules of a list are shown once, as in PyTorch."""
        lines: list[str] = []
        rows = [(name, repr(child)) for name, child in self.named_children()]
        for (text, _), run in groupby(rows, lambda row: (row[1], row[0].rpartition(".")[0])):
            names = [name for name, _ in run]
            if len(names) > 1 and all(name.rpartition(".")[2].isdigit() for name in names):
                lines.append(f"({names[0]}-{names[-1].rpartition('.')[2]}): {len(names)} x {text}")
            else:
                lines += [f"({name}): {text}" for name in names]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        return f"{type(self).__name__}({self.extra_repr()}\n" + indent("\n".join(lines), "  ") + "\n)"

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, AnyParameter]]:
        """All parameters of the tree with their full names, each beginning with `prefix`.

        A parameter that is used in several places appears once, under its first name. Raises ValueError if two
        parameters have the same name, which happens with the keys 1 and "1" of a dict.
        """
        found: dict[int, tuple[str, AnyParameter]] = {}
        for pair in self._names(prefix):
            found.setdefault(id(pair[1]), pair)
        if len(names := dict(found.values())) < len(found):
            twice = next(name for name, parameter in found.values() if names[name] is not parameter)
            raise ValueError(f"{type(self).__name__}: two parameters have the name {shown(twice)}")
        return iter(found.values())

    def parameters(self) -> Iterator[AnyParameter]:
        """All parameters of the tree, each once."""
        yield from (parameter for _, parameter in self.named_parameters())

    def state_dict(self) -> dict[str, Array]:
        """All parameters of the tree as read-only arrays by name. The arrays of trainable parameters are views: copy
        them to keep their values."""
        state = {}
        for name, parameter in self.named_parameters():
            state[name] = parameter.data.view()
            state[name].flags.writeable = False
        return state

    def load_state_dict(self, state: Mapping[str, Array], strict: bool = True) -> None:
        """Load every parameter of the tree from the array of the same name.

        Raises ValueError, which lists the tensors with another shape and, unless `strict` is False, missing and unknown
        tensors. Raises TypeError for another dtype than the parameter's. After an error nothing has changed.
        """
        found = self.problems(state)
        problems = [f"tensor {shown(name)} {text}" for name, text in found if strict or text != "is missing"]
        names = dict(self._names())
        if held := sorted({p.weights for p in self._arrays()} - {"float32"}):
            raise ValueError(f"load_state_dict: weights of {listed(held)} stay what they are; load a model in float32")
        if strict:
            problems += [f"tensor {shown(name)} is not known" for name in state if name not in names]
        if problems:
            raise ValueError(f"load_state_dict: {listed(problems, '; ')}")
        if not hasattr(state, "shape"):  # the tensors of files are float32 arrays
            for name in [name for name in names if name in state]:
                dtype, array = names[name].dtype, state[name]
                if not isinstance(array, np.ndarray) or array.dtype != dtype:
                    got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
                    raise TypeError(f"load_state_dict: tensor {shown(name)} must be an array of {dtype}, got {got}")
        self.load(state)

    def load(self, state: Mapping[str, Array], *, freeze: bool = False, weights: str = "float32") -> None:
        """Load the arrays of `state`, unchecked, and draw values for parameters that it does not have.

        With `freeze`, each layer is frozen as soon as it is loaded, so only one layer at a time is held both plain and
        packed, and none of float32 files: their matrices are packed as they are read, all at once. Large tables of
        embeddings stay in such files, and a row is read when it is first used. A parameter without values keeps the
        given array instead of a copy. `weights` is as in `freeze`.
        """
        names: dict[int, str] = {}  # for a shared parameter, its first name that `state` has
        for name, parameter in self._names():
            if name in state:
                names.setdefault(id(parameter), name)
        frozen = set(map(id, self._frozen_modules())) if freeze else set()
        norms = self._norms() if freeze and weights != "float32" else {}
        first = {id(known.norm) for known in norms.values()}  # the matrices after them are made to fit them
        modules = sorted(self.modules(), key=lambda module: id(module) not in first)
        held = Counter(id(p) for module in modules for _, p in module._members()[0] if isinstance(p, Table))
        tables = {table for table, count in held.items() if count == 1}  # another module reads a shared one whole
        own = [[(p, names.pop(id(p))) for _, p in module._named_parts()[0] if id(p) in names] for module in modules]
        loaded: set[int] = set()
        if frozen and hasattr(state, "packed"):
            parts = [pair for module, found in zip(modules, own, strict=True) if id(module) in frozen for pair in found]
            loaded = load_frozen(parts, state, tables, weights)
        for module, found in zip(modules, own, strict=True):
            for parameter, known in found:
                if id(parameter) not in loaded:
                    parameter.load(state[known])
            if id(module) in frozen:
                module._freeze_own(weights, norms)
        self.initialize()

    def numbers(self) -> dict[str, Array]:
        """What a file holds of the tree: `state_dict`, but matrices of fewer bits as they are, with their scales. The
        bits of bfloat16 are uint16."""
        found: dict[str, Array] = {}
        for name, parameter in self.named_parameters():
            found |= parameter.numbers(name)
        return found

    def problems(self, state: Mapping[str, Array]) -> list[tuple[str, str]]:
        """The parameters that `state` lacks or has in another shape, with a description of each. Reads no tensor."""
        problems = []
        names: dict[int, list[str]] = {}
        for name, parameter in self._names():
            names.setdefault(id(parameter), []).append(name)
            if name in state and (shape := shape_of(state, name)) != parameter.shape:
                problems.append((name, f"must have shape {parameter.shape}, got {shape}"))
        missing = [(known[0], "is missing") for known in names.values() if not any(name in state for name in known)]
        return missing + problems

    def train(self: Self, mode: bool = True) -> Self:
        """Switch dropout on or off in the whole tree; in frozen modules it stays off. Returns the module."""
        for module in self.modules():
            module.training = mode and not module.frozen
        return self

    def eval(self: Self) -> Self:
        """Switch dropout off. Returns the module."""
        return self.train(False)

    def freeze(self: Self, weights: str = "float32") -> Self:
        """Pack the matrices and freeze all parameters of the tree, for good. Returns the module.

        `weights` is what the matrices of linear layers become: "float32", "bfloat16" or "int8", see
        `fastattn.kernels.PackedMatrix`. Matrices of int8 that `normed_layers` names get `input_scales`. All others,
        such as those of LSTMs, and embeddings, stay float32. A matrix of fewer bits stays what it is. Raises ValueError
        for other `weights`, and for numbers that are not finite.

        >>> from fastattn import nn
        >>> layer = nn.Linear(256, 256).freeze("int8")
        >>> layer.weight.value
        PackedMatrix(shape=(256, 256), dtype=int8)
        """
        checks.weights("freeze: weights", weights)
        norms = self._norms() if weights != "float32" else {}
        for module in self.modules():
            module._freeze_own(weights, norms)
        return self

    def normed_layers(self) -> Iterable[Normed]:
        """The linear layers whose input is the result of a LayerNorm, as far as this module alone knows."""
        return ()

    def initialize(self) -> None:
        """Draw initial values for the parameters of the tree that have none."""
        for parameter in self._arrays():
            parameter.initialize()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Remove all gradients, or fill them with zeros."""
        for parameter in self._arrays():
            none = set_to_none or parameter.grad is None
            parameter.grad = None if none else np.zeros_like(parameter.grad)

    def astype(self, dtype: Any) -> None:
        """Convert a trainable model to another float dtype, for `fastattn.use_reference()`.

        Raises ValueError if a parameter is frozen.
        """
        for parameter in self._arrays():
            parameter.data = parameter.data.astype(dtype)
            parameter.grad = None

    def one_pass(self) -> AbstractContextManager[Any]:
        """A block whose kernels are computed together at its end, if the module is frozen.

        Otherwise they are computed one by one: a pass keeps what a training step frees on its way.
        """
        return _core.Pass() if self.frozen else nullcontext()

    def records(self) -> bool:
        """Whether a call would be recorded now because of a parameter."""
        return not self.frozen and is_grad_enabled() and any(p.requires_grad for p in self._arrays())

    def dropout_rate(self, p: float) -> float:
        """`p` while training, else 0."""
        return p if self.training else 0.0

    def _names(self, prefix: str = "") -> list[tuple[str, AnyParameter]]:
        """All parameters of the tree under all of their names."""
        found: list[tuple[str, AnyParameter]] = []
        self._add_names(found, prefix)
        return found

    def _add_names(self, found: list[tuple[str, AnyParameter]], prefix: str) -> None:
        begin, table = len(found), self.checkpoint_names
        inner = "" if table else prefix
        parameters, children = self._named_parts()
        for name, parameter in parameters:
            found.append((inner + name, parameter))
        for name, child in children:
            child._add_names(found, f"{inner}{name}.")
        if table:
            new = _renaming(tuple(table.items()))
            found[begin:] = [(prefix + new[name], parameter) for name, parameter in found[begin:]]

    def _add_modules(self, found: dict[int, Module]) -> None:
        if id(self) not in found:
            found[id(self)] = self
            for _, child in self._members()[1]:
                child._add_modules(found)

    def _arrays(self) -> list[Parameter]:
        """The parameters of the tree as they are stored: stacked ones as a whole, shared ones more than once."""
        found: list[Parameter] = []
        self._add_arrays(found)
        return found

    def _add_arrays(self, found: list[Parameter]) -> None:
        parameters, children = self._members()
        for _, parameter in parameters:
            found.append(parameter)
        for _, child in children:
            child._add_arrays(found)

    def _frozen_modules(self) -> Iterator[Module]:
        """The modules of the tree that `load` freezes if `freeze` is set."""
        return self.modules()

    def _freeze_own(self, weights: str = "float32", norms: Mapping[int, Normed] | None = None) -> None:
        """Freeze the parameters of this module alone. `norms` has what is known of a matrix's input, by its id."""
        for _, parameter in self._members()[0]:
            known = norms.get(id(parameter)) if norms else None
            if known is None:
                parameter.freeze(weights)
            else:
                parameter.freeze(weights, known.sizes(), known.rows)
        self.frozen, self.training = True, False

    def _norms(self) -> dict[int, Normed]:
        """What is known of the input of each matrix, by the matrix's id, unless it has several norms."""
        found: dict[int, list[Normed]] = {}
        for module in self.modules():
            for known in module.normed_layers():
                if known.norm.weight is not None:
                    found.setdefault(id(known.layer.weight), []).append(known)
        return {matrix: all_[0] for matrix, all_ in found.items() if len({id(known.norm) for known in all_}) == 1}

    def _named_parts(self) -> NamedParts:
        """The parameters and the child modules, both by name. Override this to use other names."""
        return self._members()

    def _members(self) -> Members:
        """The parameters and the child modules as they are stored, both by name."""
        return find_members(vars(self).items(), type(self).__name__)


def _without_pass(forward: Any) -> Any:
    """The `forward` of somebody else's module, which may read what it is given, and what it calls returns."""
    if not isinstance(forward, FunctionType):
        return forward

    @wraps(forward)
    def call(*arguments: Any, **options: Any) -> Any:
        with _core.NoPass():
            return forward(*arguments, **options)

    return call


NamedParts = tuple[Sequence[tuple[str, AnyParameter]], Sequence[tuple[str, Module]]]
Members = tuple[list[tuple[str, Parameter]], list[tuple[str, Module]]]

_PLAIN, _PARAMETER, _MODULE, _LIST, _DICT, _OTHER = range(6)
_PARTS = {_PARAMETER: "Parameter", _MODULE: "Module"}


class _Kinds(dict[type, int]):
    """Whether values of a type are parameters, modules or containers. A look-up is faster than `isinstance`."""

    def __missing__(self, type_: type) -> int:
        kinds = {Parameter: _PARAMETER, Module: _MODULE, list: _LIST, tuple: _LIST, dict: _DICT}
        usual = _OTHER if getattr(type_, "holds_modules", True) else _PLAIN
        self[type_] = next((kind for base, kind in kinds.items() if issubclass(type_, base)), usual)
        return self[type_]


_kinds = _Kinds()
_NUMBERS: frozenset[type] = frozenset([int, float, bool, str, bytes, type(None), ParameterRows])  # the most frequent
_kinds.update(dict.fromkeys(_NUMBERS, _PLAIN))
_BARE = frozenset([dict, list, tuple, set, frozenset])  # without attributes
_HIDE_NOTHING = (int, float, str, bytes, np.generic, Tensor, type, ModuleType)


def find_members(
    items: Iterable[tuple[Any, Any]], owner: str, prefix: str = "", found: Members | None = None
) -> Members:
    """The parameters and the modules among `items`, and in lists, tuples and dicts among them, both by name."""
    found = ([], []) if found is None else found
    for key, value in items:
        if type(value) in _NUMBERS:
            continue
        kind = _kinds[type(value)]
        name = f"{prefix}{key}" if prefix else key
        if kind == _PARAMETER:
            found[0].append((name, value))
        elif kind == _MODULE:
            found[1].append((name, value))
        elif kind == _LIST:
            if not _NUMBERS.issuperset(map(type, value)):
                find_members(enumerate(value), owner, f"{name}.", found)
        elif kind == _DICT:
            for inner in value:
                if _kinds[type(inner)] in _PARTS:
                    raise TypeError(f"{owner}: {name} hides a {type(inner).__name__} in a key; it is found as a value")
            find_members(value.items(), owner, f"{name}.", found)
        elif kind == _OTHER and _hides(value):
            raise TypeError(
                f"{owner}: {name} hides a module or a parameter in a {type(value).__name__}; "
                "they are found in attributes, lists, tuples and dicts"
            )
    return found


def _hides(value: Any, depth: int = 3) -> bool:
    """Whether a module or parameter is among the items, attributes or arguments of `value`, in its closure, or the
    object it is bound to. `depth` is the number of levels to search."""
    kind = _kinds[type(value)]
    if not kind or kind in _PARTS:
        return bool(kind)
    if isinstance(value, _HIDE_NOTHING) or not depth:
        return False
    inner: list[Any] = []
    if type(value) not in _BARE:
        inner = [getattr(value, "__self__", None), *getattr(value, "__dict__", {}).values()]
        inner += [getattr(value, name, None) for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    if isinstance(value, np.ndarray):
        inner = value.ravel().tolist() if value.dtype == object else []
    elif isinstance(value, partial):
        inner += [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]
        inner += [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    elif isinstance(value, Mapping):
        inner += [*value.keys(), *value.values()]
    elif isinstance(value, Collection):
        inner += value
    return any(_hides(item, depth - 1) for item in inner if _kinds[type(item)])


class _Renaming(dict[str, str]):
    """Checkpoint names by our names, from a table of `Module.checkpoint_names`. Each is looked up once and kept."""

    def __init__(self, table: tuple[tuple[str, str], ...]) -> None:
        self._table = dict(table)

    def __missing__(self, name: str) -> str:
        parts = name.split(".")
        general = ["{}" if part.isdigit() else part for part in parts]
        for end in range(len(parts), 0, -1):  # the longest matching prefix wins
            found = self._table.get(".".join(general[:end]))
            if found is not None:
                numbers = [part for part in parts[:end] if part.isdigit()]
                self[name] = ".".join(filter(None, [found.format(*numbers), *parts[end:]]))
                break
        else:
            self[name] = name
        return self[name]


_renaming = lru_cache(maxsize=256)(_Renaming)


def held_as(module: Module) -> list[str]:
    """What the matrices of linear layers are held as; ["float32"] if there are none."""
    return sorted({p.weights for p in module._arrays() if isinstance(p, Matrix)}) or ["float32"]


def shape_of(state: Mapping[str, Array], name: str) -> tuple[int, ...]:
    """The shape of a tensor. A tensor in a file is not read."""
    shape = getattr(state, "shape", None)
    return np.shape(state[name]) if shape is None else tuple(shape(name))
