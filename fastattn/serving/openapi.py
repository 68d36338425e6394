"""The OpenAPI description of the routes that ask models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

TEXT: dict[str, Any] = {"type": "string"}
TEXTS: dict[str, Any] = {"type": "array", "items": TEXT, "minItems": 1}
IDS: dict[str, Any] = {"type": "array", "items": {"type": "integer", "minimum": 0}}
ONE_OR_MANY: dict[str, Any] = {"anyOf": [TEXT, TEXTS]}
INPUT: dict[str, Any] = {"anyOf": [TEXT, TEXTS, IDS, {"type": "array", "items": IDS}]}
BOOLEAN, COUNT = {"type": "boolean"}, {"type": "integer", "minimum": 1}
CUT = {"truncate": BOOLEAN, "model": TEXT}
EMBED = {**CUT, "prompt_name": TEXT, "normalize": BOOLEAN, "dimensions": COUNT}
DOCUMENTS = {"type": "array", "items": {"anyOf": [TEXT, {"type": "object", "properties": {"text": TEXT}}]}}
RANK = {"model": TEXT, "query": TEXT, "documents": DOCUMENTS, "top_n": COUNT, "return_documents": BOOLEAN}
OPENAI = {"input": INPUT, "model": TEXT, "encoding_format": {"enum": ["float", "base64"]}, "dimensions": COUNT}
PAIR = {"anyOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 2}]}

BODIES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "/embed": ({"inputs": INPUT, **EMBED}, ["inputs"]),
    "/embed_all": ({"inputs": INPUT, **CUT, "prompt_name": TEXT}, ["inputs"]),
    "/rerank": (
        {"query": TEXT, "texts": TEXTS, **CUT, "raw_scores": BOOLEAN, "return_text": BOOLEAN},
        ["query", "texts"],
    ),
    "/predict": (
        {"inputs": {"anyOf": [TEXT, {"type": "array", "items": PAIR}]}, **CUT, "raw_scores": BOOLEAN},
        ["inputs"],
    ),
    "/similarity": (
        {
            "inputs": {
                "type": "object",
                "properties": {"source_sentence": TEXT, "sentences": TEXTS},
                "required": ["source_sentence", "sentences"],
            },
            "parameters": {"type": "object", "properties": EMBED},
        },
        ["inputs"],
    ),
    "/tokenize": ({"inputs": INPUT, "add_special_tokens": BOOLEAN, "prompt_name": TEXT, "model": TEXT}, ["inputs"]),
    "/decode": (
        {"ids": {"anyOf": [IDS, {"type": "array", "items": IDS}]}, "skip_special_tokens": BOOLEAN, "model": TEXT},
        ["ids"],
    ),
    "/v1/embeddings": (OPENAI, ["input"]),
    "/embeddings": (OPENAI, ["input"]),
    "/v1/rerank": (RANK, ["query", "documents"]),
    "/v2/rerank": (RANK, ["model", "query", "documents"]),
    "/translate": ({"inputs": ONE_OR_MANY, **CUT, "num_beams": COUNT, "return_alignments": BOOLEAN}, ["inputs"]),
    "/tag": ({"inputs": ONE_OR_MANY, **CUT, "aggregation_strategy": TEXT}, ["inputs"]),
    "/answer": ({"question": TEXT, "context": TEXT, "top_k": COUNT, **CUT}, ["question", "context"]),
    "/fill": ({"inputs": ONE_OR_MANY, **CUT, "top_k": COUNT, "targets": TEXTS}, ["inputs"]),
}
"""The fields of each route's JSON, and those that must be there."""


def describe(paths: Iterable[str]) -> dict[str, Any]:
    """The description of some routes."""
    from fastattn import __version__

    refused = {
        str(status): {"description": told}
        for status, told in (
            (400, "nothing to do, or no JSON"),
            (401, "the key is wrong"),
            (404, "there is no such model"),
            (408, "the body came too slowly"),
            (413, "too long or too many"),
            (415, "not said to be JSON"),
            (422, "a field is wrong"),
            (424, "no model can do it"),
            (429, "too many requests; Retry-After says when to come again"),
            (503, "not ready, or too late; Retry-After says when to come again"),
        )
    }
    found = {}
    for path in paths:
        properties, required = BODIES[path]
        schema = {"type": "object", "properties": properties, "required": required}
        body = {"required": True, "content": {"application/json": {"schema": schema}}}
        found[path] = {"post": {"requestBody": body, "responses": {"200": {"description": "the answer"}, **refused}}}
    return {"openapi": "3.1.0", "info": {"title": "fastattn", "version": __version__}, "paths": found}
