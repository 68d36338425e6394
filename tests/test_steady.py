"""A share of `python tests/steady.py`: what is in use does not grow with what was done."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import steady

import fastattn

COUNTS = {"mixed calls": 300, "models loaded": 30, "generated batches": 60, "training steps": 60}


def grown(act: Callable[[int], object], count: int) -> tuple[int, float]:
    """How many blocks of Python's memory, and megabytes, are in use more after `count` acts than after as many
    before."""
    found = []
    for begin in (0, 0, 0):  # the same acts: the first ones fill caches
        for number in range(begin, begin + count):
            act(number)
        gc.collect()
        fastattn.empty_cache()  # freed memory that malloc keeps could hold what is lost
        found.append((sys.getallocatedblocks(), steady.resident()))
    return found[2][0] - found[1][0], found[2][1] - found[1][1]


def allowed(count: int) -> int:
    """NumPy keeps some small blocks of each size that it has seen, and others go meanwhile. A leak is a block for each
    act."""
    return max(100, count * 9 // 10)


@pytest.mark.parametrize("name", steady.PARTS)
def test_what_is_in_use_stays(name: str, tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    blocks, megabytes = grown(steady.PARTS[name][0](tmp_path), COUNTS[name])
    assert blocks < allowed(COUNTS[name])
    assert megabytes < steady.ALLOWED


def test_a_leak_is_found(tmp_path: Path) -> None:
    """Of one object in each act, and of 40 MB, though freed memory of 120 MB could hold them."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    bytearray(2 << 20)  # freed, and from now on malloc keeps pieces of this size
    freed = [bytearray(b"1") * (1 << 20) for _ in range(120)]
    above = bytearray(1 << 20)  # freed memory below it stays with malloc
    del freed
    kept: list[object] = [above]
    small, _ = grown(lambda number: kept.append(str(number) * 2), 300)
    assert small >= allowed(300)
    _, large = grown(lambda number: kept.append(bytearray(b"1") * (40 << 20)), 1)
    assert large > steady.ALLOWED
