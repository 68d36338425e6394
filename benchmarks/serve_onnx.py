"""The rival of `python -m benchmarks serve`: /embed over ONNX Runtime, batches of whatever waits, padded and sorted.

It runs in the rivals' Python, with the libraries of `fastattn serve` around it, and without fastattn.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
from typing import Any

import numpy as np

BATCH_TOKENS = 16384  # padding included, as text-embeddings-inference counts by default


class Engine:
    """One task takes what waits, a thread tokenises and computes it. Texts of about a length share a batch."""

    def __init__(self, folder: str, model: str, limit: int, threads: int) -> None:
        ort = importlib.import_module("onnxruntime")
        self.tokenizer = importlib.import_module("tokenizers").Tokenizer.from_file(f"{folder}/tokenizer.json")
        self.tokenizer.enable_truncation(limit)
        self.tokenizer.no_padding()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the event loop needs a processor
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.names = [each.name for each in self.session.get_inputs()]
        self.waiting: list[tuple[str, asyncio.Future[Any]]] = []
        self.changed = asyncio.Event()

    def batches(self, lengths: list[int]) -> list[list[int]]:
        """Indices of about equal lengths, the shortest first, in batches with little padding."""
        found: list[list[int]] = []
        for i in sorted(range(len(lengths)), key=lengths.__getitem__):
            fits = found and lengths[i] * (len(found[-1]) + 1) <= BATCH_TOKENS
            if fits and lengths[i] <= 1.2 * lengths[found[-1][0]] + 8:
                found[-1].append(i)
            else:
                found.append([i])
        return found

    def compute(self, texts: list[str]) -> np.ndarray:
        encoded = self.tokenizer.encode_batch_fast(texts)
        rows = [each.ids for each in encoded]
        found: Any = [None] * len(rows)
        for batch in self.batches([len(row) for row in rows]):
            longest = max(len(rows[i]) for i in batch)
            ids, mask = np.zeros((2, len(batch), longest), np.int64)
            for at, i in enumerate(batch):
                ids[at, : len(rows[i])] = rows[i]
                mask[at, : len(rows[i])] = 1
            given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            hidden = self.session.run(None, {name: given[name] for name in self.names})[0]
            weights = mask[:, :, None].astype(np.float32)
            means = (hidden * weights).sum(1) / weights.sum(1)
            means /= np.linalg.norm(means, axis=1, keepdims=True)
            for at, i in enumerate(batch):
                found[i] = means[at]
        return np.stack(found)

    async def run(self) -> None:
        while True:
            await self.changed.wait()
            self.changed.clear()
            some, self.waiting = self.waiting[:64], self.waiting[64:]
            if self.waiting:
                self.changed.set()
            rows = await asyncio.to_thread(self.compute, [text for text, _ in some])
            for (_, future), row in zip(some, rows, strict=True):
                if not future.done():
                    future.set_result(row)

    async def embed(self, texts: list[str]) -> list[Any]:
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in texts]
        self.waiting += zip(texts, futures, strict=True)
        self.changed.set()
        return await asyncio.gather(*futures)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("folder", "model", "limit", "threads", "port"):
        parser.add_argument(name, type=int if name in ("limit", "threads", "port") else str)
    given = parser.parse_args()
    orjson, uvicorn = importlib.import_module("orjson"), importlib.import_module("uvicorn")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            app.engine = Engine(given.folder, given.model, given.limit, given.threads)  # type: ignore[attr-defined]
            app.task = asyncio.create_task(app.engine.run())  # type: ignore[attr-defined]
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = (await receive()).get("body", b"")
        content = b""
        if body:
            inputs = orjson.loads(body)["inputs"]
            rows = await app.engine.embed([inputs] if isinstance(inputs, str) else inputs)  # type: ignore[attr-defined]
            content = orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    uvicorn.run(app, port=given.port, loop="uvloop", http="httptools", log_level="error", access_log=False)


if __name__ == "__main__":
    main()
