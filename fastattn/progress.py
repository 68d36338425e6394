"""Progress of a long call: a bar on a terminal, lines in the log elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from fastattn.checks import printable

LINE_EVERY = 30.0
"""Seconds between lines, beside those of 1, 10, 100, ... units."""

clock = time.monotonic


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
    """Yield a function `advance(count=1, note="", *, line=False, total=None)` that counts.

    The note is shown after the bar, or in the next line. If there is no bar, `line` writes a line at once. `total` is a
    better estimate of the total.

    Args:
        total: how many units there are, or None if unknown.
        show: whether to show a bar. None shows one if standard error is a terminal and tqdm is installed; otherwise a
            line now and then goes to the log, at the level INFO. False shows neither.
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
        yield _nothing if show is False else _lines(total, unit, done)
        return
    with tqdm(total=total, initial=done, unit=unit, delay=delay, dynamic_ncols=True) as bar:

        def advance(count: int = 1, note: str = "", *, line: bool = False, total: int | None = None) -> None:
            bar.total = total or bar.total
            if note:
                bar.set_postfix_str(printable(note), refresh=False)
            bar.update(count)

        yield advance


def _nothing(count: int = 1, note: str = "", *, line: bool = False, total: int | None = None) -> None: ...


def _lines(total: int | None, unit: str, done: int) -> Callable[..., None]:
    """An `advance` that writes lines to the log."""
    import logging

    logger = logging.getLogger(__name__)
    known, next_count, next_time = total, 1, clock() + LINE_EVERY
    first = done

    def advance(count: int = 1, note: str = "", *, line: bool = False, total: int | None = None) -> None:
        nonlocal known, done, next_count, next_time
        known, done = total or known, done + count
        if not line and done - first < next_count and clock() < next_time:
            return
        while next_count <= done - first:
            next_count *= 10
        next_time = clock() + LINE_EVERY
        of = "" if known is None else f" of {known:,}"
        logger.info("%s %s%s%s", unit, f"{done:,}", of, note and f": {printable(note)}")

    return advance
