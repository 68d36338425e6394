"""`fastattn predict tag`: the file comes back with other tags, and nothing else changed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import HIDDEN, pattern, write_bert

from fastattn.cli import main
from fastattn.tasks import Tagger
from fastattn.text import ConlluSentence, convert_tags, read_conllu, tags_to_entities

LABELS = ("ADJ", "NOUN", "VERB")
TEXT = """\
# sent_id = one
1-2\tthecat\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
1\tthe\tthe\tNOUN\tDT\t_\t2\tdet\t_\t_
2\tcat\tcat\t_\tNN\t_\t0\troot\t_\t_
2.1\tsat\tsat\tVERB\t_\t_\t_\t_\t_\t_

1\tsat\tsit\tVERB\tVB\t_\t0\troot\t_\té=ü

"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tagger = Tagger.for_training(write_bert(tmp_path / "bert"), [ConlluSentence.from_words(LABELS, LABELS)], seed=1)
    tagger.model.classifier.weight.data[...] = pattern(len(LABELS), HIDDEN, salt=70)
    tagger.save_pretrained(tmp_path / "tagger")
    return tmp_path / "tagger"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "input.conllu"
    path.write_text(TEXT, encoding="utf-8")
    return path


def expected(model: Path, text: Path) -> str:
    sentences = read_conllu(text)
    tags = Tagger.from_pretrained(model).tag([sentence.words for sentence in sentences])
    return "".join(sentence.with_tags(labels) for sentence, labels in zip(sentences, tags, strict=True))


def test_a_file(model, text, tmp_path, capsys):
    output = tmp_path / "out.conllu"
    assert main(["predict", "tag", "--model", str(model), str(text), "-o", str(output)]) == 0
    written = output.read_text(encoding="utf-8")
    assert written == expected(model, text)
    kept = [[c for i, c in enumerate(line.split("\t")) if i != 3] for line in written.splitlines()]
    assert kept == [[c for i, c in enumerate(line.split("\t")) if i != 3] for line in TEXT.splitlines()]
    captured = capsys.readouterr()
    assert captured.out == ""
    tags = [sentence.tags for sentence in read_conllu(output)]
    right = (tags[0][0] == "NOUN") + (tags[1][0] == "VERB")  # the second word has no tag
    assert captured.err == f"accuracy: {right / 2:.4f} ({right} of 2 words)\n"


def test_what_other_tools_write(model, text, tmp_path, capsys):
    """Comments alone, CoNLL-U Plus, empty columns, CR LF and lines of spaces."""
    text.write_text("# global.columns = FORM ID UPOS\n\n# x\r\ncat\t1\t\r\n  \r\nsat\t1\tVERB\r\n", encoding="utf-8")
    assert main(["predict", "tag", "--model", str(model), str(text)]) == 0
    tags = Tagger.from_pretrained(model).tag([["cat"], ["sat"]])
    wanted = f"# global.columns = FORM ID UPOS\n\n# x\ncat\t1\t{tags[0][0]}\n\nsat\t1\t{tags[1][0]}\n\n"
    assert capsys.readouterr().out == wanted
    text.write_text("# global.columns = ID FORM\n\n# x\n1\tcat\n", encoding="utf-8")
    assert main(["predict", "tag", "--model", str(model), str(text)]) == 1
    assert f"{text}:3: global.columns has no UPOS" in capsys.readouterr().err


def test_standard_input_and_output(model, text, monkeypatch, capfd):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert main(["predict", "tag", "--model", str(model), "--threads", "1"]) == 0
    assert capfd.readouterr().out == expected(model, text)


def test_without_gold_tags_there_is_no_accuracy(model, tmp_path, capsys):
    path = tmp_path / "raw.conllu"
    path.write_text("1\tcat" + "\t_" * 8 + "\n\n", encoding="utf-8")
    assert main(["predict", "tag", "--model", str(model), str(path), "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err == ""


def test_other_tags_are_not_measured(model, text, tmp_path, capsys):
    text.write_text(TEXT.replace("sit\tVERB", "sit\tz"), encoding="utf-8")
    assert main(["predict", "tag", "--model", str(model), str(text), "-o", str(tmp_path / "out")]) == 0
    told = f"not measured: {text}:7: the tag 'z' is none of ADJ, NOUN, VERB\n"
    assert capsys.readouterr().err == told
    assert (tmp_path / "out").read_text(encoding="utf-8") == expected(model, text)


def test_nothing_in_nothing_out(model, tmp_path, capsys):
    path = tmp_path / "empty.conllu"
    path.touch()
    assert main(["predict", "tag", "--model", str(model), str(path), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_bytes() == b""


def test_errors_leave_no_file(model, tmp_path, capsys):
    path = tmp_path / "bad.conllu"
    path.write_text(TEXT + "3\tx\n", encoding="utf-8")
    arguments = ["predict", "tag", "--model", str(model), str(path), "-o", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert capsys.readouterr().err == (
        f"fastattn predict tag: error: {path}:9: a row must have 10 columns with tabs between them, got 2\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_no_tagger(text, tmp_path, capsys):
    folder = write_bert(tmp_path / "other")
    assert main(["predict", "tag", "--model", str(folder), str(text)]) == 1
    assert f"{folder}: not a tagger" in capsys.readouterr().err


COLUMNS = "# x\n1 New O\n2 York O\n\n1 sat O\n"


@pytest.fixture
def entities(tmp_path: Path) -> Path:
    """A tagger of entities, in a file whose words and tags are the columns 1 and 2."""
    labels = ("B-LOC", "I-LOC", "O")
    path = tmp_path / "gold.iob2"
    path.write_text("".join(f"{i}\t{tag}\t{tag}\n" for i, tag in enumerate(labels, start=1)), encoding="utf-8")
    data = Tagger.read(path, format="conll", word_column=1, tag_column=2)
    tagger = Tagger.for_training(write_bert(tmp_path / "bert2"), data, seed=1)
    tagger.model.classifier.weight.data[...] = pattern(len(labels), HIDDEN, salt=70)
    tagger.save_pretrained(tmp_path / "entities")
    return tmp_path / "entities"


def predict(model: Path, path: Path, *more: str) -> int:
    return main(["predict", "tag", "--model", str(model), str(path), *more])


def test_columns_in_and_out(entities, tmp_path, capsys):
    path = tmp_path / "in.txt"
    path.write_text(COLUMNS, encoding="utf-8")
    words = [["New", "York"], ["sat"]]
    raw = Tagger.from_pretrained(entities).tag(words)
    for scheme in (None, "IOB1", "BIOES"):
        assert predict(entities, path, *(["--scheme", scheme] if scheme else [])) == 0
        (a, b), (c,) = (convert_tags(tags, scheme or "IOB2") for tags in raw)
        assert capsys.readouterr().out == f"# x\n1 New {a}\n2 York {b}\n\n1 sat {c}\n\n"
    path.write_text("New\nYork\n\nsat\n", encoding="utf-8")
    assert predict(entities, path, "--append", "--word-column", "0") == 0
    (a, b), (c,) = (convert_tags(tags, "IOB2") for tags in raw)
    assert capsys.readouterr().out == f"New\t{a}\nYork\t{b}\n\nsat\t{c}\n\n"


def test_entities_are_scored_if_they_are_known(entities, tmp_path, capsys):
    path, out = tmp_path / "in.conll", tmp_path / "out.conll"
    path.write_text(COLUMNS, encoding="utf-8")
    assert predict(entities, path, "-o", str(out), "--scheme", "BIOES") == 0
    assert capsys.readouterr().err.startswith("accuracy: ")
    found = Tagger.read(out, format="conll", word_column=1, tag_column=2)
    count = sum(len(tags_to_entities(sentence.tags)) for sentence in found)
    assert count
    assert predict(entities, out, "-o", str(path)) == 0
    scores = f"f1 1.0000, precision 1.0000, recall 1.0000 ({count} in the file)"
    assert capsys.readouterr().err.splitlines()[1:] == [f"entities: {scores}", f"LOC: {scores}"]


def test_text_in_and_json_lines_out(entities, tmp_path, capsys):
    path = tmp_path / "in.txt"
    path.write_text("New York\n\nthe cat\u2028sat .\n", encoding="utf-8")
    tagger = Tagger.from_pretrained(entities)
    texts = ["New York", "", "the cat\u2028sat ."]
    for more, options in (([], {}), (["--aggregation", "none"], {"aggregation_strategy": "none"})):
        assert predict(entities, path, "--format", "text", *more) == 0
        lines = capsys.readouterr().out.splitlines()
        found = tagger.entities(texts, **options)
        assert [json.loads(line) for line in lines] == [
            {"text": text, "entities": each} for text, each in zip(texts, found, strict=True)
        ]


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("New\n", [], "in.txt:1: there is no --word-column 1, the row has 1 columns: New"),
        ("New O\n", ["--tag-column", "-1"], "in.txt:1: --word-column and --tag-column are one column, the row has 2"),
        (
            "New O\n",
            ["--tag-column", "UPOS"],
            "--tag-column must be the number of a column in CoNLL columns, got 'UPOS'",
        ),
        ("New O\n", ["--aggregation", "max"], "--aggregation and --stride are for --format text"),
        ("New O\n", ["--append", "--format", "text"], "--append, --word-column, --tag-column and --scheme are for fi"),
        ("1\tNew\n", ["--append", "--format", "conllu"], "append needs CoNLL columns"),
        ("New\n", ["--append", "--tag-column", "2"], "--append adds a column, --tag-column names one that is there"),
    ],
)
def test_options_that_do_not_fit(entities, tmp_path, capsys, text, more, message):
    path = tmp_path / "in.txt"
    path.write_text(text, encoding="utf-8")
    assert predict(entities, path, *more) == 1
    assert message in capsys.readouterr().err


def test_a_scheme_needs_entities(model, text, capsys):
    assert predict(model, text, "--scheme", "IOB2") == 1
    assert "scheme IOB2 is for tags of entities, not for ADJ, NOUN, VERB" in capsys.readouterr().err


def test_another_column_is_written(tmp_path, text, capsys):
    data = Tagger.read(text, tag_column="XPOS")
    assert [sentence.tags for sentence in data] == [("DT", "NN"), ("VB",)]
    Tagger.for_training(write_bert(tmp_path / "bert"), data).save_pretrained(tmp_path / "tagger")
    assert predict(tmp_path / "tagger", text) == 0
    written = capsys.readouterr().out
    kept = [[c for i, c in enumerate(line.split("\t")) if i != 4] for line in written.splitlines()]
    assert kept == [[c for i, c in enumerate(line.split("\t")) if i != 4] for line in TEXT.splitlines()]


CONLLU = "1\tNew\tnew\tPROPN" + "\t_" * 6 + "\n2\tYork\tYork\tPROPN" + "\t_" * 6 + "\n\n"


def test_the_name_of_a_file_says_what_it_is(model, entities, tmp_path, capsys):
    """A tagger of entities overwrites no column of CoNLL-U, and one of parts of speech none of CoNLL columns."""
    conllu, conll = tmp_path / "in.conllu", tmp_path / "in.iob2"
    conllu.write_text(CONLLU, encoding="utf-8")
    conll.write_text("New B-LOC\nYork I-LOC\n", encoding="utf-8")
    ways = "--tag-column names the column for the tags, --append adds one to CoNLL columns, --format names the format"
    for tagger, path, own, other in (
        (entities, conllu, "CoNLL-U", "CoNLL columns"),
        (model, conll, "CoNLL columns", "CoNLL-U"),
    ):
        assert predict(tagger, path, "-o", str(tmp_path / "out")) == 1
        error = f"error: {path}: these are {own}, but the tagger has learnt {other}; {ways}\n"
        assert capsys.readouterr().err == f"fastattn predict tag: {error}"
        assert not (tmp_path / "out").exists()
    assert predict(entities, conllu, "--tag-column", "MISC") == 0
    (tags,) = [convert_tags(tags, "IOB2") for tags in Tagger.from_pretrained(entities).tag([["New", "York"]])]
    captured = capsys.readouterr()
    assert [line.split("\t")[-1] for line in captured.out.splitlines()[:2]] == tags
    assert "is read as" not in captured.err
    assert predict(model, conll, "--append") == 0
    (tags,) = Tagger.from_pretrained(model).tag([["New", "York"]])
    assert capsys.readouterr().out == f"New B-LOC {tags[0]}\nYork I-LOC {tags[1]}\n\n"  # the file's separator


def test_what_a_name_does_not_say_is_told(model, entities, tmp_path, capsys):
    path = tmp_path / "in.txt"
    path.write_text(COLUMNS, encoding="utf-8")
    ways = "--format text reads raw text"
    assert predict(entities, path) == 0
    told = f"{path} is read as CoNLL columns, words in column 1, tags in column 2; {ways}"
    assert capsys.readouterr().err.splitlines()[0] == told
    path.write_text("New York is a city.\n", encoding="utf-8")
    assert predict(model, path) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"fastattn predict tag: error: {path}:1: a row must have 10 columns")
    assert error.endswith(f"; {path} is read as CoNLL-U, tags in UPOS; {ways}\n")


def test_raw_text_is_not_overwritten(entities, tmp_path, capsys):
    path, out = tmp_path / "texts.txt", tmp_path / "out.txt"
    path.write_text("Ada Lovelace lived in London.\n", encoding="utf-8")
    assert predict(entities, path, "-o", str(out)) == 1
    assert capsys.readouterr().err == (
        f"fastattn predict tag: error: {path}:1: the tag 'lived' is none of B-LOC, I-LOC, O; "
        "--format conll overwrites the column; "
        f"{path} is read as CoNLL columns, words in column 1, tags in column 2; --format text reads raw text\n"
    )
    assert not out.exists()
    for more in (["--format", "conll"], ["--tag-column", "2"], ["--append"]):
        assert predict(entities, path, "-o", str(out), *more) == 0
    assert out.read_text(encoding="utf-8").startswith("Ada Lovelace lived in London. ")
    path.write_text(COLUMNS.replace("York O", "York E-LOC").replace("sat O", "sat _"), encoding="utf-8")
    assert predict(entities, path, "-o", str(out)) == 0


def test_training_files_are_known_by_their_names(tmp_path, capsys):
    path = tmp_path / "train.txt"
    path.write_text("New B-LOC\n", encoding="utf-8")
    start = ["--model", str(write_bert(tmp_path / "bert")), "--output", str(tmp_path / "out")]
    assert main(["train", "tag", *start, "--train", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"fastattn train tag: error: {path}:1: a row must have 10 columns")
    assert f"; {path} is read as CoNLL-U: neither its name nor an option says" in error
    path = tmp_path / "train.iob2"
    path.write_text("New B-LOC\nYork I-LOC\n", encoding="utf-8")
    assert Tagger.read(path)[0].tags == ("B-LOC", "I-LOC")
    path = tmp_path / "train.conllu"
    path.write_text(CONLLU, encoding="utf-8")
    assert Tagger.read(path)[0].tags == ("PROPN", "PROPN")


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet", "t.csv"])
def test_a_table_is_no_file_of_columns(model, entities, tmp_path, capsys, name):
    path = tmp_path / name
    path.write_text('{"tokens": ["New"], "tags": ["O"]}\n', encoding="utf-8")
    for tagger in (model, entities):
        assert predict(tagger, path, "-o", str(tmp_path / "out")) == 1
        assert f"error: {path}: tags are written to CoNLL-U or CoNLL columns, not to CSV" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
