"""Children of a process: `python tests/forks.py` prints a matrix of how a child comes to be.

By fork, spawn or the fork server of `multiprocessing`, or as gunicorn's workers with `preload`: forked from a process
that has the models, with threads. Each before and after the parent's first use of fastattn, with one thread and with
several, and beside torch and scikit-learn, imported and used before fastattn, after it, or not at all. Every cell is a
process of its own: it starts a child, which runs a BERT and an LSTM, and then runs them itself. It passes if all have
the right bits, a child starts the workers it should have, and all processes end with 0 in time.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

STARTS = ("fork", "spawn", "forkserver", "preload")
LIBRARIES = {"torch": "torch", "scikit-learn": "sklearn"}
THREADS = (1, 3)
VARIABLE = "FASTATTN_TEST_CELL"  # what the fork server imports this file for


@dataclass(frozen=True)
class Cell:
    start: str
    used: bool  # fastattn, before the child starts
    threads: int
    library: str = ""
    order: str = ""  # before or after fastattn


def cells(library: str) -> list[Cell]:
    """All cells with this library, or with none."""
    orders = ("before", "after") if library else ("",)
    return [Cell(*values) for values in itertools.product(STARTS, (False, True), THREADS, [library], orders)]


def use_library(name: str) -> None:
    """Start its threads."""
    if name == "torch":
        torch = importlib.import_module("torch")
        torch.set_num_threads(3)
        torch.exp(torch.ones(1_000_000)).sum()
        torch.ones(300, 300) @ torch.ones(300, 300)
    elif name:
        numpy = importlib.import_module("numpy")
        points = numpy.random.default_rng(1).standard_normal((4000, 8))
        importlib.import_module("sklearn.cluster").KMeans(3, n_init=1, random_state=1).fit(points)


def models() -> Callable[[], str]:
    """What computes the digest of everything that a small BERT and an LSTM return."""
    numpy, fastattn = importlib.import_module("numpy"), importlib.import_module("fastattn")
    bert, nn = importlib.import_module("fastattn.models"), importlib.import_module("fastattn.nn")
    fastattn.manual_seed(1)
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512}
    model = bert.BertModel(bert.BertConfig(vocab_size=50, **sizes)).freeze().eval()
    lstm = nn.LSTM(128, 96, bidirectional=True).freeze().eval()
    ids = numpy.arange(120).reshape(3, 40) % 50

    def compute() -> str:
        states = model(ids).last_hidden_state
        output, _ = lstm(numpy.ascontiguousarray(states.reshape(-1, 128)), cu_seqlens=numpy.array([0, 40, 80, 120]))
        return hashlib.sha256(states.tobytes() + output.tobytes()).hexdigest()

    return compute


def prepare(cell: Cell) -> Callable[[], str] | None:
    """Import the library and fastattn in the order of the cell, and use them; the models, if there are any by then."""
    if cell.order == "before":
        use_library(cell.library)
    importlib.import_module("fastattn").set_num_threads(cell.threads)
    compute = models() if cell.used or cell.start == "preload" else None
    if compute and cell.used:
        compute()
    if cell.order == "after":
        use_library(cell.library)
    return compute


def check(compute: Callable[[], str], expected: str) -> None:
    for _ in range(3):
        if (found := compute()) != expected:
            fail(f"computed {found}, expected {expected}")


def fail(text: str) -> None:
    os.write(2, f"{text}\n".encode())
    os._exit(1)


def tasks() -> int:
    """The threads of this process."""
    return len(os.listdir("/proc/self/task"))


def child(cell: Cell, expected: str) -> None:
    """Compute, in this thread and in others, with what a fork has inherited."""
    compute = inherited[cell.start]() if cell.start in inherited else prepare(replace(cell, used=False))
    before = tasks()
    compute = compute or models()
    check(compute, expected)
    if tasks() - before != cell.threads - 1:
        fail(f"{tasks() - before} workers for {cell.threads} threads")
    threads = [threading.Thread(target=check, args=(compute, expected)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# What the parent of a fork has prepared. The fork server has it in the module that it has imported, and without that a
# child fails.
inherited: dict[str, Callable[[], Any]] = {"forkserver": lambda: sys.modules["forks"].prepared}


def fork(work: Callable[[], None]) -> int:
    """The number of a process that does `work`."""
    if number := os.fork():
        return number
    try:
        work()
        os._exit(0)
    finally:
        os._exit(1)


def run_cell(cell: Cell, expected: str) -> None:
    """What the parent does. It ends with 0 if all is well."""
    compute = prepare(cell)
    inherited["fork"] = inherited["preload"] = lambda: compute
    if cell.start == "preload":
        numbers = [fork(lambda: child(cell, expected)) for _ in range(2)]
        states = [os.waitpid(number, 0)[1] for number in numbers]
    else:
        context: Any = multiprocessing.get_context(cell.start)
        if cell.start == "forkserver":
            context.set_forkserver_preload(["forks"])
        process = context.Process(target=child, args=(cell, expected))
        process.start()
        process.join()
        states = [process.exitcode]
    check(compute or models(), expected)
    if any(states):
        fail(f"a child ended with {states}")


def try_cell(cell: Cell, expected: str, timeout: float = 300) -> str:
    """An empty text if the cell passes, otherwise what went wrong."""
    text = json.dumps(asdict(cell))
    here = Path(__file__).resolve()
    paths = os.pathsep.join([str(here.parent), *filter(None, sys.path)])  # the fork server has no other way
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "FASTATTN_NUM"))}
    environment = clean | {"PYTHONPATH": paths, VARIABLE: text}
    command = [sys.executable, str(here), "--cell", text, "--expected", expected]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            said = process.communicate(timeout=timeout)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return f"hangs: killed after {timeout:.0f} s"
    return "" if process.returncode == 0 else f"exit code {process.returncode}: {said[-1000:]}"


def print_matrix(jobs: int) -> int:
    """Print it row by row; the number of cells that failed."""
    expected = models()()
    columns = [("", "")] + [(name, order) for name in LIBRARIES for order in ("before", "after")]
    titles = [f"{name} {order}" if name else "alone" for name, order in columns]
    print("| child, parent's use, threads | " + " | ".join(titles) + " |\n" + "|---" * (1 + len(columns)) + "|")
    failed = []

    def outcome(cell: Cell) -> str:
        if cell.library and importlib.util.find_spec(LIBRARIES[cell.library]) is None:
            return "-"
        if text := try_cell(cell, expected):
            failed.append(f"\n{cell}: {text}")
        return "FAILS" if text else "passes"

    with ThreadPoolExecutor(jobs) as pool:
        for start, used, threads in itertools.product(STARTS, (False, True), THREADS):
            outcomes = pool.map(outcome, [Cell(start, used, threads, *column) for column in columns])
            when = "after" if used else "before"
            print(f"| {start}, {when}, {threads} | " + " | ".join(outcomes) + " |", flush=True)
    print(*failed, f"\n{len(failed)} cells fail; - is a library that is not installed", sep="\n")
    return len(failed)


if __name__ == "forks" and VARIABLE in os.environ:  # imported by the fork server
    prepared = prepare(Cell(**json.loads(os.environ[VARIABLE])))

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="cells at a time (default: %(default)s)")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    parser.add_argument("--expected", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell is None:
        sys.exit(print_matrix(options.jobs) > 0)
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: a fork beside threads
    run_cell(Cell(**json.loads(options.cell)), options.expected)
