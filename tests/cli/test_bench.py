"""`fastattn bench`: its table, its JSON, and what is not timed."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fastattn
from fastattn.bench import KernelCase, kernel_cases
from fastattn.cli import bench, main

QUICK = ["--seconds", "0"]  # as few runs as there can be


def test_a_table_and_json(tmp_path, capsys, restore_runtime):
    path = tmp_path / "bench.json"
    assert main(["bench", "--filter", "minilm 128x384", "--threads", "1", *QUICK, "--json", str(path)]) == 0
    text = capsys.readouterr().out
    assert "layer_norm\n  MiniLM 128x384" in text
    assert "GB/s" in text
    report = json.loads(path.read_text())
    assert report["machine"]["threads"] == 1
    assert report["machine"]["isa"] == fastattn.isa()
    (result,) = report["results"]
    assert result["kernel"] == "layer_norm"
    assert result["verified"]
    assert result["ours_ms"] > 0
    assert (result["ours_runs"], result["numpy_runs"]) == (bench.MIN_RUNS, bench.MIN_RUNS)
    assert result["speed_up"] == pytest.approx(result["numpy_ms"] / result["ours_ms"])


def test_list_and_filter(capsys):
    assert main(["bench", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [case.name for case in kernel_cases()]
    assert main(["bench", "--list", "--filter", "Gelu ERF"]) == 0
    assert capsys.readouterr().out.splitlines() == ["gelu erf BERT-base 4096x3072"]
    assert main(["bench", "--filter", "nothing"]) == 1
    assert "--filter nothing: no case has this in its name" in capsys.readouterr().err


def case_with(ours: object) -> KernelCase:
    """Softmax of two numbers, where the compiled kernel gives `ours`."""

    class Wrong(KernelCase):
        @property
        def ours(self):
            return lambda x: np.array(ours, np.float32)

    return Wrong("softmax", "tiny", lambda rng: {"x": np.zeros((1, 2), np.float32)}, 16, 2)


@pytest.mark.parametrize("ours", [[[0.5, 0.6]], [[0.5, np.nan]], [0.5]])
def test_a_wrong_result_is_not_timed(ours, monkeypatch, capsys):
    monkeypatch.setattr("fastattn.bench.kernel_cases", lambda contains: [case_with(ours)])
    assert main(["bench", *QUICK]) == 1
    captured = capsys.readouterr()
    assert "WRONG" in captured.out
    assert "results differ from NumPy's: softmax tiny" in captured.err
    assert main(["bench", *QUICK]) == 1


def test_a_right_result_is_timed():
    assert bench.measure(case_with([[0.5, 0.5]]), 0)["verified"]
