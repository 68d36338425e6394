"""`python -m benchmarks service`: its application, and the clients that ask it."""

from __future__ import annotations

import io
import math
import socketserver
import threading
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest

import fastattn

service = pytest.importorskip("benchmarks.service", reason="needs the source tree: python -m pytest")


class Encoder:
    """Stands for a sentence encoder: the length of a text."""

    def __init__(self, folder):
        assert folder == "a folder"

    def encode(self, texts):
        return np.array([[len(text)] for text in texts], np.float32)


def test_the_application_answers_with_the_embedding(monkeypatch):
    monkeypatch.setattr(fastattn, "SentenceEncoder", Encoder)
    app = service.create_app("a folder", fastattn.num_threads())
    started = []
    text = "caf\u00e9".encode()
    environ = {"wsgi.input": io.BytesIO(text), "CONTENT_LENGTH": str(len(text))}
    (body,) = app(environ, lambda *arguments: started.append(arguments))
    assert np.frombuffer(body, np.float32).tolist() == [4.0]
    ((status, headers),) = started
    assert status == "200 OK"
    assert ("Content-Length", "4") in headers


@pytest.fixture
def path(tmp_path):
    """The socket of a server that refuses an empty text."""
    path = str(tmp_path / "socket")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            text = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200 if text else 500)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    with socketserver.ThreadingUnixStreamServer(path, Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield path
        server.shutdown()
        thread.join()


def test_a_request_is_timed(path):
    assert 0 < service.ask(path) < math.inf


def test_an_error_of_the_service_is_an_error_here(path, monkeypatch):
    monkeypatch.setattr(service, "TEXT", "")
    with pytest.raises(RuntimeError, match="the service answered 500"):
        service.ask(path)


def test_an_answer_that_comes_too_late_does_not_count(path):
    assert service.client(path, until=0.0) == []
    assert service.clients(path, seconds=0.0) == []


def test_every_client_asks_until_the_end(path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(service.time, "perf_counter", lambda: next(clock))
    assert service.client(path, until=9.5) == [1, 1, 1]  # a request reads the clock twice, the client once


def test_a_row_per_condition():
    conditions = [service.parse_condition(name) for name in service.CONDITIONS]
    samples = [service.Sample("quiet", [30.0, 40.0, 50.0], [0.02] * 20), service.Sample("processes2", [0.0])]
    assert service.table(conditions, samples)["rows"] == [
        ["quiet", "40 (35, 45)", "20 / 20 / -"],
        ["beside 2 busy processes", "0 (0, 0)", "- / - / -"],
    ]
