"""Decoding with a MarianMT network in a contender's process: one class per runtime.

A call decodes all sources. `answer` is what it finds, with the scores that it says they have; `rate` is what fastattn's
network thinks of it, read with the answers given.
"""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from . import rivals
from .marian import vocabulary

Sequences = list[list[int]]
Answer = dict[str, Any]  # tokens: one sequence per source, its end included; scores: their mean log-probabilities
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Work:
    """What a call decodes.

    Attributes:
        sources: their ids, in any order.
        beams: 1 is greedy decoding.
        longest: tokens of a result, at most.
        forced: no result ends before it has so many.
        batch: sources that fastattn and PyTorch decode at once.
        batch_tokens: tokens of a batch of CTranslate2's, padding included; 0 for one batch.
    """

    sources: Sequences
    beams: int
    longest: int
    forced: bool
    batch: int
    batch_tokens: int


class Decoding(ABC):
    """A model, and the work that `__call__` does with it. `folder` and `converted` are those of `rivals.Runtime`."""

    packages: ClassVar[tuple[str, ...]]
    runtime: ClassVar[str]  # of rivals.RUNTIMES, which converts the folder
    exact: ClassVar[bool] = True  # float32, so that scores are compared

    def __init__(self, folder: Path, converted: Path, threads: int, work: Work) -> None:
        self.work = work
        self.settings = json.loads((folder / "config.json").read_text())
        self.end, self.pad = self.settings["eos_token_id"], self.settings["pad_token_id"]
        self.order = sorted(range(len(work.sources)), key=lambda i: -len(work.sources[i]))
        self.load(folder, converted, threads)

    def batches(self) -> list[tuple[Ids, Ids]]:
        """Padded ids and masks of the sources, sorted by length."""
        starts = range(0, len(self.order), self.work.batch)
        groups = [self.order[start : start + self.work.batch] for start in starts]
        return [padded([self.work.sources[i] for i in group], self.pad) for group in groups]

    def in_order(self, tokens: Sequences, scores: list[float]) -> Answer:
        """Results of `batches`, in the order of the sources."""
        places = np.argsort(self.order)
        return {"tokens": [tokens[i] for i in places], "scores": [scores[i] for i in places]}

    @abstractmethod
    def load(self, folder: Path, converted: Path, threads: int) -> None:
        """Load the model, and bring the sources into its own form."""

    @abstractmethod
    def __call__(self) -> Any:
        """Decode all sources."""

    @abstractmethod
    def answer(self) -> Answer:
        """What a call finds."""


class Fastattn(Decoding):
    """The library itself."""

    packages, runtime = ("fastattn",), "fastattn"
    weights = "float32"

    def load(self, folder: Path, converted: Path, threads: int) -> None:
        importlib.import_module("fastattn").set_num_threads(threads)
        generate = importlib.import_module("fastattn.generation").generate
        transformer = importlib.import_module("fastattn.models").Transformer
        model = transformer.from_pretrained(folder, weights=self.weights)
        batches = self.batches()
        options: dict[str, Any] = {"num_beams": self.work.beams, "max_new_tokens": self.work.longest}
        if self.work.forced:
            options["min_length"] = 1 + self.work.longest  # with the start
        if self.work.beams > 1:
            options["early_stopping"] = True
        self.generate = [partial(generate, model, ids, mask, **options) for ids, mask in batches]

    def __call__(self) -> Any:
        return [generate() for generate in self.generate]

    def answer(self) -> Answer:
        found = [generate(output_scores=True) for generate in self.generate]
        tokens = [row for each in found for row in unpadded(each.sequences[:, 1:], self.pad, self.end)]
        return self.in_order(tokens, [score for each in found for score in each.sequences_scores.tolist()])


class FastattnInt8(Fastattn):
    """The same with weights in int8."""

    weights, exact = "int8", False


class Torch(Decoding):
    """transformers' `generate` with scaled_dot_product_attention."""

    packages, runtime = ("torch", "transformers"), "torch"

    def load(self, folder: Path, converted: Path, threads: int) -> None:
        self.torch = importlib.import_module("torch")
        self.torch.set_num_threads(threads)
        transformers = importlib.import_module("transformers")
        self.model = transformers.MarianMTModel.from_pretrained(folder, attn_implementation="sdpa").eval()
        self.tensors = [tuple(map(self.torch.from_numpy, pair)) for pair in self.batches()]
        options = {"num_beams": self.work.beams, "max_new_tokens": self.work.longest, "do_sample": False}
        if self.work.forced:
            options["min_new_tokens"] = self.work.longest
        if self.work.beams > 1:
            options["early_stopping"] = True
        self.options = options

    def generate(self, **options: Any) -> list[Any]:
        return [self.model.generate(ids, attention_mask=mask, **self.options, **options) for ids, mask in self.tensors]

    def __call__(self) -> Any:
        return self.generate()

    def answer(self) -> Answer:
        tokens: Sequences = []
        scores: list[float] = []
        for found in self.generate(return_dict_in_generate=True, output_scores=True):
            rows = unpadded(found.sequences[:, 1:].numpy(), self.pad, self.end)
            tokens += rows
            if self.work.beams > 1:
                scores += found.sequences_scores.tolist()
            else:
                each = self.model.compute_transition_scores(found.sequences, found.scores, normalize_logits=True)
                scores += [float(own[: len(row)].mean()) for own, row in zip(each, rows, strict=True)]
        return self.in_order(tokens, scores)


class CTranslate2(Decoding):
    """ctranslate2.Translator in float32; it sorts sources by length and makes batches itself."""

    packages, runtime = ("ctranslate2",), "ctranslate2"
    compute_type: ClassVar[str] = "float32"

    def load(self, folder: Path, converted: Path, threads: int) -> None:
        self.ids: dict[str, int] = vocabulary(folder)
        words = {number: word for word, number in self.ids.items()}
        settings = {"compute_type": self.compute_type, "inter_threads": 1, "intra_threads": threads}
        module = importlib.import_module("ctranslate2")
        translator = module.Translator(str(converted / "model"), device="cpu", **settings)
        self.translate = partial(
            translator.translate_batch,
            [[words[number] for number in source] for source in self.work.sources],
            beam_size=self.work.beams,
            max_decoding_length=self.work.longest,
            min_decoding_length=self.work.longest if self.work.forced else 0,
            max_batch_size=self.work.batch_tokens,
            batch_type="tokens" if self.work.batch_tokens else "examples",
        )

    def __call__(self) -> Any:
        return self.translate()

    def answer(self) -> Answer:
        found = self.translate(return_scores=True)
        tokens = [[self.ids[word] for word in each.hypotheses[0]] for each in found]
        ended = [row + [self.end] * (len(row) < self.work.longest) for row in tokens]
        return {"tokens": ended, "scores": [each.scores[0] for each in found]}


class CTranslate2Int8(CTranslate2):
    """The same model, its matrices rounded to 8 bits as it is loaded."""

    compute_type = "int8"
    exact = False


RUNTIMES: dict[str, type[Decoding]] = {
    "fastattn": Fastattn,
    "fastattn-int8": FastattnInt8,
    "ctranslate2": CTranslate2,
    "ctranslate2-int8": CTranslate2Int8,
    "torch": Torch,
}


def job(runtime: str, folder: str, cache: str, threads: int, work: dict[str, Any]) -> Decoding:
    """Runs in the contender's process: load the model and the sources."""
    kind = RUNTIMES[runtime]
    converted = rivals.converted_folder(kind.runtime, Path(folder), Path(cache))
    return kind(Path(folder), converted, threads, Work(**work))


def rate(folder: str, threads: int, sources: Sequences, targets: Sequences) -> list[list[float]]:
    """The log-probability that fastattn's network gives each token of `targets` after those before it."""
    importlib.import_module("fastattn").set_num_threads(threads)
    model = importlib.import_module("fastattn.models").Transformer.from_pretrained(folder)
    found = []
    for source, target in zip(sources, targets, strict=True):
        scores = model(np.array([source]), labels=np.array([target])).logits[0].astype(np.float64)
        scores -= scores.max(1, keepdims=True)
        own = scores[np.arange(len(target)), target] - np.log(np.exp(scores).sum(1))
        found.append(own.tolist())
    return found


def padded(rows: Sequences, fill: int) -> tuple[Ids, Ids]:
    """Ids and mask `[rows, longest]`, filled up on the right."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, fill)
    ids[mask] = np.concatenate(rows)
    return ids, mask.astype(np.int64)


def unpadded(rows: npt.NDArray[Any], pad: int, end: int) -> Sequences:
    """Results up to their end, which is kept, or up to their padding."""
    found = []
    for row in rows.tolist():
        stops = [i + (each == end) for i, each in enumerate(row) if each in (pad, end)]
        found.append(row[: stops[0]] if stops else row)
    return found
