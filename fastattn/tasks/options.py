"""Options: fields of frozen dataclasses. An annotation says what a value may be, a line of the docstring what it does.

The command line reads options to answer `--help`, so this module imports no model and no trainer.
"""

from __future__ import annotations

import inspect
import os
import re
import types
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from fastattn import checks

Count = Annotated[int, checks.integer]
Fraction = Annotated[float, partial(checks.number, **checks.FRACTION)]
Probability = Annotated[float, partial(checks.number, **checks.PROBABILITY)]
Share = Annotated[float, partial(checks.number, high=1.0, above=True, up_to=True)]
AboveZero = Annotated[float, partial(checks.number, **checks.POSITIVE)]
Positive = Annotated[float, checks.number]
Seed = Annotated[int, partial(checks.integer, low=0, high=2**64, wanted="an integer from 0 to 2^64 - 1")]


class Option(NamedTuple):
    """A field of `Options`. `kind` reads a value (int, float, str or bool), `check(name, value)` checks it, `many` is
    whether there are several values, and `choices` are the only values allowed."""

    name: str
    default: Any
    help: str
    kind: Callable[[str], Any]
    check: Callable[[str, Any], Any]
    many: bool
    choices: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a task. They are checked when made; an error names the class, the option and the value."""

    def __post_init__(self) -> None:
        for option in options(type(self)):
            name, value = f"{type(self).__name__}: {option.name}", getattr(self, option.name)
            if value is not None or option.default is not None:
                values = checks.sequence(name, value) if option.many and not isinstance(value, str) else [value]
                found = tuple(option.check(name, some) for some in values)
                object.__setattr__(self, option.name, found if option.many else found[0])


def options(kind: type[Options]) -> list[Option]:
    """The options of a class, from its annotations and docstring, including those of its bases."""
    hints, helps = get_type_hints(kind, include_extras=True), _helps(kind)
    return [_option(each.name, each.default, hints[each.name], helps.get(each.name, "")) for each in fields(kind)]


def _option(name: str, default: Any, hint: Any, help: str) -> Option:
    if get_origin(hint) in (Union, types.UnionType):
        hint = get_args(hint)[0]  # the other one is None
    many = get_origin(hint) is tuple
    hint = get_args(hint)[0] if many else hint
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        return Option(name, default, help, str, partial(checks.choice, known=choices), many, choices)
    kind, *check = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    check = check or [checks.boolean if kind is bool else _text]
    return Option(name, default, help, kind, check[0], many, None)


def _text(name: str, value: Any) -> str:
    """Any text, or a path."""
    return os.fspath(checks.path(name, value))


def _helps(kind: type[Options]) -> dict[str, str]:
    """The arguments in the docstrings of a class and its bases. `python -OO` leaves them out."""
    docs = "\n".join(inspect.cleandoc(each.__doc__ or "") for each in reversed(kind.__mro__[:-1]))
    return {name: " ".join(text.split()) for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", docs, re.M)}


class Usage:
    """What the commands say of a task, and the options of its `fastattn predict`."""

    summary: ClassVar[str]
    """What the task does, in a few words."""
    predicting: ClassVar[tuple[str, str, str] | None] = None
    """What `fastattn predict` does, what its `--model` names and what it reads. None: the task has no such command."""
    predict_options: ClassVar[type[Options]] = Options
    """The options of `fastattn predict`."""
