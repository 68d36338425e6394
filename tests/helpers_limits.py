"""A plugin of pytest for tests/mutants.py: limits in time of the processor, so that a busy machine changes nothing."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator

import pytest

SECONDS_OF_A_TEST = 40
"""A test that computes longer ends the process."""
SECONDS_OF_ALL = float(os.environ.get("FASTATTN_TEST_SECONDS", "inf"))
"""After these, no other test begins."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Limits a test."""
    times = os.times()
    if sum(times[:4]) > SECONDS_OF_ALL:
        item.session.shouldstop = "all seconds are used"
    end = int(time.process_time()) + SECONDS_OF_A_TEST
    resource.setrlimit(resource.RLIMIT_CPU, (end, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    return (yield)
