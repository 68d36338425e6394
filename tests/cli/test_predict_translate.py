"""`fastattn predict translate`: a line for each line."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_translator import make

from fastattn.cli import main
from fastattn.tasks import Translator
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
    rate = character_error_rate(make().translate(["abc", "hh"]), ["ABC", "G"])
    assert captured.err == f"character error rate: {rate:.4f} (2 texts)\n"


def test_pairs_with_a_blank_side_do_not_count(model, tmp_path, capfd):
    rate = character_error_rate(make().translate(["abc"]), ["ABC"])
    for text, shown in (("abc\tABC\nhh\t\n\tG\n", f"{rate:.4f} (1 texts)"), ("\nhh\t\n", "there are no pairs")):
        assert main(command(model, write(tmp_path / "pairs", text), "--pairs")) == 0
        assert capfd.readouterr().err == f"character error rate: {shown}\n"


def test_space_around_a_line_is_not_part_of_it(model, tmp_path, capfd):
    assert main(command(model, write(tmp_path / "text", " abc\t\nhh \n"))) == 0
    assert capfd.readouterr().out == expected("abc", "hh")


def test_a_picture_of_attention(model, tmp_path, capfd):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    path, picture = write(tmp_path / "text", "abc\nhh\n"), tmp_path / "a.svg"
    assert main(command(model, path, "--attention", str(picture))) == 0
    assert picture.read_bytes().startswith(b"<?xml")


def test_the_picture_is_of_all_layers_and_heads(model, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    drawn: list[Any] = []
    monkeypatch.setattr("fastattn.tasks.translate.task.plot_attention", lambda *arguments: drawn.append(arguments))
    path = write(tmp_path / "text", "abc\nhh\n")
    assert main(command(model, path, "--attention", str(tmp_path / "a.svg"))) == 0
    weights, source, target = Translator.from_pretrained(model).attention("abc")
    ((mean, *names, output),) = drawn
    np.testing.assert_allclose(mean, weights.astype(np.float64).mean((0, 1)), rtol=1e-5)
    assert (names, output) == ([source, target], str(tmp_path / "a.svg"))


@pytest.mark.parametrize("overlong", ["truncate", "skip"])
def test_long_lines_are_cut_or_skipped_and_counted(model, tmp_path, capfd, overlong):
    path = write(tmp_path / "pairs", "b" * 50 + "\tB\nabc\tABC\n" + "d" * 40 + "\tD\nhh\tG\n")
    picture = tmp_path / "a.svg"
    assert main(command(model, path, "--pairs", "--overlong", overlong, "--attention", str(picture))) == 0
    found = make().translate(["b" * 39, "abc", "d" * 39, "hh"])
    gold, done = ["B", "ABC", "D", "G"], "cut"
    if overlong == "skip":
        found[0] = found[2] = ""
        done = "skipped"
    captured = capfd.readouterr()
    assert captured.out == "".join(" ".join(text.split()) + "\n" for text in found)
    counted = [i for i in range(4) if overlong == "truncate" or i % 2]
    rate = character_error_rate([found[i] for i in counted], [gold[i] for i in counted])
    assert captured.err == (
        f"2 of 4 lines have more than 40 tokens and were {done}\n"
        f"character error rate: {rate:.4f} ({len(counted)} texts)\n"
    )
    assert picture.exists()


def test_all_lines_may_be_skipped(model, tmp_path, capfd):
    path = write(tmp_path / "text", "b" * 50 + "\n")
    assert main(command(model, path, "--overlong", "skip", "--attention", str(tmp_path / "a.svg"))) == 0
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("\n", "1 of 1 lines have more than 40 tokens and were skipped\n")
    assert not (tmp_path / "a.svg").exists()


def test_nothing_in_nothing_out(model, tmp_path):
    path = write(tmp_path / "empty", "")
    assert main(command(model, path, "-o", str(tmp_path / "out"), "--attention", str(tmp_path / "a.svg"))) == 0
    assert (tmp_path / "out").read_bytes() == b""
    assert not (tmp_path / "a.svg").exists()


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("a\nb\n", ["--pairs"], "text:1: a line must have 2 columns with a tab between them, got 1"),
        ("a\n" + "b" * 40 + "\n", [], "text:2 has 41 tokens, but the model reads at most 40"),
        ("a\tb\n" + "b" * 40 + "\tb\n", ["--pairs"], "text:2 has 41 tokens, but the model reads at most 40"),
        ("a\n", ["--attention", "missing/a.svg"], "missing/a.svg: No such file or directory"),
        ("a\n", ["--attention", "a.pdf"], "a.pdf: a plot is written as png or svg"),
    ],
)
def test_errors_leave_no_file(model, tmp_path, capsys, text, more, message):
    path = write(tmp_path / "text", text)
    assert main(command(model, path, *more, "-o", str(tmp_path / "out"))) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_known_before_the_work(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Translator, "_decode", None)
    path = write(tmp_path / "text", "a\n")
    assert main(command(model, path, "-o", str(tmp_path / "missing" / "out"))) == 1
    assert "missing/out: No such file or directory" in capsys.readouterr().err


def test_a_model_that_is_none(tmp_path, capsys):
    path = write(tmp_path / "text", "a\n")
    assert main(command(tmp_path, path)) == 1
    assert "no config.json in this folder" in capsys.readouterr().err
