"""Texts and pairs in, numbers out; and the correlations with those of the data."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import HIDDEN, pattern, write_bert

from fastattn.cli import main
from fastattn.tasks import Classifier, Regressor, Reranker

PAIRS = [("the cat", "query"), ("", ""), ("a", "the cat sat " * 30), ("the cat", "the cat"), ("a", "b")]
ROWS = [{"sentence1": a, "sentence2": b, "score": 5 - i} for i, (a, b) in enumerate(PAIRS)]


def make(folder: Path, kind: Any = Regressor, **options: Any) -> Path:
    """A model whose numbers depend on the words."""
    rows = [{**row, "score": 0.5} for row in ROWS]
    task = kind.for_training(write_bert(folder / "bert"), kind.read(rows), seed=1, **options)
    task.model.bert.pooler.weight.data[...] = pattern(HIDDEN, HIDDEN, salt=71)
    task.model.classifier.weight.data[...] = pattern(1, HIDDEN, salt=70)
    task.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("regressor"))


@pytest.fixture(scope="module")
def regressor(folder: Path) -> Regressor:
    return Regressor.from_pretrained(folder)


def test_the_number_is_the_logit(regressor: Regressor, threads: int) -> None:
    logits = regressor.logits(PAIRS)
    assert logits.shape == (5, 1)
    assert regressor(PAIRS * 10) == logits[:, 0].tolist() * 10
    assert [regressor([pair])[0] for pair in PAIRS] == logits[:, 0].tolist()
    assert len(set(regressor(["the cat", "query"]))) == 2


def test_the_loss_is_the_squared_error(folder: Path) -> None:
    data = Regressor.read(ROWS)
    regressor = Regressor.for_training(folder, data)
    batch = regressor.batches(data).load(np.arange(5))
    assert batch["labels"].tolist() == [5, 4, 3, 2, 1]
    expected = ((regressor.logits(PAIRS)[:, 0].astype(np.float64) - batch["labels"]) ** 2).mean()
    assert regressor.loss(batch).item() == pytest.approx(expected, rel=1e-5)


def test_evaluation(regressor: Regressor) -> None:
    found = regressor(PAIRS)
    rows = [{**row, "score": 2 * score + 1} for row, score in zip(ROWS, found, strict=True)]
    assert regressor.evaluate(Regressor.read(rows)) == {"pearson": pytest.approx(1), "spearman": pytest.approx(1)}


def test_numbers_that_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"^rows\[0\]: score must be a number, got 'high'$"):
        Regressor.read([{"text": "a", "score": "high"}])
    data = Regressor.read([{"text": "a", "label": 1}])
    data.labels[0] = None
    with pytest.raises(ValueError, match=r"^rows\[0\]: batches: there is no number$"):
        Regressor.for_training(folder, data).batches(data)


def test_what_is_saved(folder: Path, regressor: Regressor, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (config["problem_type"], config["id2label"]) == ("regression", {"0": "LABEL_0"})
    assert config["sentence_transformers"] == {"activation_fn": "torch.nn.modules.linear.Identity"}
    regressor.save_pretrained(tmp_path / "again")
    assert Regressor.from_pretrained(tmp_path / "again")(PAIRS) == regressor(PAIRS)
    more = Regressor.for_training(folder, Regressor.read(ROWS))  # the head goes on
    np.testing.assert_array_equal(more.logits(PAIRS), regressor.logits(PAIRS))


def test_other_models_are_refused_by_name(tmp_path: Path) -> None:
    bert = write_bert(tmp_path / "bert")
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    Classifier.for_training(bert, Classifier.read(rows)).save_pretrained(tmp_path / "classes")
    Reranker.for_training(bert, Reranker.read([{**ROWS[0], "score": 1}])).save_pretrained(tmp_path / "ranks")
    end = "; `fastattn train regress` makes one$"
    for path, reason in (
        (bert, "its architecture is BertModel"),
        (tmp_path / "classes", "its model has 2 labels"),
        (tmp_path / "ranks", "it is a cross-encoder, whose scores pass through Sigmoid"),
    ):
        with pytest.raises(ValueError, match=f"^{path}: not a regression model, {reason}{end}"):
            Regressor.from_pretrained(path)


def test_predictions(folder: Path, regressor: Regressor, tmp_path: Path, capfd: Any) -> None:
    table = tmp_path / "test.csv"
    table.write_text('"the cat",query,3\na,b,1.5\n', encoding="utf-8")
    arguments = ["predict", "regress", "--model", str(folder), str(table), "--names", "sentence1", "sentence2", "score"]
    assert main(arguments) == 0
    output, errors = capfd.readouterr()
    expected = regressor([PAIRS[0], PAIRS[4]])
    head, *lines = output.splitlines()
    assert head == "score"
    np.testing.assert_allclose([float(line) for line in lines], expected, rtol=1e-6)
    assert errors in ("pearson 1.0000, spearman 1.0000\n", "pearson -1.0000, spearman -1.0000\n")
    assert main([*arguments, "--answers", "jsonl"]) == 0
    assert [*json.loads(capfd.readouterr().out.splitlines()[0])] == ["score"]


def test_transformers_and_sentence_transformers_give_the_same_numbers(folder: Path, regressor: Regressor) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch and transformers")
    transformers = pytest.importorskip("transformers", reason="compares with torch and transformers")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    sides = [list(side) for side in zip(*PAIRS, strict=True)]
    with torch.no_grad():
        logits = theirs(**tokenizer(*sides, truncation=True, padding=True, return_tensors="pt")).logits.numpy()
    ours = regressor.logits(PAIRS)
    np.testing.assert_allclose(ours, logits, rtol=0, atol=2e-5 * np.abs(logits).max())
    library = pytest.importorskip("sentence_transformers", reason="compares with sentence-transformers")
    scores = library.CrossEncoder(str(folder)).predict(PAIRS)
    np.testing.assert_allclose(ours[:, 0], scores, rtol=0, atol=2e-5 * np.abs(logits).max())


def test_the_benchmark_of_similarity_is_read() -> None:
    folder = Path(os.environ.get("FASTATTN_DATA") or Path(__file__).parents[3] / "shared" / "data") / "stsb"
    if not folder.is_dir():
        pytest.skip(f"the STS benchmark is missing: {folder} (set FASTATTN_DATA)")
    for part, count in (("train", 5749), ("dev", 1500), ("test", 1379)):
        data = Regressor.read(folder / f"stsb-en-{part}.csv", names=["sentence1", "sentence2", "score"])
        assert len(data) == len(data.pairs or []) == count
        assert 0 <= min(data.labels) < max(data.labels) <= 5


def test_a_run_on_files_without_names(tmp_path: Path, capfd: Any) -> None:
    table = tmp_path / "train.csv"
    table.write_text("".join(f"{i},{a},{b},{5 - i}\n" for i, (a, b) in enumerate(PAIRS)), encoding="utf-8")
    names = ["--names", "id", "first", "second", "similarity", "--columns", "first", "second", "--label", "similarity"]
    files = [f for flag in ("--train", "--eval", "--test") for f in (flag, str(table))]
    model = ["--model", str(write_bert(tmp_path / "bert")), "--output", str(tmp_path / "out")]
    arguments = ["train", "regress", *model, *files, "--epochs", "1", "--no-plot"]
    assert main([*arguments, *names]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["epoch 1, step 1", "test", "model"]
    data = Regressor.read(table, names=names[1:5], columns=names[6:8], label=names[9])
    assert data.pairs == [b for _, b in PAIRS]
    scores = Regressor.from_pretrained(tmp_path / "out").evaluate(data)
    assert lines[1] == f"test: pearson {scores['pearson']:.4f}, spearman {scores['spearman']:.4f}"
    assert 'pipeline_tag: "text-classification"' in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "{path}: there are no rows"),
        (
            "sentence1\tscore\na\t1\n",
            "{path}:1: the columns must include sentence1 and sentence2, or query and document, or sentence, or text, "
            "got 'sentence1', 'score'; --columns names others; --names, if line 1 is a row",
        ),
        ("sentence\tlabel\na\t1\nb\n", "{path}:3: a row must have 2 columns, as line 1 has, got 1: 'b'"),
        ("sentence\tlabel\na\tmuch\n", "{path}:2: label must be a number, got 'much'"),
        ("sentence\tgrade\na\t1\n", "{path}:1: the columns must include label, or score, got 'sentence', 'grade'"),
    ],
)
def test_files_that_cannot_be_learnt(text: str, message: str, tmp_path: Path, capfd: Any) -> None:
    table = tmp_path / "train.tsv"
    table.write_text(text, encoding="utf-8")
    model = ["--model", str(write_bert(tmp_path / "bert")), "--output", str(tmp_path / "out")]
    assert main(["train", "regress", *model, "--train", str(table)]) == 1
    assert f"fastattn train regress: error: {message.format(path=table)}" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_numbers_that_are_all_equal(folder: Path, regressor: Regressor, tmp_path: Path, capfd: Any) -> None:
    table = tmp_path / "eval.tsv"
    table.write_text("text\tlabel\na\t3\nb\t3.0\n", encoding="utf-8")
    message = f"{table}:2: all scores are 3, so nothing correlates with them"
    with pytest.raises(ValueError, match=f"^{message}$"):
        regressor.evaluate(Regressor.read(table))
    train = [*("--train", str(table)), "--model", str(folder), "--output", str(tmp_path / "out")]
    assert main(["train", "regress", *train, "--eval", str(table)]) == 1
    assert capfd.readouterr().err == f"fastattn train regress: error: {message}\n"
    assert main(["predict", "regress", "--model", str(folder), str(table)]) == 0
    assert capfd.readouterr().err == f"not measured: {message}\n"
    assert regressor.show({"pearson": math.nan, "spearman": None}) == "pearson undefined, spearman undefined"


@pytest.mark.parametrize(("label", "got"), [("high", "'high'"), (["a", "b"], r"\('a', 'b'\)"), ("1", "'1'")])
def test_classes_are_no_numbers(regressor: Regressor, label: Any, got: str) -> None:
    data = Classifier.read([{"text": "a", "label": label}])
    for verb, owner in ((regressor.evaluate, "evaluate"), (regressor.batches, "batches")):
        with pytest.raises(TypeError, match=rf"^rows\[0\]: {owner}: data must have numbers, as `read` .*, got {got}$"):
            verb(data)


@pytest.mark.parametrize("name", ["in.tsv", "in"])
def test_predict_knows_the_column_of_labels(folder: Path, tmp_path: Path, capsys: Any, name: str) -> None:
    path = tmp_path / name
    path.write_text("text\tlabel\ncat\t1\n", encoding="utf-8")
    assert main(["predict", "regress", "--model", str(folder), str(path), "--label", "nope"]) == 1
    assert f"{path}:1: there is no column 'nope', only 'text', 'label'" in capsys.readouterr().err
