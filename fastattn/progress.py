"""The progress bar, on standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(
    total: int | None,
    *,
    show: bool | None = None,
    unit: str = "text",
    done: int = 0,
    delay: float = 0.0,
    extra: str = "text",
) -> Iterator[Callable[..., None]]:
    """Yield a function `advance(count=1, note="")` that counts and shows a note after the bar.

    Args:
        total: how many units there are, or None if unknown.
        show: whether to show a bar. None shows one if standard error is a terminal and tqdm is installed.
        unit: what is counted, as tqdm writes it.
        done: how many units are done already.
        delay: seconds until the bar appears.
        extra: the extra of this package that installs tqdm, for the error.

    Raises ImportError if `show` is True and tqdm is missing.

    >>> with progress_bar(2, show=False) as advance:
    ...     advance(2)
    """
    tqdm = None
    if show or (show is None and sys.stderr.isatty()):
        try:
            from tqdm.auto import tqdm  # type: ignore[import-untyped,no-redef]
        except ImportError as error:
            if show:
                raise ImportError(f'a progress bar needs tqdm: pip install "fastattn[{extra}]"') from error
    if tqdm is None:
        yield lambda count=1, note="": None
        return
    with tqdm(total=total, initial=done, unit=unit, delay=delay, dynamic_ncols=True) as bar:

        def advance(count: int = 1, note: str = "") -> None:
            if note:
                bar.set_postfix_str(note, refresh=False)
            bar.update(count)

        yield advance
