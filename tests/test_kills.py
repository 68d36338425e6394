"""A part of `python tests/kills.py`: every kind of run is killed a few times, and meets a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")
pytest.importorskip("resource", reason="needs limits of processes")

from helpers_cases import CASES, TRAINED

KILLS = Path(__file__).with_name("kills.py")
BREAKS = """
import random, sys, kills
from fastattn import files

folder, name = kills.Path(sys.argv[1]), sys.argv[2]
runs, replace = kills.references(kills.CASES["classify"], folder), files.os.replace

def in_part(source, path):
    if path.name.startswith(name):
        path.write_bytes(source.read_bytes()[:-1])
        kills.kill()
    replace(source, path)

files.os.replace = in_part
kills.kill_runs(runs, 1, random.Random(0), folder / "out")
"""


def run(*arguments: str) -> str:
    """The output of the command, whose parts all pass."""
    found = python(str(KILLS), *arguments)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A process that finds the helpers of the tests, wherever it may look for modules."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(KILLS.parent), *filter(None, sys.path)])}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=900, check=False
    )


def test_every_task_has_a_run() -> None:
    assert sorted({case.task for case in CASES.values()}) == sorted(TRAINED)


@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_goes_on(case: str) -> None:
    assert run(case, "--kills", "3").startswith(f"{case} passes: 3, of which ")


@pytest.mark.parametrize(
    ("name", "message"), [("step-", "damaged, or cut short"), ("config.json", "config.json is neither as before")]
)
def test_a_file_in_part_is_seen(name: str, message: str, tmp_path: Path) -> None:
    found = python("-c", BREAKS, str(tmp_path), name)
    assert found.returncode == 1
    assert message in found.stderr


@pytest.mark.parametrize("task", TRAINED)
def test_a_full_disk_costs_nothing(task: str) -> None:
    first = next(name for name, case in CASES.items() if case.task == task)
    text = run(first, "--full-disk")
    for name in ("log.jsonl", "step.safetensors", "config.json", "model.safetensors", "README.md"):
        assert f" {name}" in text
