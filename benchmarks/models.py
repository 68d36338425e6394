"""Whole models against the other runtimes: `python -m benchmarks models`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import rivals
from .measure import Case, Contender, measure, say
from .report import Report, timing_report, write
from .weights import flops, model_folder, random_batch
from .worker import Worker, WorkerError

CASES = (
    *(
        f"{model}-{shape}"
        for shape in ("1x32", "1x128", "8x128", "32x8to128")
        for model in ("bert-base", "roberta-base", "distilbert-base", "mpnet-base")
    ),
    "bert-base-1x512",
    "bert-base-32x128",
    "minilm-l6-1x8",
    "minilm-l6-1x32",
    "minilm-l6-1x128",
    "minilm-l6-32x128",
    "modernbert-base-1x512",
    "modernbert-base-1x2048",
    "modernbert-base-8x200to2000",
    "transformer-base-encoder-8x128",
)
TOLERANCE = 1e-3  # hidden states are layer-normalised, so this is absolute


def parse_case(name: str) -> tuple[str, list[int]]:
    """A model and the lengths of a batch: `"bert-base-8x128"` is 8 texts of 128 tokens.

    `"bert-base-8x100to800"` is 8 texts of 100, 200, ... 800 tokens, in a mixed order.
    """
    found = re.fullmatch(r"(.+)-([1-9]\d*)x([1-9]\d*)(?:to([1-9]\d*))?", name)
    if not found:
        raise SystemExit(f"unknown case {name!r}; a case is MODEL-BATCHxLENGTH or MODEL-BATCHxSHORTESTtoLONGEST")
    model, batch, low, high = found.groups()
    lengths = np.linspace(int(low), int(high or low), int(batch)).round().astype(int)
    return model, np.random.default_rng(0).permutation(lengths).tolist()


class Forward:
    """A call is a forward pass, and the hidden states of tokens are compared: what padding gets is of no use."""

    def __init__(self, model: rivals.Runtime, ids: rivals.Ids, mask: rivals.Ids) -> None:
        self.model, self.ids, self.mask = model, ids, mask

    def __call__(self) -> rivals.Floats:
        return self.model.run(self.ids, self.mask)

    def check(self) -> rivals.Floats:
        hidden: rivals.Floats = self()[self.mask == 1]
        return hidden


def job(runtime: str, folder: str, cache: str, threads: int, lengths: list[int]) -> Forward:
    """Runs in the contender's process: load the model, and draw the ids."""
    model = rivals.load(runtime, folder, cache, threads)
    return Forward(model, *random_batch(Path(folder), lengths, np.random.default_rng(1)))


def contenders(
    names: Sequence[str],
    function: str,
    python: str,
    arguments: dict[str, object],
    ours: Sequence[str] = ("fastattn",),
) -> list[Contender]:
    """Ours in this Python, then the rivals in theirs; `function` gets the name as `runtime`."""
    return [
        Contender(
            name,
            sys.executable if name in ours else python,
            function,
            {"runtime": name, **arguments},
            (rivals.RUNTIMES[name].package,),
        )
        for name in (*ours, *names)
    ]


def convert(names: Sequence[str], python: str, folder: Path, cache: Path, threads: int) -> dict[str, str]:
    """Let every rival write its own format, once, each in a process that ends before anything is measured.

    Returns what the rivals have to say about it, by name.
    """
    notes: dict[str, str] = {}
    for name in names:
        arguments = {"name": name, "folder": str(folder), "cache": str(cache)}
        with Worker(name, python, threads) as worker:
            try:
                note = worker.call("run", function="benchmarks.rivals:convert", arguments=arguments)
                notes |= {name: note} if note else {}
            except WorkerError as error:
                say(f"cannot convert {folder} for {error}\n")
    return notes


def make_case(name: str, options: argparse.Namespace) -> Case:
    """The case of this name, with everything on disk that its contenders load."""
    model, lengths = parse_case(name)
    folder = model_folder(model, options.cache)
    say(f"{name}: preparing {folder}")
    notes = convert(options.rivals, options.rivals_python, folder, options.cache, options.threads)
    arguments: dict[str, object] = {"folder": str(folder), "cache": str(options.cache)}
    arguments |= {"threads": options.threads, "lengths": lengths}
    entrants = contenders(options.rivals, "benchmarks.models:job", options.rivals_python, arguments)
    return Case(name, entrants, sum(lengths), "tokens/s", TOLERANCE, flops(model, lengths), notes)


def main(options: argparse.Namespace) -> Report:
    results = []
    for name in options.cases or CASES:
        results.append(measure(make_case(name, options), options.threads, options.samples))
        report = timing_report("models", "Models", results, options.threads)
        write(report, options.json)
    return report
