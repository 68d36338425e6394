"""Calls of every kernel, for programs that are no tests."""

from __future__ import annotations

from helpers_arguments import CASES, calls
from helpers_draws import Call
from hypothesis import HealthCheck, Phase, given, settings


def examples(count: int) -> list[Call]:
    """So many calls of each kernel, the same in every run."""
    found: list[Call] = []
    options = settings(
        max_examples=count, phases=[Phase.generate], derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip

    def keep(call: Call) -> None:
        found.append(call)

    for kernel in CASES:
        options(given(calls(kernel))(keep))()
    return found
