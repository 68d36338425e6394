"""Runs of commands that train: what they leave, and how they are stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from fastattn.training.run_state import saved_states


def log_of(folder: str | Path) -> list[dict[str, Any]]:
    """The log without what differs from one run to the next: how fast it was."""
    records = [json.loads(line) for line in Path(folder, "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in record.items() if key != "tokens_per_second"} for record in records]


def weights(folder: str | Path) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in load_file(Path(folder, "model.safetensors")).items()}


def kill_at(arguments: list[str], folder: str | Path, step: int) -> None:
    """Run a command that trains in `folder`, and kill it once the state of `step`, or of a later one, is saved."""
    process = [sys.executable, "-m", "fastattn", *arguments]
    with subprocess.Popen(process, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        wait_until(running, lambda: any(saved >= step for saved, _ in saved_states(Path(folder, "states"))))
        running.kill()


def interrupt(arguments: list[str], folder: str | Path) -> tuple[int, bytes, bytes]:
    """Run a command that trains in `folder`, and press Ctrl-C after its first step: exit status, output and errors."""
    log = Path(folder, "log.jsonl")
    return press_ctrl_c(arguments, lambda: log.exists() and log.stat().st_size > 0)


def press_ctrl_c(arguments: list[str], ready: Callable[[], bool]) -> tuple[int, bytes, bytes]:
    """Run a command, and press Ctrl-C once it is ready: exit status, output and errors."""
    # A test runner in the background may ignore SIGINT, and its children would too.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from fastattn.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    process = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(process, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        wait_until(running, ready)
        running.send_signal(signal.SIGINT)
        output, errors = running.communicate(timeout=60)
    return running.returncode, output, errors


def wait_until(running: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    """Wait for a process to get ready; a minute means that it hangs."""
    deadline = time.monotonic() + 60
    while not ready():
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
