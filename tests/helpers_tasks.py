"""How each task is tried: its row says which models it answers with, what it learns, and what it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers_train import conllu, questions, write

from fastattn import tasks

PAIRS = [("the cat", "query"), ("a cat sat", "the cat sat"), ("the query", "the cat"), ("a b c", "b c d")]
SENTENCES = [["the", "cat", "sat", "."], ["a", "query"], ["the", "query", "sat"]]

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("BertModel", {}),
    "number": ("BertForSequenceClassification", {"num_labels": 1}),
    "two classes": ("BertForSequenceClassification", {"id2label": {"0": "no", "1": "yes"}}),
    "three classes": ("BertForSequenceClassification", {"id2label": {"0": "no", "1": "yes", "2": "both"}}),
    "tags": ("BertForTokenClassification", {"id2label": {"0": "no", "1": "yes"}}),
    "answers": ("BertForQuestionAnswering", {}),
    "words": ("BertForMaskedLM", {}),
    "words and sentences": ("BertForPreTraining", {}),
}
"""Models that are made for something: their architecture, and more of config.json."""


@dataclass(frozen=True)
class Trial:
    """How a task is tried."""

    head: str | None
    """What it needs of a family of encoders: a head, "" for none, None for a task of another family."""
    takes: tuple[str, ...] = ()
    """The `MODELS` that it loads and `fastattn info` names it for; it refuses the others."""
    data: Callable[[Path], Any] | None = None
    """What it learns and measures, for a task of encoders; files go into the folder."""
    inputs: Any = None
    """What it then answers."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of its recipe."""
    nothing: str = "rows"
    """What the error for an empty file says that there are none of."""
    ends: tuple[str, ...] = (".tsv", ".csv", ".jsonl", ".txt")
    """What the names of the files end with that `fastattn predict` reads."""
    source: tuple[str, str] = ("input.tsv", "query\tdocument\na\tb\n")
    """A file that `fastattn predict` reads, and what it holds."""


def _scored(kind: str) -> Any:
    rows = [{"sentence1": a, "sentence2": b, "score": 0.2 * i} for i, (a, b) in enumerate(PAIRS)]
    return getattr(tasks, kind).read(rows)


TRIALS = {
    "answer": Trial(
        "QuestionAnswering",
        ("answers",),
        lambda folder: questions(0),
        questions(1, 3),
        nothing="questions",
        ends=(".json", ".jsonl", ".csv"),
    ),
    "bilm": Trial(None, nothing="words", ends=(".txt",)),
    "language-model": Trial(None, nothing="words", ends=(".txt",)),
    "classify": Trial(
        "SequenceClassification",
        ("two classes", "three classes"),
        lambda folder: tasks.Classifier.read(
            [{"text": a, "text_pair": b, "label": "xyz"[i % 3]} for i, (a, b) in enumerate(PAIRS)]
        ),
        PAIRS,
    ),
    "embed": Trial(
        "",
        ("plain", "words", "words and sentences"),
        lambda folder: tasks.Embedder.read([{"anchor": a, "positive": b} for a, b in PAIRS]),
        [a for a, _ in PAIRS],
        ends=(".tsv", ".jsonl"),
        source=("input.tsv", "sentence1\tsentence2\na\tb\n"),
    ),
    "fill": Trial(
        "MaskedLM",
        ("words", "words and sentences"),
        lambda folder: None,
        ["the [MASK] sat .", "a [MASK]"],
        ends=(".txt",),
        source=("input.txt", "a [MASK]\n"),
    ),
    "pretrain": Trial(
        "MaskedLM",
        (),
        lambda folder: [[" ".join(words) for words in SENTENCES] for _ in range(3)],
        ["the [MASK] sat ."],
        {"next_sentence": False, "max_seq_length": 16},
        nothing="sentences",
        ends=(".txt",),
    ),
    "regress": Trial("SequenceClassification", ("number",), lambda folder: _scored("Regressor"), PAIRS),
    "rerank": Trial(
        "SequenceClassification",
        ("number",),
        lambda folder: _scored("Reranker"),
        PAIRS,
    ),
    "tag": Trial(
        "TokenClassification",
        ("tags",),
        lambda folder: tasks.Tagger.read(write(folder / "train.conllu", conllu(["the cat sat .", "query sat"] * 2))),
        SENTENCES,
        nothing="words",
        ends=(".conllu", ".txt"),
        source=("input.conllu", "1\tcat" + "\t_" * 8 + "\n"),
    ),
    "translate": Trial(None, nothing="pairs of texts", ends=(".txt",)),
}

PREDICTED = {name for name, (_, usage) in tasks.TASKS.items() if getattr(tasks, usage).predicting}
"""The tasks of `fastattn predict`."""


def of_encoders(names: set[str]) -> set[str]:
    """Those of the tasks that a family of encoders may have."""
    return {name for name in names if TRIALS[name].head is not None}


def taking(model: str) -> set[str]:
    """The tasks that answer with one of the `MODELS`."""
    return {name for name, trial in TRIALS.items() if model in trial.takes}
