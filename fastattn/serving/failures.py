"""What a client is told of a request that fails: a status and JSON, as text-embeddings-inference or OpenAI put it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastattn.serving.answer import ClosedError, DeadlineError, QueueFullError
from fastattn.tasks import TextTooLongError

STATUS = {
    "Validation": 413,
    "Json": 422,
    "Empty": 400,
    "Syntax": 400,
    "Tokenizer": 422,
    "Backend": 424,
    "Overloaded": 429,
    "Unhealthy": 503,
    "Unauthorized": 401,
    "NotFound": 404,
    "MediaType": 415,
    "Timeout": 408,
    "Deadline": 503,
}
"""The status of each type of error."""


class Failure(Exception):
    """A request that is refused. `kind` is a name of `STATUS`."""

    def __init__(self, kind: str, message: str, retry_after: float | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.kind, self.retry_after, self.code = kind, retry_after, code

    @property
    def status(self) -> int:
        return STATUS[self.kind]

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        found = []
        if self.retry_after is not None:
            found.append((b"retry-after", str(math.ceil(self.retry_after)).encode()))
        if self.kind == "Unauthorized":
            found.append((b"www-authenticate", b"Bearer"))
        return found

    def body(self, path: str) -> Mapping[str, Any]:
        """The JSON for a route: OpenAI's under /v1, otherwise that of text-embeddings-inference."""
        if not path.startswith(("/v1", "/v2")):
            kind = {"Json": "Validation", "Syntax": "Validation"}.get(self.kind, self.kind)
            return {"error": str(self), "error_type": kind}
        if path.startswith("/v2"):
            return {"message": str(self)}
        kind = "invalid_request_error" if self.status_of_openai < 429 else "server_error"
        if self.status_of_openai == 429:
            kind = "rate_limit_error"
        return {"error": {"message": str(self), "type": kind, "param": None, "code": self.code}}

    @property
    def status_of_openai(self) -> int:
        """OpenAI says 400 for whatever a client did wrong."""
        return 400 if self.kind in ("Validation", "Json", "Empty", "Syntax", "Tokenizer", "Backend") else self.status

    def status_for(self, path: str) -> int:
        return self.status_of_openai if path.startswith(("/v1", "/v2")) and self.code != "too_large" else self.status


def failure_of(error: BaseException) -> Failure | None:
    """The failure that an error of a request is; None for a fault of ours."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, QueueFullError):
        return Failure("Overloaded", "Model is overloaded", error.retry_after)
    if isinstance(error, ClosedError):
        return Failure("Unhealthy", "the server is shutting down", 1)
    if isinstance(error, DeadlineError):
        return Failure("Deadline", "the request was not begun in time", 1)
    if isinstance(error, TextTooLongError):
        message = f"`inputs` must have less than {error.limit} tokens. Given: {error.tokens}"
        return Failure("Validation", message)
    if isinstance(error, ValueError | TypeError):
        return Failure("Tokenizer", str(error))
    return None
