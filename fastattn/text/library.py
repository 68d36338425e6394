"""The `tokenizers` library (extra `[text]`): importing it, and its errors as ValueErrors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")


def import_tokenizers() -> Any:
    """The `tokenizers` module, or an ImportError that says how to install it."""
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError('fastattn needs the tokenizers library to read text: pip install "fastattn[text]"') from error
    _keep_forks_quiet()
    return tokenizers


@contextlib.contextmanager
def library_errors(what: str) -> Iterator[None]:
    """Raise a ValueError that begins with `what` for an error of the library.

    It raises Exception itself and Python's errors for wrong arguments. Where it panics, it raises a PanicException,
    which is a BaseException without a public name. Any other error passes: a signal handler raised it.
    """
    try:
        yield
    except BaseException as error:
        wrong = isinstance(error, TypeError | ValueError | OverflowError)
        if wrong or type(error) is Exception or type(error).__name__ == "PanicException":
            raise ValueError(f"{what}: {str(error)[:500]}") from None
        raise


def by_index(
    name: str, items: Sequence[Item], call: Callable[[Sequence[Item]], list[Any]], first: int = 0
) -> list[Any]:
    """`call(items)`. Raises ValueError for an error of the library, which names the item: `name[first]` is the first.

    >>> by_index("texts", ["a", "b"], lambda texts: [text.upper() for text in texts])
    ['A', 'B']
    """
    try:
        with library_errors(name):
            return call(items)
    except ValueError:
        for i, item in enumerate(items, first):
            with library_errors(f"{name}[{i}] cannot be tokenised"):
                call([item])
        raise


_fork_hooks_registered = False


def _keep_forks_quiet() -> None:
    """Let a forked child tokenise in one thread, without the library's warning.

    A child has no copy of the parent's thread pool. The library notices that only after the fork, warns on stderr and
    turns its threads off. TOKENIZERS_PARALLELISM=false tells it in time, and it has no other switch. The variable is
    set during a fork, and stays in the child, for the library alone: `os.environ` does not change, here or there. A
    value that the user has set stays.
    """
    global _fork_hooks_registered
    if _fork_hooks_registered or not hasattr(os, "register_at_fork"):
        return
    _fork_hooks_registered = True
    variable = "TOKENIZERS_PARALLELISM"
    forks, in_child = 0, False  # of all threads

    def before() -> None:
        nonlocal forks
        forks += 1
        if variable not in os.environ and not in_child:
            os.putenv(variable, "false")

    def after_in_parent() -> None:
        nonlocal forks
        forks -= 1
        if variable not in os.environ and not in_child and not forks:
            os.unsetenv(variable)

    def after_in_child() -> None:
        nonlocal forks, in_child
        forks, in_child = 0, True

    os.register_at_fork(before=before, after_in_parent=after_in_parent, after_in_child=after_in_child)
