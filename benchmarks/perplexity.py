"""Whole runs of an AWD-LSTM against PyTorch: `python -m benchmarks perplexity`.

Every round is a seed. fastattn runs `fastattn train language-model` on WikiText-2's validation text, with the paper's
sizes or smaller ones, and measures the test text. PyTorch gets the same vocabulary, first weights, streams, lengths of
steps, rates and averages, and measures the test text in the same streams. Dropout and resets draw other numbers in each
library, so the two models of a seed differ, and are compared by their perplexity.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .measure import say
from .report import Report, Table, deviation, earlier, machine, mean_and_deviation, number, write
from .worker import Worker

AVERAGE_AFTER, RESET = 5, 0.0
TRAIN, TEST = "wiki.valid.raw", "wiki.test.raw"
CASES = {"small": {"embedding_dim": 200, "dim": 400}, "paper": {"embedding_dim": 400, "dim": 1150}}
"""The sizes of three layers."""
RUNTIMES = ("fastattn", "torch")


@dataclass
class Outcome:
    """One run: the perplexity of the test text, and seconds."""

    case: str
    runtime: str
    seed: int
    epochs: int
    perplexity: float
    seconds: float


def run_fastattn(options: argparse.Namespace, folder: Path, case: str, seed: int) -> Outcome:
    """The command, with an evaluation after each epoch, as the averages need it."""
    program = "import sys; from fastattn.cli import main; sys.exit(main())"
    arguments = ["train", "language-model", options.data / TRAIN, "--eval", options.data / TEST, "--output", folder]
    arguments += ["--reset", RESET, "--average-after", AVERAGE_AFTER, "--seed", seed, "--epochs", options.epochs]
    arguments += ["--threads", options.threads]
    for name, size in CASES[case].items():
        arguments += [f"--{name.replace('_', '-')}", size]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    last = [record for record in map(json.loads, lines) if "metrics" in record][-1]
    return Outcome(case, "fastattn", seed, options.epochs, last["metrics"]["perplexity"], seconds)


def run_torch(options: argparse.Namespace, folder: Path, case: str, seed: int) -> Outcome:
    """The same with PyTorch, from fastattn's first weights."""
    tasks, streams = importlib.import_module("fastattn.tasks"), importlib.import_module("fastattn.text.streams")
    language_model = importlib.import_module("fastattn.tasks.language_model.task")
    text, test = (tasks.LanguageModel.read(options.data / name) for name in (TRAIN, TEST))
    given = {"seed": seed, "reset": RESET, "average_after": AVERAGE_AFTER, "epochs": options.epochs}
    recipe = tasks.LanguageModelRecipe(**given, **CASES[case])
    task = tasks.LanguageModel.for_training(None, text, recipe)
    first = folder / "first"
    task.save_pretrained(first)
    measured = language_model.STREAMS
    of_test = {"batch_size": measured, "unroll_steps": measured, "shuffle": False, "directions": task.directions}
    arrays: dict[str, Any] = {}
    for prefix, batches in (
        ("", task.batches(text)),
        ("measured_", streams.StreamBatches(test, task.vocabulary, None, **of_test)),
    ):
        epoch = [batches.load(each) for each in batches.epoch(0)]
        for name, field in (("inputs", "input_ids"), ("targets", "targets")):
            parts = [batch[field].reshape(batches.batch_size, -1) for batch in epoch]
            arrays[prefix + name] = np.concatenate(parts, axis=1)
        for i in range(1 if prefix else options.epochs):
            lengths = [batches.length(each) for each in batches.epoch(i)]
            arrays["measured_bounds" if prefix else f"bounds_{i}"] = np.cumsum([0, *lengths])
    np.savez(first / "streams.npz", **arrays)
    names = ("epochs", "learning_rate", "unroll_steps", "max_norm", "weight_decay", "reset", "average_after")
    arguments = {
        "folder": str(first),
        "batches": str(first / "streams.npz"),
        "threads": options.threads,
        "recipe": {name: getattr(recipe, name) for name in names},
        "seed": seed,
    }
    with Worker("torch", options.rivals_python, options.threads) as worker:
        found = worker.call("run", function="benchmarks.torch_awd_lstm:train", arguments=arguments)
    return Outcome(case, "torch", seed, options.epochs, found["perplexity"], found["seconds"])


def table(outcomes: list[Outcome]) -> Table:
    rows: list[list[str]] = []
    for case in dict.fromkeys(each.case for each in outcomes):
        own = {name: [each for each in outcomes if (each.case, each.runtime) == (case, name)] for name in RUNTIMES}
        ours = own["fastattn"]
        for name, runs in own.items():
            if not runs:
                continue
            found, compared = [each.perplexity for each in runs], ["", "", ""]
            if ours and name != "fastattn":
                own_found, mean = [each.perplexity for each in ours], float(np.mean(found))
                allowed = max(0.01 * mean, 2 * math.hypot(deviation(found), deviation(own_found)) / 3**0.5)
                times = [each.seconds / same.seconds for each in runs for same in ours if each.seed == same.seed]
                higher = np.mean(own_found) - mean
                compared = [f"{higher:+.2f}", f"{allowed:.2f}", f"{np.median(times):.2f}" if times else ""]
            rows.append(
                [
                    f"{case}, epochs: {runs[0].epochs}",
                    name,
                    ", ".join(f"{each:.2f}" for each in found),
                    mean_and_deviation(found),
                    number(float(np.median([each.seconds for each in runs]))),
                    *compared,
                ]
            )
    header = ["case", "runtime", "perplexities", "mean (s)", "seconds"]
    header += ["ours is higher by", "allowed", "fastattn is faster by"]
    return {"title": "Whole runs: AWD-LSTM", "header": header, "rows": rows}


def main(options: argparse.Namespace) -> Report:
    if not (options.data / TRAIN).is_file():
        raise SystemExit(f"{options.data}: no {TRAIN} there; --data names the folder of WikiText-2")
    if unknown := [name for name in options.cases if name not in CASES]:
        raise SystemExit(f"perplexity: unknown case {unknown[0]}; known are {', '.join(CASES)}")
    outcomes = earlier(options.json, Outcome)
    report: Report = {"command": "perplexity", "machine": machine(options.threads), "tables": [], "results": []}
    for case in options.cases or ["small"]:
        for seed in options.seeds or range(options.samples):
            for runtime in RUNTIMES[: 2 if "torch" in options.rivals else 1]:
                say(f"{case}, seed {seed}: {runtime}")
                with tempfile.TemporaryDirectory() as name:
                    run = run_fastattn if runtime == "fastattn" else run_torch
                    found = run(options, Path(name) / runtime, case, seed)
                same = (case, runtime, seed)
                outcomes = [each for each in outcomes if (each.case, each.runtime, each.seed) != same] + [found]
                outcomes.sort(key=lambda each: (list(CASES).index(each.case), each.seed))
                report = {**report, "tables": [table(outcomes)], "results": [asdict(each) for each in outcomes]}
                write(report, options.json)
    return report
