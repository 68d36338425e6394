"""What a network computes comes from the kernels: no other code takes exponentials, logarithms or tanh of arrays.

NumPy's differ from one processor to the next, and the bits of results must not. `reference` is NumPy on purpose, and
`functional` has sums in float64 that no kernel has.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fastattn

ROOT = Path(fastattn.__file__).parent
FUNCTIONS = {"exp", "expm1", "exp2", "log", "log1p", "log2", "log10", "logaddexp", "logaddexp2", "tanh", "sinh", "cosh"}
FOLDERS = ("generation", "models", "nn", "tasks", "text", "training")


def uses(tree: ast.AST) -> list[str]:
    """The calls of such functions of NumPy."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in FUNCTIONS and ast.unparse(node.value) in ("np", "numpy"):
            found.append(f"line {node.lineno}: np.{node.attr}")
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_networks_are_computed_by_kernels(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = {str(path.relative_to(ROOT)): uses(ast.parse(path.read_text(encoding="utf-8"))) for path in files}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_a_use_is_found() -> None:
    assert uses(ast.parse("import numpy as np\nx = np.exp(np.logaddexp.reduce(y)) + math.exp(2)")) == [
        "line 2: np.exp",
        "line 2: np.logaddexp",
    ]
