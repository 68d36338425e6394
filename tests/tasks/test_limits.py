"""How long a text a model takes, and what is no name of a model: each task refuses the same, by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import POSITIONS, write_bert

from fastattn import tasks
from fastattn.errors import OptionError
from fastattn.tasks import TASKS, Answerer, Classifier, CrossEncoder, Pretrainer, Regressor, Reranker
from fastattn.training import train

PAIRS = [{"query": "a", "document": "b", "label": 1}, {"query": "cat", "document": "sat", "label": 0}]
QUESTIONS = [{"question": "the", "context": "the cat", "answers": {"text": ["cat"], "answer_start": [4]}}]
MESSAGE = f"^max_length is {POSITIONS + 1}, but the model has {POSITIONS} positions$"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("limits") / "bert")


@pytest.mark.parametrize("task", [Classifier, Regressor, Reranker])
def test_texts_beyond_the_positions(task: Any, bert: Path) -> None:
    data = task.read(PAIRS)
    with pytest.raises(OptionError, match=MESSAGE):
        task.for_training(bert, data, max_length=POSITIONS + 1)
    assert task.for_training(bert, data, max_length=POSITIONS).max_length == POSITIONS


def test_answers_beyond_the_positions(bert: Path) -> None:
    with pytest.raises(OptionError, match=MESSAGE):
        Answerer.for_training(bert, QUESTIONS, max_length=POSITIONS + 1)
    answerer = Answerer.for_training(bert, QUESTIONS)
    with pytest.raises(OptionError, match=MESSAGE):
        answerer(QUESTIONS, max_length=POSITIONS + 1)
    usual = answerer(QUESTIONS)
    assert usual == answerer(QUESTIONS, max_length=POSITIONS)  # the default is what the model reads


def test_a_cross_encoder_beyond_the_positions(bert: Path, tmp_path: Path) -> None:
    reranker = Reranker.for_training(bert, Reranker.read(PAIRS), max_length=9)
    reranker.save_pretrained(tmp_path / "r")
    with pytest.raises(OptionError, match=MESSAGE):
        CrossEncoder(tmp_path / "r", max_length=POSITIONS + 1)
    assert CrossEncoder(tmp_path / "r").max_length == 9
    assert CrossEncoder(tmp_path / "r", max_length=POSITIONS).max_length == POSITIONS


def test_instances_beyond_the_positions(bert: Path) -> None:
    with pytest.raises(OptionError, match=f"^max_seq_length is 64, but the model has {POSITIONS} positions$"):
        Pretrainer.for_training(bert, [["a b"], ["c"]], max_seq_length=64)


@pytest.mark.parametrize("value", [None, 5, b"model"])
@pytest.mark.parametrize("name", [task for task, _ in TASKS.values()])
def test_what_is_no_name_of_a_model(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=r"name_or_folder (must be str or a path, got|or modules must be given)"):
        getattr(tasks, name).from_pretrained(value)


@pytest.mark.parametrize("value", [None, 5])
def test_what_is_no_model_to_start_from(value: Any) -> None:
    message = "^for_training: start must be str or a path, got"
    for task, rows in ((Classifier, PAIRS), (Answerer, QUESTIONS)):
        with pytest.raises(TypeError, match=message):
            task.for_training(value, task.read(rows))


def test_a_run_without_matplotlib(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    caplog.set_level("INFO", "fastattn")
    data = Reranker.read(PAIRS)
    options = {"epochs": 1, "progress": False}
    train(Reranker.for_training(bert, data, **options), data, tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").exists()
    assert not (tmp_path / "out/loss.svg").exists()
    assert 'loss.svg is not drawn: a picture needs matplotlib: pip install "fastattn[train]"' in caplog.messages
    with pytest.raises(ImportError, match="a picture needs matplotlib"):
        train(Reranker.for_training(bert, data, plot=True, **options), data, tmp_path / "other")


def test_a_folder_with_a_run_says_what_to_do(bert: Path, tmp_path: Path) -> None:
    data = Reranker.read(PAIRS)
    options = {"epochs": 1, "plot": False, "progress": False}
    train(Reranker.for_training(bert, data, **options), data, tmp_path / "out")
    message = r"out: holds a run, saved after step 1; resume=True continues it, or choose another"
    with pytest.raises(OptionError, match=message):
        train(Reranker.for_training(bert, data, **options), data, tmp_path / "out")
