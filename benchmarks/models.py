"""Whole models against the other runtimes: `python -m benchmarks models`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import rivals
from .measure import Case, Contender, measure, say
from .report import Report, timing_report, write
from .weights import flops, model_folder
from .worker import Job, Worker, WorkerError

CASES = (
    "bert-base-1x128",
    "bert-base-1x512",
    "bert-base-8x128",
    "bert-base-32x128",
    "minilm-l6-1x8",
    "minilm-l6-1x32",
    "minilm-l6-1x128",
    "minilm-l6-32x128",
    "modernbert-base-1x512",
    "modernbert-base-1x2048",
    "transformer-base-encoder-8x128",
)
TOLERANCE = 1e-3  # hidden states are layer-normalised, so this is absolute


def parse_case(name: str) -> tuple[str, int, int]:
    """`"bert-base-8x128"` is model "bert-base", batch 8, length 128; any batch and length will do."""
    model, _, shape = name.rpartition("-")
    batch, _, length = shape.partition("x")
    return model, int(batch), int(length)


def job(runtime: str, folder: str, cache: str, threads: int, batch: int, length: int) -> Job:
    """Runs in the contender's process: load the model, then every call is one forward pass."""
    model = rivals.load(runtime, folder, cache, threads)
    vocabulary = json.loads(Path(folder, "config.json").read_text())["vocab_size"]
    ids = np.random.default_rng(1).integers(1000, vocabulary, (batch, length))
    mask = np.ones_like(ids)
    return lambda: model.run(ids, mask)


def contenders(names: Sequence[str], function: str, python: str, arguments: dict[str, object]) -> list[Contender]:
    """fastattn in this Python, then the rivals in theirs; `function` gets the name as `runtime`."""
    return [
        Contender(
            name,
            sys.executable if name == "fastattn" else python,
            function,
            {"runtime": name, **arguments},
            (rivals.RUNTIMES[name].package,),
        )
        for name in ("fastattn", *names)
    ]


def convert(names: Sequence[str], python: str, folder: Path, cache: Path, threads: int) -> None:
    """Let every rival write its own format, once, each in a process that ends before anything is measured."""
    for name in names:
        arguments = {"name": name, "folder": str(folder), "cache": str(cache)}
        with Worker(name, python, threads) as worker:
            try:
                worker.call("run", function="benchmarks.rivals:convert", arguments=arguments)
            except WorkerError as error:
                say(f"cannot convert {folder} for {error}\n")


def make_case(name: str, options: argparse.Namespace) -> Case:
    """The case of this name, with everything on disk that its contenders load."""
    model, batch, length = parse_case(name)
    folder = model_folder(model, options.cache)
    say(f"{name}: preparing {folder}")
    convert(options.rivals, options.rivals_python, folder, options.cache, options.threads)
    arguments: dict[str, object] = {"folder": str(folder), "cache": str(options.cache)}
    arguments |= {"threads": options.threads, "batch": batch, "length": length}
    entrants = contenders(options.rivals, "benchmarks.models:job", options.rivals_python, arguments)
    return Case(name, entrants, batch * length, "tokens/s", TOLERANCE, flops(model, batch, length))


def main(options: argparse.Namespace) -> Report:
    results = []
    for name in options.cases or CASES:
        results.append(measure(make_case(name, options), options.threads, options.samples))
        report = timing_report("models", "Models", results, options.threads)
        write(report, options.json)
    return report
