"""Every folder of an enemy is refused by the name of its file, and takes little memory. `hostile.py` shows the time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("h5py")

import hostile

Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def results() -> Results:
    command = [sys.executable, hostile.__file__, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=True)
    found: Results = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", hostile.FOLDERS)
def test_a_folder_is_refused_by_name(results: Results, name: str) -> None:
    found = results[name]
    assert found["refused"], f"{found['kind']}: {found['message']}"
    assert found["folder"] in found["message"]
    assert Path(hostile.FOLDERS[name].named).name in found["message"]
    if sys.platform == "linux":
        assert found["bytes"] <= hostile.MEMORY


def test_there_are_many() -> None:
    assert len(hostile.FOLDERS) >= 100
