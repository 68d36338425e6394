"""Errors name the function that was called and its argument, whatever function has found the mistake.

    @named("lstm", x="input")
    def lstm_cell(input: Values, ...): ...      # "lstm: x must ..." becomes "lstm_cell: input must ..."

A call without an error pays for one more call, and for no check.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from numbers import Real
from typing import Any, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

ERRORS = (TypeError, ValueError, AttributeError, LookupError)
"""The errors that get another message."""


def named(*callees: str, **arguments: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator for a function whose errors come from `callees` too, or from NumPy.

    Args:
        callees: the functions whose names begin messages that are to begin with the name of this one.
        arguments: what an argument of a callee is here.

    An error that names no function gets this one's name. If an argument is of another kind than its annotation says,
    a TypeError names it.

    >>> @named("sum", x="numbers")
    ... def mean(numbers: Sequence[float]) -> float:
    ...     if len(numbers) == 0:
    ...         raise ValueError("sum: x must not be empty")
    ...     return sum(numbers) / len(numbers)
    >>> mean([])
    Traceback (most recent call last):
    ValueError: mean: numbers must not be empty
    >>> mean(5)
    Traceback (most recent call last):
    TypeError: mean: numbers must be a sequence, got int
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except ERRORS as error:
                try:
                    given = inspect.signature(function).bind(*args, **kwargs).arguments
                except TypeError:
                    given = {}
                raise explained(error, function, given, *callees, **arguments) from None

        return call

    return decorate


def explained(
    error: Exception, function: Callable[..., Any], given: Mapping[str, Any], *callees: str, **arguments: str
) -> Exception:
    """The error that `named` raises in the place of `error`, for a body of its own: a call then costs nothing.

    `given` are the arguments of the call of `function` by name, as `locals()` has them. The rest is as for `named`.
    """
    name = function.__name__
    message = str(error.args[0]) if error.args else ""
    match = re.match(rf"(?:{'|'.join((name, *callees))}): ", message)
    if match is None or isinstance(error, AttributeError):
        misfit = _misfit(function, given)
        if misfit:
            return TypeError(f"{name}: {misfit}")
        if not re.match(rf"{name}\(\) ", message):  # Python's own, about the arguments of the call
            error.args = (f"{name}: {message}",)
        return error
    rest = message[match.end() :]
    if arguments:
        words = rf"(?<!['\w])(?:{'|'.join(arguments)})(?!['\w])"  # not in quotes, where a value is
        rest = re.sub(words, lambda word: arguments[word[0]], rest)
    error.args = (f"{name}: {rest}",)
    return error


def _array(value: Any) -> bool:
    """Whether it is an array of numbers, a Tensor or a PackedMatrix."""
    return hasattr(value, "shape") and getattr(getattr(value, "dtype", None), "kind", "f") in "biufc"


def _numbers(value: Any) -> bool:
    try:
        return _array(value) or (not hasattr(value, "shape") and np.asarray(value).dtype.kind in "biufc")
    except ValueError:
        return False


def _sequence(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str)


def _integer(value: Any) -> bool:
    return hasattr(type(value), "__index__") and not isinstance(value, bool) and np.ndim(value) == 0


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("Values", "Weights"), ("an array or a Tensor", _array)),
    **dict.fromkeys(
        ("Array", "NDArray", "IntArray", "FloatArray", "Floats", "Weight", "CuSeqlens"), ("an array", _array)
    ),
    **dict.fromkeys(("Sequence", "tuple"), ("a sequence", _sequence)),
    "ArrayLike": ("an array of numbers", _numbers),
    "int": ("an integer", _integer),
    "float": ("a number", lambda x: isinstance(x, Real) and not isinstance(x, bool)),
    "bool": ("True or False", lambda x: isinstance(x, bool | np.bool_)),
    "str": ("a str", lambda x: isinstance(x, str)),
}
"""What an annotation means, by its first word."""


def _misfit(function: Callable[..., Any], given: Mapping[str, Any]) -> str:
    """The first argument that is of another kind than its annotation says, and what it must be; or an empty text."""
    for name, hint in function.__annotations__.items():
        if name == "return" or name not in given:
            continue
        value = given[name]
        kinds = [_KINDS[word] for word in re.findall(r"(?:^|\| )(\w+)", str(hint)) if word in _KINDS]
        if kinds and not (value is None and "None" in str(hint)) and not any(fits(value) for _, fits in kinds):
            return f"{name} must be {' or '.join(wanted for wanted, _ in kinds)}, got {type(value).__name__}"
    return ""


class EmptyError(ValueError):
    """A source of data has nothing in it. `what` names what is missing.

    >>> str(EmptyError("train.tsv", "rows"))
    'train.tsv: there are no rows'
    """

    def __init__(self, source: str, what: str) -> None:
        super().__init__(f"{source}: there are no {what}")


_IN_PYTHON = {
    "eval": "evaluate_on", "train": "data", "output": "folder", "resume": "resume=True", "no_shared": "shared=False",
    "no_next_sentence": "next_sentence=False",
}  # fmt: skip
"""What Python calls the options that have another name there."""


class OptionError(ValueError):
    """A message with names of options, which Python calls otherwise than the command line.

    `template` has the names in braces, as the command line spells them but for dashes; `{}` is the next of `values`.

    >>> error = OptionError("{max_length} is {}, too much for {eval}", 600)
    >>> str(error), error.as_flags
    ('max_length is 600, too much for evaluate_on', '--max-length is 600, too much for --eval')
    """

    def __init__(self, template: str, *values: Any) -> None:
        self._template, self._values = template, values
        super().__init__(self._filled(lambda name: _IN_PYTHON.get(name, name)))

    @property
    def as_flags(self) -> str:
        """The message with the flags of the command line."""
        return self._filled(lambda name: "--" + name.replace("_", "-"))

    def _filled(self, spelled: Callable[[str], str]) -> str:
        rest = iter(self._values)
        return re.sub(r"{(\w*)}", lambda match: spelled(match[1]) if match[1] else str(next(rest)), self._template)


@contextlib.contextmanager
def fields_as_options(**options: str) -> Iterator[None]:
    """Inside the `with` block, a ValueError that names fields of a configuration names the options they come from.

    >>> with fields_as_options(num_attention_heads="heads"):
    ...     raise ValueError("num_attention_heads must be 2, got 3")
    Traceback (most recent call last):
    fastattn.errors.OptionError: heads must be 2, got 3
    """
    try:
        yield
    except ValueError as error:
        names = re.compile(rf"\b(?:{'|'.join(options)})\b")
        message = re.sub(r"[{}]", "", str(error))  # braces are for options
        raise OptionError(names.sub(lambda name: f"{{{options[name[0]]}}}", message)) from None


def as_flags(message: str, owners: Collection[str], flags: Mapping[str, str]) -> str:
    """A message that names functions and their arguments, for the command line: without the names of `owners`, and
    with a flag in the place of an argument that follows one.

    >>> as_flags("f.tsv:3: encode: max_length must be positive", {"encode"}, {"max_length": "--max-length"})
    'f.tsv:3: --max-length must be positive'
    """

    def rewritten(match: re.Match[str]) -> str:
        if match[2] not in owners:
            return match[0]
        return match[1] + flags.get(match[3], match[3])

    return re.sub(r"(^|: )(\w+): (\w*)", rewritten, message)
