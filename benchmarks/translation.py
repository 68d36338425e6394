"""Whole runs against PyTorch: `python -m benchmarks translation`.

Every round is a seed. fastattn runs the README's command, `fastattn train translate` on names in Arabic and English,
start, evaluations and test included. PyTorch gets the same first weights and the same batches in the same order,
padded, and the same recipe; its time is that of training and of translating the test text. Dropout draws other
numbers in each library, so the two models of a seed differ, and are compared by their character error rate.
"""

from __future__ import annotations

import argparse
import importlib
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

BATCH_TOKENS, EPOCHS, WARMUP, AVERAGE = 2048, 40, 1000, 5  # what it takes unless it is told otherwise
DROPOUT = 0.2


@dataclass
class Outcome:
    """One run: character error rate of the test text, 0.2 being 20 %, and seconds."""

    seed: int
    runtime: str
    cer: float
    seconds: float


def command(data: Path, output: Path, seed: int, threads: int, epochs: int) -> list[str]:
    """The README's command."""
    start = "import sys; from fastattn.cli import main; sys.exit(main())"
    arguments = ["train", "translate", data / "ar2en-train.txt", "--eval", data / "ar2en-eval.txt", "--test"]
    arguments += [data / "ar2en-test.txt", "--vocabulary", "characters", "--dropout", DROPOUT, "--output", output]
    arguments += ["--seed", seed, "--threads", threads, "--epochs", epochs]
    return [sys.executable, "-c", start, *map(str, arguments)]


def run_fastattn(data: Path, folder: Path, seed: int, threads: int, epochs: int) -> Outcome:
    """The command, and what its model makes of the test text."""
    start = time.perf_counter()
    subprocess.run(command(data, folder, seed, threads, epochs), check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    test = read(data, "test")
    translator = importlib.import_module("fastattn.tasks").Translator.from_pretrained(folder)
    return Outcome(seed, "fastattn", error_rate(translator.translate(test.sources), test), seconds)


def run_torch(data: Path, folder: Path, seed: int, options: argparse.Namespace, epochs: int) -> Outcome:
    """The same with PyTorch; `folder` has fastattn's model, whose vocabularies and sizes it takes over."""
    tasks = importlib.import_module("fastattn.tasks")
    translator = tasks.Translator.from_pretrained(folder)
    translator.recipe = tasks.TranslateRecipe(batch_tokens=BATCH_TOKENS, max_tokens=2 * BATCH_TOKENS, seed=seed)
    tokenizer, text, test = translator.tokenizer, read(data, "train"), read(data, "test")
    batches = translator.batches(text)
    sides = {"source": tokenizer.source.encode(text.sources), "target": tokenizer.target.encode(text.targets)}
    sides["test"] = tokenizer.source.encode(test.sources)
    arrays: dict[str, Any] = {name: side.ids for name, side in sides.items()}
    arrays |= {f"cu_{name}": side.cu_seqlens for name, side in sides.items()}
    first = folder / "first"
    importlib.import_module("fastattn").manual_seed(seed)
    type(translator.model)(translator.model.config).save_pretrained(first)
    np.savez(first / "pairs.npz", **arrays)
    arguments = {
        "folder": str(first),
        "pairs": str(first / "pairs.npz"),
        "threads": options.threads,
        "epochs": [[indices.tolist() for indices, _ in batches.epoch(i)] for i in range(epochs)],
        "seed": seed,
        "peak": (translator.model.config.d_model * WARMUP) ** -0.5,
        "warmup": WARMUP,
        "average": min(AVERAGE, max(1, epochs // 4)),
    }
    with Worker("torch", options.rivals_python, options.threads) as worker:
        found = worker.call("run", function="benchmarks.torch_transformer:train", arguments=arguments)
    return Outcome(seed, "torch", error_rate(tokenizer.target.decode(found["translations"]), test), found["seconds"])


def read(data: Path, part: str) -> Any:
    return importlib.import_module("fastattn.text").read_parallel(data / f"ar2en-{part}.txt")


def error_rate(found: list[str], text: Any) -> float:
    rate: float = importlib.import_module("fastattn.training").character_error_rate(found, text.targets)
    return rate


def table(outcomes: list[Outcome]) -> Table:
    rows: list[list[str]] = []
    pairs: dict[int, Outcome] = {}
    for each in outcomes:
        ours = pairs.setdefault(each.seed, each)
        ratio = "" if each is ours else f"{each.seconds / ours.seconds:.2f}"
        rows.append([f"seed {each.seed}", each.runtime, f"{each.cer:.2%}", number(each.seconds), ratio])
    for name in dict.fromkeys(each.runtime for each in outcomes):
        own = [each for each in outcomes if each.runtime == name]
        rates, seconds = [each.cer for each in own], float(np.median([each.seconds for each in own]))
        spread = f"{np.mean(rates):.2%}" + (f" (standard deviation {np.std(rates, ddof=1):.2%})" if own[1:] else "")
        ratios = [each.seconds / pairs[each.seed].seconds for each in own]
        ratio = "" if name == "fastattn" else f"{np.median(ratios):.2f}"
        rows.append(["all", name, spread, number(seconds), ratio])
    header = ["run", "runtime", "character error rate", "seconds", "fastattn is faster by"]
    return {"title": "Whole runs: names, Arabic to English", "header": header, "rows": rows}


def main(options: argparse.Namespace) -> Report:
    if not (options.pairs / "ar2en-train.txt").is_file():
        raise SystemExit(f"{options.pairs}: no ar2en-train.txt there; --pairs names the folder of the transliterations")
    outcomes: list[Outcome] = []
    about = machine(options.threads)
    for seed in range(options.samples):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            say(f"seed {seed}: fastattn")
            outcomes.append(run_fastattn(options.pairs, folder, seed, options.threads, options.epochs))
            if "torch" in options.rivals:
                say(f"seed {seed}: torch")
                outcomes.append(run_torch(options.pairs, folder, seed, options, options.epochs))
        results = [vars(each) for each in outcomes]
        report: Report = {"command": "translation", "machine": about, "tables": [table(outcomes)], "results": results}
        write(report, options.json)
    return report
