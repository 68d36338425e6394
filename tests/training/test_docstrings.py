"""The examples in the docstrings run, and every argument of a public function or class is mentioned."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

from fastattn import training

MODULES = [f"fastattn.training.{module.name}" for module in pkgutil.iter_modules(training.__path__)]


@pytest.mark.parametrize("name", [*MODULES, "fastattn.text.conllu", "fastattn.tasks.tagger"])
def test_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    results = doctest.testmod(module, extraglobs={"np": importlib.import_module("numpy")})
    assert results.failed == 0


@pytest.mark.parametrize("name", training.__all__)
def test_arguments_are_mentioned(name: str) -> None:
    thing = getattr(training, name)
    if inspect.isclass(thing) and (issubclass(thing, Exception) or getattr(thing, "_is_protocol", False)):
        return
    documentation = inspect.getdoc(thing) or ""
    for argument in list(inspect.signature(thing).parameters):
        if argument not in ("args", "kwargs", "defaults"):
            assert re.search(rf"\b{argument}\b", documentation), f"{name}: {argument} is not mentioned"
