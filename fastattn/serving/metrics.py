"""What a service is watched by: counts and times of requests, passes and tokens, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from fastattn.serving.answer import Answer

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class Metrics:
    """The metrics of a server, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "fastattn_requests", "Requests that were answered", ("route", "status"), registry=registry
        )
        self.seconds = Histogram(
            "fastattn_request_seconds", "From a request to its answer", ("route",), registry=registry, buckets=SECONDS
        )
        self.in_flight = Gauge("fastattn_requests_in_flight", "Requests without an answer", registry=registry)
        self.stages = Histogram(
            "fastattn_stage_seconds",
            "Time of an input in a stage: tokenise (waiting included), queue, compute",
            ("model", "stage"),
            registry=registry,
            buckets=SECONDS,
        )
        self.inputs = Histogram(
            "fastattn_batch_inputs", "Inputs of a pass", ("model",), registry=registry, buckets=COUNTS
        )
        self.tokens = Histogram(
            "fastattn_batch_tokens", "Tokens of a pass", ("model",), registry=registry, buckets=TOKENS
        )
        self.truncated = Counter(
            "fastattn_truncated_inputs", "Inputs that were cut at the limit of a model", ("model",), registry=registry
        )
        self.failed = Counter("fastattn_failed_inputs", "Inputs whose computing failed", ("model",), registry=registry)
        self._served: dict[tuple[str, str], tuple[Any, Any]] = {}
        self._waiting: dict[str, Callable[[], int]] = {}
        registry.register(self)

    def collect(self) -> Any:
        """How many inputs wait, by model, when somebody asks."""
        family = GaugeMetricFamily("fastattn_queue_size", "Inputs without an answer", labels=["model"])
        for name, count in list(self._waiting.items()):
            family.add_metric([name], count())
        yield family

    def watch(self, name: str, waiting: Callable[[], int]) -> Callable[[Sequence[Answer]], None]:
        """The `observe` of the batcher of a model."""
        self._waiting[name] = waiting
        stages = [self.stages.labels(name, stage) for stage in ("tokenise", "queue", "compute")]
        inputs, tokens = self.inputs.labels(name), self.tokens.labels(name)
        truncated, failed = self.truncated.labels(name), self.failed.labels(name)

        def observe(some: Sequence[Answer]) -> None:
            inputs.observe(len(some))
            tokens.observe(sum(answer.tokens for answer in some))
            for answer in some:
                moments = answer.arrived, answer.tokenised, answer.begun, answer.done_at
                for stage, start, end in zip(stages, moments, moments[1:], strict=False):
                    stage.observe(end - start)
            if cut := sum(answer.full_tokens > answer.tokens for answer in some):
                truncated.inc(cut)
            if bad := sum(answer.exception() is not None for answer in some):
                failed.inc(bad)

        return observe

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        found = self._served.get((route, str(status)))
        if found is None:
            found = self.requests.labels(route, str(status)), self.seconds.labels(route)
            self._served[route, str(status)] = found
        found[0].inc()
        found[1].observe(seconds)

    def text(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        return generate_latest(self.registry)
