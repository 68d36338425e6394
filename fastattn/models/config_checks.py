"""Checks of numbers that a config or a call names; those of NumPy are welcome, and become Python's."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

PROBABILITY: dict[str, Any] = {"low": 0.0, "high": 1.0, "inclusive": True}
"""What a dropout may be, as arguments of `number`."""


def integer(name: str, value: Any, low: int = 1, high: int = 2**31, text: str = "a positive integer") -> int:
    """`value` as an int, once it is known to be an integer in [low, high); `text` says so in the ValueError."""
    if not isinstance(value, Integral) or isinstance(value, bool) or not low <= int(value) < high:
        raise ValueError(f"{name} must be {text}, got {value!r}")
    return int(value)


def number(name: str, value: Any, low: float, high: float = math.inf, *, inclusive: bool = False) -> float:
    """`value` as a float, once it is known to be a number above `low`, or `low` too if `inclusive`, and below `high`.

    Raises ValueError for another.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        result = float(value)
        if low < result < high or (inclusive and result == low):
            return result
    start = f"from {low:g} on" if inclusive else f"above {low:g}"
    raise ValueError(f"{name} must be a number {start} and below {high:g}, got {value!r}")
