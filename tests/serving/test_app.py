"""The server: the answers of the tasks behind the routes, and what bad input is told."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("starlette")
pytest.importorskip("orjson")
pytest.importorskip("prometheus_client")
pytest.importorskip("httpx")

from helpers_sentences import TEXTS
from helpers_serving import MASKED, PAIRS, QUESTIONS, Served, client_for, client_of

from fastattn.hub import ModelNotFoundError


def post(client: Any, path: str, values: Any, status: int = 200, **more: Any) -> Any:
    reply = client.post(path, json=values, **more)
    assert reply.status_code == status, reply.text
    return reply.json()


def bits(rows: Any) -> np.ndarray:
    return np.array(rows, np.float32)


def test_embeddings_have_the_bits_of_encode(client: Any, served: dict[str, Served]) -> None:
    encoder = served["encode"].task
    wanted = encoder.encode(TEXTS, normalize_embeddings=True)
    assert np.array_equal(bits(post(client, "/embed", {"inputs": TEXTS})), wanted)
    assert np.array_equal(bits(post(client, "/embed", {"inputs": TEXTS[0]})), wanted[:1])
    found = post(client, "/embed", {"inputs": TEXTS, "normalize": False, "dimensions": 5, "prompt_name": "query"})
    assert np.array_equal(bits(found), encoder.encode(TEXTS, prompt_name="query", truncate_dim=5))
    tokens = post(client, "/embed_all", {"inputs": TEXTS[:2]})
    assert [len(each) for each in tokens] == np.diff(encoder.tokenize_ragged(TEXTS[:2])[1]).tolist()
    pooled = bits(tokens[0]).mean(0)
    np.testing.assert_allclose(pooled / np.linalg.norm(pooled), wanted[0], rtol=1e-4, atol=1e-6)
    ids = encoder.tokenizer.encode(["the cat"]).ids.tolist()
    assert post(client, "/embed", {"inputs": [ids, ids]}) == post(client, "/embed", {"inputs": ["the cat"] * 2})
    near = post(client, "/similarity", {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS}})
    assert np.array_equal(bits(near), encoder.similarity(wanted[:1], wanted)[0])


def test_openai(client: Any, served: dict[str, Served]) -> None:
    wanted = served["encode"].task.encode(TEXTS, normalize_embeddings=True)
    found = post(client, "/v1/embeddings", {"input": TEXTS, "model": "embed-alias"})
    assert np.array_equal(bits([each["embedding"] for each in found["data"]]), wanted)
    count = len(served["encode"].task.tokenize_ragged(TEXTS)[0])
    assert (found["model"], found["usage"]) == ("embed-alias", {"prompt_tokens": count, "total_tokens": count})
    coded = post(client, "/v1/embeddings", {"input": TEXTS[0], "encoding_format": "base64"})["data"][0]["embedding"]
    assert np.array_equal(np.frombuffer(base64.b64decode(coded), "<f4"), wanted[0])
    names = [each["id"] for each in client.get("/v1/models").json()["data"]]
    assert {"embed", "embed-alias", "translate"} <= set(names)
    assert client.get("/v1/models/embed").json()["object"] == "model"
    assert client.get("/v1/models/other").status_code == 404
    error = post(client, "/v1/embeddings", {"input": "a", "model": "gpt"}, 404)["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "model_not_found")
    assert "input" in post(client, "/v1/embeddings", {"input": []}, 400)["error"]["message"]


def test_ranks(client: Any, served: dict[str, Served]) -> None:
    reranker, texts = served["scores"].task, ["the cat sat.", "a", "query", "zz"]
    wanted = {each["corpus_id"]: each["score"] for each in reranker.rank("the cat", texts)}
    found = post(client, "/rerank", {"query": "the cat", "texts": texts, "return_text": True})
    assert [each["index"] for each in found] == [*wanted]
    assert {each["index"]: each["score"] for each in found} == pytest.approx(wanted, abs=0)
    assert [each["text"] for each in found] == [texts[i] for i in wanted]
    raw = post(client, "/rerank", {"query": "the cat", "texts": texts, "raw_scores": True})
    logits = reranker.logits([("the cat", text) for text in texts])[:, 0]
    assert all(each["score"] == logits[each["index"]] for each in raw)
    documents = [texts[0], {"text": texts[1]}, texts[2], texts[3]]
    jina = post(client, "/v1/rerank", {"model": "rerank", "query": "the cat", "documents": documents, "top_n": 2})
    assert [each["index"] for each in jina["results"]] == [*wanted][:2]
    assert jina["results"][0]["document"] == {"text": texts[next(iter(wanted))]}
    cohere = post(client, "/v2/rerank", {"model": "rerank", "query": "the cat", "documents": texts})
    assert [each["relevance_score"] for each in cohere["results"]] == [*wanted.values()]
    assert set(cohere) == {"id", "results", "meta"}


def test_predictions(client: Any, served: dict[str, Served]) -> None:
    task, named = served["probabilities"].task, {"model": "classify"}
    probabilities = task.probabilities(PAIRS)
    found = post(client, "/predict", {"inputs": [list(pair) for pair in PAIRS], **named})
    for row, wanted in zip(found, probabilities, strict=True):
        assert {each["label"]: each["score"] for each in row} == dict(zip(task.labels, wanted.tolist(), strict=True))
        assert row == sorted(row, key=lambda each: -each["score"])
    [[one]] = [post(client, "/predict", {"inputs": [["a"]], "model": "regress"})[0]]
    assert one["score"] == served["regress"].task(["a"])[0]
    assert post(client, "/predict", {"inputs": list(PAIRS[0]), **named}) == found[0]


def test_other_tasks(client: Any, served: dict[str, Served]) -> None:
    assert post(client, "/tag", {"inputs": TEXTS}) == served["entities"].task.entities(TEXTS)
    assert post(client, "/tag", {"inputs": [["the", "cat"]]}) == served["tag"].task.tag([["the", "cat"]])
    assert post(client, "/answer", QUESTIONS[0]) == served["answer"].task([QUESTIONS[0]])[0]
    assert post(client, "/answer", {"inputs": QUESTIONS[1], "top_k": 3}) == served["answers"].direct([QUESTIONS[1]])[0]
    assert post(client, "/fill", {"inputs": MASKED, "top_k": 2}) == served["fill"].task(MASKED, top_k=2)
    wanted = served["translate"].task("abc", return_alignments=True)
    [found] = post(client, "/translate", {"inputs": "abc", "return_alignments": True})
    assert (found["translation_text"], found["alignment"]) == (wanted.text, wanted.alignment)
    assert len(found["source_tokens"]) == 4
    assert post(client, "/translate", {"inputs": ["abc"]}) == [{"translation_text": wanted.text}]


def test_tokens(client: Any) -> None:
    [row] = post(client, "/tokenize", {"inputs": "the cat"})
    assert [(each["text"], each["special"]) for each in row][1:3] == [("the", False), ("cat", False)]
    assert row[0] == {"id": row[0]["id"], "text": "[CLS]", "special": True, "start": None, "stop": None}
    [bare] = post(client, "/tokenize", {"inputs": "the cat", "add_special_tokens": False})
    assert bare == row[1:3]
    ids = [each["id"] for each in row]
    assert post(client, "/decode", {"ids": ids}) == post(client, "/decode", {"ids": [ids]}) == ["the cat"]


@pytest.mark.parametrize("path", ["embed", "classify", "regress", "tag", "fill", "translate", "answer"])
def test_root_asks_what_a_model_is_for(path: str, client: Any) -> None:
    inputs = {"fill": MASKED[0], "answer": QUESTIONS[0]}.get(path, "a")
    assert post(client, "/", {"inputs": inputs, "model": path}) or path in ("tag", "translate")


def test_what_a_service_is_watched_by(client: Any) -> None:
    post(client, "/embed", {"inputs": "the cat " * 100})
    for path in ("/health", "/livez", "/readyz"):
        assert client.get(path).status_code == 200
    text = client.get("/metrics").text
    buckets = "request_seconds stage_seconds batch_inputs batch_tokens"
    names = [*(f"{name}_bucket{{" for name in buckets.split()), 'truncated_inputs_total{model="embed"}']
    for name in [*names, "requests_total{", "queue_size{", "requests_in_flight"]:
        assert f"fastattn_{name}" in text
    info = client.get("/info").json()
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (info["max_input_length"], info["model_id"]) == (32, "/models/embed")
    assert "/embed" in client.get("/openapi.json").json()["paths"]
    page = client.get("/").text
    assert "<title>fastattn</title>" in page
    assert "http://" not in page
    assert "https://" not in page


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/embed", b'{"inputs": "a"', 400, "parse"),
        ("/embed", b'{"inputs": "\xff"}', 400, "parse"),
        ("/embed", b"[]", 422, "object"),
        ("/embed", b"{}", 422, "missing field `inputs`"),
        ("/embed", b'{"inputs": []}', 400, "cannot be empty"),
        ("/embed", b'{"inputs": [1.5]}', 422, "`inputs` must be"),
        ("/embed", b'{"inputs": [["a"]]}', 422, "`inputs` must be"),
        ("/embed", b'{"inputs": "a", "normalize": 1}', 422, "`normalize` must be a boolean"),
        ("/embed", b'{"inputs": "a", "dimensions": 1000}', 413, "at most 16"),
        ("/embed", b'{"inputs": "a", "prompt_name": "none"}', 413, "none"),
        ("/embed", b'{"inputs": [[4000000000]]}', 422, "4000000000"),
        ("/embed", json.dumps({"inputs": ["a"] * 33}).encode(), 413, "batch size 33 > maximum allowed batch size 32"),
        ("/embed", json.dumps({"inputs": "the cat " * 40, "truncate": False}).encode(), 413, "Given: 82"),
        ("/embed", b'{"inputs": "a", "model": "fill"}', 424, "cannot embed"),
        ("/embed", b'{"inputs": "a", "model": 3}', 422, "must be a string"),
        ("/predict", b'{"inputs": [["a", "b", "c"]]}', 422, "pair"),
        ("/rerank", b'{"query": "a", "texts": []}', 400, "cannot be empty"),
        ("/fill", b'{"inputs": "no mask"}', 422, "MASK"),
        ("/tag", b'{"inputs": "a", "aggregation_strategy": "worst"}', 422, "worst"),
        ("/translate", b'{"inputs": "a", "num_beams": 100000}', 413, "num_beams"),
        ("/decode", b'{"ids": [-1]}', 422, "ids"),
        ("/v1/embeddings", b'{"input": "a", "encoding_format": "int8"}', 400, "float or base64"),
        ("/v2/rerank", b'{"query": "a", "documents": ["a"]}', 400, "model"),
    ],
)
def test_bad_input(path: str, body: bytes, status: int, told: str, client: Any) -> None:
    reply = client.post(path, content=body, headers={"content-type": "application/json"})
    assert reply.status_code == status, reply.text
    assert told in reply.text
    error = reply.json()
    assert "message" in (error["error"] if path.startswith("/v1") else error) or "error_type" in error


def test_bodies(served: dict[str, Served]) -> None:
    with client_of(served, payload_limit=100) as client:
        assert client.post("/embed", content=b"inputs=a").status_code == 415
        long = {"inputs": "a" * 100}
        assert post(client, "/embed", long, 413)["error_type"] == "Validation"
        assert post(client, "/v1/embeddings", long, 413)["error"]["type"] == "invalid_request_error"
        chunks = iter([b'{"inputs": "', b"a" * 200, b'"}'])
        reply = client.post("/embed", content=chunks, headers={"content-type": "application/json"})
        assert reply.status_code == 413
        assert client.get("/embed").status_code == 405
        assert client.get("/none").status_code == 404


def test_keys(served: dict[str, Served]) -> None:
    with client_of(served, api_key="secret") as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic secret"}):
            reply = client.post("/v1/embeddings", json={"input": "a"}, headers=headers)
            assert reply.status_code == 401
            assert reply.json()["error"]["code"] == "invalid_api_key"
            assert client.get("/v1/models", headers=headers).status_code == 401
        right = {"authorization": "Bearer secret"}
        assert post(client, "/embed", {"inputs": "a"}, headers=right)
        assert client.get("/v1/models", headers=right).status_code == 200
        assert client.get("/health").status_code == 200


def test_a_full_server_says_when_to_come_again(served: dict[str, Served]) -> None:
    with client_of(served, max_concurrent_requests=1) as client:
        server = client.app.state.server
        server.in_flight = 1
        reply = client.post("/embed", json={"inputs": "a"})
        assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
        assert reply.json()["error_type"] == "Overloaded"
        server.in_flight, server.ready = 0, False
        reply = client.post("/embed", json={"inputs": "a"})
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert client.get("/readyz").status_code == 503
        assert client.get("/livez").status_code == 200
        server.ready = True
        assert post(client, "/embed", {"inputs": "a"})


def test_a_model_is_replaced(client: Any, served: dict[str, Served]) -> None:
    models = client.app.state.server.models
    before = models.by_name["embed"]
    models.add(["embed", "embed-alias"], "embed", served["encode"].task)
    assert models.by_name["embed"] is models.by_name["embed-alias"] is not before
    assert before.batcher._closed
    models.by_name["embed"].batcher, after = before.batcher, models.by_name["embed"].batcher
    try:
        assert post(client, "/embed", {"inputs": "a"}, 503)["error_type"] == "Unhealthy"
    finally:
        models.by_name["embed"].batcher = after
    assert post(client, "/embed", {"inputs": "a"})


def test_texts_are_not_logged(client: Any, served: dict[str, Served], caplog: pytest.LogCaptureFixture,
                              monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    def fail(*_: Any) -> None:
        raise RuntimeError("private words")

    monkeypatch.setattr(type(served["encode"].task), "_run", fail)
    with caplog.at_level(logging.DEBUG):
        assert post(client, "/embed", {"inputs": "private words"}, 424)["error"] == "the model failed"
    assert "RuntimeError" in caplog.text
    assert "private" not in caplog.text


def test_other_origins(served: dict[str, Served]) -> None:
    with client_of(served, cors_allow_origin=("https://example.org",)) as client:
        headers = {"origin": "https://example.org", "access-control-request-method": "POST"}
        assert client.options("/embed", headers=headers).headers["access-control-allow-origin"] == "https://example.org"


def test_folders_are_loaded_for_what_they_are(encoder_folder: Path) -> None:
    from fastattn.serving.app import create_app

    with client_for(create_app(encoder_folder)) as client:
        assert [each["task"] for each in client.get("/v1/models").json()["data"]] == ["embed"]
    with pytest.raises(ModelNotFoundError, match="no_such_folder"), client_for(create_app("fill:./no_such_folder")):
        pass
