"""`fastattn train TASK` on a text that a tiny model can learn: the files, the command and its errors."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from helpers_sentences import normalize, write_bert, write_model

from fastattn.cli import main

TAGS = {"the": "DET", "cat": "NOUN", "sat": "VERB", ".": "PUNCT", "query": "NOUN"}
SENTENCES = ["the cat sat .", "cat sat", "the query sat .", "the cat", "sat .", "query", "the the cat sat", ". cat"]
LINES = [
    "the cat sat on the mat .",
    "the dog saw a cat .",
    "",
    "a dog sat .",
    "naïve 猫 🐈 saw the dog .",
    "the cat saw .",
]
OPTIONS = {
    "char_cnn": {"activation": "relu", "embedding": {"dim": 4}, "filters": [[1, 8], [2, 8]], "n_highway": 1,
                 "max_characters_per_token": 16},
    "lstm": {"dim": 16, "projection_dim": 8, "n_layers": 2, "cell_clip": 3, "proj_clip": 3,
             "use_skip_connections": True},
}  # fmt: skip
CLASSES = {
    "the cat sat .": "animal",
    "cat sat": "animal",
    "the query sat .": "text",
    "query": "text",
    "a b c": "letters",
}
FLAGS = {
    "answer": ["--batch-size", "4", "--learning-rate", "0.01", "--max-length", "16", "--doc-stride", "4"],
    "classify": ["--batch-size", "4", "--learning-rate", "0.01"],
    "regress": ["--batch-size", "4", "--learning-rate", "0.01"],
    "rerank": ["--batch-size", "4", "--learning-rate", "0.01"],
    "embed": ["--batch-size", "4", "--learning-rate", "0.01"],
    "tag": ["--batch-size", "4", "--learning-rate", "0.01"],
    "bilm": ["--batch-size", "4", "--unroll-steps", "6", "--learning-rate", "0.02"],
    "language-model": ["--batch-size", "4", "--unroll-steps", "6", "--learning-rate", "5", "--embedding-dim", "8",
                       "--dim", "12", "--layers", "2", "--input-dropout", "0.1"],
    "pretrain": ["--batch-size", "4", "--hidden-size", "16", "--layers", "1", "--heads", "2", "--max-seq-length", "16",
                 "--max-predictions-per-seq", "3", "--learning-rate", "0.01"],
    "translate": ["--d-model", "16", "--layers", "1", "--heads", "2", "--ffn-dim", "32", "--batch-tokens", "100",
                  "--warmup", "40", "--learning-rate", "0.01"],
}  # fmt: skip


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def conllu(sentences: list[str], tags: dict[str, str] = TAGS) -> str:
    blocks = []
    for sentence in sentences:
        words = enumerate(sentence.split(), start=1)
        rows = [f"{i}\t{word}\t_\t{tags.get(word, '_')}\t_\t_\t_\t_\t_\t_\n" for i, word in words]
        blocks.append(f"# text = {sentence}\n{''.join(rows)}\n")
    return "".join(blocks)


def pairs(seed: int, count: int = 60) -> list[tuple[str, str]]:
    """Words, and the same words in another alphabet."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdef", k=rng.randint(1, 5))) for _ in range(count)]
    return [(word, word.translate(str.maketrans("abcdef", "αβγδεζ"))) for word in words]


def documents(seed: int, count: int = 20) -> str:
    """Documents, each of sentences about an animal of its own."""
    rng = random.Random(seed)
    animals = (["cat", "dog", "cow", "owl"] * count)[:count]
    rng.shuffle(animals)
    made = [[f"the {animal} {rng.choice(['sat', 'saw', 'ran'])} ." for _ in range(8)] for animal in animals]
    return "\n\n".join("\n".join(sentences) for sentences in made) + "\n"


def alike(name: str) -> str:
    """Pairs of texts, and how many of their letters are the same."""
    words = [a for a, _ in pairs(len(name), 24)]
    rows = [f"{a}\t{b}\t{len({*a} & {*b})}\n" for a, b in itertools.pairwise(words)]
    return "sentence1\tsentence2\tscore\n" + "".join(rows)


def questions(seed: int, count: int = 12) -> list[dict[str, object]]:
    """Questions for the letter behind a word, among other letters; some have no answer."""
    rng = random.Random(seed)
    found: list[dict[str, object]] = []
    for _ in range(count):
        letters = [rng.choice("abcdef") for _ in range(rng.randint(4, 14))]
        place, word = rng.randrange(len(letters) - 1), rng.choice(["the", "cat"])
        letters[place] = word
        answers = {"text": [letters[place + 1]], "answer_start": [len(" ".join(letters[: place + 1])) + 1]}
        if rng.random() < 0.2:
            word, answers = "sat", {"text": [], "answer_start": []}
        found.append({"question": word, "context": " ".join(letters), "answers": answers})
    return found


def squad(rows: list[dict[str, object]]) -> str:
    """A file of SQuAD 2.0."""
    paragraphs = []
    for i, row in enumerate(rows):
        answers = [{"text": t, "answer_start": s} for t, s in zip(*row["answers"].values(), strict=True)]  # type: ignore[attr-defined]
        qas = [{"id": f"q{i}", "question": row["question"], "answers": answers, "is_impossible": not answers}]
        paragraphs.append({"context": row["context"], "qas": qas})
    return json.dumps({"version": "v2.0", "data": [{"title": "Letters", "paragraphs": paragraphs}]})


def json_lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def tsv(rows: list[tuple[str, str]]) -> str:
    return "".join(f"{source}\t{target}\n" for source, target in rows)


def classes(texts: list[str]) -> str:
    """A table of texts and their classes."""
    return "text\tlabel\n" + "".join(f"{text}\t{CLASSES[text]}\n" for text in texts)


def scored(texts: list[str]) -> str:
    """A table of pairs and their numbers, 0 to 1: how many words of the second text are in the first."""
    rows = ["sentence1\tsentence2\tscore\n"]
    for first, second in itertools.product(texts, texts):
        share = len({*first.split()} & {*second.split()}) / len({*second.split()})
        rows.append(f"{first}\t{second}\t{share}\n")
    return "".join(rows)


def files_of(task: str, folder: Path) -> dict[str, str]:
    """What every call needs, by flag; `train` has none for some tasks."""
    output = {"--output": str(folder / "out")}
    if task == "embed":
        model = write_model(folder / "model", layers=[normalize("2_Normalize")])
        train, gold = (write(folder / f"{name}.tsv", alike(name)) for name in ("train", "eval"))
        return {"--model": str(model), "--train": train, "--eval": gold, **output}
    if task == "tag":
        model = write_bert(folder / "model", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
        train = write(folder / "train.conllu", conllu(SENTENCES * 4))
        gold = write(folder / "eval.conllu", conllu(["the cat sat .", "query sat"]))
        return {"--model": str(model), "--train": train, "--eval": gold, **output}
    if task in TABLES:
        model = write_bert(folder / "model", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
        train, gold = (write(folder / f"{i}.tsv", text) for i, text in enumerate(TABLES[task]))
        return {"--model": str(model), "--train": train, "--eval": gold, **output}
    if task == "answer":
        model = write_bert(folder / "model", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
        train = write(folder / "train.json", squad(questions(0)))
        gold = write(folder / "eval.jsonl", json_lines(questions(1, 4)))
        return {"--model": str(model), "--train": train, "--eval": gold, **output}
    if task == "bilm":
        text = write(folder / "text.txt", "\n".join(LINES * 4))
        return {
            "train": text,
            "--eval": text,
            "--options": write(folder / "options.json", json.dumps(OPTIONS)),
            **output,
        }
    if task == "language-model":
        text = write(folder / "text.txt", "\n".join(LINES * 4))
        return {"train": text, "--eval": text, **output}
    if task == "pretrain":
        text = write(folder / "text.txt", documents(0))
        return {"train": text, "--eval": write(folder / "eval.txt", documents(1)), **output}
    train, gold = write(folder / "train.tsv", tsv(pairs(0))), write(folder / "eval.tsv", tsv(pairs(1)))
    return {"train": train, "--eval": gold, "--vocabulary": "characters", **output}


TABLES = {
    "classify": (classes([*CLASSES] * 5), classes([*CLASSES])),
    "regress": (scored([*CLASSES]), scored([*CLASSES][:3])),
    "rerank": (scored([*CLASSES]), scored([*CLASSES][:3])),
}


def command(task: str, files: dict[str, str], *more: str, **changes: str | None) -> list[str]:
    """The arguments, without a plot. `changes` replace files and options, or leave those out that are None."""
    options = {**files, **{f"--{name.replace('_', '-')}": value for name, value in changes.items()}}
    train = [options.pop("train")] if "train" in options else []
    given = [text for name, value in options.items() if value is not None for text in (name, value)]
    return ["train", task, *train, *given, *FLAGS[task], "--no-plot", *more]


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command that fails."""
    capsys.readouterr()
    assert main(arguments) == 1
    _, found, message = capsys.readouterr().err.partition(f"fastattn train {arguments[1]}: error: ")
    assert found
    return message.strip()


ENDING = {"answer": "jsonl"}
"""What the names of files end with, if it is not tsv."""
OTHER_TEXT = {
    "answer": json_lines(questions(3, 3)),
    "classify": classes(["query", "cat sat", "a b c"]),
    "regress": scored(["query", "a b c"]),
    "rerank": scored(["query", "a b c"]),
    "embed": alike("others"),
    "tag": conllu(["the query sat ."]),
    "bilm": "the dog .\n",
    "language-model": "the dog .\n",
    "translate": tsv(pairs(3)),
    "pretrain": documents(3),
}
"""Other data of a task."""
