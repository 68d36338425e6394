"""From results to tables and JSON: a report holds the samples, the machine they come from and the tables."""

from __future__ import annotations

import importlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import numpy as np

from .measure import Result, quartiles

Outcome = TypeVar("Outcome")

LOAD_AT_START = os.getloadavg()[0]
HEADER = [
    "case",
    "runtime",
    "ms (quartiles)",
    "rate",
    "GFLOP/s",
    "of peak",
    "fastattn is faster by",
    "differs by",
]


class Table(TypedDict):
    """A title, column names and rows of text."""

    title: str
    header: list[str]
    rows: list[list[str]]


class Report(TypedDict):
    """What a command writes as JSON."""

    command: str
    machine: dict[str, str]
    tables: list[Table]
    results: list[dict[str, Any]]


def earlier(path: Path | None, kind: Callable[..., Outcome]) -> list[Outcome]:
    """The results of a JSON file, if it is there."""
    if path is None or not path.exists():
        return []
    return [kind(**each) for each in json.loads(path.read_text())["results"]]


def deviation(scores: Sequence[float]) -> float:
    """The standard deviation of scores; 0 for a single one."""
    return float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0


def mean_and_deviation(scores: Sequence[float]) -> str:
    return f"{np.mean(scores):.2f} ({deviation(scores):.2f})"


def machine(threads: int) -> dict[str, str]:
    """What the numbers depend on besides the code."""
    fastattn = importlib.import_module("fastattn")
    settings = {name: os.environ[name] for name in ("OMP_WAIT_POLICY",) if name in os.environ}
    return {
        "CPU": cpu_name(),
        "ISA": str(fastattn.isa()),
        "threads": str(threads),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "load average at the start": f"{LOAD_AT_START:.2f}",
        "date": time.strftime("%Y-%m-%d"),
        **settings,
    }


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def timing_report(command: str, title: str, results: Sequence[Result], threads: int) -> Report:
    """The report of a command that timed cases: one table, one row per case and contender."""
    about = machine(threads)
    peaks = [peak for result in results for series in result.series.values() for peak in series.peak_gflops]
    if peaks:
        low, middle, high = quartiles(peaks)
        about["measured peak"] = f"{middle:.0f} GFLOP/s (quartiles {low:.0f} and {high:.0f})"
    for result in results:
        about |= {f"{package} version": each for package, each in result.versions.items()}
    rows = [row for result in results for row in timing_rows(result)]
    table: Table = {"title": title, "header": HEADER, "rows": rows}
    samples = [asdict(result) for result in results]
    return {"command": command, "machine": about, "tables": [table], "results": samples}


def timing_rows(result: Result) -> list[list[str]]:
    ours = next(iter(result.series.values()))
    rows = []
    for name, series in result.series.items():
        low, middle, high = (1e3 * seconds for seconds in quartiles(series.seconds))
        title = f"{name}, {result.notes[name]}" if name in result.notes else name
        row = [result.case, title, f"{number(middle)} ({number(low)}, {number(high)})"]
        row.append(f"{number(result.work / middle * 1e3)} {result.unit}")
        if result.flops is None:
            row += ["", ""]
        else:
            speeds = [result.flops / seconds / 1e9 for seconds in series.seconds]
            shares = [speed / peak for speed, peak in zip(speeds, series.peak_gflops, strict=True)]
            row += [number(quartiles(speeds)[1]), f"{quartiles(shares)[1]:.0%}"]
        if series is ours:
            row += ["", ""]
        else:
            ratios = np.array(series.seconds) / np.array(ours.seconds)
            low, middle, high = quartiles(ratios)
            row += [f"{middle:.2f} ({low:.2f}, {high:.2f})", f"{series.difference:.1e}"]
        rows.append(row)
    for name, reason in result.left_out.items():
        rows.append([result.case, name, f"not timed: {reason.splitlines()[0][:60]}", *[""] * (len(HEADER) - 3)])
    return rows


def number(value: float) -> str:
    """Three significant digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write(report: Report, path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(report, indent=1) + "\n")


def show(report: Report, markdown: bool) -> None:
    """Print the tables and the machine, aligned; or, with `markdown`, as in benchmarks/README.md."""
    for table in report["tables"]:
        title = table["title"]
        print(f"\n**{title}**\n" if markdown else f"\n{title}\n")
        print(aligned(table["header"], table["rows"], markdown))
    facts = "; ".join(f"{name} {value}" for name, value in report["machine"].items())
    print(f"\n{facts}\n")


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool) -> str:
    """Columns of equal width; only the first row of a case has its name."""
    shown: list[list[str]] = [list(header)]
    previous = None
    for row in rows:
        shown.append(["" if row[0] == previous else row[0], *row[1:]])
        previous = row[0]
    widths = [max(len(row[column]) for row in shown) for column in range(len(header))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in shown]
    lines.insert(1, ["-" * width for width in widths])
    if markdown:
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in lines)
