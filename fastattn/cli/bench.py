"""Time the kernels against plain NumPy on this machine.

Every result is compared with NumPy's before it is timed. A time is the median of the runs in a fraction of a second, +-
half the interquartile range. fastattn and NumPy take turns. NumPy's BLAS has its own threads.

  fastattn bench --filter attention
  fastattn bench --threads 1 --json bench.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from fastattn.cli import add_threads, info, use_threads
from fastattn.files import open_output

if TYPE_CHECKING:
    from fastattn.bench import KernelCase

SUMMARY = "time the kernels against NumPy on this machine"
MIN_RUNS = 3
# Between contenders: an idle worker spins for some milliseconds and would take a core from the next contender.
PAUSE = 0.02


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--filter", metavar="WORD", help="only cases whose name contains WORD")
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    add_threads(parser)
    parser.add_argument("--seconds", type=float, default=0.2, help="time for each side of a case (default: 0.2)")
    parser.add_argument("--json", metavar="FILE", help="also write the results to FILE")


def run(arguments: argparse.Namespace) -> int:
    from fastattn.bench import kernel_cases

    cases = kernel_cases(arguments.filter)
    if not cases:
        raise ValueError(f"--filter {arguments.filter}: no case has this in its name; see --list")
    if arguments.list:
        print("\n".join(case.name for case in cases))
        return 0
    use_threads(arguments.threads)
    with contextlib.ExitStack() as files:
        file = files.enter_context(open_output(arguments.json)) if arguments.json else None
        return _run_cases(cases, arguments.seconds, file)


def _run_cases(cases: list[KernelCase], seconds: float, file: BinaryIO | None) -> int:
    facts = info.collect()
    print(f"{facts['cpu']}: {facts['isa']}, {facts['threads']} threads, NumPy {facts['numpy']}\n")
    width = max(len(case.shape_name) for case in cases)
    print(f"{'':<{width + 2}}{'fastattn':>20}{'NumPy':>20}{'speed-up':>10}")
    results = []
    kernel = ""
    for case in cases:
        if case.kernel != kernel:
            kernel = case.kernel
            print(kernel)
        result = measure(case, seconds)
        results.append(result)
        print(render(result, width), flush=True)
    if file is not None:
        file.write(json.dumps({"machine": facts, "results": results}, indent=2).encode() + b"\n")
    wrong = [result["case"] for result in results if not result["verified"]]
    if wrong:
        print(f"fastattn bench: error: results differ from NumPy's: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def measure(case: KernelCase, seconds: float) -> dict[str, Any]:
    """Check a case, then time it. A wrong result is not timed."""
    from fastattn.bench import flat

    arguments = case.make(np.random.default_rng(0))
    prepared = case.prepare(arguments)
    expected, actual = (flat(result) for result in (case.reference(**arguments), case.ours(**prepared)))
    differences = [_difference(*pair) for pair in zip(actual, expected, strict=True)]
    result: dict[str, Any] = {
        "case": case.name,
        "kernel": case.kernel,
        "shape": case.shape_name,
        "max_difference": float(np.max(differences)),
        "verified": all(one <= case.tolerance(array) for one, array in zip(differences, expected, strict=True)),
    }
    if not result["verified"]:
        return result
    for who, function, given in (("ours", case.ours, prepared), ("numpy", case.reference, arguments)):
        times = _time(partial(function, **given), seconds)
        result |= {
            f"{who}_ms": 1e3 * statistics.median(times),
            f"{who}_spread": _spread(times),
            f"{who}_runs": len(times),
        }
    nanoseconds = 1e6 * result["ours_ms"]
    result |= {
        "speed_up": result["numpy_ms"] / result["ours_ms"],
        "gflops": case.flops / nanoseconds if case.flops else None,
        "gbytes": case.bytes / nanoseconds,
    }
    return result


def _difference(actual: np.ndarray, expected: np.ndarray) -> float:
    same_shape = actual.shape == expected.shape
    return float(np.max(np.abs(actual - expected), initial=0.0)) if same_shape else float("inf")


def _time(call: Callable[[], Any], seconds: float) -> list[float]:
    """The seconds of single calls, after a warm-up call."""
    time.sleep(PAUSE)
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < MIN_RUNS or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def _spread(times: list[float]) -> float:
    """Half the interquartile range, as a fraction of the median."""
    low, middle, high = statistics.quantiles(times, n=4)
    return (high - low) / 2 / middle


def render(result: dict[str, Any], width: int) -> str:
    """One line of the table."""
    label = f"  {result['shape']:<{width}}"
    if not result["verified"]:
        return f"{label}  WRONG: differs from NumPy by {result['max_difference']:.2g}"
    rate = f"{result['gflops']:.0f} GFLOP/s" if result["gflops"] else f"{result['gbytes']:.0f} GB/s"
    ours, numpy = (_time_and_spread(result, who) for who in ("ours", "numpy"))
    return f"{label}{ours:>20}{numpy:>20}{result['speed_up']:>8.1f} x{rate:>14}"


def _time_and_spread(result: dict[str, Any], who: str) -> str:
    spread = f"+-{100 * result[f'{who}_spread']:.0f} %"
    return f"{result[f'{who}_ms']:.3f} ms {spread:>7}"
