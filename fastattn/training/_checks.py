"""Numbers that a user gives: Python's own come out, whatever NumPy's went in, for states and logs are JSON."""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any


def integer(name: str, value: Any, lowest: int) -> int:
    """`value` as an int. Raises TypeError for what is none, ValueError for one below `lowest`, by name."""
    message = f"{name} must be an integer from {lowest} on, got {value!r}"
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(message) from None
    if number < lowest:
        raise ValueError(message)
    return number


def number(name: str, value: Any, above: bool = False) -> float:
    """`value` as a float, which is finite and from 0 on, or `above` 0. Raises as `integer` does."""
    message = f"{name} must be a number {'above 0' if above else 'from 0 on'}, got {value!r}"
    if not isinstance(value, numbers.Real):
        raise TypeError(message)
    result = float(value)
    if not 0.0 <= result < math.inf or (above and result == 0.0):
        raise ValueError(message)
    return result


def plain(value: Any) -> Any:
    """For `json.dumps(default=plain)`: NumPy's numbers and arrays as Python's. Raises TypeError for anything else."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{value!r} cannot be written as JSON")
