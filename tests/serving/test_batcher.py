"""The engine: the bits of a call whatever the company, order, limits, deadlines, and errors that stay their own."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_serving import Served, assert_same, make_tasks

from fastattn.serving import Answer, Batcher, ClosedError, DeadlineError, QueueFullError
from fastattn.tasks import TextTooLongError
from fastattn.tasks.work import Together, Work

LONG = 60.0  # seconds for what takes no time


class Gate:
    """A task that answers each input with itself, one input being a token, when its gate is open."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun = threading.Event()
        self.passes: list[list[Any]] = []

    def prepare(self, inputs: list[Any], method: str | None = None, **options: Any) -> list[Work]:
        if "wrong" in inputs:
            raise ValueError("wrong input")
        together = Together(self.compute, (method,))
        return [Work(together, each, 1, 1 + (each == "cut")) for each in inputs]

    def compute(self, data: list[Any], method: str | None) -> list[Any]:
        self.begun.set()
        assert self.open.wait(LONG)
        self.passes.append(data)
        if "fails" in data:
            raise RuntimeError("cannot compute")
        return data


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def test_answers_of_many_threads_are_those_of_calls(tmp_path: Path) -> None:
    served = make_tasks(tmp_path)
    wanted = {name: list(one.direct(one.inputs)) for name, one in served.items()}
    batchers = {id(one.task): Batcher(one.task, max_batch_tokens=64) for one in served.values()}

    def ask(seed: int) -> None:
        order = [(name, i) for name, one in served.items() for i in range(len(one.inputs))]
        random.Random(seed).shuffle(order)
        answers = []
        for name, i in order:
            one = served[name]
            answers.append(batchers[id(one.task)].submit(one.inputs[i], one.method, **one.options))
        for (name, i), answer in zip(order, answers, strict=True):
            found[seed] += 1
            assert_same(answer.result(LONG), wanted[name][i])
            assert answer.arrived <= answer.tokenised <= answer.begun <= answer.done_at

    found = [0] * 6
    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(len(found))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for batcher in batchers.values():
        batcher.close()
        assert batcher.waiting == 0
    assert found == [sum(len(one.inputs) for one in served.values())] * len(found)


def test_coroutines(tmp_path: Path) -> None:
    one: Served = make_tasks(tmp_path)["encode"]

    async def ask() -> list[Any]:
        with Batcher(one.task) as batcher:
            found = await asyncio.gather(*map(batcher.answer, one.inputs * 5))
            with pytest.raises(TypeError, match="sentences"):
                await batcher.answer(3)
        return found

    assert_same(asyncio.run(ask()), [*one.direct(one.inputs)] * 5)


def test_passes_are_full_and_in_order(gate: Gate) -> None:
    batcher = Batcher(gate, max_batch_tokens=4)
    first = batcher.submit(0)
    assert gate.begun.wait(LONG)
    answers = [batcher.submit(i, "other" if i in (3, 4) else None) for i in range(1, 9)]
    while batcher._ready_tokens < 8:
        time.sleep(0.001)
    gate.open.set()
    assert [answer.result(LONG) for answer in [first, *answers]] == [*range(9)]
    assert gate.passes == [[0], [1, 2, 5, 6], [3, 4], [7, 8]]
    batcher.close()


def test_a_full_queue_says_when_to_come_again(gate: Gate) -> None:
    batcher = Batcher(gate, max_waiting=3)
    answers = [batcher.submit(i) for i in range(3)]
    with pytest.raises(QueueFullError, match="3 requests wait") as caught:
        batcher.submit(3)
    assert caught.value.retry_after >= 1
    gate.open.set()
    assert [answer.result(LONG) for answer in answers] == [0, 1, 2]
    while batcher.waiting:
        time.sleep(0.001)
    assert batcher.submit(4).result(LONG) == 4
    batcher.close()


def test_errors_leave_others_alone(gate: Gate) -> None:
    seen: list[Answer] = []
    batcher = Batcher(gate, observe=seen.extend)
    first = batcher.submit("first")
    assert gate.begun.wait(LONG)
    inputs = ["a", "wrong", "fails", "cut", "b"]
    answers = [batcher.submit(each, truncate=False) for each in inputs]
    gate.open.set()
    assert [first.result(LONG), answers[0].result(LONG), answers[4].result(LONG)] == ["first", "a", "b"]
    for i, kind, message in (
        (1, ValueError, "wrong input"),
        (2, RuntimeError, "cannot compute"),
        (3, TextTooLongError, "has 2 tokens, the model takes 1"),
    ):
        with pytest.raises(kind, match=message):
            answers[i].result(LONG)
    batcher.close()
    assert {answer.input for answer in seen} == {"first", "a", "fails", "b"}


def test_late_and_cancelled_requests_are_not_computed(gate: Gate) -> None:
    batcher = Batcher(gate)
    first = batcher.submit("first")
    assert gate.begun.wait(LONG)
    late, cancelled, kept = batcher.submit("late", timeout=0.0), batcher.submit("cancelled"), batcher.submit("kept")
    assert cancelled.cancel()
    assert not first.cancel()
    gate.open.set()
    assert kept.result(LONG) == "kept"
    with pytest.raises(DeadlineError):
        late.result(LONG)
    with pytest.raises(CancelledError):
        cancelled.result(LONG)
    batcher.close()
    assert gate.passes == [["first"], ["kept"]]


def test_a_cancelled_coroutine_cancels_its_request(gate: Gate) -> None:
    async def ask() -> None:
        first = batcher.submit("first")
        await asyncio.to_thread(gate.begun.wait, LONG)
        task = asyncio.create_task(batcher.answer("left"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open.set()
        await asyncio.wrap_future(first)

    batcher = Batcher(gate)
    asyncio.run(ask())
    batcher.close()
    assert gate.passes == [["first"]]


def test_closing_answers_those_that_wait(gate: Gate) -> None:
    batcher = Batcher(gate)
    answers = [batcher.submit(i) for i in range(5)]
    batcher.close(wait=False)
    with pytest.raises(ClosedError):
        batcher.submit(5)
    gate.open.set()
    batcher.close()
    assert [answer.result(0) for answer in answers] == [0, 1, 2, 3, 4]


def test_a_forked_child_has_its_own_threads(gate: Gate) -> None:
    gate.open.set()
    batcher = Batcher(gate)
    assert batcher.submit(1).result(LONG) == 1
    child = os.fork()
    if child == 0:
        os._exit(0 if batcher.submit(2).result(LONG) == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert batcher.submit(3).result(LONG) == 3
    batcher.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "text"}, "task must have `prepare`"),
        ({"max_batch_tokens": 0}, "max_batch_tokens"),
        ({"max_waiting": 0}, "max_waiting"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str, gate: Gate) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Batcher(**{"task": gate, **arguments})


class Exits(Gate):
    """A task that ends with what is no Exception, for some inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.open.set()

    def prepare(self, inputs: list[Any], method: str | None = None, **options: Any) -> list[Work]:
        if "interrupt" in inputs:
            raise KeyboardInterrupt
        works = super().prepare(inputs, method)
        return works[1:] if "short" in inputs else works

    def compute(self, data: list[Any], method: str | None) -> list[Any]:
        if "exit" in data:
            raise SystemExit(3)
        return [] if "none" in data else super().compute(data, method)


@pytest.mark.parametrize("bad", ["interrupt", "exit", "short", "none"])
def test_whatever_a_task_does_the_others_are_answered(bad: str) -> None:
    with Batcher(Exits()) as batcher:
        assert batcher.submit("first").result(LONG) == "first"
        failed = batcher.submit(bad)
        assert isinstance(failed.exception(LONG), BaseException)
        assert [batcher.submit(text).result(LONG) for text in ("a", "b")] == ["a", "b"]
        assert wait_for(lambda: batcher.waiting == 0)


def test_an_observer_or_a_callback_that_raises_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def observe(answers: Any) -> None:
        raise RuntimeError("a text that nobody should log")

    def exits(answer: Any) -> None:
        raise SystemExit

    with Batcher(Exits(), observe=observe) as batcher:
        first = batcher.submit("first")
        first.add_done_callback(exits)
        assert first.result(LONG) == "first"
        assert [batcher.submit(text).result(LONG) for text in ("a", "b")] == ["a", "b"]
        assert wait_for(lambda: batcher.waiting == 0)
    assert "RuntimeError" in caplog.text
    assert "nobody" not in caplog.text


def test_a_callback_may_close_the_batcher() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch_tokens=2)
    answers = [batcher.submit(i) for i in range(9)]
    answers[0].add_done_callback(lambda _: batcher.close())
    gate.open.set()
    assert [answer.result(LONG) for answer in answers] == list(range(9))
    batcher.close()
    assert not any(thread.is_alive() for thread in batcher._threads)


def test_options_that_are_arrays_are_not_compared() -> None:
    class Arrays(Gate):
        def prepare(self, inputs: list[Any], method: str | None = None, **options: Any) -> list[Work]:
            together = Together(lambda data, weights: [weights.sum() for _ in data], (options["weights"],))
            return [Work(together, each, 1, 1) for each in inputs]

    with Batcher(Arrays()) as batcher:
        answers = [batcher.submit(i, weights=np.full(3, i)) for i in range(8)]
        assert [int(answer.result(LONG)) for answer in answers] == [3 * i for i in range(8)]


def wait_for(condition: Any) -> bool:
    end = time.monotonic() + LONG
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    return bool(condition())
