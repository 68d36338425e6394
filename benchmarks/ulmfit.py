"""What each ingredient of ULMFiT adds: `python -m benchmarks ulmfit`.

The task is the genre of the sentences of UD English EWT: five classes, learnt from the 2,001 sentences of its dev part,
measured on the 2,077 of its test part. Sentences are read as the words of the treebank. Each row of the table adds an
ingredient to the row above it. Language models are trained once on WikiText-2's validation text, one forward and one
backward, and kept in the cache; fine-tuned ones are kept too. The JSON file is written after each run, and runs that it
has are not repeated.

`--held-out` learns three quarters of the dev part and measures the rest. The settings below were chosen with it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .measure import say
from .report import Report, Table, earlier, machine, mean_and_deviation, number, write
from .task_cases import Rows, genres

TEXT = "wikitext2/wiki.valid.raw"
SIZES: dict[str, Any] = {"embedding_dim": 200, "dim": 400, "layers": 2}
DROPOUT: dict[str, Any] = {"input_dropout": 0.3, "weight_dropout": 0.3, "batch_size": 20, "unroll_steps": 35}
PRETRAINING: dict[str, Any] = {**SIZES, **DROPOUT, "min_count": 3, "epochs": 8, "schedule": "linear"}
TUNING: dict[str, Any] = {**DROPOUT, "add_words": True, "epochs": 8}
CLASSIFYING: dict[str, Any] = {"network": "ulmfit", "epochs": 10, "learning_rate": 5e-3, "dropout_multiplier": 0.7}
RATES: dict[str, Any] = {"layer_decay": 0.7}  # the paper's is 1 / 2.6
SLANTED: dict[str, Any] = {"schedule": "slanted-triangular", "warmup": 0.1}
PLAIN: dict[str, Any] = {"schedule": "constant", "warmup": 0.0}
UNFREEZING: dict[str, Any] = {"gradual_unfreezing": True}
STEPS = (
    "from scratch",
    "+ pre-training",
    "+ fine-tuning of the language model",
    "+ rates by layer",
    "+ slanted triangular schedule",
    "+ gradual unfreezing",
    "+ backward model",
)


@dataclass
class Outcome:
    """A run: its row, seed and accuracy, and its seconds without the training of language models."""

    case: str
    seed: int
    accuracy: float
    seconds: float
    held_out: bool


def options_of(step: int) -> dict[str, Any]:
    """The options of a row for fine-tuning the language model and the classifier."""
    return {**PLAIN, **(RATES if step >= 3 else {}), **(SLANTED if step >= 4 else {})}


class Runs:
    """The runs of a table; folders of models are in `cache`, by a checksum of what they are made of."""

    def __init__(self, data: Path, cache: Path, held_out: bool) -> None:
        self.tasks = importlib.import_module("fastattn.tasks")
        self.cache, self.data, self.held_out = cache / "ulmfit", data, held_out
        self.learnt, self.measured = genres(data, words=True)
        if held_out:
            self.learnt, self.measured = split(self.learnt)
        self.text = [row["text"].split() for row in self.learnt]

    def language_model(self, kind: str, start: Path | None, text: Any, recipe: dict[str, Any]) -> Path:
        """The folder of a language model, which is trained unless it is there."""
        about = json.dumps([str(start and start.name), zlib.crc32(repr(text).encode()), recipe], sort_keys=True)
        folder = self.cache / f"{kind}-{zlib.crc32(about.encode()):08x}"
        if not (folder / "model.safetensors").exists():
            say(f"{folder.name}: {recipe['epochs']} epochs")
            model = self.tasks.LanguageModel
            data = text if isinstance(text, list) else model.read(text)
            self.tasks.train(model.for_training(start, data, **recipe), data, folder, resume=True)
        return folder

    def start(self, step: int, seed: int, direction: str) -> Path:
        """The folder of the language model of a row."""
        common = {"seed": seed, "plot": False}
        if step == 0:
            folder = self.cache / f"scratch-{direction}-{seed}{'-held-out' if self.held_out else ''}"
            if not folder.exists():
                model = self.tasks.LanguageModel
                model.for_training(None, self.text, **SIZES, **common, direction=direction).save_pretrained(folder)
            return folder
        first = {**PRETRAINING, "direction": direction, "plot": False}
        trained = self.language_model(f"trained-{direction}", None, self.data / TEXT, first)
        recipe = {**TUNING, **options_of(step), **common}
        if step == 1:
            folder = self.cache / f"words-{trained.name}-{seed}{'-held-out' if self.held_out else ''}"
            if not folder.exists():
                self.tasks.LanguageModel.for_training(trained, self.text, **recipe).save_pretrained(folder)
            return folder
        return self.language_model(f"tuned-{direction}", trained, self.text, recipe)

    def run(self, step: int, seed: int) -> Outcome:
        """Train a classifier and measure it."""
        recipe = {**CLASSIFYING, **options_of(step), **(UNFREEZING if step >= 5 else {}), "plot": False}
        start = self.start(step, seed, "forward")
        if step == 6:
            recipe["backward_model"] = str(self.start(step, seed, "backward"))
        folder = self.cache / "classifier"
        shutil.rmtree(folder, ignore_errors=True)
        kind = self.tasks.Classifier
        learnt, measured = kind.read(self.learnt), kind.read(self.measured)
        begin = time.perf_counter()
        task = kind.for_training(start, learnt, seed=seed, **recipe)
        self.tasks.train(task, learnt, folder)
        seconds = time.perf_counter() - begin
        found = kind.from_pretrained(folder).evaluate(measured)["accuracy"]
        return Outcome(STEPS[step], seed, found, seconds, self.held_out)


def split(rows: Rows) -> tuple[Rows, Rows]:
    """Three quarters, and the rest: of each four blocks of 20 sentences the last."""
    kept = [i // 20 % 4 < 3 for i in range(len(rows))]
    parts = ([row for row, own in zip(rows, kept, strict=True) if own is part] for part in (True, False))
    first, rest = parts
    return first, rest


def table(outcomes: list[Outcome], title: str) -> Table:
    rows = []
    for name in STEPS:
        own = [each for each in outcomes if each.case == name]
        if own:
            scores = [100 * each.accuracy for each in own]
            told = ", ".join(f"{score:.2f}" for score in scores)
            seconds = number(float(np.median([each.seconds for each in own])))
            rows.append([name, told, mean_and_deviation(scores), seconds])
    return {"title": title, "header": ["ULMFiT", "accuracy", "mean (s)", "seconds"], "rows": rows}


def main(options: argparse.Namespace) -> Report:
    if not (options.data / TEXT).is_file():
        raise SystemExit(f"{options.data}: no {TEXT} there; --data names the folder of the data")
    names = options.cases or list(STEPS)
    if unknown := [name for name in names if name not in STEPS]:
        raise SystemExit(f"ulmfit: unknown case {unknown[0]!r}; known are {', '.join(map(repr, STEPS))}")
    importlib.import_module("fastattn").set_num_threads(options.threads)
    outcomes = earlier(options.json, Outcome)
    runs = Runs(options.data, options.cache, options.held_out)
    title = f"Genres of sentences: {len(runs.learnt)} learnt, {len(runs.measured)} measured"
    about = machine(options.threads)
    report: Report = {"command": "ulmfit", "machine": about, "tables": [table(outcomes, title)], "results": []}
    for seed in options.seeds or range(options.samples):
        for step, name in enumerate(STEPS):
            done = any((each.case, each.seed, each.held_out) == (name, seed, options.held_out) for each in outcomes)
            if name not in names or done:
                continue
            say(f"seed {seed}: {name}")
            outcomes.append(runs.run(step, seed))
            own = [each for each in outcomes if each.held_out == options.held_out]
            results = [asdict(each) for each in outcomes]
            report = {**report, "tables": [table(own, title)], "results": results}
            write(report, options.json)
            say(f"accuracy {100 * outcomes[-1].accuracy:.2f}")
    return report
