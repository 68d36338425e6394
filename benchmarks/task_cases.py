"""The cases of `python -m benchmarks tasks`: data as rows that both libraries take, and the recipe."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from fastattn.text import read_conll, read_conllu

Rows = list[dict[str, Any]]

COMMON: dict[str, Any] = {"batch_size": 32, "warmup": 0.1, "weight_decay": 0.01, "max_norm": 1.0}


@dataclass(frozen=True)
class Case:
    """A whole run.

    Attributes:
        task: the folder of the task in `fastattn.tasks`.
        read: returns the rows to learn and those to score, from the folder of the data.
        metric: the score, as fastattn's task calls it.
        recipe: the options of both sides, beside those in `COMMON`.
    """

    task: str
    read: Callable[[Path], tuple[Rows, Rows]]
    metric: str
    recipe: dict[str, Any]


def genres(data: Path, words: bool = False) -> tuple[Rows, Rows]:
    """The sentences of UD EWT, as text or as words with spaces between. A sent_id begins with the kind of the text."""

    def rows(part: str) -> Rows:
        found = []
        for sentence in read_conllu(data / f"ud_ewt/en_ewt-ud-{part}.conllu"):
            comments = dict(line[2:].split(" = ", 1) for line in sentence.lines if " = " in line)
            text = " ".join(sentence.words) if words else comments["text"].strip()
            found.append({"text": text, "label": comments["sent_id"].partition("-")[0]})
        return found

    return rows("dev"), rows("test")


def similarities(data: Path) -> tuple[Rows, Rows]:
    """The STS benchmark: every third pair to learn, all pairs of the test part to score."""

    def rows(part: str) -> Rows:
        with open(data / f"stsb/stsb-en-{part}.csv", encoding="utf-8", newline="") as file:
            return [{"sentence1": first, "sentence2": other, "score": float(x)} for first, other, x in csv.reader(file)]

    return rows("train")[::3], rows("test")


def parts_of_speech(data: Path) -> tuple[Rows, Rows]:
    """UD EWT."""
    parts = (read_conllu(data / f"ud_ewt/en_ewt-ud-{part}.conllu") for part in ("dev", "test"))
    dev, test = ([{"tokens": [*each.words], "tags": [*each.tags]} for each in part] for part in parts)
    return dev, test


def entities(data: Path) -> tuple[Rows, Rows]:
    """Universal NER."""
    files = (data / f"uner_ewt/en_ewt-ud-{part}.iob2" for part in ("dev", "test"))
    parts = (read_conll(file, word_column=1, tag_column=2) for file in files)
    dev, test = ([{"tokens": [*each.words], "tags": [*each.tags]} for each in part] for part in parts)
    return dev, test


def articles(data: Path) -> list[Rows]:
    """The questions of XQuAD by article."""
    found = []
    for article in json.loads((data / "xquad/xquad.en.json").read_text())["data"]:
        questions: Rows = []
        for paragraph in article["paragraphs"]:
            for each in paragraph["qas"]:
                answers = {name: [answer[name] for answer in each["answers"]] for name in ("text", "answer_start")}
                row = {"id": each["id"], "question": each["question"], "context": paragraph["context"]}
                questions.append({**row, "answers": answers})
        found.append(questions)
    return found


def questions(data: Path) -> tuple[Rows, Rows]:
    """12 articles to learn, 6 others to score."""
    found = articles(data)
    return [*chain(*found[:12])], [*chain(*found[12:18])]


def paragraphs(data: Path) -> tuple[Rows, Rows]:
    """Each question has to find its paragraph: 12 articles to learn, 12 others to score."""
    found = [[{"anchor": row["question"], "positive": row["context"]} for row in rows] for rows in articles(data)]
    return [*chain(*found[:12])], [*chain(*found[12:24])]


CASES = {
    "genre": Case("classify", genres, "accuracy", {"epochs": 1, "learning_rate": 1e-4, "max_length": 256}),
    "stsb": Case(
        "regress",
        similarities,
        "spearman",
        {"epochs": 1, "learning_rate": 1e-4, "batch_size": 8, "max_length": 256},
    ),
    "upos": Case("tag", parts_of_speech, "accuracy", {"epochs": 1, "learning_rate": 3e-4}),
    "entities": Case("tag", entities, "f1", {"epochs": 1, "learning_rate": 2e-4, "batch_size": 8}),
    "answer": Case(
        "answer",
        questions,
        "f1",
        {"epochs": 1, "learning_rate": 2e-4, "batch_size": 8, "max_length": 384, "doc_stride": 128},
    ),
    "embed-stsb": Case("embed", similarities, "spearman_cosine", {"epochs": 1, "learning_rate": 2e-5, "scale": 20.0}),
    "embed-xquad": Case("embed", paragraphs, "cosine_ndcg@10", {"epochs": 1, "learning_rate": 2e-5, "scale": 20.0}),
}
