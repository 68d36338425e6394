"""The progress bar."""

from __future__ import annotations

import sys

import pytest

from fastattn.progress import progress_bar


@pytest.mark.parametrize(("unit", "done"), [("text", 0), ("step", 3)])
def test_a_bar(unit: str, done: int, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm", reason="needs tqdm")
    with progress_bar(5, show=True, unit=unit, done=done) as advance:
        advance()
        advance(note="loss 1.5")
    output = capsys.readouterr().err
    assert f"{done + 2}/5" in output
    assert "loss 1.5" in output


def test_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for show in (None, False):
        with progress_bar(5, show=show) as advance:
            advance(5, note="done")
    assert capsys.readouterr().err == ""


def test_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_bar(5) as advance:
        advance(5)
    with pytest.raises(ImportError, match=r'needs tqdm: pip install "fastattn\[train\]"'):
        progress_bar(5, show=True, extra="train").__enter__()
