"""A progress bar of steps on standard error, with the time that is left."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def training_bar(show: bool | None, total: int, done: int = 0) -> Iterator[Callable[[str], None]]:
    """Gives a function that counts a step, of which `done` of `total` are done, and shows a text about it.

    None for `show` shows the bar when standard error is a terminal and tqdm is there. Raises ImportError, which
    says what to install, when a bar is wanted and tqdm is missing.
    """
    wanted = sys.stderr.isatty() if show is None else show
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped]
    except ImportError as error:
        if show:
            raise ImportError('a progress bar needs tqdm: pip install "fastattn[train]"') from error
        wanted = False
    if not wanted:
        yield lambda text: None
        return
    with tqdm(total=total, initial=done, unit="step", dynamic_ncols=True) as bar:

        def advance(text: str) -> None:
            bar.set_postfix_str(text, refresh=False)
            bar.update()

        yield advance
