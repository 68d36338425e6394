"""Serve models over HTTP.

  fastattn serve sentence-transformers/all-MiniLM-L6-v2
  fastattn serve ./encoder ./reranker ./translator --port 8080 --api-key-file key.txt
  fastattn serve fill:bert-base-uncased --served-model-name bert,text-embedding-3-small

The routes and their JSON are those of text-embeddings-inference, OpenAI (/v1/embeddings, /v1/models), Jina (/v1/rerank)
and Cohere (/v2/rerank), and /translate, /tag, /answer and /fill. GET / is a page to try them. A folder is used for what
it was trained for; TASK: before it names another task. SIGTERM ends the server when it has answered what it was
asked; SIGHUP loads the models again. Texts are never logged.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from fastattn.checks import printable
from fastattn.cli import add_threads, add_weights, positive, use_threads

SUMMARY = "answer requests over HTTP, as text-embeddings-inference and OpenAI do"
SWITCH_INTERVAL = 0.0005
"""Seconds after which a thread of Python gives way to another: one that waits is one that computes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="+", metavar="[TASK:]MODEL", help="folders or names")
    parser.add_argument("--host", "--hostname", default="127.0.0.1", help="default: %(default)s, this machine alone")
    parser.add_argument("--port", type=int, default=8080, help="default: %(default)s")
    parser.add_argument("--uds", metavar="PATH", help="listen on a Unix socket instead")
    parser.add_argument(
        "--served-model-name",
        action="append",
        default=[],
        metavar="NAME[,NAME...]",
        help="what clients call a model; once for each, in their order (default: as it is given)",
    )
    parser.add_argument(
        "--max-batch-tokens", type=positive, help="tokens of a pass (default: the best size for the threads)"
    )
    parser.add_argument("--max-concurrent-requests", type=positive, default=512, help="default: %(default)s")
    parser.add_argument("--max-client-batch-size", type=positive, default=32, help="default: %(default)s")
    parser.add_argument(
        "--auto-truncate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="cut texts that are too long, unless a request says otherwise (default: yes)",
    )
    parser.add_argument("--api-key", help="what requests must have as their bearer token (default: $API_KEY, or none)")
    parser.add_argument("--api-key-file", metavar="FILE", help="a file with the key, which others cannot list")
    parser.add_argument("--default-prompt-name", help="the prompt of encoders for requests that name none")
    parser.add_argument("--payload-limit", type=positive, default=2_000_000, help="bytes (default: %(default)s)")
    parser.add_argument("--timeout", type=float, help="seconds within which computing must begin (default: no limit)")
    parser.add_argument("--root-path", default="", help="the path before all routes, behind a proxy")
    parser.add_argument("--cors-allow-origin", action="append", default=[], metavar="ORIGIN", help="or *; repeatable")
    parser.add_argument("--ssl-certfile", metavar="FILE", help="TLS: the certificate")
    parser.add_argument("--ssl-keyfile", metavar="FILE", help="TLS: its key")
    parser.add_argument("--drain", type=positive, default=30, help="seconds to answer after SIGTERM (default: 30)")
    parser.add_argument("--revision", help="of the Hugging Face Hub")
    add_weights(parser)
    add_threads(parser)


def run(arguments: argparse.Namespace) -> int:
    use_threads(arguments.threads)
    names = [each.split(",") for each in arguments.served_model_name]
    if names and len(names) != len(arguments.models):
        told = f"--served-model-name is there {len(names)} times, for {len(arguments.models)} models"
        raise ValueError(told)
    if arguments.api_key and arguments.api_key_file:
        raise ValueError("--api-key and --api-key-file must not both be given")
    key = arguments.api_key or os.environ.get("API_KEY") or None
    if arguments.api_key_file:
        key = Path(arguments.api_key_file).read_text(encoding="utf-8").strip()
        if not key:
            raise ValueError(f"--api-key-file {arguments.api_key_file}: the file is empty")
    try:
        import uvicorn

        from fastattn.serving.app import create_app
        from fastattn.serving.models import Models, Settings
    except ImportError as error:
        if (error.name or "").startswith("fastattn"):
            raise
        raise ImportError(f'serve needs {error.name}: pip install "fastattn[serve]"') from None
    settings = Settings(
        max_concurrent_requests=arguments.max_concurrent_requests,
        max_batch_tokens=arguments.max_batch_tokens,
        max_client_batch_size=arguments.max_client_batch_size,
        auto_truncate=arguments.auto_truncate,
        api_key=key,
        default_prompt_name=arguments.default_prompt_name,
        payload_limit=arguments.payload_limit,
        timeout=arguments.timeout,
        cors_allow_origin=tuple(arguments.cors_allow_origin),
    )
    place: dict[str, Any] = {} if arguments.revision is None else {"revision": arguments.revision}

    def load(models: Models) -> None:
        for i, model in enumerate(arguments.models):
            served = models.load(model, *(names[i] if names else ()), weights=arguments.weights, **place)
            print(printable(f"{served.name}: {served.kind}"), file=sys.stderr)

    app = create_app(settings=settings, load=load)
    app.state.server.load()
    sys.setswitchinterval(SWITCH_INTERVAL)
    config = uvicorn.Config(
        app,
        host=arguments.host,
        port=arguments.port,
        uds=arguments.uds,
        root_path=arguments.root_path,
        ssl_certfile=arguments.ssl_certfile,
        ssl_keyfile=arguments.ssl_keyfile,
        timeout_graceful_shutdown=arguments.drain,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        backlog=4096,
    )
    server = uvicorn.Server(config)
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again when all is answered
    with contextlib.suppress(SystemExit):  # it has told why it cannot listen
        server.run()
    return 0 if server.started else 1
