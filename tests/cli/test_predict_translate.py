"""`fastattn predict translate`: a line for each line."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
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
    monkeypatch.setattr("fastattn.tasks.translate.lines.plot_attention", lambda *arguments: drawn.append(arguments))
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
    monkeypatch.setattr(Translator, "_find", None)
    path = write(tmp_path / "text", "a\n")
    assert main(command(model, path, "-o", str(tmp_path / "missing" / "out"))) == 1
    assert "missing/out: No such file or directory" in capsys.readouterr().err


def test_a_model_that_is_none(tmp_path, capsys):
    path = write(tmp_path / "text", "a\n")
    assert main(command(tmp_path, path)) == 1
    assert "no config.json in this folder" in capsys.readouterr().err


class TestLines:
    def test_options(self, model, tmp_path, capfd):
        path, translator = write(tmp_path / "text", TEXT), make()
        texts = ["abc", "", "bad 猫", "hh"]
        for more, options in (
            (["--num-beams", "3"], {"num_beams": 3}),
            (["--num-beams", "3", "--length-penalty", "-0.5", "--min-length", "9"],
             {"num_beams": 3, "length_penalty": -0.5, "min_length": 9}),
            (["--no-repeat-ngram-size", "2"], {"no_repeat_ngram_size": 2}),
            (["--prefix", "HAG"], {"prefixes": "HAG"}),
            (["--sampling-temperature", "1.5", "--top-k", "5", "--seed", "3"],
             {"do_sample": True, "temperature": 1.5, "top_k": 5, "seed": 3}),
            (["--replace-unknowns"], {"replace_unknowns": True}),
        ):  # fmt: skip
            assert main(command(model, path, *more)) == 0
            assert capfd.readouterr().out.split("\n")[:-1] == [
                " ".join(text.split()) for text in translator.translate(texts, **options)
            ]

    def test_the_best_ones_with_scores(self, model, tmp_path, capfd):
        path = write(tmp_path / "text", TEXT)
        assert main(command(model, path, "--num-beams", "3", "--n-best", "2", "--scores")) == 0
        found = [line.split("\t") for line in capfd.readouterr().out.split("\n")[:-1]]
        expected = make().translate(["abc", "", "bad 猫", "hh"], num_beams=3, n_best=2, return_scores=True)
        assert found == [[f"{one.score:.6f}", " ".join(one.text.split())] for each in expected for one in each]
        assert len(found) == 8

    def test_long_lines_are_split(self, model, tmp_path, capfd):
        path = write(tmp_path / "text", "abc " * 20 + "\nhh\n")
        assert main(command(model, path, "--overlong", "split")) == 0
        captured = capfd.readouterr()
        wanted = make().translate(["abc " * 20, "hh"], overlong="split")
        assert captured.out == "".join(" ".join(text.split()) + "\n" for text in wanted)
        assert captured.err == "1 of 2 lines have more than 40 tokens and were cut into sentences\n"

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--top-k", "5"], "--top-k needs --sampling-temperature"),
            (["--overlong", "split", "--scores"], "--overlong split has neither --n-best nor --scores"),
            (["--n-best", "3", "--num-beams", "2"], "n_best must be at most num_beams = 2, got 3"),
            (["--num-beams", "2", "--sampling-temperature", "1"], "a search has beams, or it samples"),
            (["--num-beams", "99"], "num_beams must be from 1 to 12, the words of the target vocabulary, got 99"),
            (["--prefix", "xyz"], "must be made of the target vocabulary, got 'xyz'"),
        ],
    )
    def test_options_that_contradict(self, model, tmp_path, capsys, more, message):
        path = write(tmp_path / "text", TEXT)
        with contextlib.suppress(SystemExit):
            assert main(command(model, path, *more, "-o", str(tmp_path / "out"))) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_a_line_that_is_not_utf_8_ends_the_stream(self, model, tmp_path, capfd):
        path = tmp_path / "text"
        path.write_bytes(b"abc\nhh\n\xff\n")
        assert main(command(model, path)) == 1
        assert "text:3: not UTF-8: byte 0xff at 1" in capfd.readouterr().err

    def test_an_answer_comes_before_the_next_line(self, model):
        """Another program may wait for it."""
        start = "import sys; from fastattn.cli import main; sys.exit(main())"
        arguments = [sys.executable, "-c", start, "predict", "translate", "--model", str(model)]
        with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            for text in ("abc", "", "hh"):
                process.stdin.write(f"{text}\n".encode())
                process.stdin.flush()
                assert process.stdout.readline().decode() == expected(text)
            process.stdin.close()
            assert process.stdout.read() == b""
            assert process.wait(60) == 0

    def test_whoever_reads_may_leave(self, model):
        start = "import sys; from fastattn.cli import main; sys.exit(main())"
        arguments = [sys.executable, "-c", start, "predict", "translate", "--model", str(model)]
        with subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            process.stdin.write(b"abc\n")
            process.stdin.flush()
            assert process.stdout.readline().decode() == expected("abc")
            process.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b"hh\n" * 5000)
                process.stdin.close()
            assert process.stderr.read() == b""
            assert process.wait(60) != 0
