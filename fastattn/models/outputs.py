"""The base of the outputs of all models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from fastattn.autograd import mode


@dataclass
class Output:
    """An output that is read like transformers' `ModelOutput`: `output["loss"]`, `output[0]`, `output[:2]`.

    Fields that are None have no place: without labels `output[0]` is the logits. A field `compute_NAME` of a subclass
    stands for an attribute NAME that is computed when it is first read.
    """

    _prefix: ClassVar[str] = "compute_"

    def __getattr__(self, name: str) -> Any:
        compute = vars(self).get(f"{self._prefix}{name}")
        if compute is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = vars(self)[name] = compute()
        return value

    def keys(self) -> list[str]:
        """The names of the fields that are not None, in order."""
        return [part.name.removeprefix(self._prefix) for part in fields(self) if getattr(self, part.name) is not None]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __getitem__(self, key: str | int | slice) -> Any:
        names = self.keys()
        if isinstance(key, slice):
            return tuple(getattr(self, name) for name in names[key])
        if isinstance(key, str) and key not in names:
            raise KeyError(key)
        return getattr(self, key if isinstance(key, str) else names[key])


def later(compute: Callable[[], Any]) -> Callable[[], Any]:
    """`compute` with the kernels of now, whenever it is called. A Tensor takes no others."""
    ops = mode.ops

    def run() -> Any:
        before, mode.ops = mode.ops, ops
        try:
            return compute()
        finally:
            mode.ops = before

    return run
