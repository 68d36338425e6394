"""A contender's process, and the handle by which the benchmark asks it to work.

`python -m benchmarks.worker` reads one JSON request a line from stdin and answers with one line; it may run
in another Python than the benchmark and needs nothing but NumPy there. What libraries print goes to a log.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

#: The call to time. Its result, or that of the job's method `check` if it has one, is compared: an array, or tuples or
#: lists of arrays and None.
Job = Callable[[], Any]


@dataclass(frozen=True)
class Restored:
    """A job in a rival's own layout; `restore` brings what it gives into ours, to be compared."""

    job: Job
    restore: Callable[[Any], Any]

    def __call__(self) -> Any:
        return self.job()

    def check(self) -> Any:
        return self.restore(self.job())


class WorkerError(RuntimeError):
    """An error inside a contender's process; `kind` is the exception's type there."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class Worker:
    """A process that holds one job and runs it when asked; a context manager."""

    def __init__(self, name: str, python: str, threads: int) -> None:
        self.name = name
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the worker)
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.worker"],
            cwd=Path(__file__).parents[1],
            env={**os.environ, **environment(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def send(self, request: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"request": request, "arguments": arguments}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self.died() from None

    def receive(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self.died()
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(f"{self.name}: {reply['error']}", reply["kind"])
        return reply["value"]

    def call(self, request: str, **arguments: Any) -> Any:
        self.send(request, **arguments)
        return self.receive()

    def output(self) -> npt.NDArray[np.float32]:
        """Run the job once and fetch its result."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "output.npy"
            self.call("output", path=str(path))
            result: npt.NDArray[np.float32] = np.load(path)
        return result

    def sample(self, calls: int, warm_up: int, thread: bool = False) -> list[float]:
        """Seconds of each of `calls` calls, if asked beside a thread of plain Python in the same process."""
        times: list[float] = self.call("sample", calls=calls, warm_up=warm_up, thread=thread)
        return times

    def died(self) -> WorkerError:
        code = self.process.wait()
        self.log.seek(0)
        return WorkerError(f"{self.name}: process ended with {code}\n{self.log.read()[-2000:]}")

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def environment(threads: int) -> dict[str, str]:
    """The same number of threads for every pool, and no network."""
    pools = ("OMP", "MKL", "OPENBLAS", "FASTATTN", "RAYON")
    return {f"{pool}_NUM_THREADS": str(threads) for pool in pools} | {
        "TOKENIZERS_PARALLELISM": "true",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }


def flat(result: Any) -> list[Any]:
    """The arrays of a result, in order."""
    if isinstance(result, (tuple, list)):
        return [array for each in result for array in flat(each)]
    return [] if result is None else [result]


@contextmanager
def python_thread() -> Iterator[None]:
    """A thread of plain Python, which gives up the interpreter's lock only when another thread has waited for it."""
    stop = threading.Event()

    def count() -> None:
        number = 0
        while not stop.is_set():
            number += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Server:
    """The other end: the requests, one method each."""

    def __init__(self) -> None:
        self.job: Job | None = None

    def run(self, function: str, arguments: dict[str, Any]) -> Any:
        """Call `module:function` once, for its effect or a JSON answer."""
        module, name = function.split(":")
        return getattr(importlib.import_module(module), name)(**arguments)

    def prepare(self, function: str, arguments: dict[str, Any]) -> None:
        """Hold what `module:function` returns as the job."""
        self.job = self.run(function, arguments)

    def ask(self, method: str) -> Any:
        """What a method of the job answers in JSON."""
        return getattr(self.job, method)()

    def versions(self, packages: list[str]) -> dict[str, str]:
        return {package: version(package) for package in packages}

    def output(self, path: str) -> None:
        assert self.job is not None
        result = getattr(self.job, "check", self.job)()
        np.save(path, np.concatenate([np.ravel(each) for each in flat(result)]))

    def sample(self, calls: int, warm_up: int, thread: bool) -> list[float]:
        job = self.job
        assert job is not None
        gc.collect()
        gc.disable()
        times = []
        with python_thread() if thread else nullcontext():
            for _ in range(warm_up):
                job()
            for _ in range(calls):
                start = time.perf_counter()
                job()
                times.append(time.perf_counter() - start)
        gc.enable()
        return times

    def memory(self) -> dict[str, int]:
        """Resident bytes of this process: all of them, and those not backed by a file."""
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        names = {"resident": "VmRSS", "anonymous": "RssAnon", "peak": "VmHWM"}
        return {name: int(status[field].split()[0]) * 1024 for name, field in names.items()}

    def forget_peak(self) -> None:
        """Let the peak of `memory` count from now on."""
        Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    server = Server()
    for line in sys.stdin:
        message = json.loads(line)
        try:
            reply = {"value": getattr(server, message["request"])(**message["arguments"])}
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}", "kind": type(error).__name__}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
