"""Models in a service: an engine that batches single requests, and a server (extra `[serve]`)."""

from typing import TYPE_CHECKING

from fastattn._lazy import lazy

if TYPE_CHECKING:
    from fastattn.serving.answer import Answer, ClosedError, DeadlineError, QueueFullError
    from fastattn.serving.app import create_app
    from fastattn.serving.batcher import Batcher

__all__ = ["Answer", "Batcher", "ClosedError", "DeadlineError", "QueueFullError", "create_app"]

__getattr__ = lazy(
    __name__,
    {"answer": "Answer ClosedError DeadlineError QueueFullError", "batcher": "Batcher", "app": "create_app"},
)


def __dir__() -> list[str]:
    return __all__
