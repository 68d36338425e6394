"""What hypothesis draws for a call of a kernel: sizes, options, and the seed of the numbers in its arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

EDGES = (
    0,
    1,
    2,
    3,
    7,
    8,
    9,
    15,
    16,
    17,
    31,
    32,
    33,
    47,
    63,
    64,
    65,
    127,
    128,
    129,
    255,
    256,
    257,
    511,
    513,
    1023,
    1025,
)
Path = tuple[Any, ...]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Call:
    kernel: str
    given: dict[str, Any]
    """Every argument except the results."""
    results: Shapes
    """The arguments that take a new result, which are None in a plain call."""

    def __repr__(self) -> str:
        arguments = (f"{name}={shown(value)}" for name, value in (self.given | self.results).items())
        return f"{self.kernel}({', '.join(arguments)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


def shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, list | tuple) and not isinstance(value, str):
        return "[" + ", ".join(map(shown, value)) + "]"
    return repr(value)


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every array in arguments or results, with its place."""
    if isinstance(value, np.ndarray):
        yield path, value
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))


def mapped(value: Any, change: Callable[[Path, Any], Any], path: Path = ()) -> Any:
    """The same arguments with every array changed."""
    if isinstance(value, np.ndarray):
        return change(path, value)
    if isinstance(value, dict):
        return {key: mapped(item, change, (*path, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(mapped(item, change, (*path, i)) for i, item in enumerate(value))
    return value


class Draw:
    """Draws sizes and options; arrays come from a generator with a drawn seed."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        self._draw = draw
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.scale = draw(st.sampled_from((1.0, 0.03, 4.0)))
        self.odd = draw(st.sampled_from(("plain", "zeros", "denormals", "ties")))

    def among(self, *values: Any) -> Any:
        return self._draw(st.sampled_from(values))

    def flag(self) -> bool:
        return bool(self._draw(st.booleans()))

    def integer(self, least: int, most: int) -> int:
        return int(self._draw(st.integers(least, most)))

    def size(self, most: int = 1025, least: int = 0) -> int:
        edges = st.sampled_from([n for n in EDGES if least <= n <= most])
        return int(self._draw(edges | st.integers(least, most)))

    def sizes(self, *least: int) -> list[int]:
        """Sizes of a product: any of them may be large, but only one of them is."""
        large = self.integer(0, len(least) - 1)
        return [self.size(1025 if i == large else 35, smallest) for i, smallest in enumerate(least)]

    def rows(self) -> tuple[int, ...]:
        """The leading axes of an array of rows."""
        return self.among((1,), (3,), (), (0,), (2, 3), (2, 0), (7,), (40,), (2, 2, 5), (1, 1))

    def floats(self, *shape: int, scale: float | None = None) -> Any:
        x = np.asarray(self.rng.standard_normal(shape, dtype=np.float32))
        x *= self.scale if scale is None else scale
        if self.odd == "ties":
            np.round(x * 2, out=x)
        elif self.odd != "plain":
            x[self.rng.random(shape) < 0.2] = 0 if self.odd == "zeros" else 1e-41
        return x

    def optional(self, *shape: int, needed: bool = True) -> Any:
        return self.floats(*shape) if needed and self.flag() else None

    def ids(self, rows: int, *shape: int) -> Any:
        return self.rng.integers(0, max(rows, 1), shape, np.int64)

    def lengths(self, most: int) -> list[int]:
        return list(self._draw(st.lists(st.sampled_from((0, 1, 2, 5, most)) | st.integers(0, most), max_size=5)))

    def seed(self) -> int:
        return int(self.among(0, 1, 2**64 - 1, 2**40 + 7))
