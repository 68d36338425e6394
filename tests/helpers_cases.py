"""Every kind of run of `fastattn train`: each task, with each kind of data and each loss, by the name of the case."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import helpers_train
from helpers_train import CLASSES, SENTENCES, TAGS, pairs, write

from fastattn import tasks
from fastattn.tasks.base import Recipe

TRAINED = [name for name, (_, usage) in tasks.TASKS.items() if issubclass(getattr(tasks, usage), Recipe)]


@dataclass(frozen=True)
class Case:
    """A run of a task. `epochs` is at least 2, so that one with an epoch less can go on to it."""

    task: str
    epochs: int
    options: tuple[str, ...] = ()
    texts: dict[str, Callable[[], str]] = field(default_factory=dict)
    """What some files hold, by flag, instead of what they hold for all runs of the task."""
    model: Callable[[Path], object] | None = None
    """Writes the folder of another model to begin with."""

    def command(self, folder: Path) -> list[str]:
        """The arguments without --output, of a run that saves after each step. Its files are written to `folder`."""
        files = helpers_train.files_of(self.task, folder)
        files |= {flag: write(folder / f"own{flag}.tsv", text()) for flag, text in self.texts.items()}
        if self.model is not None:
            files["--model"] = str(folder / "other")
            self.model(folder / "other")
        del files["--output"]
        return helpers_train.command(self.task, files, "--save-every", "1", *self.options)


def both(text: Callable[[], str]) -> dict[str, Callable[[], str]]:
    return {"--train": text, "--eval": text}


def pair_classes() -> str:
    """Pairs, and whether they are equal."""
    rows = itertools.product([*CLASSES][:4], repeat=2)
    return "sentence1\tsentence2\tlabel\n" + "".join(f"{a}\t{b}\t{'yes' if a == b else 'no'}\n" for a, b in rows)


def topics() -> str:
    """Texts with any number of labels: their words."""
    rows = [(text, ",".join(sorted({*text.split()} & {"cat", "query"}))) for text in CLASSES]
    return "text\tlabel\n" + "".join(f"{text}\t{labels}\n" for text, labels in rows * 3)


def entities() -> str:
    """CoNLL columns; the nouns are entities."""
    labels = {word: "B-NOUN" if tag == "NOUN" else "O" for word, tag in TAGS.items()}
    return "".join("".join(f"{word} {labels[word]}\n" for word in text.split()) + "\n" for text in SENTENCES * 2)


def triples() -> str:
    words = [word for word, _ in pairs(7, 24)]
    rows = zip(words, words[1:], words[2:], strict=False)
    return "anchor\tpositive\tnegative\n" + "".join("\t".join(row) + "\n" for row in rows)


def words(folder: Path) -> None:
    """A language model of both directions."""
    text = [text.split() for text in CLASSES]
    sizes = {"embedding_dim": 6, "dim": 8, "layers": 2, "min_count": 1, "direction": "both"}
    tasks.LanguageModel.for_training(None, text, **sizes).save_pretrained(folder)


BY_LAYER = ("--layer-decay", "0.5", "--gradual-unfreezing", "--schedule", "slanted-triangular")

CASES = {
    "classify": Case("classify", 3, ("--accumulation", "2", "--max-length", "6")),
    "classify-pairs": Case("classify", 3, ("--patience", "2", *BY_LAYER), both(pair_classes)),
    "classify-multi-label": Case("classify", 3, ("--multi-label",), both(topics)),
    "classify-ulmfit": Case("classify", 3, ("--network", "ulmfit", *BY_LAYER), model=words),
    "regress": Case("regress", 2),
    "rerank": Case("rerank", 2, ("--ema", "0.9")),
    "tag": Case("tag", 2),
    "tag-entities": Case("tag", 3, ("--format", "conll", "--patience", "2"), both(entities)),
    "tag-features": Case(
        "tag", 3, ("--network", "lstm-crf", "--features", "bert", "--hidden-size", "8", "--characters", "lstm")
    ),
    "answer": Case("answer", 2),
    "embed-cosent": Case("embed", 3, ("--accumulation", "2")),
    "embed-cosine": Case("embed", 2, ("--loss", "cosine", "--max-score", "9", "--matryoshka", "16", "5")),
    "embed-ranking": Case("embed", 3, ("--ema", "0.9"), both(triples)),
    "pretrain": Case("pretrain", 2),
    "pretrain-static": Case("pretrain", 2, ("--static-masks", "--dupe-factor", "2", "--accumulation", "2")),
    "pretrain-words": Case("pretrain", 2, ("--no-next-sentence", "--do-whole-word-mask", "--ema", "0.9")),
    "bilm": Case("bilm", 3, ("--num-sampled", "5")),
    "language-model": Case("language-model", 3, BY_LAYER),
    "language-model-averaged": Case(
        "language-model",
        3,
        ("--average-after", "1", "--direction", "both", "--evaluate-every", "2", "--learning-rate", "30"),
    ),
    "translate": Case("translate", 3, ("--average", "2")),
    "translate-average": Case("translate", 3, ("--ema", "0.9", "--max-tokens", "40")),
}
