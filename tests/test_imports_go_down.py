"""Imports only go down, those inside functions too (DESIGN.md, section 2)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import fastattn

ROOT = Path(fastattn.__file__).parent
LEVELS = (
    "_core _lazy _types checks",
    "errors files progress",
    "lines random ragged runtime",
    "kernels reference profiling",
    "autograd _tensor_methods bench",
    "functional",
    "nn formats hub",
    "text",
    "models",
    "generation training",
    "tasks",
    "serving integrations",
    "cli",
    "__main__",
)
RANKS = {name: rank for rank, level in enumerate(LEVELS) for name in level.split()}
TAPE = {"autograd", "_tensor_methods"}  # one class in two files
KNOW_NO_MODEL = {"text", "formats", "training"}


def imports(path: Path) -> Iterator[list[str]]:
    """The modules of this package that a file imports, each as the parts of its name behind `fastattn`."""
    package = ".".join(["fastattn", *path.relative_to(ROOT).parts[:-1]])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else str(node.module)
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1:] for name in names if name.startswith("fastattn.") and "__" not in name)


FILES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def test_imports_go_down() -> None:
    wrong = []
    for path in FILES:
        own = list(path.relative_to(ROOT).with_suffix("").parts)
        for other in imports(path):
            up = RANKS.get(other[0], len(LEVELS)) >= RANKS[own[0]] and other[0] != own[0] and {own[0], other[0]} != TAPE
            model = own[0] in KNOW_NO_MODEL and other[0] == "models"
            families = {parts[1] for parts in (own, other) if parts[0] == "models" and len(parts) > 1}
            family = own[0] == "models" and len({name for name in families if (ROOT / "models" / name).is_dir()}) > 1
            if up or model or family:
                wrong.append(f"{'.'.join(own)} imports {'.'.join(other)}")
    assert not wrong, "\n".join(wrong)


def test_no_two_modules_import_each_other() -> None:
    edges = set()
    for path in FILES:
        for parts in imports(path):
            files = [ROOT.joinpath(*parts[:n]).with_suffix(".py") for n in (len(parts), len(parts) - 1) if n]
            edges |= {(path, file) for file in files if file.exists() and file != path}
    both = {frozenset((a.stem, b.stem)) for a, b in edges if (b, a) in edges}
    assert both <= {frozenset(TAPE)}


def test_every_module_has_its_level() -> None:
    names = {path.relative_to(ROOT).with_suffix("").parts[0] for path in FILES}
    assert names <= set(RANKS)
