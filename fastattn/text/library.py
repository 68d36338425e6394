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

    It raises plain Exceptions. Where it panics, it raises a PanicException, which is a BaseException without a public
    name.
    """
    try:
        yield
    except MemoryError:
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
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
    turns its threads off. TOKENIZERS_PARALLELISM=false, set during the fork and kept in the child, tells it in time. A
    value that the user has set stays.
    """
    global _fork_hooks_registered
    if _fork_hooks_registered or not hasattr(os, "register_at_fork"):
        return
    _fork_hooks_registered = True
    variable = "TOKENIZERS_PARALLELISM"
    set_by_us: list[bool] = []

    def before() -> None:
        set_by_us.append(variable not in os.environ)
        if set_by_us[-1]:
            os.environ[variable] = "false"

    def in_parent() -> None:
        if set_by_us.pop():
            os.environ.pop(variable, None)

    os.register_at_fork(before=before, after_in_parent=in_parent)
