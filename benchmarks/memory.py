"""Memory and import time: `python -m benchmarks memory`.

Resident memory of a process that serves BERT-base, for every runtime, and of one that trains it; memory over thousands
of batches of mixed lengths, served and trained; the time of `import fastattn`; and time by the number of tokens.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import rivals, train, training
from .measure import Case, Contender, Result, measure, quartiles, say
from .models import TOLERANCE, contenders, convert
from .report import Report, Table, machine, number, timing_rows, write
from .weights import flops, model_folder, random_batch
from .worker import Job, Worker, WorkerError, environment

CALLS = 20
BATCHES = 3000
STEPS = 1000
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


def mixed_job(folder: str, threads: int) -> Job:
    """Every call serves a new batch of random size, with sequences of random lengths."""
    model = rivals.Fastattn(Path(folder), Path(), threads)
    rng = np.random.default_rng(0)
    return lambda: model.run(*mixed_batch(Path(folder), rng))


def mixed_training_job(folder: str, threads: int) -> Job:
    """Every call is a training step on a new batch of this kind."""
    model = training.Fastattn(Path(folder), "BertForSequenceClassification", 2, threads, checkpoint=False)
    rng = np.random.default_rng(0)

    def run() -> None:
        ids, mask = mixed_batch(Path(folder), rng)
        model.step({"input_ids": ids, "attention_mask": mask, "labels": rng.integers(0, 2, len(ids))})

    return run


def mixed_batch(folder: Path, rng: np.random.Generator) -> tuple[rivals.Ids, rivals.Ids]:
    """Ids and mask of a random number of sequences of random lengths."""
    return random_batch(folder, rng.integers(1, LONGEST + 1, rng.integers(1, MOST_SEQUENCES + 1)), rng)


def megabytes(amount: float) -> str:
    return f"{amount / 1e6:.0f}"


def serving_memory(
    options: argparse.Namespace, raw: list[dict[str, Any]], ours: Sequence[str] = ("fastattn",)
) -> Table:
    """Load BERT-base, answer 1x128 a few times, and look at the process."""
    folder = model_folder("bert-base", options.cache)
    size = (folder / "model.safetensors").stat().st_size
    convert(options.rivals, options.rivals_python, folder, options.cache, options.threads)
    arguments: dict[str, object] = {"folder": str(folder), "cache": str(options.cache)}
    arguments |= {"threads": options.threads, "lengths": [128]}
    rows = []
    for each in contenders(options.rivals, "benchmarks.models:job", options.rivals_python, arguments, ours):
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


def training_memory(options: argparse.Namespace, raw: list[dict[str, Any]]) -> Table:
    """Peaks of a process that trains BERT-base at 8x128, with and without keeping what its layers compute.

    The gradients of a step exist only after most activations are freed. A second process keeps the gradients of the
    step before, as one that accumulates gradients does, so that subtraction gives the activations.
    """
    task = train.classification("bert-base", [128] * 8, options.cache)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for checkpoint in (False, True):
            for each in train.contenders(options, task, Path(folder) / "batches.npz", checkpoint=checkpoint):
                name = f"{each.name}, each layer checkpointed" if checkpoint else each.name
                say(f"memory of {name}")
                try:
                    plain, kept = (training_peak(each, options.threads, keep) for keep in (False, True))
                except WorkerError as error:
                    rows.append([name, str(error).splitlines()[0][:60], *[""] * 4])
                    continue
                state = 4 * plain["weights"]
                activations = kept["peak"] - kept["before"] - state
                raw.append({"runtime": name, "step": plain, "gradients kept": kept, "activations": activations})
                columns = [plain["peak"], kept["peak"], kept["before"], state, activations]
                rows.append([name, *map(megabytes, columns)])
    header = ["runtime", "peak, MB", "peak with gradients kept, MB", "before loading, MB"]
    header += ["weights, gradients, moments, MB", "activations, MB"]
    return {"title": "Memory training BERT-base at 8x128", "header": header, "rows": rows}


def training_peak(each: Contender, threads: int, keep_gradients: bool) -> dict[str, int]:
    """Resident bytes of a process: with everything imported, and the peak of a step after the first one."""
    with Worker(each.name, each.python, threads) as worker:
        worker.call("run", function="benchmarks.training:import_packages", arguments={"runtime": each.name})
        before = worker.call("memory")["resident"]
        arguments = {**each.arguments, "keep_gradients": keep_gradients}
        worker.call("prepare", function=each.function, arguments=arguments)
        worker.sample(1, 0)
        worker.call("forget_peak")
        worker.sample(2, 0)
        peak = worker.call("memory")["peak"]
        return {"before": before, "peak": peak, "weights": worker.call("ask", method="weight_bytes")}


def memory_over_time(options: argparse.Namespace, raw: list[dict[str, Any]]) -> Table:
    """fastattn on MiniLM-L6: resident memory after each tenth of `BATCHES` batches and of `STEPS` training steps."""
    folder = model_folder("minilm-l6", options.cache)
    arguments: dict[str, object] = {"folder": str(folder), "threads": options.threads}
    rows = []
    for unit, total, job in (("batches", BATCHES, "mixed_job"), ("training steps", STEPS, "mixed_training_job")):
        with Worker("fastattn", sys.executable, options.threads) as worker:
            worker.call("prepare", function=f"benchmarks.memory:{job}", arguments=arguments)
            for tenth in range(11):
                count = tenth * total // 10
                resident = worker.call("memory")["resident"]
                raw.append({"unit": unit, "count": count, "resident": resident})
                rows.append([unit, str(count), megabytes(resident)])
                say(f"memory after {count} {unit}: {rows[-1][2]} MB")
                if tenth < 10:
                    worker.sample(total // 10, 0)
    title = f"Memory over batches of 1 to {MOST_SEQUENCES} sequences of 1 to {LONGEST} tokens, MiniLM-L6"
    return {"title": title, "header": ["", "after", "resident, MB"], "rows": rows}


def import_time(options: argparse.Namespace, raw: list[dict[str, Any]]) -> Table:
    """`import fastattn` after `import numpy`, and what it loads on first use. Each runs in a new process."""
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
        lengths = [128] * batch
        arguments |= {"threads": options.threads, "lengths": lengths}
        contender = Contender("fastattn", sys.executable, "benchmarks.models:job", arguments)
        case = Case(name, [contender], batch * 128, "tokens/s", TOLERANCE, flops("minilm-l6", lengths))
        result: Result = measure(case, options.threads, options.samples)
        raw.append({"batch": batch, **result.series["fastattn"].__dict__})
        rows += [[f"{batch * 128}", *row[2:6]] for row in timing_rows(result)]
    header = ["tokens", "ms (quartiles)", "rate", "GFLOP/s", "of peak"]
    return {"title": "Time by tokens, MiniLM-L6 at length 128", "header": header, "rows": rows}


PARTS = {
    "import": import_time,
    "serving": serving_memory,
    "training": training_memory,
    "over-time": memory_over_time,
    "by-tokens": time_by_tokens,
}


def main(options: argparse.Namespace) -> Report:
    if not sys.platform.startswith("linux"):
        raise SystemExit("memory reads /proc, which only Linux has")
    wanted = options.cases or PARTS
    if unknown := sorted(set(wanted) - set(PARTS)):
        raise SystemExit(f"memory has no case {unknown[0]!r}; there are: {', '.join(PARTS)}")
    raw: list[dict[str, Any]] = []
    report: Report = {"command": "memory", "machine": machine(options.threads), "tables": [], "results": raw}
    for name in wanted:
        report["tables"].append(PARTS[name](options, raw))
        write(report, options.json)
    return report
