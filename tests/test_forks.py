"""The matrix of `python tests/forks.py`: every way to get a child, alone and beside other libraries."""

from __future__ import annotations

import os

import forks
import pytest

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork") or not os.path.isdir("/proc/self/task"), reason="needs fork, and a list of threads"
)


@pytest.fixture(scope="module")
def expected() -> str:
    return forks.models()()


def by_name(cell: forks.Cell) -> str:
    parts = [cell.start, "used" if cell.used else "unused", f"{cell.threads}t", cell.library, cell.order]
    return "-".join(filter(None, parts))


def with_threads(library: str) -> list[forks.Cell]:
    """Half of the cells: beside another library, a process with one thread is the less likely to fail."""
    return [cell for cell in forks.cells(library) if cell.threads > 1]


@pytest.mark.parametrize("cell", forks.cells(""), ids=by_name)
def test_a_child_computes(cell: forks.Cell, expected: str) -> None:
    assert not forks.try_cell(cell, expected)


@pytest.mark.parametrize("cell", with_threads("torch"), ids=by_name)
def test_beside_torch(cell: forks.Cell, expected: str) -> None:
    pytest.importorskip("torch")
    assert not forks.try_cell(cell, expected)


@pytest.mark.parametrize("cell", with_threads("scikit-learn"), ids=by_name)
def test_beside_scikit_learn(cell: forks.Cell, expected: str) -> None:
    pytest.importorskip("sklearn")
    assert not forks.try_cell(cell, expected)


def test_a_cell_that_fails() -> None:
    cell = forks.Cell("fork", False, 1)
    assert "expected other bits" in forks.try_cell(cell, "other bits")
    assert "killed after" in forks.try_cell(cell, "other bits", timeout=0.01)
