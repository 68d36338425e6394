"""A picture of a run: loss, learning rate and metrics over the steps of its log."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.files import replacing

FORMATS = ("png", "svg")


def import_matplotlib() -> Any:
    """`matplotlib.figure`, or an ImportError that says how to install it."""
    try:
        import matplotlib.figure
    except ImportError as error:
        raise ImportError('a loss plot needs matplotlib: pip install "fastattn[train]"') from error
    return matplotlib.figure


def plot_format(output: str | os.PathLike[str]) -> str:
    """The format that a picture's name asks for. Raises ValueError when it is none of `FORMATS`."""
    kind = Path(output).suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise ValueError(f"{output}: a plot is written as {' or '.join(FORMATS)}")
    return kind


def plot_log(log: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Draw the log of a `Trainer`: loss (each step, and smoothed) and learning rate, and metrics if there are any.

    The picture is written beside its place and renamed. No window is opened, and matplotlib's settings and
    current figure stay as they are.

    Args:
        log: the file `log.jsonl` of a run.
        output: the picture, `.png` or `.svg`.

    Raises:
        ValueError: another ending, or a line of the log that is not JSON, by its number.
        ImportError: matplotlib is missing.
    """
    log, output = Path(log), Path(output)
    kind = plot_format(output)
    steps, evaluations = _read(log)
    figure = import_matplotlib().Figure(figsize=(8, 5 if evaluations else 3.5), layout="constrained")
    axes = figure.subplots(2 if evaluations else 1, 1, sharex=True, squeeze=False)[:, 0]
    _draw_loss(axes[0], steps)
    if evaluations:
        _draw_metrics(axes[1], evaluations)
    axes[-1].set_xlabel("step")
    with replacing(output) as (temporary,):
        figure.savefig(temporary, format=kind, dpi=120)


def _read(log: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The records of steps and of evaluations."""
    steps: list[dict[str, Any]] = []
    evaluations: list[dict[str, Any]] = []
    for number, line in enumerate(log.read_bytes().splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{log}:{number}: not JSON: {error}") from None
        (evaluations if "metrics" in record else steps).append(record)
    return steps, evaluations


def _column(records: list[dict[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([record[name] for record in records], np.float64)


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


def _draw_metrics(axes: Any, evaluations: list[dict[str, Any]]) -> None:
    number = _column(evaluations, "step")
    metrics = [record["metrics"] for record in evaluations]
    for name in metrics[0]:
        axes.plot(number, _column(metrics, name), marker="o", markersize=3, label=name)
    axes.legend()
    axes.grid(alpha=0.3)


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each value and those before it, as many as a twentieth of all."""
    width = max(1, len(values) // 20)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))
