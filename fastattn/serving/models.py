"""The models of a server: each a task with a batcher, found by name or by what it can do."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastattn import checks, tasks
from fastattn.serving.batcher import Batcher
from fastattn.serving.failures import Failure
from fastattn.serving.metrics import Metrics

KINDS: Mapping[str, str] = {
    "translate": "Translator",
    "answer": "Answerer",
    "tag": "Tagger",
    "classify": "Classifier",
    "rerank": "Reranker",
    "regress": "Regressor",
    "fill": "Filler",
    "embed": "SentenceEncoder",
}
"""The tasks that are served, and what loads them. A folder that can do several is used for the first, but one that
embeds sentences and is no more than an encoder with a head for masked words is used to embed."""

TRIAL: Mapping[str, Any] = {"answer": {"question": "A?", "context": "A."}, "tag": ["A"]}
"""What a model is warmed up with, if not with a text."""


@dataclass(frozen=True)
class Settings:
    """What a server allows; see `fastattn serve --help`."""

    max_concurrent_requests: int = 512
    max_batch_tokens: int | None = None
    max_client_batch_size: int = 32
    auto_truncate: bool = True
    api_key: str | None = None
    default_prompt_name: str | None = None
    payload_limit: int = 2_000_000
    timeout: float | None = None
    cors_allow_origin: tuple[str, ...] = ()


class Served:
    """A task with its batcher.

    Attributes:
        name: what clients call it.
        kind: a name of `KINDS`.
        source: the folder or name that it was loaded from.
        ready: whether it was warmed up.
    """

    def __init__(self, name: str, kind: str, task: Any, settings: Settings, metrics: Metrics, source: str = "") -> None:
        self.name, self.kind, self.task, self.source = name, kind, task, source or name
        self.created, self.ready = int(time.time()), False
        most = settings.max_concurrent_requests * settings.max_client_batch_size
        observe = metrics.watch(name, lambda: self.batcher.waiting)
        self.batcher = Batcher(task, max_batch_tokens=settings.max_batch_tokens, max_waiting=most, observe=observe)

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer. Raises Failure for a model without one of its own."""
        found = getattr(self.task, "tokenizer", None)
        if not hasattr(found, "around"):
            raise Failure("Backend", f"the model {self.name} has no tokenizer that can be asked")
        return found

    @property
    def max_tokens(self) -> int | None:
        """How many tokens it reads at once."""
        for name in ("max_seq_length", "max_length"):
            if (found := getattr(self.task, name, None)) is not None:
                return int(found)
        return getattr(getattr(self.task.model, "config", None), "max_tokens", None)

    def warm_up(self) -> None:
        """Compute something, so that the first request finds everything read and packed."""
        text = getattr(self.task, "mask_token", "A")
        inputs = [TRIAL.get(self.kind, text)]
        for count in (1, 8):
            for answer in [self.batcher.submit(*inputs) for _ in range(count)]:
                answer.result()
        self.ready = True


def kind_of(name: str, **place: Any) -> str:
    """What a folder is served as. Raises ValueError for one that can do nothing here, with the reasons."""
    from fastattn.tasks.description import describe

    facts = describe(name, **place)
    can = {each.removeprefix("predict ") for each in facts["can"]}
    if "embed" in can and "modules" in facts:
        return "embed"
    for kind in KINDS:
        if kind in can:
            return kind
    reasons = [*facts["problems"], *facts["cannot"].values()]
    raise ValueError(f"{name}: cannot be served: {'; '.join(map(str, reasons)) or 'it has no task'}")


class Models:
    """The models of a server, by name. The first one that can do a thing is used if a request names none."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.by_name: dict[str, Served] = {}

    def load(self, model: str | os.PathLike[str], *names: str, weights: str | None = None, **place: Any) -> Served:
        """Load a model, warm it up, and serve it under names, in the place of those that have them.

        Args:
            model: a folder or a name, see `fastattn.hub.find_model`; with the name of a task and a colon before it,
                such as "fill:bert-base-uncased", for that task.
            names: what clients may call it; without any, `model`.
            weights: the dtype of its weights, see `SentenceEncoder`.
            place: options of `find_model`.

        Raises as the task's `from_pretrained`.
        """
        kind, _, source = os.fspath(model).rpartition(":")
        if kind not in KINDS:
            kind, source = "", os.fspath(model)
        kind = kind or kind_of(source, **place)
        options: dict[str, Any] = {"weights": weights, **({"truncation": "silent"} if kind == "embed" else {})}
        task = getattr(tasks, KINDS[kind]).from_pretrained(source, **options, **place)
        return self.add(names or (source,), kind, task, source)

    def add(self, names: Sequence[str], kind: str, task: Any, source: str = "") -> Served:
        """Serve a task of a kind under names. Models that had them answer what they were asked, and go."""
        checks.choice("Models: kind", kind, KINDS)
        settings = self.settings
        if settings.default_prompt_name is not None and kind == "embed":
            checks.choice("default_prompt_name", settings.default_prompt_name, task.prompts)
        served = Served(names[0], kind, task, settings, self.metrics, source)
        served.warm_up()
        before = {self.by_name.get(name) for name in names}
        self.by_name = {**self.by_name, **dict.fromkeys(names, served)}
        for other in before - {None, *self.by_name.values()}:
            other.batcher.close()  # type: ignore[union-attr]  # it is not None
        return served

    def find(self, kinds: Iterable[str], name: Any = None) -> Served:
        """The model of a request for one of some kinds. Raises Failure if there is none."""
        wanted = tuple(kinds)
        if name is not None and not isinstance(name, str):
            raise Failure("Json", f"`model` must be a string, got {type(name).__name__}")
        if name is not None and name not in self.by_name:
            raise Failure("NotFound", f"The model {checks.shown(name)} does not exist", code="model_not_found")
        some = [self.by_name[name]] if name is not None else self.by_name.values()
        for served in some:
            if served.kind in wanted:
                return served
        whose = "no model here can" if name is None else f"the model {name} cannot"
        raise Failure("Backend", f"{whose} {' or '.join(wanted)}")

    def close(self) -> None:
        """Answer what was asked, and take no more."""
        for served in {*self.by_name.values()}:
            served.batcher.close()
