"""The model card of a run: README.md beside the model, with data, recipe and scores, as the Hugging Face Hub reads it.

It has no date and no path, so a run that was killed and resumed writes the same bits as one that was not.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastattn
from fastattn.checks import counted, listed, printable
from fastattn.files import read_regular, replacing
from fastattn.formats.hugging_face import read_json
from fastattn.training.trainer import Trainer

CARD = "README.md"
MARK = "<!-- fastattn writes this page again after each run. Delete this line to keep your own text. -->"
_SPLITS = {"train": "train", "eval": "validation", "test": "test"}  # the Hub's names
_COMFORT = ("keep", "plot", "progress", "save_every")  # options that say nothing of the model
_LARGEST = 1 << 26  # bytes of a card that is read

logger = logging.getLogger(__name__)

Metrics = Mapping[str, float | None]


class DataSet(NamedTuple):
    """Data of a run: `split` is train, eval or test, and `files` are names without folders."""

    split: str
    files: Sequence[str]
    items: int | None
    crc32: str | None

    @property
    def name(self) -> str:
        return listed(self.files) if self.files else self.split


def describe(task: Any, split: str, data: Any, files: Iterable[str | os.PathLike[str]]) -> DataSet:
    """What a card says of data. Their own `files` are named if none are given."""
    names = [Path(file).name for file in files or getattr(data, "files", ())]
    crc32 = None
    with contextlib.suppress(AttributeError):  # not every task has a checksum of its data
        crc32 = f"{task.checksum(data) & 0xFFFFFFFF:08x}"
    return DataSet(split, names, len(data) if hasattr(data, "__len__") else None, crc32)


def model_card(
    task: Any,
    folder: str | os.PathLike[str],
    trainer: Trainer,
    data: Sequence[DataSet],
    scores: Mapping[str, Metrics],
    weights: str,
) -> str:
    """The text of a card.

    Args:
        task: the task that was trained. Its recipe has the options, `summary` and `pipeline_tag`.
        folder: the folder of the model, whose config.json names its kind.
        trainer: the trainer, at its end.
        data: the data of the run.
        scores: the metrics of the saved model, by split.
        weights: what the saved weights are, such as "those of the last step".
    """
    recipe, name = task.recipe, type(task).__name__
    kinds = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        kinds = [str(read_json(Path(folder, "config.json"))["model_type"])]
    count = sum(int(np.prod(parameter.shape)) for _, parameter in task.model.named_parameters())
    module = "fastattn.tasks" if type(task).__module__.startswith("fastattn.tasks.") else type(task).__module__
    head = {
        "library_name": "fastattn",
        **({"pipeline_tag": recipe.pipeline_tag} if recipe.pipeline_tag else {}),
        **({"base_model": task.base_model} if task.base_model else {}),
        "tags": ["fastattn", *kinds],
        "model-index": [{"name": name, "results": list(_results(recipe.pipeline_tag or name.lower(), data, scores))}],
    }
    if not head["model-index"][0]["results"]:
        del head["model-index"]
    begun = f"starts from `{_text(task.base_model)}`" if task.base_model else "is trained from scratch"
    usage = [f"from {module} import {name}", "", f'model = {name}.from_pretrained("path/to/this/folder")']
    files = [(each.split, listed(each.files), each.items, each.crc32) for each in data]
    lines = [
        *("---", *_yaml(head), "---", MARK, "", f"# {name}", ""),
        f"{recipe.summary[:1].upper()}{recipe.summary[1:]}. The model has {count:,} parameters and {begun}. It was "
        f"trained with fastattn {fastattn.__version__} (steps: {trainer.step:,}, epochs: {trainer.epoch}). Its weights "
        f"are {weights}.",
        *("", "```python", *usage, "```", ""),
        *("## Scores", "", *_scores(trainer.evaluations, scores)),
        *("## Data", "", *_table(["data", "files", "items", "CRC-32"], files)),
        *("## Recipe", "", *_planned(trainer.planned), *_options(recipe)),
    ]
    return "\n".join(lines) + "\n"


def write_card(folder: str | os.PathLike[str], text: str) -> None:
    """Write a card, whole or not at all. A README.md that a run did not write stays. Raises OSError, with the file."""
    path = Path(folder) / CARD
    if os.path.lexists(path) and not _is_ours(path):
        logger.info("%s is not of a run, and stays as it is; no model card is written", path)
        return
    with replacing(path) as (temporary,):
        temporary.write_text(text, encoding="utf-8")


def _is_ours(path: Path) -> bool:
    try:
        return MARK.encode() in read_regular(path, _LARGEST)
    except (OSError, ValueError):
        return False


def _results(kind: str, data: Sequence[DataSet], scores: Mapping[str, Metrics]) -> Iterator[dict[str, Any]]:
    """The Hub's form of the scores of the saved model."""
    for each in data:
        metrics = {name: value for name, value in scores.get(each.split, {}).items() if value is not None}
        if metrics:
            yield {
                "task": {"type": kind},
                "dataset": {"type": each.name, "name": each.name, "split": _SPLITS[each.split]},
                "metrics": [{"type": name, "value": value} for name, value in metrics.items()],
            }


def _scores(evaluations: Sequence[Mapping[str, Any]], scores: Mapping[str, Metrics]) -> Iterator[str]:
    names = list(dict.fromkeys(name for metrics in scores.values() for name in metrics))
    if names:
        rows = [(split, *map(metrics.get, names)) for split, metrics in scores.items()]
        yield from ("Of these weights:", "", *_table(["data", *names], rows))
    names = list(dict.fromkeys(name for entry in evaluations for name in entry["metrics"]))
    if names:
        rows = [(entry["epoch"], entry["step"], *map(entry["metrics"].get, names)) for entry in evaluations]
        yield from ("Of each evaluation in the run:", "", *_table(["epoch", "step", *names], rows))
    else:
        yield from (("The run had no evaluation.", "") if not scores else ())


def _planned(planned: Sequence[Sequence[int]]) -> Iterator[str]:
    if len(planned) > 1:
        told = [f"{counted(epochs, 'epoch')} from step {step + 1} on" for step, epochs in planned]
        yield from (f"The run was resumed with another length: {', '.join(told)}. The rate follows each.", "")


def _options(recipe: Any) -> Iterator[str]:
    shaping = [field for field in fields(recipe) if field.name not in _COMFORT]
    rows = [(f"`{field.name}`", _value(getattr(recipe, field.name)), _value(field.default)) for field in shaping]
    changed = [row for row in rows if row[1] != row[2]]
    yield from ("Options that differ from their defaults:", "") if changed else ("All options have their defaults.", "")
    yield from _table(["option", "value", "default"], changed) if changed else ()
    yield from ("<details><summary>All options</summary>", "", *_table(["option", "value"], [row[:2] for row in rows]))
    yield "</details>"


def _value(value: Any) -> str:
    """A value of an option. Of a path, the last part."""
    if isinstance(value, (tuple, list)):
        return " ".join(map(_value, value))
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    return Path(value).name if isinstance(value, str) and os.sep in value else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(map(_text, row))} |"
    yield ""


def _text(value: Any) -> str:
    """A value in a page: it is one line, and no mark of a table or of HTML."""
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    for mark, written in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("\n", " ")):
        text = text.replace(mark, written)
    return printable(text)


def _yaml(value: Any) -> Iterator[str]:
    """The lines of a value as YAML, whose double-quoted strings are those of JSON."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _entry(f"{key}:", entry)
    else:
        for entry in value:
            if isinstance(entry, Mapping):
                first, *others = _yaml(entry)
                yield from (f"- {first}", *(f"  {line}" for line in others))
            else:
                yield f"- {_scalar(entry)}"


def _entry(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, (Mapping, list)):
        yield from (key, *(f"  {line}" for line in _yaml(value)))
    else:
        yield f"{key} {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(printable(value), ensure_ascii=False)
    return np.format_float_positional(value, trim="0")  # YAML 1.1 takes 1e-05 for a string
