"""The command: a process that listens, answers, loads again, and ends when all is answered."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("httptools")
pytest.importorskip("uvloop")
pytest.importorskip("orjson")
pytest.importorskip("prometheus_client")

from helpers_sentences import TEXTS, write_case

from fastattn.cli import main
from fastattn.tasks import SentenceEncoder

LONG = 120.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LONG)
        try:
            self.sock.connect(self.host)
        except OSError:
            self.close()
            raise


def ask(path: Path, route: str, values: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    body = None if values is None else json.dumps(values)
    with closing(UnixConnection(str(path))) as connection:
        sent = {"content-type": "application/json", **(headers or {})}
        connection.request("POST" if body else "GET", route, body, sent)
        reply = connection.getresponse()
        text = reply.read()
    return reply.status, json.loads(text) if text.startswith((b"[", b"{")) else text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case("normalize", tmp_path_factory.mktemp("serve") / "encoder")


@contextmanager
def serving(folder: Path, place: Path, *more: str) -> Iterator[Any]:
    command = [sys.executable, "-m", "fastattn", "serve", str(folder), "--uds", str(place), *more]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            until = time.monotonic() + LONG
            while True:
                try:
                    ask(place, "/livez")
                    break
                except OSError:
                    assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
                    assert time.monotonic() < until
                    time.sleep(0.02)
            yield process
        finally:
            process.kill()


def test_a_service_from_its_start_to_its_end(folder: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret\n")
    place, right = tmp_path / "socket", {"authorization": "Bearer secret"}
    wanted = SentenceEncoder(folder).encode(TEXTS, normalize_embeddings=True)
    with serving(folder, place, "--api-key-file", str(key), "--served-model-name", "small,other") as process:
        assert ask(place, "/embed", {"inputs": "a"})[0] == 401
        status, found = ask(place, "/v1/models", headers=right)
        assert (status, [each["id"] for each in found["data"]]) == (200, ["small", "other"])

        def many(seed: int) -> int:
            count = 0
            for i in np.random.default_rng(seed).integers(0, len(TEXTS), 40).tolist():
                status, rows = ask(place, "/embed", {"inputs": TEXTS[i], "model": "other"}, right)
                assert status == 200
                assert np.array_equal(np.array(rows, np.float32), wanted[i : i + 1])
                count += 1
            return count

        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(many, seed) for seed in range(8)]
            os.kill(process.pid, signal.SIGHUP)  # loads the model again while it is asked
            assert sum(each.result(LONG) for each in running) == 320
        os.kill(process.pid, signal.SIGTERM)
        errors = process.stderr.read()
        assert process.wait(LONG) == 0, errors
    assert "the cat" not in errors


def test_requests_that_were_begun_are_answered(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "socket"
    with serving(folder, place) as process, closing(UnixConnection(str(place))) as connection:
        body = json.dumps({"inputs": "the cat"}).encode()
        connection.putrequest("POST", "/embed")
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", str(len(body)))
        connection.endheaders(body[:5])
        while b"fastattn_requests_in_flight 1.0" not in ask(place, "/metrics")[1]:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.2)
        connection.send(body[5:])
        reply = connection.getresponse()
        assert (reply.status, len(json.loads(reply.read()))) == (200, 1)
        assert process.wait(LONG) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--served-model-name", "a", "--served-model-name", "b"], "is there 2 times, for 1 models"),
        (["--api-key", "a", "--api-key-file", "b"], "must not both be given"),
        (["--api-key-file", os.devnull], "the file is empty"),
        (["--default-prompt-name", "none"], "default_prompt_name|--default-prompt-name"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(folder), "--uds", str(tmp_path / "socket"), *arguments]) == 1
    assert re.search(message, capfd.readouterr().err)


def test_a_missing_model_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path / "nothing"), "--uds", str(tmp_path / "socket")]) == 1
    assert "nothing" in capfd.readouterr().err
