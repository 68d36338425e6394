"""tests/mutants.py plants what it says: in code alone, once, and so that a test sees it."""

from __future__ import annotations

import ast
from itertools import islice
from pathlib import Path

import helpers_no_faults
import mutants
import pytest
from helpers_faults import Fault, faults

ROOT = Path(__file__).parents[1]
whole = pytest.mark.skipif(
    not ((ROOT / "csrc").exists() and (ROOT / "fastattn").exists()), reason="no source beside the tests"
)
PYTHON = b'''
def f(a: int = 0, *, names: list[str]) -> bool:
    """Adds 1 to 2, if a < 3."""
    if a < 3 and names:
        raise ValueError(f"a must be at least 3, got {a + 1}")
    if names == []:
        return False
    del names[2:-1]
    g(a, names)
    return max(a, 1) in names
'''
CPP = b"""
// if (a < 1) return a + 1;
#if defined(OTHER)
int other(int a) { return a + 1; }
#endif
template <typename T, int N = 3>
float sum(const float* x, i64 count, const std::vector<int>& more) {
    static_assert(sizeof(float) == 4);
    if (count < 1) return 0.5f;
    float total = say("a < 2 + 2");
    for (i64 i = 0; i < count; i += 1) total += x[i];
    keep(total, count);
    return total;
}
"""


def changes(name: str, source: bytes) -> list[str]:
    """The lines that differ, of each fault."""
    found = []
    for fault in faults(name, source):
        lines = fault.planted(source).decode().splitlines()
        before = source.decode().splitlines()
        assert len(lines) == len(before)
        [changed] = [i for i, (old, new) in enumerate(zip(before, lines, strict=True)) if old != new]
        assert changed + 1 == fault.line
        found.append(lines[changed].strip())
    return found


def test_python() -> None:
    found = changes("a.py", PYTHON)
    assert {
        "if a <= 3 and names:", "if a < 3 or names:", "if a < 4 and names:", "if False:", "if not (names == []):",
        "if names != []:", "return True",
        "def f(a: int = 1, *, names: list[str]) -> bool:", "del names[:-1]", "del names[2:]", "del names[2:(-1) - 1]",
        "g(names, a)", "pass", "return min(a, 1) in names", "return max(a, 1) not in names",
    } <= set(found)  # fmt: skip
    assert not any("ValueError" in line or "Adds" in line for line in found)


def test_cpp() -> None:
    found = changes("a.cpp", CPP)
    assert {
        "if (count <= 1) return 0.5f;", "if (count < 2) return 0.5f;", "if (count < 1) return 1.0f;",
        "if (!(count < 1)) return 0.5f;", "{}", "for (i64 i = 0; false; i += 1) total += x[i];",
        "for (i64 i = 0; i <= count; i += 1) total += x[i];", "for (i64 i = 0; i < count; i += 1) total -= x[i];",
        "for (i64 i = 0; i < count; i += 1) total += x[i + 1];", "keep(count, total);", ";",
    } <= set(found)  # fmt: skip
    assert "for (i64 i = 0; i < count; i -= 1) total += x[i];" not in found  # it would not end
    assert not any(word in line for line in found for word in ("//", "other", "template", "static_assert", "say"))


@whole
def test_what_is_drawn() -> None:
    drawn = [next(room) for room in islice(mutants.drawn(0, "*"), 100)]
    assert drawn == [next(room) for room in islice(mutants.drawn(0, "*"), 100)]
    assert drawn != [next(room) for room in islice(mutants.drawn(1, "*"), 100)]
    assert len(set(drawn)) == 100
    assert 40 <= sum(fault.file.startswith("csrc/") for fault in drawn) <= 60
    assert len({str(Path(fault.file).parent) for fault in drawn}) > 15
    for fault in drawn:
        if fault.file.endswith(".py"):
            ast.parse(fault.planted((ROOT / fault.file).read_bytes()))


@whole
def test_which_tests_run() -> None:
    def chosen(file: str) -> list[list[str]]:
        return mutants.tests_of(Fault("line removed", file, 40, 0, 0, "", ""))

    assert chosen("csrc/kernels/pooling.cpp")[:2] == [
        ["tests/kernels/test_pooling.py"], ["tests/kernels/test_properties.py", "-k", "[pooling"],
    ]  # fmt: skip
    assert chosen("fastattn/training/schedules.py")[0] == ["tests/training/test_schedules.py"]
    assert "tests/tasks/test_tagger.py" in chosen("fastattn/tasks/tag/spans.py")[0]
    names = [str(path.relative_to(ROOT)) for path in [*ROOT.glob("csrc/**/*.cpp"), *ROOT.glob("fastattn/**/*.py")]]
    assert not [name for name in names if not name.endswith("__.py") and not chosen(name)]


@whole
def test_every_equivalent_change_is_still_there() -> None:
    for file, line, change, reason in helpers_no_faults.EQUIVALENT:
        found = [fault for fault in faults(file, (ROOT / file).read_bytes()) if mutants.line_of(fault) == line]
        assert change in [f"{fault.old} -> {fault.new}" for fault in found], (file, line, change)
        assert reason
