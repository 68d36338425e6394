"""When a pass keeps the interpreter's lock: beside a thread of plain Python, which would make it wait 5 ms for it."""

from __future__ import annotations

from helpers_runtime import output

COMMON = """
import threading, time
import numpy as np
from fastattn import _core, kernels
from fastattn.runtime import counters
small, middle, large = (np.ones((size, size), np.float32) for size in (16, 300, 600))
busy = True
def spin():
    while busy:
        pass
def gives_up(x, calls=3):
    before = counters()["locks_given_up"]
    with _core.Pass():
        for _ in range(calls):
            y = kernels.linear(x, x)
    assert (y == x.shape[1]).all()
    return counters()["locks_given_up"] - before
def until(condition):
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        pass
    assert time.monotonic() < end
thread = threading.Thread(target=spin)
thread.start()
"""


def test_a_short_pass_beside_a_python_thread_keeps_the_lock() -> None:
    """As long as that thread is busy, and a little longer. Then it gives up the lock again."""
    code = """
until(lambda: sum(gives_up(small) == 0 for _ in range(20)) > 10)
busy = False
thread.join()
time.sleep(0.6)
print(sum(gives_up(small) == 1 for _ in range(20)) > 15)
"""
    assert output(COMMON + code) == "True"


def test_a_long_kernel_is_not_begun_with_the_lock() -> None:
    """Nor are the kernels after it: a pass that gives up the lock does so once, unless it takes 100 ms."""
    code = """
until(lambda: gives_up(small) == 0)
print(all(gives_up(large, 1) >= 1 for _ in range(20)))
busy = False
"""
    assert output(COMMON + code) == "True"


def test_passes_of_several_threads_do_not_keep_the_lock() -> None:
    """They would wait for each other, one at a time, however many processors there are."""
    code = """
until(lambda: gives_up(small) == 0)
going, counts = True, []
def call():
    while going:
        before = counters()["locks_given_up"]
        gives_up(middle, 40)
        counts.append(counters()["locks_given_up"] - before)  # also those of others
callers = [threading.Thread(target=call) for _ in range(8)]
for each in callers:
    each.start()
until(lambda: len(counts) > 200 or time.sleep(0.01))
going = busy = False
print(sum(count == 0 for count in counts[50:]) < 15)
"""
    assert output(COMMON + code) == "True"
