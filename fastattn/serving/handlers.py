"""The routes that ask models: from the fields of a request to those of its answer.

A handler takes the server, the JSON object of a request, and gives what becomes JSON. Routes and fields are those of
text-embeddings-inference; `fastattn.serving.handlers_v1` has those of other services.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fastattn.serving import fields
from fastattn.serving.answer import Answer, ClosedError
from fastattn.serving.failures import Failure
from fastattn.serving.models import Models, Served

Handler = Callable[[Models, dict[str, Any]], Awaitable[Any]]


async def ask(
    models: Models, served: Served, inputs: Sequence[Any], method: str | None, **options: Any
) -> list[Answer]:
    """The answers to some inputs, which are there. Raises the first error among them.

    A model that is replaced while it is asked has a successor, which is asked then.
    """
    settings = models.settings
    if len(inputs) > settings.max_client_batch_size:
        told = f"batch size {len(inputs)} > maximum allowed batch size {settings.max_client_batch_size}"
        raise Failure("Validation", told)
    options.setdefault("truncate", settings.auto_truncate)
    options.setdefault("timeout", settings.timeout)
    answers: list[Answer] = []
    for each in inputs:
        try:
            answers.append(served.batcher.submit_here(each, method, **options))
        except ClosedError:
            if (other := models.by_name.get(served.name)) is None or other is served:
                raise
            served = other
            answers.append(served.batcher.submit_here(each, method, **options))
    try:
        for answer in answers:
            await served.batcher.finished(answer)
            answer.result()
    except BaseException:
        for answer in answers:
            answer.cancel()
        raise
    return answers


def results(answers: Sequence[Answer]) -> list[Any]:
    return [answer.result() for answer in answers]


def truncation(models: Models, values: Mapping[str, Any]) -> bool:
    """Whether too long inputs are cut."""
    side = values.get("truncation_direction") or "right"
    if not isinstance(side, str) or side.lower() not in ("left", "right"):
        raise fields.wrong("truncation_direction", "Left or Right")
    if side.lower() == "left":
        raise Failure("Validation", "`truncation_direction` Left is not supported")
    found: bool = fields.boolean(values, "truncate", models.settings.auto_truncate)
    return found


def prompt_of(models: Models, served: Served, values: Mapping[str, Any]) -> str | None:
    """The name of the prompt that is to stand before each text."""
    name: str | None = fields.text(values, "prompt_name", models.settings.default_prompt_name)
    if name is not None and name not in served.task.prompts:
        raise Failure("Validation", f"default prompt name must be one of {', '.join(served.task.prompts)}, got {name}")
    return name


async def embeddings(models: Models, served: Served, texts: list[str], values: Mapping[str, Any]) -> list[Answer]:
    """The embeddings of texts, with the options of /embed."""
    width = served.task.get_embedding_dimension()
    dimension = fields.positive(values, "dimensions", None)
    if dimension is not None and dimension > width:
        raise Failure("Validation", f"`dimensions` must be at most {width}, got {dimension}")
    return await ask(
        models,
        served,
        texts,
        "encode",
        truncate=truncation(models, values),
        prompt_name=prompt_of(models, served, values),
        normalize_embeddings=fields.boolean(values, "normalize", True),
        truncate_dim=dimension,
    )


def ids_to_text(served: Served) -> Callable[[list[int]], str]:
    """Token ids as the text that they are."""

    def decode(ids: list[int]) -> str:
        found: str = served.tokenizer.decode([ids])[0]
        return found

    return decode


async def embed(models: Models, values: dict[str, Any]) -> Any:
    served = models.find(["embed"], values.get("model"))
    texts, _ = fields.inputs(values, "inputs", ids_to_text(served))
    return results(await embeddings(models, served, texts, values))


async def embed_all(models: Models, values: dict[str, Any]) -> Any:
    served = models.find(["embed"], values.get("model"))
    texts, _ = fields.inputs(values, "inputs", ids_to_text(served))
    options = {"truncate": truncation(models, values), "prompt_name": prompt_of(models, served, values)}
    return results(await ask(models, served, texts, "token_embeddings", **options))


async def similarity(models: Models, values: dict[str, Any]) -> Any:
    served = models.find(["embed"], values.get("model"))
    given = fields.mapping(values, "inputs")
    texts = [fields.text(given, "source_sentence"), *fields.texts(given, "sentences")]
    parameters = {**fields.mapping(values, "parameters", {}), "normalize": True}
    found = np.stack(results(await embeddings(models, served, texts, parameters)))
    return served.task.similarity(found[:1], found[1:])[0]


async def scores_of(
    models: Models, served: Served, query: str, texts: list[str], truncate: bool, raw: bool = False
) -> tuple[list[float], int]:
    """The score of each text with a query, and the tokens of all."""
    if served.task.model.config.num_labels != 1:
        raise Failure("Backend", f"the model {served.name} does not give one score")
    method = "logits" if raw or served.kind != "rerank" else "scores"
    answers = await ask(models, served, [(query, each) for each in texts], method, truncate=truncate)
    found = np.array(results(answers), np.float32).reshape(-1)
    return found.tolist(), sum(answer.tokens for answer in answers)


async def rerank(models: Models, values: dict[str, Any]) -> Any:
    served = models.find(["rerank"], values.get("model"))
    texts = fields.texts(values, "texts")
    query, raw = fields.text(values, "query"), fields.boolean(values, "raw_scores", False)
    scores, _ = await scores_of(models, served, query, texts, truncation(models, values), raw)
    with_text = fields.boolean(values, "return_text", False)
    order = sorted(range(len(texts)), key=lambda i: -scores[i])
    return [{"index": i, **({"text": texts[i]} if with_text else {}), "score": scores[i]} for i in order]


async def predict(models: Models, values: dict[str, Any]) -> Any:
    served = models.find(["classify", "regress", "rerank"], values.get("model"))
    given = values.get("inputs")
    single = isinstance(given, str) or (
        isinstance(given, list) and bool(given) and all(isinstance(each, str) for each in given)
    )
    rows = [given] if single else given
    if not isinstance(rows, list):
        raise fields.wrong("inputs", "a string, a pair, or a list of [string] and [string, string]")
    if not rows:
        raise Failure("Empty", "`inputs` cannot be empty")
    inputs = []
    for row in rows:
        parts = [row] if isinstance(row, str) else row
        if not isinstance(parts, list) or not all(isinstance(each, str) for each in parts) or len(parts) not in (1, 2):
            raise fields.wrong("inputs", "a string, a pair, or a list of [string] and [string, string]")
        inputs.append(parts[0] if len(parts) == 1 else tuple(parts))
    raw = fields.boolean(values, "raw_scores", False)
    usual = {"classify": "probabilities", "rerank": "scores", "regress": "logits"}[served.kind]
    answers = await ask(models, served, inputs, "logits" if raw else usual, truncate=truncation(models, values))
    names = served.task.model.config.id2label
    found = []
    for each in results(answers):
        numbers = np.asarray(each, np.float32).reshape(-1).tolist()
        labelled = [{"score": number, "label": str(names[i])} for i, number in enumerate(numbers)]
        found.append(sorted(labelled, key=lambda one: -one["score"]))
    return found[0] if single else found


async def tokenize(models: Models, values: dict[str, Any]) -> Any:
    served = _with_tokenizer(models, values)
    texts, _ = fields.inputs(values, "inputs", ids_to_text(served))
    _check_size(models, texts)
    special, tokenizer = fields.boolean(values, "add_special_tokens", True), served.tokenizer
    if served.kind == "embed" and (name := prompt_of(models, served, values)) is not None:
        texts = [served.task.prompts[name] + each for each in texts]
    tokens = await asyncio.to_thread(tokenizer.encode, texts, return_offsets_mapping=True, name="inputs")
    marks, offsets = tokens.special_tokens_mask, tokens.offset_mapping
    found, at = [], 0
    for text, ids in zip(texts, tokens, strict=True):
        row = []
        for number, name in zip(ids.tolist(), tokenizer.tokens(ids), strict=True):
            start, stop = offsets[at].tolist()
            if marks[at]:
                row.append({"id": number, "text": name, "special": True, "start": None, "stop": None})
            else:
                row.append({"id": number, "text": text[start:stop], "special": False, "start": start, "stop": stop})
            at += 1
        found.append([token for token in row if special or not token["special"]])
    return found


async def decode(models: Models, values: dict[str, Any]) -> Any:
    served = _with_tokenizer(models, values)
    ids = values.get("ids")
    if not isinstance(ids, list):
        raise fields.wrong("ids", "a list of token ids, or a list of such lists")
    rows = ids if ids and all(isinstance(each, list) for each in ids) else [ids]
    if not ids:
        raise Failure("Empty", "`ids` cannot be empty")
    if not all(type(number) is int and 0 <= number < 2**32 for row in rows for number in row):
        raise fields.wrong("ids", "a list of token ids, or a list of such lists")
    _check_size(models, rows)
    skip = fields.boolean(values, "skip_special_tokens", True)
    return served.tokenizer.decode([np.array(row, np.int64) for row in rows], skip_special_tokens=skip)


def _with_tokenizer(models: Models, values: Mapping[str, Any]) -> Served:
    return models.find(["embed", "rerank", "classify", "regress", "tag", "answer", "fill"], values.get("model"))


def _check_size(models: Models, rows: Sequence[Any]) -> None:
    most = models.settings.max_client_batch_size
    if len(rows) > most:
        raise Failure("Validation", f"batch size {len(rows)} > maximum allowed batch size {most}")


def _rows(values: Mapping[str, Any], name: str) -> tuple[list[str], bool]:
    """A text or a list of them, and whether there was only one."""
    given = values.get(name)
    return ([given], True) if isinstance(given, str) else (fields.texts(values, name), False)


async def translate(models: Models, values: dict[str, Any]) -> Any:
    """`inputs`, `num_beams` and `return_alignments` in; `translation_text`, and `tokens` and `alignment`, out."""
    served = models.find(["translate"], values.get("model"))
    texts, _ = _rows(values, "inputs")
    options: dict[str, Any] = {"overlong": "truncate"}
    if (beams := fields.positive(values, "num_beams", None)) is not None:
        if beams > 64:
            raise Failure("Validation", f"`num_beams` must be at most 64, got {beams}")
        options["num_beams"] = beams
    aligned = fields.boolean(values, "return_alignments", False)
    answers = await ask(models, served, texts, None, truncate=truncation(models, values),
                        return_alignments=aligned, **options)  # fmt: skip
    if not aligned:
        return [{"translation_text": each} for each in results(answers)]
    source = served.task.tokenizer.source
    return [
        {
            "translation_text": each.text,
            "score": each.score if np.isfinite(each.score) else None,
            "tokens": each.tokens,
            "alignment": each.alignment,
            "source_tokens": source.tokens(source.encode([text], served.task.max_length).ids),
        }
        for text, each in zip(texts, results(answers), strict=True)
    ]


async def tag(models: Models, values: dict[str, Any]) -> Any:
    """`inputs` in, and for each text its entities, or runs of words with one label; for lists of words their labels."""
    served = models.find(["tag"], values.get("model"))
    given = values.get("inputs")
    if isinstance(given, list) and given and all(isinstance(each, list) for each in given):
        sentences = [fields.texts({"inputs": each}, "inputs") for each in given]
        return results(await ask(models, served, sentences, "tag"))
    strategy = fields.text(values, "aggregation_strategy", "first")
    texts, single = _rows(values, "inputs")
    found = results(await ask(models, served, texts, "entities", aggregation_strategy=strategy))
    return found[0] if single else found


async def answer(models: Models, values: dict[str, Any]) -> Any:
    """`question` and `context`, or `inputs` with them, in; the best answer, or with `top_k` a list of them, out."""
    served = models.find(["answer"], values.get("model"))
    given = fields.mapping(values, "inputs", values)
    count = fields.positive(values, "top_k", None)
    pair = {"question": fields.text(given, "question"), "context": fields.text(given, "context")}
    return results(await ask(models, served, [pair], None, n_best=count))[0]


async def fill(models: Models, values: dict[str, Any]) -> Any:
    """`inputs`, texts with masks, `top_k` and `targets` in; the best words for each mask out."""
    served = models.find(["fill"], values.get("model"))
    texts, single = _rows(values, "inputs")
    targets = None if values.get("targets") is None else fields.texts(values, "targets")
    top_k = fields.positive(values, "top_k", 5)
    found = results(await ask(models, served, texts, None, top_k=top_k, targets=targets))
    return found[0] if single else found


async def root(models: Models, values: dict[str, Any]) -> Any:
    """What the first model, or the one that is named, does: as huggingface_hub's client asks it."""
    if not models.by_name:
        raise Failure("Unhealthy", "no model is ready", 1)
    name = values.get("model")
    served = models.find(BY_KIND, name) if name is not None else next(iter(models.by_name.values()))
    parameters = fields.mapping(values, "parameters", {})
    values = {**parameters, **{key: value for key, value in values.items() if key != "parameters"}}
    if served.kind == "embed" and isinstance(values.get("inputs"), dict):
        return await similarity(models, {"inputs": values["inputs"], "parameters": parameters, "model": served.name})
    return await BY_KIND[served.kind](models, {**values, "model": served.name})


BY_KIND: Mapping[str, Handler] = {
    "embed": embed,
    "rerank": rerank,
    "classify": predict,
    "regress": predict,
    "translate": translate,
    "tag": tag,
    "answer": answer,
    "fill": fill,
}


def info(models: Models) -> dict[str, Any]:
    """What /info tells of the first model, and the names of all."""
    from fastattn import __version__

    served = next(iter(models.by_name.values()), None)
    settings = asdict(models.settings)
    return {
        "model_id": served and served.source,
        "model_sha": None,
        "model_dtype": "float32",
        "model_type": served and _type_of(served),
        "max_concurrent_requests": settings["max_concurrent_requests"],
        "max_input_length": served and served.max_tokens,
        "max_batch_tokens": served and served.batcher.max_batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": settings["max_client_batch_size"],
        "auto_truncate": settings["auto_truncate"],
        "tokenization_workers": 1,
        "version": __version__,
        "served_models": {name: each.kind for name, each in models.by_name.items()},
    }


def _type_of(served: Served) -> dict[str, Any]:
    if served.kind == "embed":
        pooling = getattr(list(served.task)[1], "pooling_mode", "mean")
        return {"embedding": {"pooling": pooling if isinstance(pooling, str) else "+".join(pooling)}}
    labels = getattr(served.task.model.config, "id2label", None)
    if served.kind in ("classify", "rerank", "regress") and labels:
        names = {str(i): str(name) for i, name in labels.items()}
        kind = "reranker" if served.kind == "rerank" else "classifier"
        return {kind: {"id2label": names, "label2id": {name: int(i) for i, name in names.items()}}}
    return {served.kind: {}}
