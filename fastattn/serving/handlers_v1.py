"""Routes of other services: embeddings and models as OpenAI has them, reranking as Jina and Cohere have it."""

from __future__ import annotations

import base64
import uuid
from typing import Any

import numpy as np

from fastattn.serving import fields
from fastattn.serving.failures import Failure
from fastattn.serving.handlers import embeddings, ids_to_text, scores_of
from fastattn.serving.models import Models, Served


async def embed(models: Models, values: dict[str, Any]) -> Any:
    """OpenAI's /v1/embeddings. Embeddings have length 1 unless `normalize` is false."""
    served = models.find(["embed"], values.get("model"))
    texts, _ = fields.inputs(values, "input", ids_to_text(served))
    form = fields.text(values, "encoding_format", "float")
    if form not in ("float", "base64"):
        raise fields.wrong("encoding_format", "float or base64")
    answers = await embeddings(models, served, texts, values)
    count = sum(answer.tokens for answer in answers)
    found = [answer.result() for answer in answers]
    rows = (
        [base64.b64encode(np.asarray(each, "<f4").tobytes()).decode() for each in found] if form != "float" else found
    )
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": each} for i, each in enumerate(rows)],
        "model": values.get("model") or served.name,
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }


def described(name: str, served: Served) -> dict[str, Any]:
    """A model as OpenAI's /v1/models tells it."""
    return {"id": name, "object": "model", "created": served.created, "owned_by": "fastattn", "task": served.kind}


def listed(models: Models) -> dict[str, Any]:
    return {"object": "list", "data": [described(name, served) for name, served in models.by_name.items()]}


async def _ranked(models: Models, values: dict[str, Any]) -> tuple[Served, list[dict[str, Any]], list[str], int]:
    served = models.find(["rerank"], values.get("model"))
    texts, query = fields.documents(values), fields.text(values, "query")
    most = fields.positive(values, "top_n", len(texts))
    scores, tokens = await scores_of(models, served, query, texts, True)
    order = sorted(range(len(texts)), key=lambda i: -scores[i])[:most]
    return served, [{"index": i, "relevance_score": scores[i]} for i in order], texts, tokens


async def rerank(models: Models, values: dict[str, Any]) -> Any:
    """Jina's /v1/rerank."""
    with_text = fields.boolean(values, "return_documents", True)
    served, found, texts, tokens = await _ranked(models, values)
    for each in found if with_text else ():
        each["document"] = {"text": texts[each["index"]]}
    return {
        "model": values.get("model") or served.name,
        "object": "list",
        "usage": {"total_tokens": tokens, "prompt_tokens": tokens},
        "results": found,
    }


async def rerank_v2(models: Models, values: dict[str, Any]) -> Any:
    """Cohere's /v2/rerank."""
    if not isinstance(values.get("model"), str):
        raise Failure("Json", "missing field `model`")
    _, found, _, _ = await _ranked(models, values)
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
    return {"id": str(uuid.uuid4()), "results": found, "meta": meta}
