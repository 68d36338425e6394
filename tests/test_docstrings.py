"""The examples in the docstrings run, and every argument of what is public is mentioned."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from typing import Any

import numpy as np
import pytest

import fastattn
import fastattn.functional
import fastattn.kernels
import fastattn.reference
import fastattn.training

MODULES = [
    module.name
    for module in pkgutil.walk_packages(fastattn.__path__, "fastattn.")
    if not module.name.endswith(("._core", "__main__"))
]
FUNCTIONS = [
    pytest.param(getattr(module, name), id=f"{module.__name__}.{name}")
    for module in (fastattn.kernels, fastattn.reference)
    for name in module.__all__
    if inspect.isfunction(getattr(module, name))
]
PUBLIC = [
    pytest.param(thing, id=f"{module.__name__}.{name}")
    for module in (fastattn.kernels, fastattn.functional, fastattn.training)
    for name in module.__all__
    for thing in [getattr(module, name)]
    if not (inspect.isclass(thing) and (issubclass(thing, Exception) or getattr(thing, "_is_protocol", False)))
]


@pytest.mark.parametrize("name", ["fastattn", *MODULES])
def test_examples_run(name: str) -> None:
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    module = importlib.import_module(name)
    assert doctest.testmod(module, extraglobs={"np": np}, optionflags=flags).failed == 0


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_kernel_has_an_example(function: Any) -> None:
    assert ">>> " in (inspect.getdoc(function) or "")


@pytest.mark.parametrize("name", fastattn.reference.__all__)
def test_a_reference_refers_to_its_kernel(name: str) -> None:
    assert f"See `fastattn.kernels.{name}`." in getattr(fastattn.reference, name).__doc__


@pytest.mark.parametrize("thing", PUBLIC)
def test_every_argument_is_mentioned(thing: Any) -> None:
    text = inspect.getdoc(thing) or ""
    try:
        names = list(inspect.signature(thing).parameters)
    except ValueError:  # a compiled class
        return
    missing = [name for name in names if name not in ("args", "kwargs") and not re.search(rf"\b{name}\b", text)]
    assert not missing, f"{thing.__module__}.{thing.__name__} does not explain {missing}"
