"""How everything is timed: outputs are compared, then contenders take turns in random order.

1. Every contender has a process of its own, with the same weights, inputs and number of threads.
2. Each contender computes its output once. One that differs from the first contender's beyond the tolerance is not
   timed.
3. In every round the contenders take one turn each, in a new random order. Before a turn all processes must be asleep:
   thread pools spin for milliseconds after their last task and would burn the next contender's core.
4. The machine's peak (fused multiply-adds in registers, all threads) is measured in a burst around every turn.
5. Ratios are taken within a round. The report has the median over rounds and the quartiles.
"""

from __future__ import annotations

import importlib
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .worker import Worker, WorkerError

PAUSE = 0.02  # seconds between turns, at least: an OpenMP worker spins for 7.6 ms, others longer
BURST = 0.03  # seconds of fused multiply-adds around each turn
TURN = 0.1  # seconds that a turn should take: quick calls are repeated, and their median counts
WARM_UP = 0.3  # calls slower than this need no warm-up call to refill caches and wake threads


@dataclass(frozen=True)
class Contender:
    """A contender. `function` ("module:name") of `arguments` returns the job to time."""

    name: str
    python: str
    function: str
    arguments: dict[str, Any]
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """One row group of a table: the contenders (ours first) and how much work one call is."""

    name: str
    contenders: list[Contender]
    work: float
    unit: str
    tolerance: float
    flops: float | None = None
    notes: dict[str, str] = field(default_factory=dict)


@dataclass
class Series:
    """What one contender did in a case."""

    difference: float
    calls: int = 1
    seconds: list[float] = field(default_factory=list)
    peak_gflops: list[float] = field(default_factory=list)


@dataclass
class Result:
    """A case's numbers for JSON.

    `left_out` has the contenders that were not timed, and why; `notes` has what to say of others.
    """

    case: str
    work: float
    unit: str
    flops: float | None
    series: dict[str, Series] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def measure(case: Case, threads: int, rounds: int) -> Result:
    """Compare, then time; see the top of this file."""
    result = Result(case.name, case.work, case.unit, case.flops, notes=case.notes)
    with ExitStack() as stack:
        workers = start(stack, case, threads, result)
        compare(workers, case, result)
        take_turns(workers, result, threads, rounds)
    return result


def compare(workers: dict[str, Worker], case: Case, result: Result) -> None:
    """Give everyone whose output is ours, within the tolerance, a series in `result`; the others end."""
    ours = next(iter(workers))
    say(f"{case.name}: comparing outputs")
    expected = workers[ours].output()
    for name, worker in list(workers.items()):
        difference = 0.0 if name == ours else largest_difference(worker.output(), expected)
        if not difference <= case.tolerance:
            result.left_out[name] = f"differs by {difference:.2g}, more than {case.tolerance:.0e}"
            say(f"{case.name}: {name} {result.left_out[name]}: not timed\n")
            workers.pop(name).close()
            continue
        result.series[name] = Series(difference)


def start(stack: ExitStack, case: Case, threads: int, result: Result) -> dict[str, Worker]:
    """Start every contender's process and load its model, all at once; a rival that fails is left out."""
    say(f"{case.name}: loading {', '.join(each.name for each in case.contenders)}")
    workers = {each.name: stack.enter_context(Worker(each.name, each.python, threads)) for each in case.contenders}
    for each in case.contenders:
        workers[each.name].send("prepare", function=each.function, arguments=each.arguments)
    for each in case.contenders:
        try:
            workers[each.name].receive()
            result.versions |= workers[each.name].call("versions", packages=each.packages)
        except WorkerError as error:
            if each is case.contenders[0]:
                raise
            absent = error.kind in ("ModuleNotFoundError", "PackageNotFoundError")
            result.left_out[each.name] = f"not installed in {each.python}" if absent else str(error)
            say(f"{case.name}: {each.name} left out: {result.left_out[each.name]}\n")
            workers.pop(each.name).close()
    return workers


def take_turns(workers: dict[str, Worker], result: Result, threads: int, rounds: int) -> None:
    """Fill `result.series` with one sample per contender and round."""
    peak = peak_burst(threads)
    pids = [worker.process.pid for worker in workers.values()]
    warm_up = dict.fromkeys(workers, 0)
    for name, worker in workers.items():
        settle(pids)
        seconds = worker.sample(1, 1)[0]
        result.series[name].calls = max(1, round(TURN / seconds))
        warm_up[name] = int(seconds < WARM_UP)
    order = list(workers)
    shuffle = random.Random(0)
    settle(pids)
    before = peak()
    for index in range(rounds):
        shuffle.shuffle(order)
        for name in order:
            series = result.series[name]
            say(f"{result.case}: round {index + 1}/{rounds}, {name}")
            settle(pids)
            series.seconds.append(float(np.median(workers[name].sample(series.calls, warm_up[name]))))
            settle(pids)
            after = peak()
            series.peak_gflops.append((before + after) / 2)
            before = after
    say("")


def settle(pids: Iterable[int]) -> None:
    """Sleep until no thread of these processes or of this one is spinning."""
    pids = [os.getpid(), *pids]
    time.sleep(PAUSE)
    used = cpu_seconds(pids)
    give_up = time.monotonic() + 5
    while time.monotonic() < give_up:
        time.sleep(PAUSE / 2)
        earlier, used = used, cpu_seconds(pids)
        if used - earlier < 0.001:
            return


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of the processes, all their threads together; 0 where the system does not tell (macOS)."""
    if not sys.platform.startswith("linux"):
        return 0.0
    clocks = ((~pid << 3) | 2 for pid in pids)  # the kernel's MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)
    return sum(map(time.clock_gettime, clocks))


def peak_burst(threads: int) -> Callable[[], float]:
    """A function that measures the machine's fused multiply-add peak, GFLOP/s, on this many threads."""
    importlib.import_module("fastattn").set_num_threads(threads)
    fma_peak = importlib.import_module("fastattn._core").fma_peak
    return lambda: float(fma_peak(BURST))


def largest_difference(output: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    """max |output - expected|; infinite when the shapes differ, NaN when either holds NaN."""
    return float(np.abs(output - expected).max()) if output.shape == expected.shape else math.inf


def say(text: str) -> None:
    """Show progress on standard error, on a terminal in one line that is rewritten."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
    elif text and "round" not in text:
        print(text.rstrip(), file=sys.stderr)


def quartiles(values: Iterable[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    low, middle, high = np.quantile(list(values), (0.25, 0.5, 0.75))
    return float(low), float(middle), float(high)
