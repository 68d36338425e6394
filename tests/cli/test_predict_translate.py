"""`fastattn predict translate`: a line for each line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from tiny_translator import make

from fastattn.cli import main
from fastattn.training import character_error_rate

TEXT = "abc\n\nbad 猫\nhh\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    make().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def command(model: Path, path: Path, *more: str) -> list[str]:
    return ["predict", "translate", "--model", str(model), str(path), *more]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def expected(*texts: str) -> str:
    return "".join(" ".join(text.split()) + "\n" for text in make().translate(texts))


def test_a_file(model, tmp_path, capsys):
    path = write(tmp_path / "text", TEXT)
    assert main(command(model, path, "-o", str(tmp_path / "out"))) == 0
    assert (tmp_path / "out").read_text(encoding="utf-8") == expected("abc", "", "bad 猫", "hh")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_standard_input_and_output(model, monkeypatch, capfd):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert main(["predict", "translate", "--model", str(model), "--threads", "1"]) == 0
    assert capfd.readouterr().out == expected("abc", "", "bad 猫", "hh")


def test_pairs(model, tmp_path, capfd):
    path = write(tmp_path / "pairs", "abc\tABC\n\nhh\tG\n")
    assert main(command(model, path, "--pairs")) == 0
    captured = capfd.readouterr()
    assert captured.out == expected("abc", "", "hh")
    rate = character_error_rate(make().translate(["abc", "", "hh"]), ["ABC", "", "G"])
    assert captured.err == f"character error rate: {rate:.4f} (3 texts)\n"


def test_a_picture_of_attention(model, tmp_path, capfd):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    path, picture = write(tmp_path / "text", "abc\nhh\n"), tmp_path / "a.svg"
    assert main(command(model, path, "--attention", str(picture))) == 0
    assert picture.read_bytes().startswith(b"<?xml")


def test_nothing_in_nothing_out(model, tmp_path):
    path = write(tmp_path / "empty", "")
    assert main(command(model, path, "-o", str(tmp_path / "out"), "--attention", str(tmp_path / "a.svg"))) == 0
    assert (tmp_path / "out").read_bytes() == b""
    assert not (tmp_path / "a.svg").exists()


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("a\nb\n", ["--pairs"], "text:1: a line must have 2 columns with a tab between them, got 1"),
        ("a\n" + "b" * 40 + "\n", [], "texts[1] has 41 tokens, but the model reads at most 40"),
        ("a\n", ["--attention", "a.pdf"], "a.pdf: a plot is written as png or svg"),
    ],
)
def test_errors_leave_no_file(model, tmp_path, capsys, text, more, message):
    path = write(tmp_path / "text", text)
    assert main(command(model, path, *more, "-o", str(tmp_path / "out"))) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_none(tmp_path, capsys):
    path = write(tmp_path / "text", "a\n")
    assert main(command(tmp_path, path)) == 1
    assert "a translation model needs its vocabularies" in capsys.readouterr().err
