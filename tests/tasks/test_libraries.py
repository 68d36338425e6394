"""Folders between fastattn and the libraries of PyTorch: each task writes what they read, and reads what they write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_cases import CASES
from helpers_sentences import write_bert

from fastattn import tasks
from fastattn.cli import main

OTHERS = {"bilm", "language-model", "translate", "classify-ulmfit", "tag-features"}
"""Tasks and cases with networks that no library has; transformers reads MarianMT's, test_train_translate.py."""
PAIRS = [("the cat sat .", "query"), ("a b c", "cat sat on the query ."), ("zz", "the")]
ROWS: dict[str, Any] = {
    "classify": [{"text": "the cat", "label": "animal"}, {"text": "query", "label": "text"}],
    "regress": [{"sentence1": a, "sentence2": b, "score": i / 2} for i, (a, b) in enumerate(PAIRS)],
    "rerank": [{"query": a, "document": b, "score": i / 2} for i, (a, b) in enumerate(PAIRS)],
    "tag": [{"tokens": ["the", "cat"], "tags": ["DET", "NOUN"]}],
    "answer": [{"question": "cat", "context": "the cat", "answers": {"text": ["the"], "answer_start": [0]}}],
    "embed": [{"anchor": a, "positive": b} for a, b in PAIRS],
    "pretrain": [["the cat sat .", "a cat ."], ["query sat .", "the query ."]],
}


def load(task: str, folder: Path) -> Any:
    """The task in a folder, and the head or the encoder that a library reads there."""
    kind: Any = getattr(tasks, tasks.TASKS[task][0])
    if task == "embed":
        library = pytest.importorskip("sentence_transformers", reason="compares with sentence-transformers")
        return kind.from_pretrained(folder), library.SentenceTransformer(str(folder), device="cpu")
    pytest.importorskip("torch", reason="compares with torch and transformers")
    transformers = pytest.importorskip("transformers", reason="compares with torch and transformers")
    (name,) = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"]
    return kind.from_pretrained(folder), getattr(transformers, name).from_pretrained(folder).eval()


def assert_same_numbers(task: str, folder: Path) -> None:
    """A library has the tokens and the numbers that the task has, on pairs and on their first texts."""
    ours, theirs = load(task, folder)
    if task == "embed":
        texts = [text for pair in PAIRS for text in pair]
        np.testing.assert_allclose(ours(texts), theirs.encode(texts), rtol=0, atol=1e-6)
        return
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for one, two in (*PAIRS, *((text, None) for text, _ in PAIRS)):
        encoded = tokenizer(one, two, truncation=True, return_tensors="pt")
        with torch.no_grad():
            wanted = theirs(**encoded)
        tokens = ours.tokenizer.encode([one], tokenizer.model_max_length, text_pairs=None if two is None else [two])
        assert tokens.ids.tolist() == encoded["input_ids"][0].tolist()
        found = ours.model(tokens.ids[None], token_type_ids=encoded["token_type_ids"].numpy())
        assert [*wanted]
        for name, logits in wanted.items():
            largest = np.abs(logits.numpy()).max()
            np.testing.assert_allclose(getattr(found, name), logits.numpy(), rtol=0, atol=2e-5 * largest)


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if not {name, case.task} & OTHERS])
def test_a_library_reads_what_a_run_wrote(case: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="compares with torch and transformers")
    run = CASES[case]
    assert main([*run.command(tmp_path), "--epochs", "2", "--output", str(tmp_path / "out")]) == 0
    assert_same_numbers(run.task, tmp_path / "out")


def of_transformers(head: str, **options: Any) -> Callable[[Path], None]:
    """What writes the folder of a head with new weights, which are large enough to matter."""

    def write(folder: Path) -> None:
        transformers = pytest.importorskip("transformers", reason="compares with torch and transformers")
        transformers.set_seed(0)
        bert = write_bert(folder.with_name("bert"))
        config = transformers.BertConfig.from_pretrained(bert, initializer_range=0.5, **options)
        getattr(transformers, head)(config).save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(bert).save_pretrained(folder)

    return write


def cross_encoder(folder: Path) -> None:
    library = pytest.importorskip("sentence_transformers", reason="compares with sentence-transformers")
    library.CrossEncoder(str(write_bert(folder.with_name("bert"))), num_labels=1).save_pretrained(str(folder))


def sentence_encoder(*names: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        library = pytest.importorskip("sentence_transformers", reason="compares with sentence-transformers")
        models = pytest.importorskip("sentence_transformers.models", reason="compares with sentence-transformers")
        bert = models.Transformer(str(write_bert(folder.with_name("bert"))))
        parts: dict[str, Callable[[], Any]] = {
            "mean": lambda: models.Pooling(bert.get_word_embedding_dimension(), "mean"),
            "cls": lambda: models.Pooling(bert.get_word_embedding_dimension(), "cls"),
            "dense": lambda: models.Dense(bert.get_word_embedding_dimension(), 7),
            "normalize": models.Normalize,
        }
        library.SentenceTransformer(modules=[bert, *(parts[name]() for name in names)]).save_pretrained(str(folder))

    return write


NAMES = {"id2label": {0: "animal", 1: "text"}, "label2id": {"animal": 0, "text": 1}}
THEIRS = {
    "classify": ("classify", of_transformers("BertForSequenceClassification", **NAMES)),
    "regress": ("regress", of_transformers("BertForSequenceClassification", num_labels=1)),
    "rerank": ("rerank", of_transformers("BertForSequenceClassification", num_labels=1)),
    "rerank-cross-encoder": ("rerank", cross_encoder),
    "tag": ("tag", of_transformers("BertForTokenClassification", id2label={0: "DET", 1: "NOUN"})),
    "answer": ("answer", of_transformers("BertForQuestionAnswering")),
    "embed-mean": ("embed", sentence_encoder("mean", "normalize")),
    "embed-cls-dense": ("embed", sentence_encoder("cls", "dense")),
    "pretrain": ("pretrain", of_transformers("BertForPreTraining")),
    "pretrain-words": ("pretrain", of_transformers("BertForMaskedLM")),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:sentence_transformers")
@pytest.mark.parametrize("name", THEIRS)
def test_a_task_reads_and_goes_on_with_what_a_library_wrote(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="compares with torch and transformers")
    task, write = THEIRS[name]
    write(tmp_path / "theirs")
    assert_same_numbers(task, tmp_path / "theirs")
    kind: Any = getattr(tasks, tasks.TASKS[task][0])
    data = kind.read(ROWS[task]) if task != "pretrain" else ROWS[task]
    options = {"max_seq_length": 16, "next_sentence": name == "pretrain"} if task == "pretrain" else {}
    again = kind.for_training(tmp_path / "theirs", data, **options)
    again.save_pretrained(tmp_path / "ours")
    before, after = load(task, tmp_path / "theirs")[1], load(task, tmp_path / "ours")[1]
    ours, theirs = after.state_dict(), before.state_dict()
    assert sorted(ours) == sorted(theirs)
    for key, tensor in theirs.items():
        if task != "embed" or "pooler" not in key:  # BERT's pooler is no part of a sentence encoder
            assert (ours[key] == tensor).all(), key
