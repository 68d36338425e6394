"""The layers of a model, by the names of its parameters."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import cache

from fastattn.nn.parameter import AnyParameter


def by_layer(names: Iterable[tuple[str, AnyParameter]], begins: Sequence[str]) -> list[list[AnyParameter]]:
    """The parameters of a model by layer, the lowest first.

    Args:
        names: all names of all parameters, in the order of the model.
        begins: how the names of layers begin, with `{}` for the number; of several stacks the lowest first.

    Parameters whose names come before the first layer are below it; others are above the last layer before them. Of
    several names the highest counts.
    """
    below = level = (-1, 0.0)  # a stack and a layer in it
    levels: dict[int, tuple[int, float]] = {}
    parameters: dict[int, AnyParameter] = {}
    for name, parameter in names:
        numbers = ((stack, layer_number(begin, name)) for stack, begin in enumerate(begins))
        found = next(((stack, float(number)) for stack, number in numbers if number >= 0), None)
        level = found or (below if level == below else (level[0], math.inf))
        levels[id(parameter)] = max(level, levels.get(id(parameter), below))
        parameters[id(parameter)] = parameter
    groups: dict[tuple[int, float], list[AnyParameter]] = {}
    for key, parameter in parameters.items():
        groups.setdefault(levels[key], []).append(parameter)
    return [groups[level] for level in sorted(groups)]


def layer_number(begin: str, name: str) -> int:
    """The layer's number in a tensor `name` with the prefix `begin`; -1 for any other name."""
    match = re.match(pattern(begin), name)
    return int(match[1]) if match else -1


def layer_numbers(begin: str, names: Iterable[str]) -> set[int]:
    """The numbers of layers among the names of tensors."""
    return {layer_number(begin, name) for name in names} - {-1}


@cache
def pattern(begin: str) -> str:
    """A regular expression for the prefix `begin`."""
    return re.escape(begin).replace(r"\{\}", r"(\d{1,9})")  # Python makes no number of thousands of digits
