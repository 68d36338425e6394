"""`fastattn predict tag`: the file comes back with other tags, and nothing else changed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import HIDDEN, pattern, write_bert

from fastattn.cli import main
from fastattn.tasks import Tagger
from fastattn.text import ConlluSentence, read_conllu

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
    return "".join(sentence.with_upos(labels) for sentence, labels in zip(sentences, tags, strict=True))


def test_a_file(model, text, tmp_path, capsys):
    output = tmp_path / "out.conllu"
    assert main(["predict", "tag", "--model", str(model), str(text), "-o", str(output)]) == 0
    written = output.read_text(encoding="utf-8")
    assert written == expected(model, text)
    kept = [[c for i, c in enumerate(line.split("\t")) if i != 3] for line in written.splitlines()]
    assert kept == [[c for i, c in enumerate(line.split("\t")) if i != 3] for line in TEXT.splitlines()]
    captured = capsys.readouterr()
    assert captured.out == ""
    tags = [sentence.upos for sentence in read_conllu(output)]
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
