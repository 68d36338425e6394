"""The check of `cu_seqlens` for ragged functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def bounds(
    function: str, name: str, cu_seqlens: npt.NDArray[np.integer[Any]], tokens: int, what: str = "tokens"
) -> list[int]:
    """`cu_seqlens` as ints, checked to start at 0, never decrease and end at `tokens`, the number of `what`."""
    ends: list[int] = cu_seqlens.tolist()
    if not ends or ends[0] != 0:
        raise ValueError(f"{function}: {name} must start at 0, got {ends[0] if ends else 'nothing'}")
    for i in range(len(ends) - 1):
        if ends[i + 1] < ends[i]:
            raise ValueError(f"{function}: {name} must not decrease, got {ends[i]} then {ends[i + 1]} at index {i + 1}")
    if ends[-1] != tokens:
        raise ValueError(f"{function}: {name} must end at the number of {what}, {tokens}, got {ends[-1]}")
    return ends
