"""`python -m benchmarks neighbours`: its conditions, its percentiles, and neighbours that end in time."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

neighbours = pytest.importorskip("benchmarks.neighbours", reason="needs the source tree: python -m pytest")
measure = pytest.importorskip("benchmarks.measure")
worker = pytest.importorskip("benchmarks.worker")


@dataclass
class Scripted:
    """Stands for a worker: a call takes as long as the script says."""

    seconds: float
    asked: list[tuple[int, int, bool]] = field(default_factory=list)

    def sample(self, calls, warm_up, thread):
        self.asked.append((calls, warm_up, thread))
        return [self.seconds] * calls


def cell(**seconds):
    """A cell in which the contenders' calls took so long."""
    series = {name: measure.Series(0.0, seconds=each) for name, each in seconds.items()}
    return neighbours.Cell("minilm-l6-1x8", 8, "tokens/s", None, series, condition="quiet")


def test_conditions():
    titles = {name: neighbours.parse_condition(name).title for name in (*neighbours.CONDITIONS, "processes1")}
    assert titles == {
        "quiet": "quiet",
        "processes2": "beside 2 busy processes",
        "processes8": "beside 8 busy processes",
        "thread": "beside a Python thread",
        "processes1": "beside 1 busy process",
    }
    assert neighbours.parse_condition("processes8").processes == 8
    assert [neighbours.parse_condition(name).thread for name in ("quiet", "thread")] == [False, True]


@pytest.mark.parametrize("name", ["", "loud", "processes", "processes0", "processes-2", "thread2"])
def test_unknown_conditions_are_named(name):
    with pytest.raises(SystemExit, match=f"unknown condition '{name}'"):
        neighbours.parse_condition(name)


def test_percentiles():
    assert neighbours.percentiles([i / 100 for i in range(101)]) == [0.5, 0.95, 0.99]
    assert neighbours.percentiles([1.0] * 99) == [1.0, 1.0, None]
    assert neighbours.percentiles([1.0] * 19) == [1.0, None, None]


def test_the_best_rival_may_be_another_at_each_percentile():
    steady, quick = [2.0] * 200, [1.5] * 180 + [9.0] * 20
    assert neighbours.advantage(cell(fastattn=[1.0] * 200, torch=steady, openvino=quick)) == [1.5, 2.0, 2.0]
    assert neighbours.advantage(cell(fastattn=[1.0] * 200, torch=[3.0] * 2)) == [3.0, None, None]
    assert neighbours.advantage(cell(fastattn=[1.0] * 200)) == [None, None, None]


def test_a_row_per_contender_and_one_for_the_best_rival():
    cells = [cell(fastattn=[0.001] * 20, torch=[0.0025] * 20), cell(fastattn=[0.002] * 2, torch=[0.3] * 2)]
    cells[0].left_out["openvino"] = "not installed\nanywhere"
    assert neighbours.rows(cells) == [
        ["minilm-l6-1x8", "fastattn", "1 / 1 / -", "2 / - / -"],
        ["minilm-l6-1x8", "torch", "2.5 / 2.5 / -", "300 / - / -"],
        ["minilm-l6-1x8", "fastattn is faster by", "2.50 / 2.50 / -", "150.00 / - / -"],
        ["minilm-l6-1x8", "openvino", "not timed: not installed", ""],
    ]
    alone = neighbours.rows([cell(fastattn=[0.001] * 2)])
    assert alone == [["minilm-l6-1x8", "fastattn", "1 / - / -"]]


@pytest.mark.parametrize(("seconds", "calls", "warm_up"), [(0.002, 30, 1), (0.1, 20, 1), (5.0, 2, 0)])
def test_slow_calls_are_fewer_a_turn(seconds, calls, warm_up):
    contender, series = Scripted(seconds), measure.Series(0.0)
    for _ in range(2):
        neighbours.take_turn(contender, neighbours.parse_condition("thread"), series)
    turn = (calls, warm_up, True)
    assert contender.asked == [(neighbours.PROBES, 0, True), turn, turn]
    assert series.seconds == [seconds] * 2 * calls


def test_busy_processes_run_during_the_block_and_end_with_it(monkeypatch):
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(neighbours.subprocess, "Popen", Recorded)
    with suppress(KeyError), neighbours.busy(2):
        running = [process.poll() for process in started]
        raise KeyError
    assert running == [None, None]
    assert all(process.returncode for process in started)
    assert all(process.stdout.closed for process in started)


def test_a_busy_process_ends_without_its_parent():
    command = [sys.executable, "-c", neighbours.NEIGHBOUR, "0"]
    subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)


def test_the_python_thread_ends_with_the_block():
    before = threading.active_count()
    with suppress(KeyError), worker.python_thread():
        during = threading.active_count()
        raise KeyError
    assert during == before + 1
    assert threading.active_count() == before


def test_the_thread_runs_beside_every_call_of_a_sample():
    server, before = worker.Server(), threading.active_count()
    beside = []
    server.job = lambda: beside.append(threading.active_count() - before)
    assert len(server.sample(calls=2, warm_up=1, thread=True)) == 2
    assert len(server.sample(calls=1, warm_up=0, thread=False)) == 1
    assert beside == [1, 1, 1, 0]
