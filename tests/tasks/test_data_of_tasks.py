"""The data of every task: what `read` returns, a file, or rows in memory, with the same results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers import assert_same_bits
from helpers_cases import TRAINED
from helpers_sentences import write_bert
from helpers_train import CLASSES, LINES, OPTIONS, SENTENCES, TAGS, files_of, pairs, questions

from fastattn import tasks
from fastattn.tasks import TASKS, Classifier, Tagger, Translator
from fastattn.training import train

SCORES = [{"sentence1": text, "sentence2": "the cat", "score": i / 8} for i, text in enumerate(SENTENCES)]
ROWS: dict[str, Any] = {
    "answer": questions(0, 4),
    "bilm": [line.split() for line in LINES if line],
    "classify": [{"text": text, "label": label} for text, label in CLASSES.items()],
    "embed": [{"anchor": text, "positive": label} for text, label in CLASSES.items()],
    "language-model": [line.split() for line in LINES if line],
    "pretrain": [["the cat sat .", "a dog saw ."], ["the owl ran .", "a cow sat ."]],
    "regress": SCORES,
    "rerank": SCORES,
    "tag": [{"tokens": text.split(), "tags": [TAGS[word] for word in text.split()]} for text in SENTENCES],
    "translate": [{"source": source, "target": target} for source, target in pairs(0, 8)],
}
STARTS: dict[str, Any] = {"bilm": OPTIONS, "language-model": None, "pretrain": None, "translate": "small"}
SMALL: dict[str, dict[str, Any]] = {
    "bilm": {"batch_size": 2, "unroll_steps": 4},
    "language-model": {"batch_size": 2, "unroll_steps": 4, "embedding_dim": 8, "dim": 8},
    "pretrain": {"hidden_size": 8, "layers": 1, "heads": 1, "max_seq_length": 16},
    "translate": {"d_model": 8, "layers": 1, "heads": 1, "ffn_dim": 8, "vocabulary": "characters"},
}


def kind_of(name: str) -> Any:
    return getattr(tasks, TASKS[name][0])


@pytest.mark.filterwarnings("ignore:.*drawn at random:UserWarning")
@pytest.mark.parametrize("name", TRAINED)
def test_rows_are_as_good_as_what_was_read(tmp_path: Path, name: str) -> None:
    kind, rows = kind_of(name), ROWS[name]
    start = STARTS[name] if name in STARTS else write_bert(tmp_path / "start")
    found = []
    for i, data in enumerate((kind.read(rows), rows)):
        task = kind.for_training(start, data, epochs=1, plot=False, **SMALL.get(name, {}))
        trainer = train(task, data, tmp_path / str(i), evaluate_on=data, test_on=data)
        card = (tmp_path / str(i) / "README.md").read_text(encoding="utf-8")
        lines = [line for line in card.splitlines() if line.startswith(("| t", "| e"))]
        assert lines
        task.batches(data)
        found.append((trainer.scores, lines, task.evaluate(data), task.model.state_dict()))
        task.check(data)
    assert found[0][:3] == found[1][:3]
    for key, values in found[0][3].items():
        assert_same_bits(found[1][3][key], values)


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_read_again_is_no_generator(tmp_path: Path, name: str) -> None:
    kind = kind_of(name)
    with pytest.raises(
        TypeError, match=rf"^for_training: data must be a list, or what {kind.__name__}\.read returns, .*"
    ):
        kind.for_training(tmp_path, iter(ROWS[name]))
    for wrong in (5, None):
        with pytest.raises(TypeError, match=rf"^for_training: data must be what {kind.__name__}.read returns or takes"):
            kind.for_training(tmp_path, wrong)


@pytest.mark.parametrize("name", TRAINED)
def test_a_file_is_data(tmp_path: Path, name: str) -> None:
    files, kind = files_of(name, tmp_path), kind_of(name)
    path, recipe = files.get("train", files.get("--train")), getattr(tasks, TASKS[name][1])()
    read = kind.read(path)
    for given in (path, Path(str(path)), read):
        found = kind.as_data("check", given, recipe)
        assert (found is read) == (given is read)
        assert len(read.paths if name == "pretrain" else found) == len(read.paths if name == "pretrain" else read)


def test_options_name_the_columns(tmp_path: Path) -> None:
    start = write_bert(tmp_path / "start")
    rows = [{"premise": a, "claim": b, "gold": "yes" if a == b else "no"} for a in CLASSES for b in CLASSES]
    options: dict[str, Any] = {"columns": ["premise", "claim"], "label": "gold"}
    classifier = Classifier.for_training(start, rows, **options)
    assert classifier.labels == ("no", "yes")
    assert classifier.evaluate(rows) == classifier.evaluate(Classifier.read(rows, **options))
    tagger = Tagger.for_training(
        start, [{"words": ["a", "b"], "pos": ["X", "Y"]}], word_column="words", tag_column="pos"
    )
    assert tagger.labels == ("X", "Y")


def test_some_rows_among_others(tmp_path: Path) -> None:
    """A list holds what `read` returns, or rows."""
    sentences = Tagger.read(ROWS["tag"])
    message = r"^for_training: data\[2\] must be what Tagger\.read returns, as others are, got dict$"
    with pytest.raises(TypeError, match=message):
        Tagger.for_training(tmp_path, [*sentences[:2], *ROWS["tag"]])
    with pytest.raises(TypeError, match=r"^rows\[0\] must be a dict, got \['a'\]$"):
        Tagger.for_training(tmp_path, [["a"]])


def test_pairs_of_texts_in_memory() -> None:
    text = Translator.read([{"source": " eins ", "target": "one"}, {"source": "", "target": "x"}])
    assert (text.sources, text.targets, text.skipped) == (("eins",), ("one",), 1)
    assert text.place(0) == "sources[0]"
    with pytest.raises(ValueError, match=r"^rows\[0\]: there is no column 'target', only 'source'$"):
        Translator.read([{"source": "eins"}])
    with pytest.raises(ValueError, match=r"^rows: no pair of texts among the 1 lines$"):
        Translator.read([{"source": "eins", "target": " "}])
