"""The progress bar."""

from __future__ import annotations

import sys

import pytest

from fastattn import progress
from fastattn.progress import progress_bar


@pytest.mark.parametrize(("unit", "done"), [("text", 0), ("step", 3)])
def test_a_bar(unit: str, done: int, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm", reason="needs tqdm")
    with progress_bar(5, show=True, unit=unit, done=done) as advance:
        advance()
        advance(note="loss 1.5 \x1b[31m")
    output = capsys.readouterr().err
    assert f"{done + 2}/5" in output
    assert "loss 1.5 \\x1b[31m" in output


def test_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for show in (None, False):
        with progress_bar(5, show=show) as advance:
            advance(5, note="done")
    assert capsys.readouterr().err == ""


def test_a_bar_at_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm", reason="needs tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_bar(5) as advance:
        advance(5)
    assert "5/5" in capsys.readouterr().err


def test_lines_in_the_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress, "clock", lambda: now)
    caplog.set_level("INFO", "fastattn")
    with progress_bar(5000, unit="step", done=1000) as advance:
        for _ in range(50):
            advance(note="loss 1.5")
        now = 29.0
        advance()
        now = 31.0
        advance()
        now = 60.0
        advance()
        advance(0, "accuracy 0.9", line=True)
        advance(total=6000)
        advance(2000)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "step 1,001 of 5,000: loss 1.5",
        "step 1,010 of 5,000: loss 1.5",
        "step 1,052 of 5,000",
        "step 1,053 of 5,000: accuracy 0.9",
        "step 3,054 of 6,000",
    ]
    caplog.clear()
    with progress_bar(None) as advance:
        advance()
    assert [record.getMessage() for record in caplog.records] == ["text 1"]
    caplog.clear()
    with progress_bar(5, show=False) as advance:
        advance(5, "done", line=True)
    assert caplog.records == []


def test_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_bar(5) as advance:
        advance(5)
    with pytest.raises(ImportError, match=r'needs tqdm: pip install "fastattn\[train\]"'):
        progress_bar(5, show=True, extra="train").__enter__()
