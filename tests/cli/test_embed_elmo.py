"""`fastattn embed --elmo`, end to end."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers_elmo import options, random_datasets, write

pytest.importorskip("h5py", reason="needs h5py")

from fastattn.cli import embed, main
from fastattn.models import Elmo

LINES = ["The cat sat .", "", "naïve\t日本語  cat ", "Go !"]
WORDS = [line.split() for line in LINES]


@pytest.fixture
def model(tmp_path: Path) -> list[str]:
    return [str(path) for path in write(tmp_path / "model", options(), random_datasets(options()))]


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("layers", [None, "all", "average", "top"])
def test_npz(model, text, tmp_path, layers):
    output = tmp_path / "out.npz"
    chosen = [] if layers is None else ["--layers", layers]
    assert main(["embed", "--elmo", *model, text, "-o", str(output), *chosen]) == 0
    results = Elmo.from_pretrained(*model)(WORDS)
    with np.load(output) as arrays:
        assert list(arrays) == ["0", "1", "2", "3"]
        for name, result in zip(arrays, results, strict=True):
            expected = {"average": np.mean(result, axis=0), "top": result[-1]}.get(layers or "", result)
            assert arrays[name].dtype == np.float32
            np.testing.assert_array_equal(arrays[name], expected)


def test_json_lines_give_back_every_bit(model, text, capsysbinary):
    assert main(["embed", "--elmo", *model, text]) == 0
    rows = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert [row["words"] for row in rows] == WORDS
    for row, expected in zip(rows, Elmo.from_pretrained(*model)(WORDS), strict=True):
        found = np.array(row["embedding"], np.float32)
        np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def test_a_folder_and_a_pipe(model, text, tmp_path):
    folder = str(tmp_path / "saved")
    Elmo.from_pretrained(*model).save_pretrained(folder)
    main(["embed", "--elmo", *model, text, "-o", str(tmp_path / "a.npz")])
    main(["embed", text, "--elmo", folder, "-o", str(tmp_path / "b.npz")])
    command = [sys.executable, "-m", "fastattn", "embed", "--elmo", folder, "--format", "npz"]
    with open(text, "rb") as file:
        result = subprocess.run(command, stdin=file, capture_output=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, b"")
    expected = (tmp_path / "a.npz").read_bytes()
    assert (tmp_path / "b.npz").read_bytes() == expected
    with np.load(io.BytesIO(result.stdout)) as piped, np.load(tmp_path / "a.npz") as arrays:
        for name in arrays:
            np.testing.assert_array_equal(piped[name], arrays[name])


def test_chunks_do_not_show(model, text, tmp_path, monkeypatch):
    outputs = [tmp_path / f"{i}.npz" for i in range(2)]
    for output, chunk in zip(outputs, (1, 16384), strict=True):
        monkeypatch.setattr(embed, "CHUNK", chunk)
        assert main(["embed", "--elmo", *model, text, "-o", str(output)]) == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_progress_and_threads(model, text, capsys, restore_runtime):
    assert main(["embed", "--elmo", *model, text, "--progress", "--threads", "1"]) == 0
    captured = capsys.readouterr()
    assert "4/4" in captured.err
    assert len(captured.out.splitlines()) == 4


def test_no_text(model, tmp_path):
    empty = tmp_path / "empty"
    empty.touch()
    assert main(["embed", "--elmo", *model, str(empty), "-o", str(tmp_path / "out.npz")]) == 0
    with np.load(tmp_path / "out.npz") as arrays:
        assert list(arrays) == []


def test_a_failed_run_leaves_no_output(model, text, tmp_path, monkeypatch):
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embed._Arrays, "write", fail)
    (tmp_path / "out").mkdir()
    assert main(["embed", "--elmo", *model, text, "-o", str(tmp_path / "out" / "out.npz")]) == 1
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--elmo", "no-such"], "--elmo no-such: no such folder; give a folder, or options.json and the HDF5 weights"),
        (["--elmo", "MODEL", "TEXT", "more"], "--elmo takes 2 here, and one text file may follow, got also more"),
        (["TEXT", "--elmo", "MODEL", "more"], "--elmo takes 2 here, and one text file may follow, got also more"),
        (["--elmo", "MODEL", "TEXT", "--normalize"], "--normalize is for --model, not for --elmo"),
        (["--elmo", "MODEL", "TEXT", "--truncate-dim", "3"], "--truncate-dim is for --model, not for --elmo"),
        (["--elmo", "MODEL", "TEXT", "--truncation", "warn"], "--truncation is for --model, not for --elmo"),
        (["--elmo", "MODEL", "TEXT", "--format", "npy"], "--format npy is for --model"),
        (["--elmo", "MODEL", "TEXT", "-o", "out.npy"], "--output out.npy: not .npz, .jsonl"),
        (["--model", "x", "TEXT", "--layers", "top"], "--layers is for --elmo, not for --model"),
        (["--model", "x", "TEXT", "--format", "npz"], "--format npz is for --elmo"),
        (["--elmo", "TEXT", "TEXT", "TEXT"], "text.txt: not valid JSON"),
    ],
)
def test_wrong_usage(model, text, capsys, arguments, message):
    names = {"MODEL": model, "TEXT": [text]}
    assert main(["embed", *(value for name in arguments for value in names.get(name, [name]))]) == 1
    assert f"fastattn embed: error: {message}" in capsys.readouterr().err.replace(str(Path(text).parent) + "/", "")


def test_either_model_or_elmo(text, capsys):
    for arguments in ([], ["--model", "a", "--elmo", "b"]):
        with pytest.raises(SystemExit):
            main(["embed", text, *arguments])
        assert "--elmo" in capsys.readouterr().err
