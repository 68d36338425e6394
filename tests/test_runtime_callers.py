"""Many callers: threads, forks, other interpreters, and what a kernel leaves of the caller's settings."""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, normal
from helpers_attention import ragged
from helpers_runtime import output

import fastattn
from fastattn import kernels


def work(seed: int) -> list[Any]:
    """A little of every kernel, for one caller."""
    rng = np.random.default_rng(seed)
    x, weight = normal(rng, 64, 96), normal(rng, 200, 96)
    given = ragged((5, 33, 64 - 38), None, 2, 32, seed=seed)
    return [
        kernels.linear(x, weight, activation="gelu"),
        kernels.linear(x, kernels.PackedMatrix(weight)),
        kernels.scaled_dot_product_attention(**given, is_causal=seed % 2 == 0),
        kernels.layer_norm(x),
        kernels.gelu(x),
        kernels.softmax(x),
        kernels.log_softmax(x),
        kernels.l2_normalize(x),
        kernels.pooling(x, given["cu_seqlens_q"]),
        kernels.embedding(rng.integers(0, 200, 50), weight),
    ]


@pytest.mark.parametrize("budget", [1, 2, 4])
@pytest.mark.usefixtures("restore_runtime")
def test_concurrent_callers(isa: str, budget: int) -> None:
    """Eight callers at once get what each gets alone, bit for bit."""
    fastattn.set_num_threads(1)
    expected = [work(seed) for seed in range(8)]
    fastattn.set_num_threads(budget)
    with ThreadPoolExecutor(8) as pool:
        for i, result in enumerate(pool.map(work, list(range(8)) * 6)):
            for a, b in zip(result, expected[i % 8], strict=True):
                assert_same_bits(a, b)


@pytest.mark.usefixtures("restore_runtime")
def test_the_settings_may_change_under_a_call() -> None:
    """Threads and instruction set are read when a call begins; every result is one of the valid ones."""
    x, weight = normal(np.random.default_rng(3), 2, 120, 300)
    valid = []
    for name in fastattn.available_isas():
        with fastattn.use_isa(name):
            valid.append(kernels.linear(x, weight))
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(kernels.linear, x, weight) for _ in range(200)]
        for i in range(400):
            fastattn.set_num_threads(1 + i % 3)
            fastattn.use_isa(fastattn.available_isas()[i % len(valid)])
    for call in calls:
        assert any(np.array_equal(call.result(), result) for result in valid)


def test_a_budget_of_one_starts_no_thread() -> None:
    code = """
    import os, threading, numpy as np
    tasks = lambda: len(os.listdir("/proc/self/task"))
    before = tasks()
    import fastattn
    from fastattn import kernels
    x = np.ones((300, 300), np.float32)
    for _ in range(3):
        kernels.linear(x, x)
    print(tasks() - before)
    """
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("no /proc")
    assert output(code, FASTATTN_NUM_THREADS="1") == "0"


@pytest.mark.parametrize("count", ["1", "2"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork_after_use(count: str) -> None:
    """A child, its child, and the parent afterwards all compute, and the same bits."""
    code = """
    import os, sys, warnings, numpy as np
    warnings.simplefilter("ignore", DeprecationWarning)
    from fastattn import kernels
    x = np.random.default_rng(1).standard_normal((400, 300), dtype=np.float32)
    compute = lambda: kernels.linear(x, x)
    expected = compute()
    def check():
        if not np.array_equal(compute(), expected):
            os._exit(3)
    for _ in range(5):
        child = os.fork()
        if child == 0:
            check()
            grandchild = os.fork()
            check()
            if grandchild == 0:
                os._exit(0)
            os._exit(os.waitpid(grandchild, 0)[1] >> 8)
        check()
        status = os.waitpid(child, 0)[1]
        if status:
            sys.exit(f"child ended with {status}")
    print("done")
    """
    assert output(code, FASTATTN_NUM_THREADS=count) == "done"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork_while_other_threads_compute() -> None:
    code = """
    import os, sys, threading, warnings, numpy as np
    warnings.simplefilter("ignore", DeprecationWarning)
    from fastattn import kernels
    x = np.random.default_rng(1).standard_normal((400, 300), dtype=np.float32)
    expected = kernels.linear(x, x)
    stop = threading.Event()
    wrong = []
    def busy():
        while not stop.is_set():
            if not np.array_equal(kernels.linear(x, x), expected):
                wrong.append(1)
    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        child = os.fork()
        if child == 0:
            same = all(np.array_equal(kernels.linear(x, x), expected) for _ in range(3))
            os._exit(0 if same else 3)
        status = os.waitpid(child, 0)[1]
        if status:
            wrong.append(status)
    stop.set()
    for thread in threads:
        thread.join()
    print(wrong or "done")
    """
    assert output(code, FASTATTN_NUM_THREADS="2") == "done"


def denormals_live() -> bool:
    """Whether this thread's arithmetic keeps denormals."""
    return bool((np.full(8, 1e-38, np.float32) * np.float32(0.01) != 0).all())


def test_denormals_are_flushed_and_the_caller_keeps_its_mode(isa: str, threads: int) -> None:
    assert denormals_live()
    x = np.full((400, 300), 1e-20, np.float32)
    y = kernels.linear(x, x)
    assert (y == 0).all(), "300 denormal products of 1e-40 would make a normal 3e-38"
    assert denormals_live()
    y = kernels.gelu(np.full((300, 300), 1e-40, np.float32))
    assert (y == 0).all()
    assert denormals_live()
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: (kernels.linear(x, x).max(), denormals_live()), range(8))) == [(0, True)] * 8


def test_denormals_are_flushed_between_the_loops_of_a_kernel(isa: str, threads: int) -> None:
    """Sums over blocks of rows: 2e-38 and -1.99e-38, which the first and the second block have, leave 1e-40."""
    dy = np.zeros((128, 20), np.float32)
    dy[0], dy[64] = 2e-38, -1.99e-38
    x, weight = np.ones((128, 4), np.float32), np.ones((20, 4), np.float32)
    *_, dbias = kernels.linear_backward(dy, x, weight)
    assert (dbias == 0).all()
    mean, rstd = np.zeros(128, np.float32), np.ones(128, np.float32)
    *_, dbias = kernels.layer_norm_backward(dy, dy, np.ones(20, np.float32), mean, rstd)
    assert (dbias == 0).all()
    assert denormals_live()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forks_of_two_threads_that_both_computed(restore_runtime: None) -> None:
    """Each has workers of its own, which its child has not."""
    fastattn.set_num_threads(2)
    x = np.ones((600, 256), np.float32)
    turns = [threading.Event() for _ in range(4)]
    states: list[int] = []

    def compute_then_fork(own: int) -> None:
        turns[own].wait()
        kernels.linear(x, x[:256])
        turns[own + 1].set()
        turns[own + 2].wait()
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # a child that waits for workers that are not there
            kernels.linear(x, x[:256])
            os._exit(0)
        states.append(os.waitpid(child, 0)[1])
        if own == 0:
            turns[3].set()

    threads = [threading.Thread(target=compute_then_fork, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    turns[0].set()
    for thread in threads:
        thread.join()
    assert states == [0, 0]


def test_another_interpreter_of_the_process_is_refused() -> None:
    """It waited for ever."""
    code = """
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    import fastattn._core
    other = interpreters.create()
    code = "try:\\n import fastattn._core\\nexcept ImportError as error:\\n print(error, flush=True)"
    interpreters.run_string(other, code)
    """
    if not any(name in sys.builtin_module_names for name in ("_interpreters", "_xxsubinterpreters")):
        pytest.importorskip("_xxsubinterpreters")
    text = output(code, timeout=20)
    assert "fastattn: only the main interpreter of a process can import it" in text or "subinterpreters" in text
