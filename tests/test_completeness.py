"""Every kernel of csrc/kernels.inc has its function, its reference, its tests and its benchmark case.

A backward kernel, too: layer_norm_backward is a function beside layer_norm, in the same files.
"""

from __future__ import annotations

import inspect
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import fastattn.kernels
import fastattn.reference
from fastattn.bench import kernel_cases

TESTS = Path(__file__).parent
LIST = TESTS.parent / "csrc" / "kernels.inc"
if not LIST.exists():
    pytest.skip("no source beside the tests", allow_module_level=True)

FACES = {"lstm_cell", "gru_cell", "gelu", "gelu_backward"}  # public functions that call the kernel of another one

ROWS = re.findall(r"^FASTATTN_KERNEL\((\w+), (\w+)\)$", LIST.read_text(), re.MULTILINE)


def function_of(kernel: str) -> str:
    """Of layer_norm_forward: layer_norm; of layer_norm_backward: the same name."""
    return kernel.removesuffix("_forward")


def stem_of(kernel: str) -> str:
    """The module of both functions."""
    return re.sub("_(forward|backward)$", "", kernel)


KERNELS = pytest.mark.parametrize("kernel", [name for name, _ in ROWS])


def plain_signature(function: Any) -> list[tuple[str, Any, Any]]:
    """Names, kinds and defaults; the annotations differ in their dtypes."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def test_the_list_is_read() -> None:
    if not LIST.exists():
        pytest.skip("no csrc/kernels.inc beside the tests")
    assert len(ROWS) >= 25
    assert len(ROWS) == LIST.read_text().count("\nFASTATTN_KERNEL(")
    for name, arguments in ROWS:  # layer_norm_forward, LayerNormForward
        assert arguments == "".join(word.capitalize() for word in name.split("_"))


@KERNELS
def test_it_is_a_numpy_function(kernel: str) -> None:
    function = getattr(fastattn.kernels, function_of(kernel))
    assert function.__module__ == f"fastattn.kernels.{stem_of(kernel)}"
    assert function_of(kernel) in fastattn.kernels.__all__


@pytest.mark.parametrize("name", [*(function_of(name) for name, _ in ROWS), *sorted(FACES)])
def test_the_reference_has_the_same_signature(name: str) -> None:
    reference = getattr(fastattn.reference, name)
    assert reference.__module__ == f"fastattn.reference.{stem_of(name).removesuffix('_cell')}"
    assert name in fastattn.reference.__all__
    assert plain_signature(reference) == plain_signature(getattr(fastattn.kernels, name))


def test_avx512_is_emulated() -> None:
    """`make avx512-test` compiles csrc/simd/avx512.h over these functions."""
    source = LIST.parent / "simd" / "avx512.h"
    if not source.exists():
        pytest.skip("no csrc beside the tests")
    used = set(re.findall(r"\b_mm512_\w+", source.read_text()))
    emulation = (TESTS / "csrc" / "avx512" / "immintrin.h").read_text()
    assert len(used) >= 15
    assert used == set(re.findall(r"^FASTATTN_EMULATED \w+ (_mm512_\w+)\(", emulation, re.MULTILINE))
    page = TESTS.parent / "docs" / "design" / "parity-and-goldens.md"
    assert used == set(re.findall(r"`(_mm512_\w+)`", page.read_text()))


def test_backward_follows_forward() -> None:
    """They are a pair, and stand together."""
    names = [name for name, _ in ROWS]
    for before, name in pairwise(["", *names]):
        if name.endswith("_backward"):
            assert before == f"{stem_of(name)}_forward"


@KERNELS
def test_it_has_tests(kernel: str) -> None:
    files = [TESTS / "kernels" / f"test_{name}.py" for name in (stem_of(kernel), f"{stem_of(kernel)}_backward")]
    text = "".join(file.read_text() for file in files if file.exists())
    assert re.search(rf"\bkernels\.{function_of(kernel)}\b", text) or f'"{function_of(kernel)}"' in text
    assert "isa: str" in text, "on every instruction set"


@KERNELS
def test_it_has_a_benchmark_case(kernel: str) -> None:
    assert any(case.kernel == function_of(kernel) for case in kernel_cases())


def test_nothing_is_missing_from_the_list() -> None:
    """What is public is in the list, so that none of the above is missed."""
    if not ROWS:
        pytest.skip("no csrc/kernels.inc beside the tests")
    names = {function_of(name) for name, _ in ROWS} | FACES
    assert set(fastattn.reference.__all__) == names
    public = {name for name in fastattn.kernels.__all__ if inspect.isfunction(getattr(fastattn.kernels, name))}
    assert public == names
    assert {case.kernel for case in kernel_cases()} == names
