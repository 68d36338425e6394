"""The pages of the documentation as blocks, and what it takes to run them."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/coming-from").glob("*.md"))]
NUMBER = re.compile(r"-?\d+\.\d*(?:e[-+]?\d+)?")


class Block(NamedTuple):
    """A fenced block: its language, what stands in it, and the line of the page where it begins."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(match[1], match[2], text[: match.start()].count("\n") + 1) for match in found]


def alike(printed: str, expected: str) -> bool:
    """Equal text, but for spaces; numbers may differ a little, as they do between instruction sets."""
    numbers = [np.array(NUMBER.findall(text), np.float64) for text in (printed, expected)]
    words = ["".join(NUMBER.sub("#", text).split()) for text in (printed, expected)]
    return words[0] == words[1] and bool(np.allclose(*numbers, rtol=0.01, atol=0.011))


def compare(printed: str, expected: str) -> None:
    assert alike(printed, expected), f"printed\n{printed}\ninstead of\n{expected}"


def compare_lines(printed: str, expected: str) -> None:
    """Each expected line is printed, in this order; warnings may stand between them, and "..." is any text."""
    rest = iter(printed.splitlines())
    for line in expected.splitlines():
        pattern = ".*".join(map(re.escape, line.split("...")))
        fits = any(re.fullmatch(pattern, other) if "..." in line else alike(other, line) for other in rest)
        assert fits, f"{line!r} is not in\n{printed}"


def run_python(page: Path, block: Block, names: dict[str, Any]) -> str:
    """What the block prints, run in `names`."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*drawn at random")
        exec(compile("\n" * block.line + block.text, str(page), "exec"), names)
    return printed.getvalue()


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block, and what it shows that each prints."""
    text = block.text.replace("\\\n", " ")
    return [(command, output) for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.M)]


def run_command(command: str, folder: Path, errors: int = subprocess.STDOUT) -> str:
    """What a command of a shell prints, by default with its errors. Its `fastattn` is this one."""
    module = f"{shlex.quote(sys.executable)} -m fastattn"
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": path, "FASTATTN_DATA": str(folder), "COLUMNS": "200"}
    script = f'set -o pipefail; fastattn() {{ {module} "$@"; }}; {command}'
    result = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True,
        timeout=600,
    )  # fmt: skip
    assert result.returncode in (0, 141), (
        f"{command}\n{result.stdout}\n{result.stderr or ''}"
    )  # 141: `| head` closed the pipe
    return result.stdout
