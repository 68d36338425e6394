"""The tagger: one label a word, whatever the company, and folders that others read."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import HIDDEN, POSITIONS, VOCABULARY, pattern, write_bert, write_model

from fastattn.autograd import Tensor, no_grad
from fastattn.models import BertForTokenClassification
from fastattn.tasks import Tagger
from fastattn.tasks.tag.scores import count_right
from fastattn.text import ConlluSentence

LABELS = ("DET", "NOUN", "PUNCT", "VERB")
DATA = [ConlluSentence.from_words(LABELS, LABELS)]
SENTENCES = [
    ["the", "cat", "sat", "."],
    [],
    ["abcdef", "the"],
    ["Cat"],
    ["the", "\u200b", "cat"],
    ["the", "cat", "sat"] * 30,  # three windows
    ["abc" * 20, "cat"],  # a word longer than a window
]


def make_tagger(folder: Path) -> Path:
    """A tagger whose labels depend on the words."""
    tagger = Tagger.for_training(write_bert(folder / "bert"), DATA, seed=1)
    tagger.model.classifier.weight.data[...] = pattern(len(LABELS), HIDDEN, salt=70)
    tagger.save_pretrained(folder / "tagger")
    return folder / "tagger"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tagger(tmp_path_factory.mktemp("tagger"))


@pytest.fixture(scope="module")
def tagger(folder: Path) -> Tagger:
    return Tagger.from_pretrained(folder)


def test_every_word_gets_a_label(tagger: Tagger) -> None:
    tags = tagger.tag(SENTENCES)
    assert [len(labels) for labels in tags] == [len(words) for words in SENTENCES]
    assert {label for labels in tags for label in labels} <= set(LABELS)
    assert len({label for labels in tags for label in labels}) > 1
    assert tagger.tag([]) == []
    assert tagger.labels == LABELS
    assert tagger.max_length == POSITIONS


def test_the_label_is_that_of_the_first_wordpiece(tagger: Tagger) -> None:
    words = ["the", "abc", "cat"]  # the a ##b ##c cat
    ids = tagger.tokenizer.encode(["the abc cat"]).ids
    with no_grad():
        logits = tagger.model(ids[None]).logits[0]
    expected = [LABELS[logits[row].argmax()] for row in (1, 2, 5)]
    assert tagger.tag([words]) == [expected]


def test_long_sentences_are_labelled_window_by_window(tagger: Tagger) -> None:
    words = ["the", "cat", "sat"] * 30
    room = POSITIONS - 2
    windows = [words[i : i + room] for i in range(0, len(words), room)]
    assert tagger.tag([words]) == [[label for labels in tagger.tag(windows) for label in labels]]


def test_labels_do_not_depend_on_the_company(tagger: Tagger, threads: int) -> None:
    together = tagger.tag(SENTENCES * 20)
    alone = [tagger.tag([words])[0] for words in SENTENCES]
    assert together == alone * 20
    assert tagger.tag(SENTENCES[::-1]) == alone[::-1]


def test_many_threads_at_once(tagger: Tagger) -> None:
    expected = tagger.tag(SENTENCES)
    results: list[list[list[str]]] = []
    threads = [threading.Thread(target=lambda: results.append(tagger.tag(SENTENCES))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


def tagged(*sentences: tuple[list[str], list[str]]) -> list[ConlluSentence]:
    return [ConlluSentence.from_words(*sentence) for sentence in sentences]


def test_batches(folder: Path) -> None:
    data = tagged(
        (["the", "abc", "cat"], ["DET", "VERB", "NOUN"]), (["sat"], ["_"]), (["sat", "."], ["_", "PUNCT"]),
        (["the"] * 40, ["DET"] * 40),
    )  # fmt: skip
    tagger = Tagger.for_training(folder, data, batch_size=10)
    batches = tagger.batches(data)
    assert batches.lengths.tolist() == [7, 4, 32, 12]  # the second sentence has nothing to learn
    loaded = batches.load(np.array([1, 0]))
    assert loaded["cu_seqlens"].tolist() == [0, 4, 11]
    assert loaded["labels"].tolist() == [-100, -100, 2, -100, -100, 0, 3, -100, -100, 1, -100]
    loss = tagger.loss(loaded)
    assert isinstance(loss, Tensor)
    loss.backward()
    assert tagger.model.classifier.weight.grad is not None
    other = Tagger.for_training(folder, data, batch_tokens=8, accumulation=3).batches(data)
    assert (other.settings["batch_tokens"], other.accumulation) == (8, 3)


def test_batches_are_refused(folder: Path) -> None:
    tagger = Tagger.for_training(folder, DATA)
    with pytest.raises(ValueError, match="ConlluSentence: 2 words, but 1 tags"):
        tagged((["b", "c"], ["DET"]))
    with pytest.raises(ValueError, match=r"batches: data\[0\]: the tag 'ADJ' is none of DET, NOUN, PUNCT, VERB"):
        tagger.batches(tagged((["a"], ["ADJ"])))
    for data in (tagged((["a"], ["_"])), []):
        with pytest.raises(ValueError, match="batches: no word has a tag"):
            tagger.batches(data)
        with pytest.raises(ValueError, match="for_training: no word has a tag"):
            Tagger.for_training(folder, data)


def test_matrices_decay_and_biases_and_norms_do_not(folder: Path) -> None:
    tagger = Tagger.for_training(folder, DATA, weight_decay=0.2)
    groups = tagger.recipe.make_optimizer(tagger.model).param_groups
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    for name, parameter in tagger.model.named_parameters():
        assert decays.pop(id(parameter)) == (0.0 if name.endswith("bias") or "LayerNorm" in name else 0.2), name
    assert not decays


def test_evaluation(tagger: Tagger) -> None:
    words = ["the", "cat", "sat"]
    found = tagger.tag([words])[0]
    right = [found[0], "_", next(label for label in LABELS if label != found[2])]
    assert tagger.evaluate([ConlluSentence.from_words(words, right)]) == {"accuracy": 0.5}
    assert np.isnan(tagger.evaluate([])["accuracy"])


def test_a_tag_that_is_no_label_is_named(tagger: Tagger, tmp_path: Path) -> None:
    path = tmp_path / "eval.conllu"
    rows = [f"{i}\t{word}\t_\t{tag}" + "\t_" * 6 for i, word, tag in ((1, "the", "DET"), (2, "cat", "z"))]
    path.write_text("# one\n" + "".join(f"{row}\n" for row in rows) + "\n", encoding="utf-8")
    message = rf"^{path}:3: evaluate: the tag 'z' is none of {', '.join(LABELS)}$"
    data = Tagger.read(path)
    for call in (tagger.check, tagger.evaluate):
        with pytest.raises(ValueError, match=message):
            call(data)
    lines = tmp_path / "eval.jsonl"
    lines.write_text('{"tokens": ["the", "cat"], "tags": ["DET", "z"]}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=rf"^{lines}:1: evaluate: the tag 'z' is none of"):
        tagger.check(Tagger.read(lines))


def test_a_new_head_is_drawn_from_the_seed(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    heads = [Tagger.for_training(folder, DATA, seed=seed).model.classifier.weight.data.tobytes() for seed in (1, 1, 2)]
    assert heads[0] == heads[1] != heads[2]


def test_what_is_saved_comes_back(folder: Path, tmp_path: Path, tagger: Tagger) -> None:
    tagger.save_pretrained(tmp_path / "again")
    again = Tagger.from_pretrained(tmp_path / "again")
    assert again.tag(SENTENCES) == tagger.tag(SENTENCES)
    names = {"config.json", "model.safetensors", "tagger.json", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "again").iterdir()} == names
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForTokenClassification"]
    assert config["id2label"] == {str(i): label for i, label in enumerate(LABELS)}
    assert config["label2id"] == {label: i for i, label in enumerate(LABELS)}


def test_a_tagger_may_be_saved_where_it_came_from(tmp_path: Path) -> None:
    folder = make_tagger(tmp_path)
    before = (folder / "tokenizer.json").read_bytes()
    tagger = Tagger.from_pretrained(folder)
    tagger.save_pretrained(folder)
    assert (folder / "tokenizer.json").read_bytes() == before
    assert Tagger.from_pretrained(folder).tag(SENTENCES) == tagger.tag(SENTENCES)


def test_added_tokens_are_saved_and_those_without_an_embedding_refused(tmp_path: Path) -> None:
    start = write_bert(tmp_path / "bert")
    (start / "added_tokens.json").write_text(json.dumps({"<x>": len(VOCABULARY)}))
    with pytest.warns(UserWarning, match=r"none for these tokens: '<x>'"):
        tagger = Tagger.for_training(start, DATA)
    message = r"^tag: sentences\[2\] has the token '<x>'"
    with pytest.raises(ValueError, match=message):
        tagger.tag([["the"], [], ["cat", "a<x>"]])
    tagger.save_pretrained(tmp_path / "tagger")
    with pytest.warns(UserWarning, match=r"tagger: the model has .* none for these tokens: '<x>'"):
        again = Tagger.from_pretrained(tmp_path / "tagger")
    with pytest.raises(ValueError, match=message):
        again.tag([["the"], [], ["cat", "a<x>"]])


def test_transformers_gives_the_same_logits(folder: Path, tagger: Tagger) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch and transformers")
    transformers = pytest.importorskip("transformers", reason="compares with torch and transformers")
    theirs = transformers.BertForTokenClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    words = ["the", "abc", "cat", "sat", "."]
    encoded = tokenizer([words], is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        logits = theirs(**encoded).logits[0].numpy()
    ids = encoded["input_ids"].numpy()
    np.testing.assert_allclose(tagger.model(ids).logits[0], logits, atol=1e-5)
    first = [encoded.word_ids().index(i) for i in range(len(words))]
    assert tagger.tag([words]) == [[theirs.config.id2label[int(i)] for i in logits[first].argmax(1)]]


def test_a_model_without_a_classifier_is_no_tagger(folder: Path, tmp_path: Path) -> None:
    other = write_bert(tmp_path / "bert")
    with pytest.raises(
        ValueError, match="bert: not a tagger, its architecture is BertModel; `fastattn train tag` makes"
    ):
        Tagger.from_pretrained(other)
    shutil.copy(folder / "config.json", other)
    with pytest.raises(ValueError, match=r"model\.safetensors: .*BertForTokenClassification.*classifier\.weight"):
        Tagger.from_pretrained(other)


def test_another_head_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["BertForSequenceClassification"]
    (tmp_path / "other" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match="other: not a tagger, its architecture is BertForSequenceClassification"):
        Tagger.from_pretrained(tmp_path / "other", local_files_only=True)


def test_bad_input(tagger: Tagger, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"sentences\[0\] must be a sequence of words, got the str 'the cat'"):
        tagger.tag(["the cat"])
    with pytest.raises(FileNotFoundError):
        Tagger.from_pretrained(tmp_path / "missing")


def test_an_empty_word_is_named(tagger: Tagger) -> None:
    with pytest.raises(ValueError, match=r"^tag: sentences\[1\]\[2\] is an empty word$"):
        tagger.tag([["the"], ["a", "cat", ""]])


def test_count_right() -> None:
    assert count_right([["A", "B"], ["A"]], [["A", "C"], ["_"]]) == (1, 2)
    assert count_right([], []) == (0, 0)


def test_it_is_a_token_classifier(tagger: Tagger) -> None:
    assert isinstance(tagger.model, BertForTokenClassification)
    assert "Tagger(" in repr(tagger)


def test_what_is_no_list_of_sentences(tagger: Tagger) -> None:
    for wrong, message in (
        ("the cat", "tag: sentences must be a sequence of sentences, each a sequence of words, got the str 'the cat'"),
        (5, "tag: sentences must be a sequence of sentences, each a sequence of words, got int"),
        (["the cat"], "tag: sentences[0] must be a sequence of words, got the str 'the cat'"),
    ):
        with pytest.raises(TypeError) as caught:
            tagger.tag(wrong)  # type: ignore[arg-type]
        assert str(caught.value) == message


def test_a_single_label_is_nothing_to_learn(folder: Path) -> None:
    words = ["the", "cat"]
    for options, name in (({}, "UPOS"), ({"tag_column": "XPOS"}, "XPOS")):
        with pytest.raises(ValueError, match=rf"^for_training: the column {name} must have two labels .*'X'\]$"):
            Tagger.for_training(folder, [ConlluSentence.from_words(words, ["X", "_"])], **options)
    rows = Tagger.read([{"tokens": words, "tags": ["X", "X"]}])
    with pytest.raises(ValueError, match=r"^for_training: the column of tags must have two labels or more"):
        Tagger.for_training(folder, rows)
