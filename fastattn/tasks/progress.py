"""A progress bar on stderr, if one is wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def progress_bar(show: bool, total: int, delay: float = 0.0) -> Iterator[Callable[[int], Any]]:
    """Gives a function that advances the bar by so many texts, or one that does nothing.

    The bar appears after `delay` seconds.

    Raises ImportError, which says what to install, when a bar is wanted and tqdm is missing.
    """
    if not show:
        yield lambda count: None
        return
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError('a progress bar needs tqdm: pip install "fastattn[text]"') from error
    with tqdm(total=total, unit="text", delay=delay) as bar:
        yield bar.update
