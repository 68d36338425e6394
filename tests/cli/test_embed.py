"""`fastattn embed`, end to end."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import HIDDEN, TEXTS, write_case, write_model

import fastattn
from fastattn.cli import embed, main
from fastattn.tasks import SentenceEncoder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return path


def standard_input(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_npy(model, text, tmp_path):
    output = tmp_path / "out.npy"
    assert main(["embed", "--model", str(model), str(text), "--output", str(output)]) == 0
    embeddings = np.load(output)
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings, SentenceEncoder(model).encode(TEXTS))


def test_json_lines_give_back_every_bit(model, text, tmp_path):
    output = tmp_path / "out.jsonl"
    assert main(["embed", "--model", str(model), str(text), "--output", str(output)]) == 0
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == TEXTS
    embeddings = np.array([row["embedding"] for row in rows], np.float32)
    np.testing.assert_array_equal(embeddings, SentenceEncoder(model).encode(TEXTS))


def test_a_pipe(model, text):
    command = [sys.executable, "-m", "fastattn", "embed", "--model", str(model)]
    with text.open("rb") as file:
        result = subprocess.run(command, stdin=file, capture_output=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, b"")
    assert len(result.stdout.splitlines()) == len(TEXTS)
    with text.open("rb") as file:
        result = subprocess.run([*command, "--format", "npy"], stdin=file, capture_output=True, timeout=60)
    assert np.load(io.BytesIO(result.stdout)).shape == (len(TEXTS), HIDDEN)


def test_a_slow_pipe_is_answered_at_once(model):
    command = [sys.executable, "-m", "fastattn", "embed", "--model", str(model)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        alarm = threading.Timer(60, process.kill)
        alarm.start()
        for text in ("the cat", "sat", "two\nlines"):
            process.stdin.write(f"{text}\n".encode())
            process.stdin.flush()
            for line in text.split("\n"):
                assert json.loads(process.stdout.readline())["text"] == line
        process.stdin.write(b"no ")
        process.stdin.flush()
        process.stdin.write(b"end")
        process.stdin.close()
        assert json.loads(process.stdout.read())["text"] == "no end"
        alarm.cancel()
    assert process.returncode == 0


@pytest.mark.parametrize("output_format", ["npy", "jsonl"])
def test_memory_does_not_grow_with_the_input(tmp_path, monkeypatch, output_format):
    def zeros(chunks: Iterable[list[str]], _: object) -> tuple[int, object]:
        return 4, ((texts, np.zeros((len(texts), 4), np.float32)) for texts in chunks)

    monkeypatch.setattr(embed, "_sentences", zeros)
    text, output = tmp_path / "text.txt", tmp_path / "out"
    text.write_text(("the cat sat. " * 20 + "\n") * 60_000)
    arguments = ["embed", "--model", "none", str(text), "-o", str(output), "--format", output_format]
    assert main(arguments) == 0
    tracemalloc.start()
    assert main(arguments) == 0
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    assert text.stat().st_size > 15_000_000
    if output_format == "npy":
        assert np.load(output).shape == (60_000, 4)


def test_a_named_pipe_as_output(model, text, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "fastattn", "embed", "--model", str(model), str(text), "--format", "npy"]
    with subprocess.Popen([*command, "-o", str(pipe)]) as process:
        data = pipe.read_bytes()
    assert process.returncode == 0
    np.testing.assert_array_equal(np.load(io.BytesIO(data)), SentenceEncoder(model).encode(TEXTS))


def test_options(tmp_path, text, restore_runtime):
    folder = write_model(tmp_path / "m", config_sentence_transformers={"prompts": {"cat": "the cat "}})
    output = tmp_path / "out.npy"
    options = [
        "--normalize",
        "--prompt-name",
        "cat",
        "--truncate-dim",
        "5",
        "--threads",
        "1",
        "--no-progress",
    ]
    assert main(["embed", "--model", str(folder), str(text), "-o", str(output), *options]) == 0
    assert fastattn.num_threads() == 1
    encoder = SentenceEncoder(folder, truncation="silent")
    expected = encoder.encode(TEXTS, prompt_name="cat", normalize_embeddings=True, truncate_dim=5)
    np.testing.assert_array_equal(np.load(output), expected)


def test_chunks_do_not_show(model, text, tmp_path, monkeypatch):
    outputs = []
    for chunk in (1, 30, 16384):
        monkeypatch.setattr(embed, "CHUNK", chunk)
        outputs.append(tmp_path / f"{chunk}.npy")
        assert main(["embed", "--model", str(model), str(text), "-o", str(outputs[-1])]) == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes() == outputs[2].read_bytes()


def test_lines_are_rows(model, tmp_path, monkeypatch, capsysbinary):
    standard_input(monkeypatch, b"\xef\xbb\xbfthe cat\r\n\nsat\rsat\nno end")
    assert main(["embed", "--model", str(model)]) == 0
    rows = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == ["the cat", "", "sat\rsat", "no end"]


@pytest.mark.parametrize("ending", ["npy", "jsonl"])
def test_no_text(model, tmp_path, monkeypatch, ending):
    standard_input(monkeypatch, b"")
    output = tmp_path / f"out.{ending}"
    assert main(["embed", "--model", str(model), "-o", str(output)]) == 0
    if ending == "npy":
        assert np.load(output).shape == (0, HIDDEN)
    else:
        assert output.read_bytes() == b""


def test_bytes_that_are_not_utf8_are_named_by_file_and_line(model, tmp_path, capsys, monkeypatch):
    path = tmp_path / "latin1.txt"
    path.write_bytes(b"the cat\ncaf\xe9\nsat\n")
    assert main(["embed", "--model", str(model), str(path)]) == 1
    assert capsys.readouterr().err == f"fastattn embed: error: {path}:2: not UTF-8: byte 0xe9 at 4\n"
    standard_input(monkeypatch, b"\xff")
    assert main(["embed", "--model", str(model)]) == 1
    assert "standard input:1: not UTF-8: byte 0xff at 1" in capsys.readouterr().err


def test_truncation(tmp_path, text, capsys, monkeypatch):
    monkeypatch.setattr(embed, "CHUNK", 30)
    folder = write_case("truncated", tmp_path / "m")
    output = tmp_path / "out.npy"
    arguments = ["embed", "--model", str(folder), str(text), "-o", str(output)]
    assert main(arguments) == 0
    assert capsys.readouterr().err == ("fastattn embed: warning: 2 of 8 texts have more than 8 tokens and were cut\n")
    output.unlink()
    assert main([*arguments, "--truncation", "silent"]) == 0
    assert capsys.readouterr().err == ""
    output.unlink()
    assert main([*arguments, "--truncation", "error"]) == 1
    assert capsys.readouterr().err == f"fastattn embed: error: {text}:6: 28 tokens, the model takes 8\n"
    assert not output.exists()


def test_progress_on_stderr_alone(model, text, capsys):
    assert main(["embed", "--model", str(model), str(text), "--progress"]) == 0
    captured = capsys.readouterr()
    assert f"{len(TEXTS)}text [" in captured.err
    assert len(captured.out.splitlines()) == len(TEXTS)


@pytest.mark.parametrize("old", [b"old", None])
def test_a_failed_run_leaves_the_output_as_it_was(model, text, tmp_path, monkeypatch, old):
    folder = tmp_path / "out"
    folder.mkdir()
    output = folder / "out.jsonl"
    if old is not None:
        output.write_bytes(old)

    def fail(*arguments: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embed, "json_line", fail)
    assert main(["embed", "--model", str(model), str(text), "-o", str(output)]) == 1
    assert (output.read_bytes() if output.exists() else None) == old
    assert len(list(folder.iterdir())) == (old is not None)


def test_the_output_has_the_permissions_of_an_ordinary_file(model, text, tmp_path):
    mask = os.umask(0o027)
    try:
        assert main(["embed", "--model", str(model), str(text), "-o", str(tmp_path / "o.npy")]) == 0
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "o.npy").stat().st_mode) == 0o640


def test_a_link_and_a_device_stay_what_they_are(model, text, tmp_path):
    target, link = tmp_path / "target.npy", tmp_path / "link.npy"
    target.touch()
    link.symlink_to(target)
    for output in (str(link), "/dev/null"):
        assert main(["embed", "--model", str(model), str(text), "-o", output, "--format", "npy"]) == 0
    assert link.is_symlink()
    assert np.load(target).shape == (len(TEXTS), HIDDEN)
    assert not stat.S_ISREG(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("/no/such/folder/out.npy", "/no/such/folder/out.npy: No such file or directory"),
        ("out.txt", "give --format npy or jsonl"),
        (".", "give --format npy or jsonl"),
    ],
)
def test_bad_outputs(model, text, capsys, output, message):
    assert main(["embed", "--model", str(model), str(text), "-o", output]) == 1
    assert message in capsys.readouterr().err


def test_a_folder_as_output_or_input(model, text, tmp_path, capsys):
    assert main(["embed", "--model", str(model), str(text), "-o", str(tmp_path), "--format", "npy"]) == 1
    assert f"{tmp_path}: Is a directory" in capsys.readouterr().err
    assert main(["embed", "--model", str(model), str(tmp_path)]) == 1
    assert f"{tmp_path}: Is a directory" in capsys.readouterr().err


def test_unknown_models_and_prompts(model, text, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["embed", "--model", "no-such-model", str(text)]) == 1
    assert "error: no model named 'no-such-model'. Looked at" in capsys.readouterr().err
    assert main(["embed", "--model", str(model), "--prompt-name", "x", str(text)]) == 1
    assert "there is no prompt 'x'" in capsys.readouterr().err


def test_numbers_that_are_no_json():
    text = 'a "quoted"\x85\u2028\u2029\x0c\x1e é'
    line = embed.json_line(text, np.array([1.5, np.nan, np.inf, 1e-30], np.float32))
    assert json.loads(line) == {"text": text, "embedding": [1.5, None, None, 1e-30]}
    assert len(line.decode().splitlines()) == 1
    assert "é" in line.decode()
    words = embed.json_line(text.split(" "), np.zeros((3, 1), np.float32)).decode()
    assert (len(words.splitlines()), json.loads(words)["words"]) == (1, text.split(" "))
    assert line.count(b"\n") == 1
