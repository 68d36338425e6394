"""Models where others want the processor too: `python -m benchmarks neighbours`.

A case is `MODEL-BATCHxLENGTH`, forward passes as in `models`, or `train-MODEL-BATCHxLENGTH`, training steps as in
`train`. Contenders are started and compared as measure.py says, and take turns under each condition:

- `quiet`: nothing else runs.
- `processesN`: N other processes never sleep.
- `thread`: a thread of plain Python runs in the contender's own process.

The neighbours run only during a turn, so that all is quiet while the contenders fall asleep and the peak is measured.
A turn is up to 30 calls, each timed on its own. Percentiles are those of all calls of all rounds.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace

import numpy as np

from . import models, train
from .measure import Case, Result, Series, compare, peak_burst, quartiles, say, settle, start
from .report import Report, Table, machine, number, write
from .worker import Worker

CASES = (
    "minilm-l6-1x8",
    "minilm-l6-1x32",
    "minilm-l6-1x128",
    "minilm-l6-32x128",
    "bert-base-1x128",
    "train-minilm-l6-16x64",
)
CONDITIONS = ("quiet", "processes2", "processes8", "thread")
TRAIN, PROCESSES = "train-", "processes"
SETTINGS = {"onnxruntime": ("onnxruntime", "onnxruntime-no-spin")}  # rivals that compete more than once
PERCENTILES = (50, 95, 99)
TURN = 2.0  # seconds that a turn may take where the calls are slow
MOST, LEAST = 30, 2  # calls of a turn
PROBES = 3  # calls of the first turn that only find out how many a turn takes
NEIGHBOUR = """
import os, sys
print(flush=True)
while os.getppid() == int(sys.argv[1]):
    for _ in range(100_000):
        pass
"""  # ends with the benchmark, however that ends


@dataclass(frozen=True)
class Condition:
    """What runs beside a contender: so many processes, or a thread in its own."""

    name: str
    title: str
    processes: int = 0
    thread: bool = False


@dataclass
class Cell(Result):
    """A case under one condition; `seconds` of its series has every call."""

    condition: str = ""


def parse_condition(name: str) -> Condition:
    """`"processes2"` is two processes; any number will do."""
    if name == "quiet":
        return Condition(name, name)
    if name == "thread":
        return Condition(name, "beside a Python thread", thread=True)
    count = name.removeprefix(PROCESSES)
    if name == count or not count.isdecimal() or int(count) < 1:
        raise SystemExit(f"unknown condition {name!r}; known are quiet, processesN and thread")
    return Condition(name, f"beside {int(count)} busy process{'es' if int(count) > 1 else ''}", processes=int(count))


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that never sleep, all of them at work before the block begins, and none after it."""
    with ExitStack() as stack:
        processes = []
        for _ in range(count):
            command = [sys.executable, "-I", "-S", "-c", NEIGHBOUR, str(os.getpid())]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            stack.enter_context(process)  # waits for it
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError("a busy process ended before its time")
        yield


def make_case(name: str, options: argparse.Namespace, folder: str) -> Case:
    """The case of this name; `folder` is for files that last as long as it."""
    if not name.startswith(TRAIN):
        return models.make_case(name, options)
    task = train.classification(*models.parse_case(name.removeprefix(TRAIN)), options.cache)
    return train.make_case(name, task, options, folder)


def measure(case: Case, conditions: Sequence[Condition], threads: int, rounds: int) -> list[Cell]:
    """Compare, then time under every condition."""
    whole = Cell(case.name, case.work, case.unit, case.flops)
    with ExitStack() as stack:
        workers = start(stack, case, threads, whole)
        compare(workers, case, whole)
        cells = []
        for condition in conditions:
            series = {name: Series(each.difference) for name, each in whole.series.items()}
            cells.append(replace(whole, condition=condition.name, series=series))
        take_turns(workers, list(zip(conditions, cells, strict=True)), threads, rounds)
    return cells


def take_turns(workers: dict[str, Worker], cells: list[tuple[Condition, Cell]], threads: int, rounds: int) -> None:
    """One turn per round, condition and contender; the conditions are interleaved as the contenders are."""
    peak = peak_burst(threads)
    pids = [worker.process.pid for worker in workers.values()]
    order = list(workers)
    shuffle = random.Random(0)
    settle(pids)
    before = peak()
    for index in range(rounds):
        for condition, cell in cells:
            shuffle.shuffle(order)
            for name in order:
                say(f"{cell.case}: round {index + 1}/{rounds}, {condition.title}, {name}")
                settle(pids)
                take_turn(workers[name], condition, cell.series[name])
                settle(pids)
                after = peak()
                cell.series[name].peak_gflops.append((before + after) / 2)
                before = after
    say("")


def take_turn(worker: Worker, condition: Condition, series: Series) -> None:
    """Add the seconds of a turn's calls; the first turn sets how many calls each has."""
    with busy(condition.processes):
        if not series.seconds:
            series.calls = calls_of_turn(min(worker.sample(PROBES, 0, condition.thread)))
        warm_up = int(series.calls > LEAST)
        series.seconds += worker.sample(series.calls, warm_up, condition.thread)


def calls_of_turn(seconds: float) -> int:
    """How many calls a turn has when one takes so long."""
    return min(MOST, max(LEAST, round(TURN / seconds)))


def percentiles(seconds: Sequence[float]) -> list[float | None]:
    """p50, p95 and p99; None where so few calls have less than one beyond it."""
    enough = [len(seconds) * (100 - each) >= 100 for each in PERCENTILES]
    values = np.percentile(seconds, PERCENTILES)
    return [float(value) if told else None for value, told in zip(values, enough, strict=True)]


def advantage(cell: Cell) -> list[float | None]:
    """By what fastattn is faster than the rival that is best at each percentile."""
    ours, *rivals = (percentiles(series.seconds) for series in cell.series.values())
    ratios: list[float | None] = []
    for own, *others in zip(ours, *rivals, strict=True):
        known = [each for each in others if each is not None]
        ratios.append(min(known) / own if known and own is not None else None)
    return ratios


def rows(cells: Sequence[Cell]) -> list[list[str]]:
    """The rows of one case: a column per condition."""
    first = cells[0]
    found = []
    for name in first.series:
        times = [percentiles(cell.series[name].seconds) for cell in cells]
        found.append([first.case, name, *(joined([value and number(1e3 * value) for value in each]) for each in times)])
    if len(first.series) > 1:
        ratios = [joined([value and f"{value:.2f}" for value in advantage(cell)]) for cell in cells]
        found.append([first.case, "fastattn is faster by", *ratios])
    for name, reason in first.left_out.items():
        found.append([first.case, name, f"not timed: {reason.splitlines()[0][:60]}", *[""] * (len(cells) - 1)])
    return found


def joined(values: Sequence[str | float | None]) -> str:
    return " / ".join("-" if value is None else str(value) for value in values)


def report_of(cases: Sequence[Sequence[Cell]], conditions: Sequence[Condition], threads: int) -> Report:
    about = machine(threads)
    cells = [cell for each in cases for cell in each]
    low, middle, high = quartiles(peak for cell in cells for each in cell.series.values() for peak in each.peak_gflops)
    about["measured peak"] = f"{middle:.0f} GFLOP/s (quartiles {low:.0f} and {high:.0f})"
    for cell in cells:
        about |= {f"{package} version": each for package, each in cell.versions.items()}
    table: Table = {
        "title": "Beside neighbours: p50 / p95 / p99 in ms, and by what fastattn is faster than the best rival of each",
        "header": ["case", "runtime", *(condition.title for condition in conditions)],
        "rows": [row for each in cases for row in rows(each)],
    }
    return {"command": "neighbours", "machine": about, "tables": [table], "results": [asdict(cell) for cell in cells]}


def main(options: argparse.Namespace) -> Report:
    conditions = [parse_condition(name) for name in options.conditions or CONDITIONS]
    options.rivals = list(dict.fromkeys(each for name in options.rivals for each in SETTINGS.get(name, (name,))))
    cases = []
    for name in options.cases or CASES:
        with tempfile.TemporaryDirectory() as folder:
            case = make_case(name, options, folder)
            cases.append(measure(case, conditions, options.threads, options.samples))
        report = report_of(cases, conditions, options.threads)
        write(report, options.json)
    return report
