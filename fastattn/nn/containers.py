"""Modules that hold other modules: Sequential, ModuleList and ModuleDict, as in PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, TypeVar

from fastattn.checks import shown
from fastattn.nn.module import Members, Module, find_members

Self = TypeVar("Self", bound="_Container")


class _Container(Module):
    """Modules in order, under names that are not attributes."""

    __eq__, __hash__ = object.__eq__, object.__hash__  # not a mapping's

    _modules: dict[str, Module]

    def _members(self) -> Members:
        owner, others = type(self).__name__, {name: value for name, value in vars(self).items() if name != "_modules"}
        return find_members(others.items(), owner, found=find_members(self._modules.items(), owner))

    def _put(self, modules: Mapping[str, Module]) -> None:
        for name, module in modules.items():
            if not isinstance(module, Module):
                raise TypeError(
                    f"{type(self).__name__}: module {shown(name)} must be a Module, got {type(module).__name__}"
                )
            if not isinstance(name, str) or not name or "." in name:
                raise ValueError(f"{type(self).__name__}: names must be strings without dots, got {shown(name)}")
        self._modules = {**vars(self).get("_modules", {}), **modules}

    def __len__(self) -> int:
        return len(self._modules)

    def __getattr__(self, name: str) -> Module:
        """The module of this name."""
        modules: dict[str, Module] = vars(self).get("_modules", {})
        if name not in modules:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return modules[name]


class _List(_Container):
    """Modules numbered from 0."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self._set(modules)

    def _set(self, modules: Iterable[Module]) -> None:
        given = {str(i): module for i, module in enumerate(modules)}
        self._modules = {}
        self._put(given)

    def __iter__(self) -> Iterator[Module]:
        return iter(list(self._modules.values()))

    def __getitem__(self, index: int | slice) -> Any:
        """The module at an index, or a container of the same kind that shares the modules of a slice."""
        if isinstance(index, slice):
            return self._part(dict(list(self._modules.items())[index]))
        return self._modules[self._name(index)]

    def __setitem__(self, index: int, module: Module) -> None:
        self._put({self._name(index): module})

    def __delitem__(self, index: int | slice) -> None:
        modules = list(self)
        del modules[index]
        self._set(modules)

    def append(self: Self, module: Module) -> Self:
        """Add a module at the end. Returns the container. Raises TypeError for anything else."""
        self._put({str(len(self)): module})
        return self

    def extend(self: Self, modules: Iterable[Module]) -> Self:
        """Add modules at the end. Returns the container. Raises TypeError for anything else."""
        self._put({str(i): module for i, module in enumerate(modules, len(self))})
        return self

    def insert(self, index: int, module: Module) -> None:
        """Put a module before the one at `index`, as `list.insert`. Raises TypeError for anything else."""
        modules = list(self)
        modules.insert(index, module)
        self._set(modules)

    def _part(self, modules: dict[str, Module]) -> Any:
        return type(self)(modules.values())

    def _name(self, index: int) -> str:
        names = list(self._modules)
        if not -len(names) <= index < len(names):
            raise IndexError(f"{type(self).__name__}: index must be in [{-len(names)}, {len(names)}), got {index}")
        return names[index]


class ModuleList(_List):
    """A list of modules, numbered from 0 in parameter names. It has no `forward`.

    `modules` is any iterable. Raises TypeError for an item that is not a Module, IndexError for an index out of range.

    >>> from fastattn import nn
    >>> layers = ModuleList(nn.Linear(4, 4) for _ in range(3)).append(nn.LayerNorm(4))
    >>> len(layers), [name for name, _ in layers[2:].named_parameters()]
    (4, ['0.weight', '0.bias', '1.weight', '1.bias'])
    """


class Sequential(_List):
    """A chain of modules: each gets the output of the previous one.

    `Sequential(first, second)` numbers them from 0. `Sequential({"name": module, ...})`, with a dict or OrderedDict,
    names them. Raises TypeError for anything else, IndexError for an index out of range.

    >>> from fastattn import nn
    >>> model = Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> model(np.ones((5, 2), np.float32)).shape
    (5, 3)
    >>> model
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): ReLU()
    )
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            self._put(modules[0])
        else:
            super().__init__(modules)  # type: ignore[arg-type]  # which checks them

    def forward(self, x: Any) -> Any:
        """The output of the last module, or `x` itself without modules."""
        for module in self._modules.values():
            x = module(x)
        return x

    def _part(self, modules: dict[str, Module]) -> Any:
        return type(self)(modules)


class ModuleDict(_Container, MutableMapping[str, Module]):
    """A dict of modules in insertion order. It has no `forward`.

    `modules` is a mapping. Raises TypeError for a value that is not a Module, ValueError for a name that is empty, has
    a dot or is not a string, KeyError for an unknown name.

    >>> from fastattn import nn
    >>> heads = ModuleDict({"tags": nn.Linear(4, 3), "words": nn.Linear(4, 9)})
    >>> heads["tags"](np.ones((2, 4), np.float32)).shape, "words" in heads, list(heads)
    ((2, 3), True, ['tags', 'words'])
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        self._put(modules or {})

    def __getitem__(self, name: str) -> Module:
        return self._modules[name]

    def __setitem__(self, name: str, module: Module) -> None:
        self._put({name: module})

    def __delitem__(self, name: str) -> None:
        del self._modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)
