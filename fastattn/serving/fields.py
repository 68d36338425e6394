"""The fields of a request's JSON, checked by hand: what is wrong is named as the client wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from fastattn.serving.failures import Failure

NOTHING = object()


def parse(body: bytes) -> dict[str, Any]:
    """The object in a body. Raises Failure for what is no JSON in UTF-8, or no object."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Failure("Syntax", f"Failed to parse the request body as JSON: {error.msg}") from None
    if not isinstance(found, dict):
        raise Failure("Json", f"the JSON body must be an object, got {type(found).__name__}")
    return found


def wrong(name: str, wanted: str) -> Failure:
    return Failure("Json", f"`{name}` must be {wanted}")


def _field(accept: Callable[[Any], bool], wanted: str) -> Callable[..., Any]:
    def get(values: Mapping[str, Any], name: str, default: Any = NOTHING) -> Any:
        value = values.get(name)
        if value is None:
            if default is NOTHING:
                raise Failure("Json", f"missing field `{name}`")
            return default
        if not accept(value):
            raise wrong(name, wanted)
        return value

    return get


text = _field(lambda value: isinstance(value, str), "a string")
boolean = _field(lambda value: isinstance(value, bool), "a boolean")
positive = _field(lambda value: type(value) is int and 0 < value < 2**31, "a positive integer")
mapping = _field(lambda value: isinstance(value, dict), "an object")


def texts(values: Mapping[str, Any], name: str) -> list[str]:
    """A list of strings, which is not empty."""
    found = values.get(name)
    if found is None:
        raise Failure("Json", f"missing field `{name}`")
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise wrong(name, "a list of strings")
    if not found:
        raise Failure("Empty", f"`{name}` cannot be empty")
    return found


def inputs(values: Mapping[str, Any], name: str, ids: Callable[[list[int]], str]) -> tuple[list[str], bool]:
    """Strings or lists of token ids, one or many, as texts, and whether there was only one."""
    found = values.get(name)
    if found is None:
        raise Failure("Json", f"missing field `{name}`")
    single = isinstance(found, str) or (isinstance(found, list) and bool(found) and _are_ids(found))
    rows = [found] if single else found
    if not isinstance(rows, list):
        raise wrong(name, "a string, a list of strings, or token ids")
    if not rows:
        raise Failure("Empty", f"`{name}` cannot be empty")
    result = []
    for each in rows:
        if isinstance(each, list) and _are_ids(each):
            each = ids(each)
        if not isinstance(each, str):
            raise wrong(name, "a string, a list of strings, or token ids")
        result.append(each)
    return result, single


def _are_ids(value: list[Any]) -> bool:
    return all(type(each) is int and 0 <= each < 2**32 for each in value)


def documents(values: Mapping[str, Any], name: str = "documents") -> list[str]:
    """Texts, each a string or an object with a `text`."""
    rows = values.get(name)
    if rows is None:
        raise Failure("Json", f"missing field `{name}`")
    if not isinstance(rows, list):
        raise wrong(name, "a list")
    found = [each.get("text") if isinstance(each, dict) else each for each in rows]
    return texts({name: found}, name)
