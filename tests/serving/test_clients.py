"""Clients that people have, unchanged, over a socket of this machine."""

from __future__ import annotations

import inspect
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("starlette")
pytest.importorskip("orjson")
pytest.importorskip("prometheus_client")
pytest.importorskip("uvicorn")

from helpers_sentences import TEXTS
from helpers_serving import MASKED, Served

from fastattn.serving.app import create_app
from fastattn.serving.models import Models


@pytest.fixture(scope="module")
def address(served: dict[str, Served]) -> Iterator[str]:
    import uvicorn

    def load(models: Models) -> None:
        models.add(["small"], "embed", served["encode"].task)
        models.add(["rerank"], "rerank", served["scores"].task)
        models.add(["fill"], "fill", served["fill"].task)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(load=load), log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture
def wanted(served: dict[str, Served]) -> np.ndarray:
    return served["encode"].task.encode(TEXTS, normalize_embeddings=True)


def test_openai(address: str, wanted: np.ndarray) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        found = client.embeddings.create(input=TEXTS, model="small")  # which asks for base64
        assert np.array_equal(np.array([each.embedding for each in found.data], np.float32), wanted)
        assert [model.id for model in client.models.list()] == ["small", "rerank", "fill"]
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.embeddings.create(input="a", model="other")
        with pytest.raises(openai.BadRequestError, match="dimensions"):
            client.embeddings.create(input="a", model="small", dimensions=10_000)


def test_huggingface_hub(address: str, wanted: np.ndarray, served: dict[str, Served]) -> None:
    hub = pytest.importorskip("huggingface_hub")
    pytest.importorskip("httpx")
    client = hub.InferenceClient(model=address)
    if "normalize" not in inspect.signature(client.feature_extraction).parameters:
        pytest.skip("an older huggingface_hub, whose feature_extraction has no normalize")
    found = client.feature_extraction(TEXTS[0], normalize=True)
    assert np.array_equal(np.asarray(found, np.float32), wanted[:1])
    near = client.sentence_similarity(TEXTS[0], other_sentences=TEXTS[:3])
    assert np.array_equal(np.array(near, np.float32), (served["encode"].task.similarity(wanted[:1], wanted[:3]))[0])


def test_langchain_openai(address: str, wanted: np.ndarray) -> None:
    langchain = pytest.importorskip("langchain_openai")
    client: Any = langchain.OpenAIEmbeddings(
        base_url=f"{address}/v1", api_key="none", model="small", check_embedding_ctx_length=False
    )
    assert np.array_equal(np.array(client.embed_documents(TEXTS), np.float32), wanted)


def test_a_masked_word(address: str, served: dict[str, Served]) -> None:
    httpx = pytest.importorskip("httpx")
    found = httpx.post(address, json={"inputs": MASKED[0], "model": "fill"}, timeout=60)
    assert found.json() == served["fill"].task(MASKED[0])


def test_clients_that_leave_or_speak_nonsense(address: str, wanted: np.ndarray) -> None:
    host, port = address.removeprefix("http://").split(":")
    head = b"POST /embed HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
    for sent in (head, head[:30], b"nonsense\r\n\r\n", b"\x16\x03\x01"):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(sent)
    httpx = pytest.importorskip("httpx")
    found = httpx.post(f"{address}/embed", json={"inputs": TEXTS}, timeout=60).json()
    assert np.array_equal(np.array(found, np.float32), wanted)
