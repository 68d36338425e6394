"""Every task with every family: trained for a few steps, evaluated, saved, loaded, and asked.

A family needs nothing but its row in `helpers_families`, a task its row in `helpers_tasks`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers import array
from helpers_families import ROWS, new_model
from helpers_sentences import VOCABULARY, write_bert
from helpers_tasks import TRIALS

from fastattn import tasks
from fastattn.formats import hugging_face
from fastattn.models.registry import family
from fastattn.tasks import TASKS, SentenceEncoder, TruncationWarning
from fastattn.training import train

CASES = {name: trial for name, trial in TRIALS.items() if trial.head is not None}


def write_encoder(folder: Path, name: str, kind: str = "") -> Path:
    """A folder of a family, with the tokenizer of the tests."""
    write_bert(folder)
    for file in ("config.json", "model.safetensors"):
        (folder / file).unlink()
    model = new_model(name, kind, seed=5, vocab_size=len(VOCABULARY), pad_token_id=1, max_position_embeddings=140)
    model.save_pretrained(folder)
    return folder


def test_every_task_has_a_case() -> None:
    assert set(TRIALS) == set(TASKS)


@pytest.mark.parametrize("name", ["gte", "nomic_bert"])
def test_a_head_that_a_family_does_not_have(tmp_path: Path, name: str) -> None:
    """The folder is named before any weight is read."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name, "architectures": ["XForQuestionAnswering"]}))
    with pytest.raises(ValueError, match=rf"^{tmp_path}: .*no model for QuestionAnswering, only for "):
        tasks.Answerer.check_folder(tmp_path)


@pytest.mark.filterwarnings("ignore:.*drawn at random:UserWarning")
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("task", CASES)
def test_a_task_with_a_family(tmp_path: Path, task: str, name: str) -> None:
    case, kind = CASES[task], getattr(tasks, TASKS[task][0])
    if case.head not in ("", *family(name).heads):
        with pytest.raises(ValueError, match=f"no model for {case.head}, only for "):
            kind.for_training(write_encoder(tmp_path, name), case.data(tmp_path), **case.options)
        return
    if not hasattr(kind, "for_training"):
        made = kind.from_pretrained(write_encoder(tmp_path / "start", name, "MaskedLM"))
        assert len(made(case.inputs)) == len(case.inputs)
        return
    start, data = write_encoder(tmp_path / "start", name), case.data(tmp_path)
    options = {"epochs": 2, "batch_size": 2, "learning_rate": 1e-3, **case.options}
    made = kind.for_training(start, data, **options)
    before = {own: values.copy() for own, values in made.model.state_dict().items()}
    train(made, data, tmp_path / "run", evaluate_on=data)
    changed = [own for own, values in made.model.state_dict().items() if not np.array_equal(values, before[own])]
    assert len(changed) > len(before) / 2
    measured = made.evaluate(data)
    assert measured
    again = kind.from_pretrained(tmp_path / "run")
    assert type(again.model).__name__ == type(made.model).__name__
    assert again.evaluate(data).keys() <= measured.keys()
    answers = [again(one) for one in (case.inputs, case.inputs[:1])]
    assert len(answers[0]) == len(case.inputs)
    assert _plain(answers[0][:1]) == _plain(answers[1])
    again.save_pretrained(tmp_path / "saved")
    assert _plain(kind.from_pretrained(tmp_path / "saved")(case.inputs)) == _plain(answers[0])


def _plain(answers: Any) -> str:
    return json.dumps(answers, default=lambda value: np.asarray(value).tolist())


@pytest.mark.parametrize("name", ROWS)
def test_sentences(tmp_path: Path, name: str) -> None:
    """Padded and ragged, alone and together: the same bits. The limit is the model's."""
    encoder = SentenceEncoder(write_encoder(tmp_path, name))
    texts = ["the cat sat", "query", "a b c d e f g"]
    together = encoder.encode(texts)
    assert encoder.max_seq_length <= encoder[0].model.config.max_tokens
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_array_equal(encoder.encode(text), row)
    padded = encoder(encoder.tokenize(texts))["sentence_embedding"]
    np.testing.assert_allclose(padded, together, atol=1e-6)
    with pytest.warns(TruncationWarning):
        long = encoder.encode("cat " * 100)
    assert np.isfinite(long).all()


@pytest.mark.parametrize("name", [name for name in ROWS if "PreTraining" in family(name).heads and name != "bert"])
def test_another_pre_training_is_refused(tmp_path: Path, name: str) -> None:
    start = write_encoder(tmp_path, name)
    message = rf"{ROWS[name].theirs} learns no next sentences; with next_sentence=False it learns masked words"
    with pytest.raises(ValueError, match=message):
        tasks.Pretrainer.for_training(start, [["a", "b"], ["c", "d"]])
    write_encoder(tmp_path, name, "PreTraining")
    with pytest.raises(ValueError, match=message):
        tasks.Pretrainer.from_pretrained(start)
    assert hugging_face.read_config(start)["model_type"] == name


SAVED = [(task, name) for task in ("answer", "classify", "pretrain", "tag") for name in ROWS]


@pytest.mark.filterwarnings("default", "ignore:.*drawn at random:UserWarning")  # theirs are not our errors
@pytest.mark.parametrize(("task", "name"), [pair for pair in SAVED if CASES[pair[0]].head in family(pair[1]).heads])
def test_transformers_reads_what_a_task_saves(tmp_path: Path, task: str, name: str) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    case, kind = CASES[task], getattr(tasks, TASKS[task][0])
    made = kind.for_training(write_encoder(tmp_path / "start", name), case.data(tmp_path), **case.options)
    made.save_pretrained(tmp_path / "saved")
    theirs = getattr(transformers, f"AutoModelFor{case.head}").from_pretrained(tmp_path / "saved").eval()
    assert type(theirs).__name__ == f"{ROWS[name].theirs}For{case.head}"
    ids = made.tokenizer.encode(["the cat sat ."]).ids[None]
    ours = made.model.eval()(ids)
    with torch.no_grad():
        expected = theirs(torch.tensor(ids))
    for field_name, value in expected.items():
        np.testing.assert_allclose(array(getattr(ours, field_name)), value.numpy(), rtol=0, atol=1e-5)
