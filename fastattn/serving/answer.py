"""What `Batcher.submit` returns, and the errors of requests that are not computed."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from concurrent.futures import Future
from time import perf_counter
from typing import Any


class QueueFullError(RuntimeError):
    """As many requests wait as may.

    Attributes:
        retry_after: in about how many seconds there is room again.
    """

    def __init__(self, waiting: int, retry_after: float) -> None:
        super().__init__(f"{waiting} requests wait, and no more may; try again in {retry_after:.1f} s")
        self.retry_after = retry_after


class ClosedError(RuntimeError):
    """The batcher takes no more requests."""


class DeadlineError(TimeoutError):
    """A request was not begun within its `timeout`."""


class Answer(Future[Any]):
    """A request, and the future of its answer. `cancel()` takes it out of the queue, until it is computed.

    Attributes:
        tokens: how many tokens the model reads, once they are counted.
        full_tokens: how many the input had before it was cut.
        arrived, tokenised, begun, done_at: when it was submitted, when its text was tokens, when the pass that computes
            it began, and when that ended, by `time.perf_counter()`; 0 until then.
    """

    def __init__(
        self,
        input: Any,
        method: str | None,
        options: Mapping[str, Any],
        truncate: bool = True,
        timeout: float | None = None,
    ) -> None:
        super().__init__()
        self.input, self.method, self.options, self.truncate = input, method, options, truncate
        self.work: Any = None
        self.tokens = self.full_tokens = 0
        self.arrived, self.tokenised, self.begun, self.done_at = perf_counter(), 0.0, 0.0, 0.0
        self.deadline = None if timeout is None else self.arrived + timeout
        self.waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        """Who is told, in its own event loop, that there is an answer."""
        self.group: Hashable = self._group()

    def _group(self) -> Hashable:
        """Requests of a group can be tokenised at once."""
        group = self.method, tuple(sorted(self.options.items()))
        try:
            hash(group)
        except TypeError:  # an option that is a list
            return object()
        return group

    def late(self, now: float) -> bool:
        return self.deadline is not None and now > self.deadline
