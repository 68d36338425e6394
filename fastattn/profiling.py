"""Where the time goes: a table of all kernel calls, by kernel and shape.

`FASTATTN_PROFILE=1` prints it when the process ends. `fastattn.profile()` has it for a block of code.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from fastattn import _core, runtime
from fastattn.checks import counted

__all__ = ["Profile", "ProfileRow", "profile"]

BURSTS, BURST = 100, 0.001  # seconds; the fastest one is the peak
HEADER = (
    "kernel",
    "shape",
    "calls",
    "ms",
    "share",
    "us/call",
    "least us",
    "GFLOP/s",
    "of peak",
    "GB/s",
    "waits",
    "ms waited",
)


@dataclass(frozen=True)
class ProfileRow:
    """All calls of one kernel with one shape.

    Attributes:
        kernel: its name in `csrc/kernels.inc`, e.g. `"linear_forward"`.
        shape: the sizes, and what distinguishes the call, e.g. `"m=32 k=384 n=1536 gelu"`.
        calls: how many there were.
        seconds: what they took together.
        least: what the fastest call took.
        flops: the floating-point operations of their products; 0 for a kernel that is bound by memory.
        bytes: the bytes of weights, inputs and outputs, each counted once for each call.
        waits: how often a caller had no work left and waited for pieces that workers had begun.
        waited: how many of the seconds it waited.
    """

    kernel: str
    shape: str
    calls: int
    seconds: float
    least: float
    flops: float
    bytes: float
    waits: int
    waited: float


class Profile:
    """The kernel calls of all threads in a `with` block of `profile()`. It may also be read in the block."""

    def __init__(self, of_thread: bool = True) -> None:
        self._core = _core.Profile(of_thread)

    @property
    def rows(self) -> list[ProfileRow]:
        """The calls by kernel and shape, those that took most time first."""
        return _by_time(ProfileRow(*row) for row in self._core.read()[0])

    @property
    def outside(self) -> float:
        """The seconds that threads spent outside of kernels.

        In the thread of the `with` block, this is all of its time, also while the block runs. In other threads, it is
        the time between calls. `table()` does not count itself.
        """
        return self._core.read()[1]

    @property
    def counters(self) -> dict[str, int]:
        """What `fastattn.runtime.counters()` counted in the block."""
        return self._core.read()[3]

    def table(self, *, by_shape: bool = True, limit: int = 40) -> str:
        """The rows as text, one line each; the rows after the first `limit` are added up. Empty if nothing was called.

        Without `by_shape`, all shapes of a kernel are one row. `share` is of the time in and outside of kernels, and
        `of peak` of the operations that `num_threads()` threads reach when they only multiply and add in registers,
        which is measured here and takes 0.1 s.
        """
        found, outside, threads, counters = self._core.read()
        if not found:
            return ""
        rows = _by_time(ProfileRow(*row) for row in found)
        if not by_shape:
            kernels = {row.kernel: [each for each in rows if each.kernel == row.kernel] for row in rows}
            rows = _by_time(_sum(name, f"{len(own)} shapes", own) for name, own in kernels.items())
        if len(rows) > limit:
            rows[limit:] = [_sum("other rows", f"{len(rows) - limit} rows", rows[limit:])]
        total = sum(row.seconds for row in rows) + outside
        peak = max(_core.fma_peak(BURST) for _ in range(BURSTS))
        lines = [HEADER, *(_cells(row, total, peak) for row in rows)]
        of_threads = counted(threads, "thread")
        lines.append(
            ("outside of kernels", of_threads, "", f"{1e3 * outside:.2f}", f"{outside / total:.1%}", *[""] * 7)
        )
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
        text = [_aligned(line, widths) for line in lines]
        lock, woken = counters["locks_given_up"], counters["workers_woken"]
        facts = f"{runtime.num_threads()} threads, {runtime.isa()}, peak {peak:.0f} GFLOP/s"
        text.append(f"{facts}; the lock was given up {lock} times, workers were woken {woken} times")
        return "\n".join(text)

    def __str__(self) -> str:
        return self.table()


@contextmanager
def profile() -> Iterator[Profile]:
    """Time every kernel call of the process in a `with` block, by kernel and shape.

    Blocks may be nested, and may run in several threads. A child of a fork begins an empty profile. Each call is slower
    by about a microsecond meanwhile.

    >>> import numpy as np
    >>> from fastattn import kernels
    >>> with profile() as calls:
    ...     for _ in range(3):
    ...         _ = kernels.linear(np.ones((2, 3), np.float32), np.ones((4, 3), np.float32))
    >>> [(row.kernel, row.shape, row.calls, row.flops) for row in calls.rows]
    [('linear_forward', 'm=2 k=3 n=4 unpacked', 3, 144.0)]
    >>> print(calls.table())  # doctest: +SKIP
    """
    found = Profile()
    _core.run_pass()
    found._core.start()
    try:
        yield found
        _core.run_pass()
    finally:
        found._core.stop()


def profile_process(target: str) -> None:
    """Profile from now on, and print the table when the process ends: to stderr for "1", else to the end of a file."""
    from multiprocessing import util

    found, shown = Profile(of_thread=False), list[bool]()
    found._core.start()

    def show() -> None:
        if shown:
            return
        shown.append(True)
        found._core.stop()
        table = found.table()
        if not table:
            return
        if target != "1":
            try:
                with open(target, "a", encoding="utf-8") as file:
                    file.write(f"{table}\n")
                return
            except OSError as error:
                print(f"FASTATTN_PROFILE: {error}", file=sys.stderr)
        with suppress(OSError):
            print(table, file=sys.stderr)

    def show_at_end(*_: object) -> None:
        util.Finalize(None, show, exitpriority=-1)

    atexit.register(show)
    # A child of multiprocessing ends without atexit, and begins without what its parent has registered.
    show_at_end()
    util.register_after_fork(found, show_at_end)


def _by_time(rows: Iterator[ProfileRow]) -> list[ProfileRow]:
    return sorted(rows, key=lambda row: -row.seconds)


def _sum(kernel: str, shape: str, rows: list[ProfileRow]) -> ProfileRow:
    return ProfileRow(
        kernel,
        shape,
        sum(row.calls for row in rows),
        sum(row.seconds for row in rows),
        min(row.least for row in rows),
        sum(row.flops for row in rows),
        sum(row.bytes for row in rows),
        sum(row.waits for row in rows),
        sum(row.waited for row in rows),
    )


def _aligned(cells: tuple[str, ...], widths: list[int]) -> str:
    """The first two to the left, numbers to the right."""
    words = [cell.ljust(width) for cell, width in zip(cells[:2], widths[:2], strict=True)]
    numbers = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)]
    return "  ".join(words + numbers).rstrip()


def _cells(row: ProfileRow, total: float, peak: float) -> tuple[str, ...]:
    gflops = 1e-9 * row.flops / row.seconds
    return (
        row.kernel,
        row.shape,
        str(row.calls),
        f"{1e3 * row.seconds:.2f}",
        f"{row.seconds / total:.1%}",
        f"{1e6 * row.seconds / row.calls:.1f}",
        f"{1e6 * row.least:.1f}",
        f"{gflops:.0f}" if row.flops else "",
        f"{gflops / peak:.0%}" if row.flops else "",
        f"{1e-9 * row.bytes / row.seconds:.1f}",
        str(row.waits),
        f"{1e3 * row.waited:.2f}",
    )
