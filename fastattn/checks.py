"""Checks of arguments and config fields: numbers, switches, text and arrays. NumPy numbers become Python numbers.

Every function takes a name and a value and returns the value. Errors name both. A value of the wrong type raises
`error`: TypeError for an argument of a call, ValueError for a field of a config, which may come from a file.
"""

from __future__ import annotations

import math
import operator
import os
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
    "integer",
    "integers",
    "number",
    "operand",
    "path",
    "sequence",
    "text",
    "texts",
]

_INT64 = np.dtype(np.int64)

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
        result = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        result = None
    if result is not None and low <= result and (high is None or result < high):
        return result
    wanted = wanted or ("a positive integer" if low == 1 else f"an integer from {low} on")
    raise (error if result is None else ValueError)(f"{name} must be {wanted}, got {value!r}")


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
        result = float(value)
    if result is not None and (low < result < high or (result == low and not above) or (result == high and up_to)):
        return result
    wanted = f"above {low:g}" if above else f"from {low:g} on"
    if high < math.inf:
        wanted = f"in {'(' if above else '['}{low:g}, {high:g}{']' if up_to else ')'}"
    raise (error if result is None else ValueError)(f"{name} must be a number {wanted}, got {value!r}")


config_integer = partial(integer, high=2**31, error=ValueError)
"""`integer` below 2^31 for a config field: another type raises ValueError."""
config_number = partial(number, error=ValueError)
"""`number` for a config field: another type raises ValueError."""


def boolean(name: str, value: Any, *, error: type[Exception] = ValueError) -> bool:
    """`value` as a bool. Raises `error` if it is not one."""
    if not isinstance(value, bool | np.bool_):
        raise error(f"{name} must be a bool, got {value!r}")
    return bool(value)


def choice(name: str, value: Any, known: Collection[str]) -> Any:
    """`value`, if it is one of the names `known`. Raises ValueError otherwise."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    return value


def path(name: str, value: Any) -> str | os.PathLike[str]:
    """`value`, if it is a str or a path. Raises TypeError."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be str or a path, got {value!r:.80}")
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


def sequence(name: str, values: Any, items: str = "str") -> Iterable[Any]:
    """`values`, if it is iterable and not a str. Raises TypeError otherwise; the message calls the entries `items`."""
    if isinstance(values, str):
        raise TypeError(f"{name} must be a sequence of {items}, got the str {values[:80]!r}")
    if not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a sequence of {items}, got {type(values).__name__}")
    return values


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
