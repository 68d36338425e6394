"""Checks of arguments and config fields: numbers, switches, text and arrays. NumPy numbers become Python numbers.

Every check takes a name and a value and returns the value. Errors name both. A value of the wrong type raises `error`:
TypeError for an argument of a call, ValueError for a field of a config, which may come from a file.

Messages name values with `shown`, lists with `listed` and other text of files with `printable`: a file can neither
fill the terminal nor send it commands.
"""

from __future__ import annotations

import itertools
import math
import operator
import os
import reprlib
from collections.abc import Collection, Iterable
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "boolean",
    "choice",
    "config_integer",
    "config_number",
    "counted",
    "integer",
    "integers",
    "listed",
    "number",
    "operand",
    "path",
    "printable",
    "sequence",
    "shown",
    "text",
    "texts",
    "weights",
]

_INT64 = np.dtype(np.int64)

WEIGHTS = ("float32", "bfloat16", "int8")
"""What the matrices of linear layers may be held as, see `fastattn.nn.Module.freeze`."""

PROBABILITY: dict[str, Any] = {"high": 1.0}
"""A number in [0, 1), as arguments of `number`."""
FRACTION: dict[str, Any] = {"high": 1.0, "up_to": True}
"""A number in [0, 1]."""
POSITIVE: dict[str, Any] = {"above": True}
"""A finite number above 0."""


def integer(
    name: str,
    value: Any,
    low: int = 1,
    high: int | None = None,
    wanted: str = "",
    *,
    error: type[Exception] = TypeError,
) -> int:
    """`value` as an int, if it is an integer in `[low, high)` and not a bool.

    `wanted` describes such a value in the message. Raises ValueError for a number out of range.

    >>> integer("layers", 0)
    Traceback (most recent call last):
    ValueError: layers must be a positive integer, got 0
    """
    try:
        result = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        result = None
    if result is not None and low <= result and (high is None or result < high):
        return result
    if not wanted:
        wanted = "a positive integer" if low == 1 else f"an integer of at least {low}"
        if high is not None and result is not None and result >= high:
            wanted = f"below {high}"
    raise (error if result is None else ValueError)(f"{name} must be {wanted}, got {shown(value)}")


def number(
    name: str,
    value: Any,
    low: float = 0.0,
    high: float = math.inf,
    *,
    above: bool = False,
    up_to: bool = False,
    error: type[Exception] = TypeError,
) -> float:
    """`value` as a float, if it is a number in `[low, high)` and not a bool.

    `above` excludes `low`, and `up_to` includes `high`. Raises ValueError for a number out of range.

    >>> number("dropout", 1, **PROBABILITY)
    Traceback (most recent call last):
    ValueError: dropout must be a number in [0, 1), got 1
    """
    result: float | None = None
    if type(value) is float or (isinstance(value, Real) and not isinstance(value, bool)):
        result = _float(value)
    if result is not None and (low < result < high or (result == low and not above) or (result == high and up_to)):
        return result
    wanted = f"above {low:g}" if above else f"of at least {low:g}"
    if high < math.inf:
        wanted = f"in {'(' if above else '['}{low:g}, {high:g}{']' if up_to else ')'}"
    raise (error if result is None else ValueError)(f"{name} must be a number {wanted}, got {shown(value)}")


def _float(value: Any) -> float:
    """`value` as a float, infinity for an int beyond all floats."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


config_integer = partial(integer, high=2**31, error=ValueError)
"""`integer` below 2^31 for a config field: another type raises ValueError."""
config_number = partial(number, error=ValueError)
"""`number` for a config field: another type raises ValueError."""


def boolean(name: str, value: Any, *, error: type[Exception] = ValueError) -> bool:
    """`value` as a bool. Raises `error` if it is not one."""
    if not isinstance(value, bool | np.bool_):
        raise error(f"{name} must be a bool, got {shown(value)}")
    return bool(value)


def choice(name: str, value: Any, known: Collection[str]) -> Any:
    """`value`, if it is one of the names `known`. Raises ValueError otherwise."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {shown(value)}")
    return value


def weights(name: str, value: Any) -> str:
    """`value`, if it is one of `WEIGHTS`. Raises ValueError otherwise."""
    found: str = choice(name, value, WEIGHTS)
    return found


def path(name: str, value: Any) -> str | os.PathLike[str]:
    """`value`, if it is a str or a path. Raises TypeError."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be str or a path, got {shown(value)}")
    return value


def text(name: str, value: Any) -> str:
    """`value`, if it is a str that UTF-8 can encode. Raises TypeError, or ValueError for a lone surrogate.

    >>> text("title", "ab\\ud800")
    Traceback (most recent call last):
    ValueError: title is not valid Unicode: '\\ud800' at position 2
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str, got {type(value).__name__}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            where = f"{value[error.start]!a} at position {error.start}"
            raise ValueError(f"{name} is not valid Unicode: {where}") from None
    return value


def texts(name: str, values: Any, items: str = "str", first: int = 0) -> list[str]:
    """`values` as a list of str. Raises what `sequence` and `text` raise; errors call the first item `name[first]`.

    >>> texts("words", ["a", 1], "words")
    Traceback (most recent call last):
    TypeError: words[1] must be str, got int
    """
    found = list(sequence(name, values, items))
    for i, value in enumerate(found, first):
        if not (isinstance(value, str) and value.isascii()):
            text(f"{name}[{i}]", value)
    return found


UNORDERED = (set, frozenset, dict)


def sequence(name: str, values: Any, items: str = "str") -> Iterable[Any]:
    """`values`, if it is iterable and not a str, a set or a dict. Raises TypeError otherwise; the message calls the
    entries `items`. A set has no order, in which results could be returned.

    >>> sequence("texts", {"a", "b"})
    Traceback (most recent call last):
    TypeError: texts must be a sequence of str, got set
    """
    if isinstance(values, str):
        raise TypeError(f"{name} must be a sequence of {items}, got the str {shown(values)}")
    if not isinstance(values, Iterable) or isinstance(values, UNORDERED) or getattr(values, "ndim", 1) == 0:
        raise TypeError(f"{name} must be a sequence of {items}, got {type(values).__name__}")
    return values


SHOWN = 200
"""The longest value in a message, in characters."""


class _Short(reprlib.Repr):
    """A repr that reads no more of a value than it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, SHOWN, SHOWN
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 10

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write an int of more than 4,300 digits."""
        return repr(x) if x.bit_length() < 600 else f"an int of {x.bit_length()} bits"


_short = _Short().repr


def shown(value: Any) -> str:
    """The repr of a value for a message, of 200 characters at most.

    >>> shown("a" * 5), len(shown("a" * 10**6))
    ("'aaaaa'", 200)
    """
    text = _short(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def listed(items: Collection[Any], separator: str = ", ", most: int = 10) -> str:
    """The first items of a list for a message, and how many more there are.

    >>> listed(range(1000), most=3)
    '0, 1, 2 and 997 more'
    """
    first = separator.join(printable(str(item)) for item in itertools.islice(items, most))
    return first + (f" and {len(items) - most} more" if len(items) > most else "")


def counted(count: int, unit: str) -> str:
    """A count with its unit, such as "1 epoch" or "2 epochs"."""
    return f"{count} {unit}{'' if count == 1 else 's'}"


def printable(text: str, most: int = 10_000) -> str:
    """`text` with escapes in the place of what does not print, such as a terminal's commands; a long one is cut.

    >>> print(printable("\\x1b[31mred"))
    \\x1b[31mred
    """
    cut = f"{text[:most]}..." if len(text) > most else text
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in cut)


def integers(name: str, values: ArrayLike, shape: tuple[int, ...] | None = None) -> NDArray[np.int64]:
    """`values`, an array or lists, as C-contiguous int64, if they are integers and have `shape`.

    Raises TypeError for values of another type, ValueError for another shape and for integers from 2**63 on.

    >>> integers("labels", [0.5])
    Traceback (most recent call last):
    TypeError: labels must be an integer array, got float64
    """
    try:
        found = np.asarray(values)
    except ValueError:  # NumPy's message says neither what nor where
        raise ValueError(f"{name} must be an integer array, got rows of different lengths") from None
    kind = found.dtype.kind
    if kind not in "iu":
        got = type(values).__name__ if found.dtype == object else found.dtype
        raise TypeError(f"{name} must be an integer array, got {got}")
    if shape is not None and found.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {found.shape}")
    if kind == "u" and (largest := found.max(initial=0)) >= 2**63:
        raise ValueError(f"{name} must be below 2**63, got {largest}")
    return np.asarray(found, _INT64, order="C")


def operand(name: str, value: Any) -> Any:
    """`value`, if it is an array or a Tensor. Raises TypeError for anything else, such as a list."""
    if not hasattr(value, "ndim"):
        raise TypeError(f"{name} must be an array or a Tensor, got {type(value).__name__}")
    return value
