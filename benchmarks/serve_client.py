"""Clients of `python -m benchmarks serve`, in a process of their own: requests over kept connections to this machine.

Closed loop: each client asks as soon as it has its answer. Open loop: requests come at a rate, at moments of a Poisson
process, whether or not the answers do; the time of an answer counts from the moment when its request was due.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import deque
from pathlib import Path
from time import perf_counter
from typing import Any


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self.buffer = b""
        self.answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        if len(body) >= length and not self.answer.done():
            self.answer.set_result((int(head[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(ConnectionError("the server has closed the connection"))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        self.buffer, self.answer = b"", asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.answer


async def connect(port: int) -> Connection:
    made: Any = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    connection: Connection = made[1]
    return connection


def request_of(text: str, path: str) -> bytes:
    body = json.dumps({"inputs": text}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def run(given: dict[str, Any]) -> dict[str, Any]:
    requests = [request_of(text, given["path"]) for text in given["texts"]]
    draw, seconds, first, wrong = random.Random(given["seed"]), list[float](), dict[int, bytes](), 0
    pool = deque(await asyncio.gather(*(connect(given["port"]) for _ in range(given["clients"]))))
    until = perf_counter() + given["seconds"]

    async def ask(connection: Connection, due: float) -> None:
        nonlocal wrong
        i = draw.randrange(len(requests))
        status, body = await connection.ask(requests[i])
        before = first.setdefault(i, body)
        if status != given["expect"] or (given["compare"] and before != body):
            wrong += 1
        if (now := perf_counter()) <= until or given["rate"]:
            seconds.append(now - due)

    async def closed(connection: Connection) -> None:
        while (now := perf_counter()) < until:
            await ask(connection, now)

    async def opened(due: float) -> None:
        connection = pool.popleft() if pool else await connect(given["port"])
        await ask(connection, due)
        pool.append(connection)

    if not given["rate"]:
        await asyncio.gather(*map(closed, pool))
    else:
        tasks, due = [], perf_counter()
        while due < until:
            if (wait := due - perf_counter()) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(opened(due)))
            due += draw.expovariate(given["rate"])
        await asyncio.gather(*tasks)
    answers = {str(i): body.decode() for i, body in first.items()} if given["answers"] else {}
    return {"seconds": seconds, "wrong": wrong, "answers": answers}


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.install()
    except ImportError:
        pass
    found = asyncio.run(run(json.loads(Path(sys.argv[1]).read_text())))
    Path(sys.argv[1]).write_text(json.dumps(found))
