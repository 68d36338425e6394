"""The server: an ASGI application over `Models`, for uvicorn or another server (extra `[serve]`)."""

from __future__ import annotations

import asyncio
import hmac
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fastattn.serving import handlers, handlers_v1
from fastattn.serving.failures import Failure, failure_of
from fastattn.serving.fields import parse
from fastattn.serving.handlers import Handler
from fastattn.serving.metrics import Metrics
from fastattn.serving.models import KINDS, Models, Settings
from fastattn.serving.openapi import describe

SLOW = 30.0
"""Seconds that a client may take to send a body."""

POSTS: Mapping[str, Handler] = {
    "/embed": handlers.embed,
    "/v1/embeddings": handlers_v1.embed,
    "/rerank": handlers.rerank,
    "/predict": handlers.predict,
    "/embed_all": handlers.embed_all,
    "/similarity": handlers.similarity,
    "/tokenize": handlers.tokenize,
    "/decode": handlers.decode,
    "/v1/rerank": handlers_v1.rerank,
    "/v2/rerank": handlers_v1.rerank_v2,
    "/embeddings": handlers_v1.embed,
    "/translate": handlers.translate,
    "/tag": handlers.tag,
    "/answer": handlers.answer,
    "/fill": handlers.fill,
}
"""What is asked with POST, the most frequent first."""

logger = logging.getLogger(__name__)


class Server:
    """What an application knows: its models and metrics, how many requests it has, and whether it takes more.

    Attributes:
        ready: whether all models are loaded, and it is not about to end.
    """

    def __init__(
        self, settings: Settings, sources: Sequence[Any] = (), more: Callable[[Models], None] | None = None
    ) -> None:
        self.settings, self.metrics = settings, Metrics()
        self._sources, self._more = sources, more
        self.models = Models(settings, self.metrics)
        self.in_flight, self.ready = 0, False
        self.metrics.in_flight.set_function(lambda: self.in_flight)
        self._key = None if settings.api_key is None else settings.api_key.encode()

    def load(self) -> None:
        """Load the models, in the place of those that have their names. Raises as `Models.load`."""
        for source in self._sources:
            self.models.load(source)
        if self._more is not None:
            self._more(self.models)

    def check_key(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise Failure for a request without the key. The comparison takes the same time whatever is wrong."""
        if self._key is None:
            return
        given = next((value for name, value in headers if name == b"authorization"), b"")
        kind, _, key = given.partition(b" ")
        if not (hmac.compare_digest(key.strip(), self._key) and kind.lower() == b"bearer"):
            raise Failure("Unauthorized", "Incorrect API key provided", code="invalid_api_key")

    async def body(self, scope: Any, receive: Any) -> bytes:
        """The body of a request. Raises Failure for one that is too large, slow, or not said to be JSON."""
        limit, kind, size = self.settings.payload_limit, b"", None
        for name, value in scope["headers"]:
            if name == b"content-type":
                kind = value
            elif name == b"content-length":
                size = int(value)
        if not kind.split(b";")[0].strip().lower().endswith(b"json"):
            raise Failure("MediaType", "Expected request with `Content-Type: application/json`")
        if size is not None and size > limit:
            raise Failure("Validation", f"length limit exceeded: the body has {size} bytes, {limit} are allowed",
                          code="too_large")  # fmt: skip
        task, late = asyncio.current_task(), False

        def stop() -> None:
            nonlocal late
            late = True
            if task is not None:
                task.cancel()

        timer = asyncio.get_running_loop().call_later(SLOW, stop)
        parts, count = [], 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                parts.append(message.get("body", b""))
                count += len(parts[-1])
                if count > limit:
                    raise Failure("Validation", f"length limit exceeded: {limit} bytes are allowed", code="too_large")
                if not message.get("more_body"):
                    return b"".join(parts) if len(parts) > 1 else parts[0]
        except asyncio.CancelledError:
            if late:
                raise Failure("Timeout", "the body of the request did not come in time") from None
            raise
        finally:
            timer.cancel()


class Disconnected(Exception):
    """The client has left."""


class Endpoint:
    """A route that asks a model."""

    def __init__(self, server: Server, path: str, handler: Handler) -> None:
        self.server, self.path, self.handler = server, path, handler

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        server, begun = self.server, perf_counter()
        status, headers, content = 200, [], b""
        server.in_flight += 1
        try:
            server.check_key(scope["headers"])
            if not server.ready:
                raise Failure("Unhealthy", "the server is not ready", 1)
            if server.in_flight > server.settings.max_concurrent_requests:
                raise Failure("Overloaded", "Model is overloaded", 1)
            values = parse(await server.body(scope, receive))
            content = _json(await self.handler(server.models, values))
        except Disconnected:
            return
        except asyncio.CancelledError:
            raise
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                logger.error("%s: %s", self.path, type(error).__name__)  # its message might have a text
                failure = Failure("Backend", "the model failed")
            status, headers = failure.status_for(self.path), failure.headers
            content = _json(failure.body(self.path))
        finally:
            server.in_flight -= 1
        server.metrics.answered(self.path, status, perf_counter() - begun)
        length = str(len(content)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length), *headers]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _answer(value: Any, status: int = 200) -> Response:
    return Response(_json(value), status, media_type="application/json")


class Documents:
    """The routes that ask no model."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def routes(self) -> list[BaseRoute]:
        page = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
        gets: dict[str, Callable[[], Response]] = {
            "/info": lambda: _answer(handlers.info(self.server.models)),
            "/v1/models": lambda: _answer(handlers_v1.listed(self.server.models)),
            "/health": self.ready,
            "/readyz": self.ready,
            "/livez": lambda: Response(),
            "/metrics": lambda: Response(self.server.metrics.text(), media_type="text/plain; version=0.0.4"),
            "/openapi.json": lambda: _answer(describe(POSTS)),
            "/": lambda: Response(page, media_type="text/html"),
        }
        found: list[BaseRoute] = [
            Route(path, partial(self.get, make, path in KEYED), methods=["GET"]) for path, make in gets.items()
        ]
        return [*found, Route("/v1/models/{name:path}", self.model, methods=["GET"])]

    async def get(self, make: Callable[[], Response], keyed: bool, request: Request) -> Response:
        try:
            if keyed:
                self.server.check_key(request.scope["headers"])
            return make()
        except Failure as failure:
            return _refused(failure, request.url.path)

    def ready(self) -> Response:
        if not self.server.ready:
            raise Failure("Unhealthy", "the server is not ready", 1)
        return Response()

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        try:
            self.server.check_key(request.scope["headers"])
            served = self.server.models.find(KINDS, name)
        except Failure as failure:
            return _refused(failure, request.url.path)
        return _answer(handlers_v1.described(name, served))


KEYED = ("/info", "/v1/models")
"""What also needs the key. Probes, metrics, the description and the page do not."""


def _refused(failure: Failure, path: str) -> Response:
    response = _answer(failure.body(path), failure.status_for(path))
    for name, value in failure.headers:
        response.headers[name.decode()] = value.decode()
    return response


def create_app(
    *models: Any, settings: Settings | None = None, load: Callable[[Models], None] | None = None
) -> Starlette:
    """The application. uvicorn serves it, and so does gunicorn with uvicorn's workers.

    Args:
        models: what `Models.load` takes: folders or names, each served under its own.
        settings: limits, and the key.
        load: called with the `Models` at the start, to load or add others, and again for SIGHUP, which replaces models
            without dropping requests.

    Models are loaded and warmed up before the server listens. `app.state.server` is the `Server`; call its `load` to
    load them at once, before workers are forked, which then share them.
    """
    server = Server(settings or Settings(), models, load)

    async def again() -> None:
        try:
            await asyncio.to_thread(server.load)
        except Exception as error:
            logger.error("the models are not replaced: %s", error)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if not server.models.by_name:
            await asyncio.to_thread(server.load)
        tasks: set[asyncio.Task[None]] = set()
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, lambda: tasks.add(loop.create_task(again())))
        server.ready = True
        yield
        server.ready = False
        await asyncio.to_thread(server.models.close)

    posts: list[BaseRoute] = [
        Route(path, Endpoint(server, path, each), methods=["POST"]) for path, each in POSTS.items()
    ]
    posts.append(Route("/", Endpoint(server, "/", handlers.root), methods=["POST"]))
    origins = list((settings or Settings()).cors_allow_origin)
    cors = Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    app = Starlette(
        routes=[*posts, *Documents(server).routes()], lifespan=lifespan, middleware=[cors] if origins else []
    )
    app.state.server = server
    return app
