"""A tagger of entities: schemes, scores, the columns it remembers, and entities in raw text."""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import HIDDEN, POSITIONS, pattern, write_bert

from fastattn.autograd import no_grad
from fastattn.tasks import Tagger
from fastattn.tasks.tag.files import Layout
from fastattn.tasks.tag.spans import STRATEGIES, Grouping, Text, texts_of, windows_of
from fastattn.text import ConllSentence, ConlluSentence, convert_tags

LABELS = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
WORDS = ["the", "cat", "sat", "query", ".", ":", "abc", "Cat", "猫", "xyzzy", "don't", "é", "THE"]
IOB1 = (["abc", "sat", "the", "cat", "cat"], ["I-PER", "I-PER", "O", "I-LOC", "B-LOC"])
rng = random.Random(0)
TEXTS = [" ".join(rng.choices(WORDS, k=rng.randint(1, 7))) for _ in range(40)] + ["", " ", "the", "\u200b"]
LONG = " ".join(rng.choices(WORDS, k=70))


def make(folder: Path, labels: tuple[str, ...] = LABELS, **options: Any) -> Path:
    start = write_bert(folder / "bert")
    tagger = Tagger.for_training(start, [ConllSentence.from_words(labels, labels)], seed=1, **options)
    tagger.model.classifier.weight.data[...] = 3 * pattern(len(tagger.labels), HIDDEN, salt=70)
    tagger.save_pretrained(folder / "tagger")
    return folder / "tagger"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("entities"))


@pytest.fixture(scope="module")
def tagger(folder: Path) -> Tagger:
    return Tagger.from_pretrained(folder)


def test_words_have_the_labels_of_tag(tagger: Tagger) -> None:
    for words in (["the", "abc", "cat"], ["xyzzy", "the", "sat", "."]):
        text, labels = " ".join(words), tagger.tag([words])[0]
        starts = [0, *np.cumsum([len(word) + 1 for word in words]).tolist()]
        (found,) = tagger.entities([text])
        marked = [(each["start"], each["end"], each["entity_group"]) for each in found]
        grouping = Grouping(LABELS, "IOB2", "first", " ".join, 1)
        groups = [(starts[a], starts[b] - 1, name) for name, a, b in grouping._groups(labels)]
        assert marked == groups
        assert all(text[each["start"] : each["end"]] == each["word"] for each in found)


@pytest.mark.parametrize("labels", [LABELS, ("DET", "NOUN", "O", "VERB"), ("B-X", "O", "PER", "LOC")])
def test_entities_are_those_of_transformers(tmp_path: Path, labels: tuple[str, ...]) -> None:
    pytest.importorskip("torch", reason="compares with torch and transformers")
    transformers = pytest.importorskip("transformers", reason="compares with torch and transformers")
    folder = make(tmp_path, labels)
    tagger = Tagger.from_pretrained(folder)
    compared = 0
    for strategy in STRATEGIES:
        pipe = transformers.pipeline("token-classification", model=str(folder), aggregation_strategy=strategy)
        texts = [text for text in TEXTS if text.strip()]
        for text, theirs, ours in zip(texts, pipe(texts), tagger.entities(texts, strategy), strict=True):
            assert len(theirs) == len(ours), (strategy, text)
            for each, own in zip(theirs, ours, strict=True):
                assert own.pop("score") == pytest.approx(each.pop("score"), abs=1e-5)
                assert own == each
                compared += 1
    assert compared > 100


def test_a_folder_of_transformers(folder: Path, tagger: Tagger, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch and transformers")
    transformers = pytest.importorskip("transformers", reason="compares with torch and transformers")
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "theirs")
    ours = Tagger.from_pretrained(tmp_path / "theirs")
    assert ours.layout == Layout("conll", scheme="IOB2")
    assert ours.entities(TEXTS) == tagger.entities(TEXTS)
    ids = ours.tokenizer.encode([TEXTS[0]]).ids[None]
    with torch.no_grad():
        logits = theirs(torch.tensor(ids)).logits.numpy()
    with no_grad():
        np.testing.assert_allclose(np.asarray(ours.model(ids).logits), logits, atol=2e-5 * np.abs(logits).max())


def test_entities_do_not_depend_on_the_company(tagger: Tagger, threads: int) -> None:
    texts = [*TEXTS, LONG]
    for strategy in STRATEGIES:
        alone = [tagger.entities([text], strategy)[0] for text in texts]
        assert tagger.entities(texts * 3, strategy) == alone * 3
    results: list[Any] = []
    several = [threading.Thread(target=lambda: results.append(tagger.entities(texts, "max"))) for _ in range(4)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()
    assert results == [tagger.entities(texts, "max")] * 4


def words_of(tagger: Tagger, text: str) -> Text:
    (part,) = texts_of(tagger.tokenizer.encode([text], return_offsets_mapping=True))
    return part


@pytest.mark.parametrize("stride", [0, 1, 7, 15, 28])
@pytest.mark.parametrize("room", [29, 30])
def test_every_word_of_a_long_text_counts_once_where_it_has_most_context(
    tagger: Tagger, stride: int, room: int
) -> None:
    for text in (LONG, LONG[::-1], "abcdef " * 30, "a " * 200):
        part = words_of(tagger, text)
        windows = windows_of([part], ([2], [3]), room, stride)
        assert sorted(windows.tokens.tolist()) == list(range(1, 1 + len(part.ids)))
        assert (windows.ids[windows.rows] == part.ids[windows.tokens - 1]).all()
        lengths = np.diff(windows.cu_seqlens)
        assert lengths.max() <= room + 2
        assert lengths.sum() - 2 * len(lengths) <= len(part.ids) + stride * (len(lengths) - 1)
        owner = np.searchsorted(windows.cu_seqlens, windows.rows, side="right")
        order = np.argsort(windows.tokens)
        for a, b in zip(part.words, [*part.words[1:], len(part.ids)], strict=True):
            assert len({*owner[order][a:b]}) == 1  # a word is in one window


def test_context_is_what_decides(tagger: Tagger) -> None:
    part = words_of(tagger, "a " * 50)
    windows = windows_of([part], ([], []), 30, 10)  # tokens 0 to 30 and 20 to 50
    assert windows.cu_seqlens.tolist() == [0, 30, 60]
    assert windows.rows.tolist() == [*range(25), *range(35, 60)]


def test_a_word_longer_than_a_window_loses_its_end(tagger: Tagger) -> None:
    text = "the " + "abc" * 20 + " cat"
    for strategy in STRATEGIES:
        found = tagger.entities([text], strategy)[0]
        assert all(0 <= each["start"] < each["end"] <= len(text) for each in found)
        assert all(np.isfinite(each["score"]) for each in found)
    windows = windows_of([words_of(tagger, text)], ([], []), POSITIONS - 2, 7)
    assert np.diff(windows.cu_seqlens).tolist() == [1, POSITIONS - 2, 1]


def test_long_texts_join_entities_over_windows(tmp_path: Path) -> None:
    tagger = Tagger.for_training(write_bert(tmp_path), [ConllSentence.from_words(("O", "PER"), ("O", "PER"))])
    tagger.model.classifier.bias.data[...] = [0, 100]
    (found,) = tagger.entities([LONG])
    assert [(each["entity_group"], each["start"], each["end"]) for each in found] == [("PER", 0, len(LONG))]


def test_bioes_and_broken_tags() -> None:
    text = Text(0, np.arange(4), np.array([[0, 1], [2, 3], [4, 5], [6, 7]]), np.arange(4))
    labels = ("O", "B-A", "I-A", "E-A", "S-A")

    def groups(*tags: str) -> list[tuple[str, int, int]]:
        scores = np.eye(5, dtype=np.float32)[[labels.index(tag) for tag in tags]]
        found = Grouping(labels, "BIOES", "first", " ".join, 0).spans(text, "abcd", scores)
        return [(each["word"], each["start"], each["end"]) for each in found]

    assert groups("B-A", "E-A", "S-A", "S-A") == [("a b", 0, 3), ("c", 4, 5), ("d", 6, 7)]
    assert groups("O", "I-A", "I-A", "O") == [("b c", 2, 5)]


def test_text_that_is_refused(tagger: Tagger) -> None:
    with pytest.raises(TypeError, match="entities: texts must be a sequence of str, got the str 'the cat'"):
        tagger.entities("the cat")
    with pytest.raises(ValueError, match="entities: aggregation_strategy must be one of none, simple, first, average"):
        tagger.entities(["the"], "last")
    with pytest.raises(ValueError, match="stride must be an integer from 0 to 29, less than a window, got 30"):
        tagger.entities(["the"], stride=30)
    assert tagger.entities([]) == []


# Schemes and scores


@pytest.mark.parametrize("scheme", [None, "IOB1", "IOB2", "BIOES"])
def test_schemes(folder: Path, tmp_path: Path, scheme: str | None) -> None:
    data = [ConllSentence.from_words(*IOB1)]
    tagger = Tagger.for_training(folder.parent / "bert", data, scheme=scheme)
    assert tagger.layout.scheme == scheme or (scheme is None and tagger.layout.scheme == "IOB1")
    assert set(tagger.labels) == {*convert_tags(IOB1[1], scheme or "IOB1")}
    numbers = tagger.batches(data).load(np.array([0]))["labels"]
    assert [tagger.labels[i] for i in numbers if i >= 0] == convert_tags(IOB1[1], scheme or "IOB1")
    tagger.save_pretrained(tmp_path)
    assert Tagger.from_pretrained(tmp_path).layout == tagger.layout == Layout("conll", "0", "-1", scheme or "IOB1")


def test_a_scheme_needs_entities(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"^for_training: scheme BIOES is for tags of entities, which data does not"):
        Tagger.for_training(folder.parent / "bert", [ConllSentence.from_words(["a"], ["NOUN"])], scheme="BIOES")


def test_evaluation_counts_entities(tagger: Tagger) -> None:
    words = ["the", "abc", "cat", "sat", "query", "."]
    found = convert_tags(tagger.tag([words])[0], "IOB2")
    assert any(tag != "O" for tag in found)
    for scheme in ("IOB1", "IOB2", "BIOES"):
        data = [ConllSentence.from_words(words, convert_tags(found, scheme)), ConllSentence.from_words(["the"])]
        metrics = tagger.evaluate(data)
        assert [*metrics] == ["f1", "precision", "recall", "accuracy"]
        assert metrics["f1"] == metrics["precision"] == metrics["recall"] == 1
    score, types = tagger.entity_scores(data)
    assert score.f1 == 1
    assert {*types} == {tag[2:] for tag in found if tag != "O"}
    nothing = tagger.evaluate([ConllSentence.from_words(words, ["O"] * len(words))])
    assert (nothing["f1"], nothing["precision"], nothing["recall"]) == (0, 0, 0)


def test_a_type_of_entity_that_is_no_label_is_named(tagger: Tagger, tmp_path: Path) -> None:
    other = make(tmp_path, ("B-LOC", "I-LOC", "B-PER", "O"))
    known = [ConllSentence.from_words(["a", "b", "c"], tags) for tags in (["I-PER", "S-LOC", "O"], ["B-LOC", "_", "_"])]
    assert set(Tagger.from_pretrained(other).evaluate(known)) == {"f1", "precision", "recall", "accuracy"}
    path = tmp_path / "eval.conll"
    path.write_text("a O\n\na B-LOC\nb B-DATE\nc _\n", encoding="utf-8")
    for call in (tagger.check, tagger.evaluate, tagger.entity_scores):
        with pytest.raises(ValueError, match=rf"^{path}:4: \w+: the tag 'B-DATE' is none of B-LOC, B-PER"):
            call(Tagger.read(path))


def test_other_tags_cannot_be_measured(tagger: Tagger, tmp_path: Path) -> None:
    data = [ConllSentence.from_words(["a"], ["O"]), ConlluSentence.from_words(["a", "b"], ["O", "NOUN"])]
    for call in (tagger.evaluate, tagger.check, tagger.entity_scores):
        with pytest.raises(ValueError, match=r"^data\[1\]: \w+: the tag 'NOUN' is none of B-LOC, B-PER, O$"):
            call(data)
    plain = Tagger.from_pretrained(make(tmp_path, ("NOUN", "VERB")))
    with pytest.raises(ValueError, match=r"^entity_scores: the labels are no tags of entities: NOUN, VERB$"):
        plain.entity_scores(data)


# What a folder remembers


def test_the_column_is_remembered(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.conllu"
    rows = ("1\tthe\t_\tDET\tDT\tDefinite=Def", "2\tcat\t_\tNOUN\tNN\tNumber=Sing")
    path.write_text("".join(f"{row}\t_\t_\t_\t_\n" for row in rows) + "\n", encoding="utf-8")
    columns = {None: ("DET", "NOUN"), "XPOS": ("DT", "NN"), "FEATS": ("Definite=Def", "Number=Sing")}
    for column, labels in columns.items():
        tagger = Tagger.for_training(folder.parent / "bert", Tagger.read(path, tag_column=column))
        assert tagger.labels == labels
        tagger.save_pretrained(tmp_path / "again")
        assert Tagger.from_pretrained(tmp_path / "again").layout == Layout("conllu", None, column or "UPOS")
    with pytest.raises(ValueError, match=r"in\.conllu: no word has a tag in the MISC column"):
        Tagger.read(path, tag_column="MISC")
    with pytest.raises(ValueError, match="tag_column must be a column of tags, got 'FORM'"):
        Tagger.read(path, tag_column="FORM")


def test_rows_and_columns_are_read(tmp_path: Path) -> None:
    path = tmp_path / "in.iob2"
    path.write_text("1\tNew\tB-LOC\t-\n2\tYork\tI-LOC\t-\n", encoding="utf-8")
    row = {"tokens": ["New", "York"], "ner": ["B-LOC", "I-LOC"]}
    lines = tmp_path / "in.jsonl"
    lines.write_text(json.dumps(row), encoding="utf-8")
    for data in (
        Tagger.read(path, format="conll", word_column=1, tag_column=2),
        Tagger.read([row], tag_column="ner"),
        Tagger.read(lines, tag_column="ner"),
    ):
        assert [(each.words, each.tags) for each in data] == [(("New", "York"), ("B-LOC", "I-LOC"))]
    with pytest.raises(ValueError, match="tag_column must be the number of a column in CoNLL columns, got 'UPOS'"):
        Tagger.read(path, format="conll", tag_column="UPOS")
    with pytest.raises(ValueError, match=r"^rows\[0\]: ConllSentence: words\[1\] is an empty word$"):
        Tagger.read([{"tokens": ["New", ""], "tags": ["O", "O"]}])


def test_a_damaged_layout_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "tagger")
    path = tmp_path / "tagger" / "tagger.json"
    for text, message in (
        ("{", "not JSON|not valid JSON|cannot"),
        ('{"format": "text"}', "format must be one of conllu, conll"),
        ('{"format": "conll", "scheme": 3}', "scheme"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=rf"tagger\.json: .*({message})"):
            Tagger.from_pretrained(tmp_path / "tagger")


def test_universal_ner(folder: Path) -> None:
    data = Path(os.environ.get("FASTATTN_DATA") or Path(__file__).parents[3] / "shared" / "data")
    path = data / "uner_ewt" / "en_ewt-ud-test.iob2"
    if not path.is_file():
        pytest.skip(f"Universal NER is missing: {path} (set FASTATTN_DATA)")
    gold = Tagger.read(path, format="conll", word_column=1, tag_column=2)
    tagger = Tagger.for_training(folder.parent / "bert", gold)
    assert tagger.labels == ("B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER", "O")
    assert tagger.layout == Layout("conll", "1", "2", "IOB2")
    assert tagger.entity_scores(gold)[0].support == 1088
