"""The picture of a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="needs matplotlib")

from fastattn.training import plot_attention, plot_log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    records: list[dict] = []
    for step in range(1, 41):
        records.append({"step": step, "loss": 4 / step, "learning_rate": 1e-3})
        if step % 20 == 0:
            records.append({"step": step, "metrics": {"accuracy": step / 50, "f1": None}})
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "magic"), [("loss.png", b"\x89PNG"), ("loss.SVG", b"<?xml")])
def test_pictures(log: Path, name: str, magic: bytes) -> None:
    output = log.with_name(name)
    plot_log(log, output)
    assert output.read_bytes().startswith(magic)
    assert {path.name for path in log.parent.iterdir()} == {"log.jsonl", name}


@pytest.mark.parametrize("text", ["", '{"step": 1, "loss": 1.0, "learning_rate": 0.1}\n'])
def test_short_logs(log: Path, text: str) -> None:
    log.write_text(text, encoding="utf-8")
    plot_log(log, log.with_name("loss.png"))
    assert log.with_name("loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_loss_of_evaluations_stands_with_that_of_the_steps(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[str]] = []
    monkeypatch.setattr("fastattn.training.plot._draw_metrics", lambda axes, records, names: drawn.append(names))
    text = log.read_text(encoding="utf-8")
    log.write_text(text.replace('"f1": null', '"loss": 1.0'), encoding="utf-8")
    plot_log(log, log.with_name("a.png"))
    log.write_text(text.replace('"accuracy"', '"loss"').replace(', "f1": null', ""), encoding="utf-8")
    plot_log(log, log.with_name("b.png"))
    assert drawn == [["loss"], ["accuracy"], ["loss"]]


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml")])
@pytest.mark.parametrize("heads", [(), (1,), (3,), (8,)])
def test_attention(tmp_path: Path, name: str, magic: bytes, heads: tuple[int, ...]) -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(5), (*heads, 4))
    plot_attention(weights, [*"نورم", "</s>"], [*"nur", "</s>"], tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_bad_attention(tmp_path: Path) -> None:
    for shape in ((3, 2), (2,), (1, 1, 2, 3), (0, 2, 3)):
        with pytest.raises(ValueError, match=r"weights must have shape \(\[heads,\] 2, 3\), got \("):
            plot_attention(np.zeros(shape), "abc", "de", tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.pdf: a plot is written as png or svg"):
        plot_attention(np.zeros((2, 3)), "abc", "de", tmp_path / "a.pdf")


def test_pyplot_is_left_alone(log: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from fastattn.training import plot_log; plot_log(*sys.argv[1:]);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(log), str(log.with_name("loss.png"))], check=True, timeout=60)


def test_bad_input(log: Path) -> None:
    with pytest.raises(ValueError, match=r"loss\.pdf: a plot is written as png or svg"):
        plot_log(log, log.with_name("loss.pdf"))


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        '{"step": 3, "lo{"step": 4, "loss": 1.0, "learning_rate": 0.1}',
        '{"step": 1}',
        "[]",
        "7",
        "\0" * 50,
        '{"step": 1, "metrics": [1]}',
        '{"step": 1, "loss": "high", "learning_rate": 0.1}',
        '{"step": 1, "loss": ' + "9" * 400 + ', "learning_rate": 0.1}',
        "[" * 100_000,
    ],
    ids=range(10),
)
def test_a_damaged_line_is_named_and_left_out(log: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr("fastattn.training.plot._draw_loss", lambda axes, records: drawn.append(len(records)))
    lines = log.read_text(encoding="utf-8").splitlines()
    log.write_text("\n".join([*lines[:3], line, *lines[3:]]) + "\n", encoding="utf-8")
    with pytest.warns(UserWarning, match=r"log\.jsonl:4: not a line of a log; it is not drawn"):
        plot_log(log, log.with_name("loss.png"))
    assert drawn == [40]


def test_a_failure_leaves_the_old_picture(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = log.with_name("loss.png")
    output.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fastattn.training.plot.os.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        plot_log(log, output)
    assert output.read_bytes() == b"old"
    assert len(list(log.parent.iterdir())) == 2
