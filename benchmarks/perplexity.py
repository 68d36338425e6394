"""Whole runs of an AWD-LSTM against PyTorch: `python -m benchmarks perplexity`.

Every round is a seed. fastattn runs `fastattn train language-model` with the paper's sizes on WikiText-2's validation
text, and measures the test text. PyTorch gets the same vocabulary, first weights, streams, lengths of steps, rates and
averages, and measures the test text in the same streams. Dropout and resets draw other numbers in each library, so the
two models of a seed differ, and are compared by their perplexity.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .measure import say
from .report import Report, Table, machine, number, write
from .worker import Worker

AVERAGE_AFTER, RESET = 5, 0.0
TRAIN, TEST = "wiki.valid.raw", "wiki.test.raw"


@dataclass
class Outcome:
    """One run: the perplexity of the test text, and seconds."""

    seed: int
    runtime: str
    perplexity: float
    seconds: float


def run_fastattn(options: argparse.Namespace, folder: Path, seed: int) -> Outcome:
    """The command, with an evaluation after each epoch, as the averages need it."""
    program = "import sys; from fastattn.cli import main; sys.exit(main())"
    arguments = ["train", "language-model", options.data / TRAIN, "--eval", options.data / TEST, "--output", folder]
    arguments += ["--reset", RESET, "--average-after", AVERAGE_AFTER, "--seed", seed, "--epochs", options.epochs]
    arguments += ["--threads", options.threads]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    last = [record for record in map(json.loads, lines) if "metrics" in record][-1]
    return Outcome(seed, "fastattn", last["metrics"]["perplexity"], seconds)


def run_torch(options: argparse.Namespace, folder: Path, seed: int) -> Outcome:
    """The same with PyTorch; `folder` has fastattn's model, whose vocabulary and sizes it takes over."""
    tasks, streams = importlib.import_module("fastattn.tasks"), importlib.import_module("fastattn.text.streams")
    language_model = importlib.import_module("fastattn.tasks.language_model.task")
    text, test = (tasks.LanguageModel.read(options.data / name) for name in (TRAIN, TEST))
    recipe = tasks.LanguageModelRecipe(seed=seed, reset=RESET, average_after=AVERAGE_AFTER, epochs=options.epochs)
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
    return Outcome(seed, "torch", found["perplexity"], found["seconds"])


def table(outcomes: list[Outcome]) -> Table:
    rows: list[list[str]] = []
    for each in outcomes:
        rows.append([f"seed {each.seed}", each.runtime, f"{each.perplexity:.2f}", number(each.seconds)])
    for name in dict.fromkeys(each.runtime for each in outcomes):
        own = [each for each in outcomes if each.runtime == name]
        found, seconds = [each.perplexity for each in own], float(np.median([each.seconds for each in own]))
        spread = f"{np.mean(found):.2f}" + (f" (standard deviation {np.std(found, ddof=1):.2f})" if own[1:] else "")
        rows.append(["all", name, spread, number(seconds)])
    return {"title": "Whole runs: AWD-LSTM", "header": ["run", "runtime", "perplexity", "seconds"], "rows": rows}


def main(options: argparse.Namespace) -> Report:
    if not (options.data / TRAIN).is_file():
        raise SystemExit(f"{options.data}: no {TRAIN} there; --data names the folder of WikiText-2")
    outcomes: list[Outcome] = []
    about = machine(options.threads)
    for seed in range(options.samples):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            say(f"seed {seed}: fastattn")
            outcomes.append(run_fastattn(options, folder / "ours", seed))
            if "torch" in options.rivals:
                say(f"seed {seed}: torch")
                outcomes.append(run_torch(options, folder, seed))
        results = [vars(each) for each in outcomes]
        report: Report = {"command": "perplexity", "machine": about, "tables": [table(outcomes)], "results": results}
        write(report, options.json)
    return report
