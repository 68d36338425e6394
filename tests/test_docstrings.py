"""Every public kernel and its reference say what they do, with an example that runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
from typing import Any

import numpy as np
import pytest

import fastattn.kernels
import fastattn.reference

FUNCTIONS = [
    pytest.param(getattr(module, name), id=f"{module.__name__}.{name}")
    for module in (fastattn.kernels, fastattn.reference)
    for name in module.__all__
    if inspect.isfunction(getattr(module, name))
]


def examples(function: Any) -> list[doctest.DocTest]:
    module = importlib.import_module(function.__module__)
    finder = doctest.DocTestFinder(recurse=False)
    return [test for test in finder.find(function, globs={**vars(module), "np": np}) if test.examples]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_example_runs(function: Any) -> None:
    tests = examples(function)
    assert tests, f"{function.__module__}.{function.__name__} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for test in tests:
        lines: list[str] = []
        assert runner.run(test, out=lines.append).failed == 0, "".join(lines)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_argument_is_mentioned(function: Any) -> None:
    text = inspect.getdoc(function) or ""
    missing = [name for name in inspect.signature(function).parameters if name not in text]
    assert not missing, f"{function.__module__}.{function.__name__} does not explain {missing}"
