"""Pictures: loss, learning rate and metrics of a run over its steps, and what a model attends to."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn.files import replacing

FORMATS = ("png", "svg")
STEP = ("loss", "learning_rate")  # what is drawn of a step


def import_matplotlib() -> Any:
    """`matplotlib.figure`. Raises ImportError, which says how to install it."""
    try:
        import matplotlib.figure
    except ImportError as error:
        raise ImportError('a picture needs matplotlib: pip install "fastattn[train]"') from error
    return matplotlib.figure


def plot_format(output: str | os.PathLike[str]) -> str:
    """The format by the ending of a picture's name. Raises ValueError if it is none of `FORMATS`."""
    kind = Path(output).suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise ValueError(f"{output}: a plot is written as {' or '.join(FORMATS)}")
    return kind


def plot_log(log: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Draw the log of a `Trainer`: loss (of each step, and smoothed), learning rate, and metrics if there are any.

    A metric called loss is drawn with the loss of the steps, the others below. A line that is damaged is left out, and
    a warning names it. The picture is written beside its place and renamed. No window opens, and matplotlib's settings
    and current figure stay as they are.

    Args:
        log: the file `log.jsonl` of a run.
        output: the picture, `.png` or `.svg`.

    Raises ValueError for another ending, OSError, and ImportError without matplotlib.
    """
    log, output = Path(log), Path(output)
    kind = plot_format(output)
    steps, evaluations = _read(log)
    names = [name for name in evaluations[0]["metrics"] if name != "loss"] if evaluations else []
    figure = import_matplotlib().Figure(figsize=(8, 5 if names else 3.5), layout="constrained")
    axes = figure.subplots(2 if names else 1, 1, sharex=True, squeeze=False)[:, 0]
    _draw_loss(axes[0], steps)
    if evaluations and "loss" in evaluations[0]["metrics"]:
        _draw_metrics(axes[0], evaluations, ["loss"])
    if names:
        _draw_metrics(axes[1], evaluations, names)
    axes[-1].set_xlabel("step")
    _save(figure, output, kind)


def plot_attention(
    weights: ArrayLike, source_tokens: Sequence[str], target_tokens: Sequence[str], output: str | os.PathLike[str]
) -> None:
    """Draw what each target token attends to: a row for each target token, a column for each source token.

    The picture is written as that of `plot_log`.

    Args:
        weights: `[target, source]`, from 0 to 1, or `[heads, target, source]`, a panel for each head.
        source_tokens: the labels of the columns.
        target_tokens: the labels of the rows.
        output: the picture, `.png` or `.svg`.

    Raises ValueError for another ending or another shape, and ImportError without matplotlib.
    """
    output = Path(output)
    kind = plot_format(output)
    panels = np.asarray(weights, np.float64)
    rows, columns = len(target_tokens), len(source_tokens)
    if panels.ndim not in (2, 3) or panels.shape[-2:] != (rows, columns) or not panels.size:
        raise ValueError(f"plot_attention: weights must have shape ([heads,] {rows}, {columns}), got {panels.shape}")
    panels = panels.reshape(-1, rows, columns)
    across = min(len(panels), 4)
    down = -(-len(panels) // across)
    size = (across * (1.2 + 0.3 * columns) + 0.8, down * (0.8 + 0.3 * rows))
    figure = import_matplotlib().Figure(figsize=size, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for head, (panel, some) in enumerate(zip(panels, axes, strict=False)):
        image = some.imshow(panel, vmin=0, vmax=panels.max(), cmap="Blues", aspect="equal")
        some.set_xticks(range(columns), source_tokens)
        some.set_yticks(range(rows), target_tokens)
        if len(panels) > 1:
            some.set_title(f"head {head}", fontsize="medium")
    for some in axes[len(panels) :]:
        some.set_axis_off()
    figure.colorbar(image, ax=list(axes), label="attention", shrink=0.8)
    _save(figure, output, kind)


def _save(figure: Any, output: Path, kind: str) -> None:
    with replacing(output) as (temporary,):
        figure.savefig(temporary, format=kind, dpi=120, bbox_inches="tight")


def _read(log: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The records of steps and of evaluations. Other lines, which a crash of the system may leave, are named."""
    steps: list[dict[str, Any]] = []
    evaluations: list[dict[str, Any]] = []
    for number, line in enumerate(log.read_bytes().splitlines(), start=1):
        record = _record(line)
        if record is None:
            warnings.warn(f"{log}:{number}: not a line of a log; it is not drawn", stacklevel=3)
        else:
            (evaluations if "metrics" in record else steps).append(record)
    return steps, evaluations


def _record(line: bytes) -> dict[str, Any] | None:
    """The record of a step or of an evaluation, or None for anything else."""
    try:
        record: Any = json.loads(line)
        numbers = {"step": record["step"]}
        numbers |= record["metrics"] if "metrics" in record else {name: record[name] for name in STEP}
        np.array(list(numbers.values()), np.float64)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None
    return dict(record)


def _column(records: list[dict[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([record.get(name) for record in records], np.float64)


def _draw_loss(axes: Any, steps: list[dict[str, Any]]) -> None:
    number, loss = _column(steps, "step"), _column(steps, "loss")
    axes.plot(number, loss, color="tab:blue", alpha=0.3, linewidth=0.8)
    axes.plot(number, _smoothed(loss), color="tab:blue", linewidth=1.6)
    axes.set_ylabel("loss", color="tab:blue")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    rates = axes.twinx()
    rates.plot(number, _column(steps, "learning_rate"), color="tab:gray", linestyle="--", linewidth=1)
    rates.set_ylabel("learning rate", color="tab:gray")
    rates.set_ylim(bottom=0)


def _draw_metrics(axes: Any, evaluations: list[dict[str, Any]], names: list[str]) -> None:
    number = _column(evaluations, "step")
    metrics = [record["metrics"] for record in evaluations]
    for name in names:
        label, color = ("loss of the evaluations", "tab:orange") if name == "loss" else (name, None)
        axes.plot(number, _column(metrics, name), marker="o", markersize=3, label=label, color=color)
    axes.legend()
    axes.grid(alpha=0.3)


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each value and those before it. The window is a twentieth of all values."""
    width = max(1, len(values) // 20)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))
