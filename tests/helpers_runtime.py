"""Code in new interpreters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

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
