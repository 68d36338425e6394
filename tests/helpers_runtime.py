"""Code in new interpreters, and how often a call gives up the interpreter's lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable

from fastattn.runtime import counters

VARIABLES = ("FASTATTN_ISA", "FASTATTN_NUM_THREADS", "FASTATTN_PROFILE", "OMP_NUM_THREADS")


def python(code: str, timeout: float = 90, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a new interpreter with only these of the variables that matter.

    One that hangs is killed with all its children.
    """
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=clean | environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def output(code: str, timeout: float = 90, **environment: str) -> str:
    run = python(code, timeout, **environment)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def locks_given_up(call: Callable[[], object], least: int = 1) -> int:
    """How often `call()` gives up the lock: the fewest of some calls, since a long pass takes it every 100 ms."""
    counts = []
    while len(counts) < 20 and min(counts, default=least + 1) > least:
        before = counters()["locks_given_up"]
        call()
        counts.append(counters()["locks_given_up"] - before)
    return min(counts)
