"""What fastattn costs besides time: `python -m benchmarks memory`.

Resident memory of a process that serves BERT-base, for every runtime; memory over thousands of batches of
mixed lengths; the time of `import fastattn`; and time against the number of tokens.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from . import rivals
from .measure import Case, Contender, Result, measure, quartiles, say
from .models import TOLERANCE, contenders, convert
from .report import Report, Table, machine, number, timing_rows, write
from .weights import VOCABULARY, flops, model_folder
from .worker import Job, Worker, WorkerError, environment

CALLS = 20
BATCHES = 3000
MOST_SEQUENCES, LONGEST = 8, 64
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
IMPORTS = 21
IMPORT_STATEMENTS = (
    "import fastattn",
    "from fastattn.models import BertModel",
    "from fastattn import SentenceEncoder",
)
IMPORT_TIMER = """
import numpy, sys, time
before = len(sys.modules)
start = time.perf_counter()
{}
print(time.perf_counter() - start, len(sys.modules) - before)
"""


def mixed_job(runtime: str, folder: str, cache: str, threads: int) -> Job:
    """Every call is a batch of another random size, filled with sequences of other random lengths."""
    model = rivals.load(runtime, folder, cache, threads)
    rng = np.random.default_rng(0)

    def run() -> rivals.Floats:
        lengths = rng.integers(1, LONGEST + 1, rng.integers(1, MOST_SEQUENCES + 1))
        mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
        return model.run(rng.integers(1000, VOCABULARY, mask.shape) * mask, mask)

    return run


def megabytes(amount: float) -> str:
    return f"{amount / 1e6:.0f}"


def serving_memory(options: argparse.Namespace, raw: list[dict[str, Any]]) -> Table:
    """Load BERT-base, answer 1x128 a few times, and look at the process."""
    folder = model_folder("bert-base", options.cache)
    size = (folder / "model.safetensors").stat().st_size
    convert(options.rivals, options.rivals_python, folder, options.cache, options.threads)
    arguments: dict[str, object] = {"folder": str(folder), "cache": str(options.cache)}
    arguments |= {"threads": options.threads, "batch": 1, "length": 128}
    rows = []
    for each in contenders(options.rivals, "benchmarks.models:job", options.rivals_python, arguments):
        say(f"memory of {each.name}")
        with Worker(each.name, each.python, options.threads) as worker:
            empty = worker.call("memory")["resident"]
            try:
                worker.call("prepare", function=each.function, arguments=each.arguments)
            except WorkerError as error:
                rows.append([each.name, str(error).splitlines()[0], *[""] * 4])
                continue
            worker.sample(CALLS, 0)
            used = worker.call("memory")
        raw.append({"runtime": each.name, "file": size, "before": empty, **used})
        columns = [used["resident"], used["anonymous"], used["peak"], empty]
        rows.append([each.name, *map(megabytes, columns), f"{used['resident'] / size:.2f}"])
    header = ["runtime", "resident, MB", "anonymous, MB", "peak, MB", "before loading, MB", "resident / file"]
    title = f"Memory serving BERT-base at 1x128 (file: {megabytes(size)} MB)"
    return {"title": title, "header": header, "rows": rows}


def memory_over_time(options: argparse.Namespace, raw: list[dict[str, Any]]) -> Table:
    """fastattn on MiniLM-L6: resident memory after each tenth of `BATCHES` batches."""
    folder = model_folder("minilm-l6", options.cache)
    arguments: dict[str, object] = {"runtime": "fastattn", "folder": str(folder)}
    arguments |= {"cache": str(options.cache), "threads": options.threads}
    rows = []
    with Worker("fastattn", sys.executable, options.threads) as worker:
        worker.call("prepare", function="benchmarks.memory:mixed_job", arguments=arguments)
        for tenth in range(11):
            batches = tenth * BATCHES // 10
            resident = worker.call("memory")["resident"]
            raw.append({"batches": batches, "resident": resident})
            rows.append([str(batches), megabytes(resident)])
            say(f"memory after {batches} batches: {rows[-1][1]} MB")
            if tenth < 10:
                worker.sample(BATCHES // 10, 0)
    title = f"Memory over batches of 1 to {MOST_SEQUENCES} sequences of 1 to {LONGEST} tokens, MiniLM-L6"
    return {"title": title, "header": ["batches", "resident, MB"], "rows": rows}


def import_time(options: argparse.Namespace, raw: list[dict[str, Any]]) -> Table:
    """`import fastattn` after `import numpy`, and what it loads on first use; a new process each."""
    rows = []
    for statement in IMPORT_STATEMENTS:
        times = []
        for index in range(IMPORTS):
            say(f"{statement}: round {index + 1}/{IMPORTS}")
            answer = subprocess.run(
                [sys.executable, "-c", IMPORT_TIMER.format(statement)],
                cwd=Path(__file__).parents[1],
                env={**os.environ, **environment(options.threads)},
                capture_output=True,
                text=True,
                check=True,
            )
            seconds, modules = answer.stdout.split()
            times.append(float(seconds))
        raw.append({"statement": statement, "seconds": times, "modules": int(modules)})
        low, middle, high = (number(1e3 * seconds) for seconds in quartiles(times))
        rows.append([statement, f"{middle} ({low}, {high})", modules])
    return {"title": "Import", "header": ["after import numpy", "ms (quartiles)", "modules"], "rows": rows}


def time_by_tokens(options: argparse.Namespace, raw: list[dict[str, Any]]) -> Table:
    """fastattn on MiniLM-L6 at length 128, batches of 1 to 32."""
    folder = model_folder("minilm-l6", options.cache)
    rows = []
    for batch in BATCH_SIZES:
        name = f"minilm-l6-{batch}x128"
        arguments: dict[str, object] = {
            "runtime": "fastattn",
            "folder": str(folder),
            "cache": str(options.cache),
        }
        arguments |= {"threads": options.threads, "batch": batch, "length": 128}
        contender = Contender("fastattn", sys.executable, "benchmarks.models:job", arguments)
        case = Case(name, [contender], batch * 128, "tokens/s", TOLERANCE, flops("minilm-l6", batch, 128))
        result: Result = measure(case, options.threads, options.samples)
        raw.append({"batch": batch, **result.series["fastattn"].__dict__})
        rows += [[f"{batch * 128}", *row[2:6]] for row in timing_rows(result)]
    header = ["tokens", "ms (quartiles)", "rate", "GFLOP/s", "of peak"]
    return {"title": "Time by tokens, MiniLM-L6 at length 128", "header": header, "rows": rows}


def main(options: argparse.Namespace) -> Report:
    if not sys.platform.startswith("linux"):
        raise SystemExit("memory reads /proc, which only Linux has")
    raw: list[dict[str, Any]] = []
    report: Report = {"command": "memory", "machine": machine(options.threads), "tables": [], "results": raw}
    for part in (import_time, serving_memory, memory_over_time, time_by_tokens):
        report["tables"].append(part(options, raw))
        write(report, options.json)
    return report
