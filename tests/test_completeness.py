"""Every kernel of csrc/kernels.inc has its function, its reference, its tests and its benchmark case."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import fastattn.kernels
import fastattn.reference
from fastattn.cli.bench_cases import kernel_cases

TESTS = Path(__file__).parent
LIST = TESTS.parent / "csrc" / "kernels.inc"

ROWS = re.findall(r"^FASTATTN_KERNEL\((\w+), (\w+)\)$", LIST.read_text(), re.MULTILINE)
KERNELS = pytest.mark.parametrize("stem", sorted({re.sub("_(forward|backward)$", "", name) for name, _ in ROWS}))


def plain_signature(function: Any) -> list[tuple[str, Any, Any]]:
    """Names, kinds and defaults; the annotations differ in their dtypes."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def test_the_list_is_read() -> None:
    if not LIST.exists():
        pytest.skip("no csrc/kernels.inc beside the tests")
    assert len(ROWS) >= 9
    assert len(ROWS) == LIST.read_text().count("\nFASTATTN_KERNEL(")
    for name, arguments in ROWS:  # layer_norm_forward, LayerNormForward
        assert arguments == "".join(word.capitalize() for word in name.split("_"))


@KERNELS
def test_it_is_a_numpy_function(stem: str) -> None:
    function = getattr(fastattn.kernels, stem)
    assert function.__module__ == f"fastattn.kernels.{stem}"
    assert stem in fastattn.kernels.__all__


@KERNELS
def test_the_reference_has_the_same_signature(stem: str) -> None:
    reference = getattr(fastattn.reference, stem)
    assert reference.__module__ == f"fastattn.reference.{stem}"
    assert stem in fastattn.reference.__all__
    assert plain_signature(reference) == plain_signature(getattr(fastattn.kernels, stem))


@KERNELS
def test_it_has_a_test_file(stem: str) -> None:
    text = (TESTS / "kernels" / f"test_{stem}.py").read_text()
    assert f"kernels.{stem}" in text
    assert "isa: str" in text, "on every instruction set"


@KERNELS
def test_it_has_a_benchmark_case(stem: str) -> None:
    cases = [case for case in kernel_cases() if case.kernel == stem]
    assert cases
    assert all(case.reference is getattr(fastattn.reference, stem) for case in cases)


def test_nothing_is_missing_from_the_list() -> None:
    """What is public is in the list, so that none of the above is missed."""
    if not ROWS:
        pytest.skip("no csrc/kernels.inc beside the tests")
    stems = {re.sub("_(forward|backward)$", "", name) for name, _ in ROWS}
    assert set(fastattn.reference.__all__) == stems
    public = {name for name in fastattn.kernels.__all__ if inspect.isfunction(getattr(fastattn.kernels, name))}
    assert public == stems
    assert {case.kernel for case in kernel_cases()} == stems
