"""Texts and pairs in, classes and labels out, whatever the company; folders that others read, and that others wrote."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import HIDDEN, POSITIONS, pattern, write_bert

from fastattn.autograd import Tensor, no_grad
from fastattn.cli import main
from fastattn.tasks import Classifier, Regressor, Tagger
from fastattn.text import ConlluSentence, LabelledTexts
from fastattn.training import train

ROWS = [
    {"text": "the cat sat", "label": "animal"},
    {"text": "cat", "label": "animal"},
    {"text": "query", "label": "other"},
    {"text": "a b c d e f", "label": "thing"},
]
TEXTS = ["the cat", "query", "", "the query sat", "\u200b", "the cat sat " * 30]
PAIRS = [("the cat", "query"), ("", ""), ("a", "the cat sat " * 30), ("The cat sat " * 30, "abc" * 30), ("a", "b")]


def data_of(*rows: dict[str, Any], **options: Any) -> LabelledTexts:
    return Classifier.read(rows, **options)


def make(folder: Path, data: LabelledTexts, **options: Any) -> Path:
    """A classifier whose classes depend on the words."""
    classifier = Classifier.for_training(write_bert(folder / "bert"), data, seed=1, **options)
    classifier.model.bert.pooler.weight.data[...] = pattern(HIDDEN, HIDDEN, salt=71)
    classifier.model.classifier.weight.data[...] = pattern(len(classifier.labels), HIDDEN, salt=70)
    classifier.model.classifier.bias.data[...] = -classifier.logits(TEXTS).mean(axis=0)
    classifier.save_pretrained(folder / "classifier")
    return folder / "classifier"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("classifier"), data_of(*ROWS))


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = data_of({"text": "the cat", "label": ["a", "b"]}, {"text": "sat", "label": ["c"]})
    return make(tmp_path_factory.mktemp("topics"), data, multi_label=True)


@pytest.fixture(scope="module")
def classifier(folder: Path) -> Classifier:
    return Classifier.from_pretrained(folder)


def test_every_text_gets_a_class(classifier: Classifier) -> None:
    found = classifier(TEXTS)
    assert len(set(found)) > 1
    assert set(found) <= set(classifier.labels) == {"animal", "other", "thing"}
    probabilities = classifier.probabilities(TEXTS)
    assert probabilities.shape == (len(TEXTS), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert found == [classifier.labels[i] for i in probabilities.argmax(axis=1)]
    assert classifier([]) == []
    assert classifier.probabilities([]).shape == (0, 3)
    assert classifier.max_length == POSITIONS


def test_several_labels(topics: Path) -> None:
    classifier = Classifier.from_pretrained(topics)
    probabilities = classifier.probabilities(TEXTS)
    expected = [[label for label, p in zip("abc", row, strict=True) if p >= 0.5] for row in probabilities]
    assert classifier(TEXTS) == expected
    assert len({*map(len, expected)}) > 1
    logits = classifier.logits(TEXTS).astype(np.float64)
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_the_model_sees_both_texts_of_a_pair(classifier: Classifier) -> None:
    tokens = classifier.tokenizer.encode(["the cat"], text_pairs=["query"])
    with no_grad():
        expected = classifier.model(tokens.ids[None], token_type_ids=tokens.token_type_ids[None]).logits
    np.testing.assert_array_equal(classifier.logits([("the cat", "query")]), expected)
    assert not np.array_equal(expected, classifier.logits(["the cat query"]))


@pytest.mark.parametrize("inputs", [TEXTS, PAIRS])
def test_answers_do_not_depend_on_the_company(classifier: Classifier, inputs: list[Any], threads: int) -> None:
    together = classifier.probabilities(inputs * 20)
    alone = np.concatenate([classifier.probabilities([one]) for one in inputs])
    np.testing.assert_array_equal(together, np.tile(alone, (20, 1)))
    np.testing.assert_array_equal(classifier.probabilities(inputs[::-1]), alone[::-1])


def test_many_threads_at_once(classifier: Classifier) -> None:
    expected, results = classifier.logits(PAIRS), []
    threads = [threading.Thread(target=lambda: results.append(classifier.logits(PAIRS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found.tobytes() for found in results] == [expected.tobytes()] * 4


def test_long_pairs_are_cut_at_the_longer_text(classifier: Classifier) -> None:
    longer, room = "sat " * 30, POSITIONS - 3 - 2
    expected = classifier.logits([("the cat", "sat " * room)])
    np.testing.assert_array_equal(classifier.logits([("the cat", longer)]), expected)


def test_batches(folder: Path, topics: Path) -> None:
    rows = [{"sentence1": "the cat", "sentence2": "query", "label": "other"},
            {"sentence1": "a", "sentence2": "b c", "label": "animal"}]  # fmt: skip
    classifier = Classifier.for_training(folder, data_of(*ROWS, *ROWS), batch_size=2, accumulation=3)
    batches = classifier.batches(data_of(*rows))
    assert (batches.lengths.tolist(), batches.accumulation) == ([6, 6], 3)
    loaded = batches.load(np.array([1, 0]))
    assert loaded["labels"].tolist() == [0, 1]
    assert loaded["token_type_ids"].tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1]
    loss = classifier.loss(loaded)
    assert isinstance(loss, Tensor)
    loss.backward()
    assert classifier.model.classifier.weight.grad is not None
    several = Classifier.for_training(topics, data_of({"text": "a", "label": "a,b"}, {"text": "b", "label": ""}),
                                      multi_label=True, labels=("a", "b", "c"))  # fmt: skip
    loaded = several.batches(data_of({"text": "a", "label": " c , a"}, {"text": "b", "label": []})).load(np.arange(2))
    assert loaded["labels"].tolist() == [[1, 0, 1], [0, 0, 0]]
    assert loaded["token_type_ids"] is None
    several.loss(loaded).backward()


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["b", "a"], ("a", "b")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        ([1, 0, True], ("0", "1", "True")),
        (["1", "x"], ("1", "x")),
    ],
)
def test_the_order_of_classes(folder: Path, labels: list[Any], expected: tuple[str, ...]) -> None:
    data = data_of(*({"text": "a", "label": label} for label in labels))
    assert Classifier.for_training(folder, data).labels == expected
    assert Classifier.for_training(folder, data, labels=("z", *expected)).labels == ("z", *expected)


def test_a_head_for_the_same_labels_goes_on_and_another_one_is_drawn(folder: Path) -> None:
    same = Classifier.for_training(folder, data_of(*ROWS))
    before = Classifier.from_pretrained(folder).logits(TEXTS)
    np.testing.assert_array_equal(same.logits(TEXTS), before)
    for others in (ROWS[:3], [{**row, "label": f"{row['label']}s"} for row in ROWS]):
        other = Classifier.for_training(folder, data_of(*others))
        assert len(other.labels) == len({row["label"] for row in others})
        assert np.abs(other.model.classifier.weight.data).max() < 0.2  # drawn with a deviation of 0.02
        np.testing.assert_array_equal(other.model.bert.pooler.weight.data, same.model.bert.pooler.weight.data)


def test_labels_that_are_refused(folder: Path, topics: Path, tmp_path: Path) -> None:
    one = data_of({"text": "a", "label": "x"})
    with pytest.raises(ValueError, match=r"^for_training: data must have two classes or more, got \['x'\]$"):
        Classifier.for_training(folder, one)
    several = data_of({"text": "a", "label": ["x", "y"]}, {"text": "a", "label": "x"})
    with pytest.raises(ValueError, match=r"^rows\[0\]: there must be one label, got \['x', 'y'\]; multi_label takes"):
        Classifier.for_training(folder, several)
    for label, got in ((0.5, "0.5"), ({"a": 1}, r"\{'a': 1\}")):
        with pytest.raises(ValueError, match=rf"^rows\[0\]: label must be a label, text or an integer, got {got}$"):
            data_of({"text": "a", "label": label})
    classifier = Classifier.for_training(folder, data_of(*ROWS))
    path = tmp_path / "eval.tsv"
    path.write_text("text\tlabel\na\tanimal\nb\tnew\n", encoding="utf-8")
    message = rf"^{path}:3: evaluate: the label 'new' is none of animal, other, thing$"
    with pytest.raises(ValueError, match=message):
        classifier.evaluate(Classifier.read(path))
    with pytest.raises(ValueError, match=message):
        train(classifier, data_of(*ROWS), tmp_path / "out", evaluate_on=Classifier.read(path))
    assert not (tmp_path / "out").exists()


def test_inputs_that_are_refused(classifier: Classifier) -> None:
    for wrong, message in (
        ("the cat", r"^inputs must be a sequence of str, or of pairs of str, got the str 'the cat'$"),
        (["a", ("a", "b")], r"^inputs\[1\] must be str, got tuple$"),
        ([("a", "b"), "a"], r"^inputs\[1\] must be a pair of str, got 'a'$"),
        ([("a", "b", "c")], r"^inputs\[0\] must be a pair of str, got \('a', 'b', 'c'\)$"),
        ([("a", 1)], r"^inputs\[0\]\[1\] must be str, got int$"),
    ):
        with pytest.raises(TypeError, match=message):
            classifier(wrong)  # type: ignore[arg-type]


def test_evaluation(classifier: Classifier, topics: Path) -> None:
    found = classifier(TEXTS)
    data = data_of(*({"text": text, "label": label} for text, label in zip(TEXTS, found, strict=True)))
    perfect = classifier.evaluate(data)
    assert perfect == {"accuracy": 1.0, "macro_f1": 1.0, "matthews_correlation": pytest.approx(1.0)}
    several = Classifier.from_pretrained(topics)
    labels = several(TEXTS)
    data = data_of(*({"text": text, "label": some} for text, some in zip(TEXTS, labels, strict=True)))
    assert several.evaluate(data)["accuracy"] == several.evaluate(data)["micro_f1"] == 1.0


def test_f1_of_two_classes_is_that_of_the_second(tmp_path: Path) -> None:
    rows = [{"text": text, "label": str(i % 2)} for i, text in enumerate(TEXTS)]
    classifier = Classifier.from_pretrained(make(tmp_path, data_of(*rows)))
    found, right = np.array(classifier(TEXTS)) == "1", np.array([row["label"] for row in rows]) == "1"
    hits = (found & right).sum()
    assert hits > 0
    metrics = classifier.evaluate(data_of(*rows))
    assert metrics["f1"] == pytest.approx(2 * hits / (found.sum() + right.sum()))
    assert list(metrics) == ["accuracy", "f1", "macro_f1", "matthews_correlation"]


def test_what_is_saved_comes_back(folder: Path, classifier: Classifier, tmp_path: Path) -> None:
    classifier.save_pretrained(tmp_path / "again")
    again = Classifier.from_pretrained(tmp_path / "again")
    np.testing.assert_array_equal(again.logits(PAIRS), classifier.logits(PAIRS))
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "again").iterdir()} == names
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["problem_type"] == "single_label_classification"
    assert config["id2label"] == {"0": "animal", "1": "other", "2": "thing"}
    assert config["label2id"] == {"animal": 0, "other": 1, "thing": 2}


def test_the_limit_is_kept(folder: Path, tmp_path: Path) -> None:
    short = Classifier.for_training(folder, data_of(*ROWS), max_length=5)
    short.save_pretrained(tmp_path / "short")
    again = Classifier.from_pretrained(tmp_path / "short")
    assert again.max_length == short.max_length == 5
    np.testing.assert_array_equal(again.logits(["the cat sat cat cat"]), again.logits(["the cat sat"]))
    longer = Classifier.for_training(tmp_path / "short", data_of(*ROWS), max_length=POSITIONS)
    assert longer.max_length == POSITIONS  # what is asked for counts, not the tokenizer's limit


def test_other_models_are_refused_by_name(folder: Path, topics: Path, tmp_path: Path) -> None:
    bert = write_bert(tmp_path / "bert")
    tagger = Tagger.for_training(bert, [ConlluSentence.from_words(["the", "cat"], ["DET", "NOUN"])])
    tagger.save_pretrained(tmp_path / "tagger")
    scores = Regressor.for_training(bert, Regressor.read([{"text": "a", "score": 1}]))
    scores.save_pretrained(tmp_path / "scores")
    end = "; `fastattn train classify` makes one$"
    for path, reason in (
        (bert, "its architecture is BertModel"),
        (tmp_path / "tagger", "its architecture is BertForTokenClassification"),
        (tmp_path / "scores", r"its model gives a number \(problem_type regression, num_labels 1\)"),
    ):
        with pytest.raises(ValueError, match=f"^{path}: not a classifier, {reason}{end}"):
            Classifier.from_pretrained(path)
    shutil.copytree(folder, tmp_path / "headless")
    shutil.copy(bert / "model.safetensors", tmp_path / "headless")
    with pytest.raises(ValueError, match=r"model\.safetensors: .*classifier\.weight"):
        Classifier.from_pretrained(tmp_path / "headless")
    with pytest.raises(ValueError, match=f"^{folder}: not a tagger, its architecture is BertForSequenceClass"):
        Tagger.from_pretrained(folder)
    with pytest.raises(FileNotFoundError):
        Classifier.from_pretrained(tmp_path / "missing")


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("learnt")
    files = {"train.jsonl": ROWS * 8, "eval.jsonl": ROWS, "test.jsonl": ROWS[:2]}
    for name, rows in files.items():
        (path / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    arguments = [f for name in files for f in (f"--{name.partition('.')[0]}", str(path / name))]
    arguments += ["--model", str(write_bert(path / "model")), "--output", str(path / "out"), "--no-plot"]
    assert (
        main(["train", "classify", *arguments, "--epochs", "10", "--learning-rate", "0.01", "--batch-size", "4"]) == 0
    )
    return path


def test_it_learns(learnt: Path) -> None:
    classifier = Classifier.from_pretrained(learnt / "out")
    assert classifier([row["text"] for row in ROWS]) == [row["label"] for row in ROWS]


def predict(folder: Path, *more: str, capfd: Any) -> tuple[list[str], str]:
    """The lines that `fastattn predict classify` writes, and its errors."""
    capfd.readouterr()
    assert main(["predict", "classify", "--model", str(folder), *more]) == 0
    output, errors = capfd.readouterr()
    return output.splitlines(), errors


def test_predictions_of_tables(learnt: Path, tmp_path: Path, capfd: Any) -> None:
    output, errors = predict(learnt / "out", str(learnt / "eval.jsonl"), capfd=capfd)
    assert output == ["label", "animal", "animal", "other", "thing"]
    assert errors == "accuracy 1.0000, macro_f1 1.0000, matthews_correlation 1.0000\n"
    table = tmp_path / "test.csv"
    table.write_text('idx,body,label\n1,"the, cat",-1\n2,query,-1\n', encoding="utf-8")
    more = ("--columns", "body", "--probabilities", "--answers", "jsonl")
    output, errors = predict(learnt / "out", str(table), *more, capfd=capfd)
    rows = [json.loads(line) for line in output]
    assert [row["label"] for row in rows] == ["animal", "other"]
    expected = Classifier.from_pretrained(learnt / "out").probabilities(["the, cat", "query"])
    for row, numbers in zip(rows, expected, strict=True):
        assert list(row["probabilities"]) == ["animal", "other", "thing"]
        np.testing.assert_allclose(list(row["probabilities"].values()), numbers, rtol=1e-6)
    assert errors == f"not measured: {table}:2: the label '-1' is none of animal, other, thing\n"
    output, _ = predict(learnt / "out", str(table), *more[:3], capfd=capfd)
    assert output[0] == "label\tprobabilities.animal\tprobabilities.other\tprobabilities.thing"


def test_predictions_of_lines(learnt: Path, topics: Path, tmp_path: Path, capfd: Any) -> None:
    lines = tmp_path / "input.txt"
    lines.write_text("the cat\nquery\n", encoding="utf-8")
    assert predict(learnt / "out", str(lines), capfd=capfd) == (["label", "animal", "other"], "")
    lines.write_text("the cat\tquery\n", encoding="utf-8")
    expected = Classifier.from_pretrained(learnt / "out")([("the cat", "query")])
    assert predict(learnt / "out", str(lines), capfd=capfd)[0] == ["label", *expected]
    lines.write_text("", encoding="utf-8")
    assert predict(learnt / "out", str(lines), capfd=capfd) == ([], "")
    lines.write_text("the cat\n", encoding="utf-8")
    assert predict(topics, str(lines), "--threshold", "0", capfd=capfd)[0] == ["label", "a,b,c"]
    assert predict(topics, str(lines), "--threshold", "1", "--answers", "jsonl", capfd=capfd)[0] == ['{"label": []}']


def test_a_label_that_tsv_cannot_hold(tmp_path: Path, capfd: Any) -> None:
    rows = [{"text": "a", "label": "x\ty"}, {"text": "b", "label": "x\nz"}]
    folder = make(tmp_path, data_of(*rows))
    (tmp_path / "input.txt").write_text("a\n", encoding="utf-8")
    arguments = ["predict", "classify", "--model", str(folder), str(tmp_path / "input.txt")]
    assert main(arguments) == 1
    assert "TSV has no place for a tab or a line end within 'x\\" in capfd.readouterr().err
    assert main([*arguments, "--answers", "jsonl"]) == 0


def test_what_is_read_beside_files() -> None:
    pandas = pytest.importorskip("pandas", reason="reads a pandas frame")
    datasets = pytest.importorskip("datasets", reason="reads a datasets object")
    expected = data_of(*ROWS)
    assert Classifier.read(pandas.DataFrame(ROWS)) == expected
    names = sorted({row["label"] for row in ROWS})
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    rows = [{**row, "label": names.index(row["label"])} for row in ROWS]
    assert Classifier.read(datasets.Dataset.from_list(rows, features=features)) == expected


@pytest.mark.parametrize("kind", ["folder", "topics"])
def test_transformers_gives_the_same_logits(kind: str, request: pytest.FixtureRequest) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch and transformers")
    transformers = pytest.importorskip("transformers", reason="compares with torch and transformers")
    folder = request.getfixturevalue(kind)
    classifier = Classifier.from_pretrained(folder)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.model_max_length == classifier.max_length
    assert theirs.config.problem_type == classifier.model.config.problem_type
    for inputs in (TEXTS, PAIRS):
        sides = [inputs] if isinstance(inputs[0], str) else [list(side) for side in zip(*inputs, strict=True)]
        encoded = tokenizer(*sides, truncation=True, padding=True, return_tensors="pt")
        with torch.no_grad():
            logits = theirs(**encoded).logits.numpy()
        largest = np.abs(theirs.classifier.bias.detach().numpy()).max()  # of what the logits are differences of
        np.testing.assert_allclose(classifier.logits(inputs), logits, rtol=0, atol=2e-5 * largest)
    function = "sigmoid" if kind == "topics" else "softmax"
    pipeline = transformers.pipeline("text-classification", model=theirs, tokenizer=tokenizer, top_k=None)
    results = pipeline(TEXTS[:2], function_to_apply=function)
    ours = classifier.probabilities(TEXTS[:2])
    for row, scores in zip(ours, results, strict=True):
        by_name = {score["label"]: score["score"] for score in scores}
        np.testing.assert_allclose(row, [by_name[label] for label in classifier.labels], atol=2e-5)


@pytest.mark.parametrize("problem", [None, "single_label_classification", "multi_label_classification"])
def test_a_folder_of_transformers(problem: str | None, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch and transformers")
    transformers = pytest.importorskip("transformers", reason="compares with torch and transformers")
    bert = write_bert(tmp_path / "bert")
    torch.manual_seed(0)
    theirs = transformers.BertForSequenceClassification.from_pretrained(
        bert, num_labels=3, problem_type=problem, id2label={0: "x", 1: "y", 2: "z"}, label2id={"x": 0, "y": 1, "z": 2}
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    for part in (theirs, tokenizer):
        part.save_pretrained(tmp_path / "theirs")
    ours = Classifier.from_pretrained(tmp_path / "theirs")
    assert (ours.labels, ours.multi_label) == (("x", "y", "z"), problem == "multi_label_classification")
    with torch.no_grad():
        logits = theirs(**tokenizer(TEXTS[:2], padding=True, return_tensors="pt")).logits.numpy()
    np.testing.assert_allclose(ours.logits(TEXTS[:2]), logits, rtol=0, atol=2e-5 * np.abs(logits).max())


def test_genres_of_real_sentences(tmp_path: Path) -> None:
    """A bag of classes that a small model learns at once: e-mails begin and end otherwise than reviews."""
    folder = Path(os.environ.get("FASTATTN_DATA") or Path(__file__).parents[3] / "shared" / "data") / "ud_ewt"
    if not folder.is_dir():
        pytest.skip(f"English EWT is missing: {folder} (set FASTATTN_DATA)")
    from fastattn.text import read_conllu

    rows = []
    for sentence in read_conllu(folder / "en_ewt-ud-dev.conllu"):
        fields = dict(line[1:].strip().split(" = ", 1) for line in sentence.lines if line.startswith("# "))
        rows.append({"text": fields["text"], "label": fields["sent_id"].partition("-")[0]})
    data = Classifier.read(rows)
    assert len(data) == 2001
    assert sorted(set(data.labels)) == ["answers", "email", "newsgroup", "reviews", "weblog"]


@pytest.mark.parametrize("end", ["tsv", "csv"])
def test_space_around_a_label_is_no_part_of_it(tmp_path: Path, end: str) -> None:
    path, between = tmp_path / f"train.{end}", {"tsv": "\t", "csv": ","}[end]
    rows = [("text", "label"), ("a", "x"), ("b", " x "), ("c", "y ")]
    path.write_text("".join(f"{text}{between}{label}\n" for text, label in rows), encoding="utf-8")
    assert Classifier.read(path).labels == ["x", "x", "y"]


@pytest.mark.parametrize("empty", ["", "  "])
def test_a_label_that_is_empty(folder: Path, classifier: Classifier, tmp_path: Path, empty: str) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(f"text\tlabel\na\tanimal\nb\tother\nc\t{empty}\n", encoding="utf-8")
    data, message = Classifier.read(path), f"{path}:4: the label is empty"
    with pytest.raises(ValueError, match=f"^{message}$"):
        Classifier.for_training(folder, data)
    with pytest.raises(ValueError, match=f"^{message}$"):
        classifier.evaluate(data)
    several = Classifier.for_training(folder, data, multi_label=True)  # where a text may have none
    assert several.labels == ("animal", "other")
    with pytest.raises(ValueError, match=r"^rows\[0\]: the label is empty$"):
        Classifier.for_training(folder, data_of({"text": "a", "label": ["x", empty]}), multi_label=True)


def test_numbers_are_no_classes(folder: Path, classifier: Classifier) -> None:
    data = Regressor.read([{"text": "a", "label": 0.5}, {"text": "b", "label": 1}])
    message = r"^rows\[0\]: data must have classes, as `read` gives them, got 0.5$"
    for several in (False, True):
        with pytest.raises(TypeError, match=message):
            Classifier.for_training(folder, data, multi_label=several)
    with pytest.raises(TypeError, match=message):
        classifier.evaluate(data)
