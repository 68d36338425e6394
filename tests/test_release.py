"""What a release says of itself: one version, the Pythons that it is for, and a clear word on Windows."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastattn

ROOT = Path(__file__).parents[1]


@pytest.fixture
def pyproject() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib")
    path = ROOT / "pyproject.toml"
    if not path.exists():
        pytest.skip("the tests stand alone")
    return dict(tomllib.loads(path.read_text(encoding="utf-8")))


def test_one_version() -> None:
    try:
        installed = importlib.metadata.version("fastattn")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("fastattn is not installed")
    assert installed == fastattn.__version__ == fastattn.build_info()["version"]


def test_the_version_is_written_once(pyproject: dict[str, Any]) -> None:
    assert "version" in pyproject["project"]["dynamic"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first = re.search(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert first is not None
    assert first.group(1) == fastattn.__version__


def test_wheels_are_built_for_all_pythons(pyproject: dict[str, Any]) -> None:
    built = pyproject["tool"]["cibuildwheel"]["build"]
    assert built == ["cp310-*", "cp311-*", "cp312-*", "cp313-*", "cp314-*", "cp314t-*"]
    assert pyproject["project"]["requires-python"] == ">=3.10"


def test_all_versions_have_a_lower_bound(pyproject: dict[str, Any]) -> None:
    """`make wheel-test` turns the bounds into the versions that it tests."""
    extras = pyproject["project"]["optional-dependencies"]
    needed = pyproject["project"]["dependencies"] + [
        name for extra in extras if extra != "rivals" for name in extras[extra]
    ]
    assert [each for each in needed if not re.fullmatch(r"[a-z0-9-]+>=[0-9.]+", each)] == []


@pytest.mark.parametrize("platform", ["win32", "linux"])
def test_pip_says_one_line_on_windows(platform: str) -> None:
    backend = ROOT / "cmake" / "backend.py"
    if not backend.exists():
        pytest.skip("nothing to build")
    code = f"import sys; sys.path.insert(0, {str(backend.parent)!r}); sys.platform = {platform!r}; import backend"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    if platform == "win32":
        assert run.returncode == 1
        assert (
            run.stderr == "fastattn does not run on Windows yet: use Linux (also in WSL) or macOS on Apple silicon.\n"
        )
    else:
        assert "Windows" not in run.stderr


def test_pythons_are_found_by_what_they_are(tmp_path: Path) -> None:
    """A free-threaded Python also has the name of the other one."""
    script = ROOT / ".ci" / "pythons"
    if not script.exists():
        pytest.skip("the tests stand alone")
    for name in ("python3.14", "python3.14t"):
        code = "import sys, sysconfig; sys.version_info = 3, 14; sys.executable = sys.argv.pop(1)"
        code += "; sysconfig.get_config_var = lambda name: 1; exec(sys.argv.pop(1))"
        (tmp_path / name).write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -c "{code}" {name} "$@"\n')
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYENV_ROOT": str(tmp_path)}
    found = subprocess.run([script], env=env, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    assert [name for name in found if "3.14" in name] == ["python3.14t"]
