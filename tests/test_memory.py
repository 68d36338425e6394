"""The memory that training keeps: used again, bounded, given back, and none of it without training."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


def run(script: str) -> None:
    """Run a script in a process of its own: whether memory is kept belongs to the process."""
    prelude = """
    import gc, os, threading
    import numpy as np
    import fastattn
    from fastattn import _core, kernels
    x = np.ones((512, 1024), np.float32)  # 2 MB
    """
    code = textwrap.dedent(prelude) + textwrap.dedent(script)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


def test_inference_keeps_nothing() -> None:
    run(
        """
        for _ in range(3):
            kernels.gelu(x)
        assert _core.kept_memory() == 0
        assert kernels.gelu(x).base is None
        """
    )


def test_a_freed_result_is_used_again() -> None:
    run(
        """
        _core.keep_memory()
        address = kernels.gelu(x).ctypes.data
        assert _core.kept_memory() == x.nbytes
        y = kernels.gelu(x[:500])  # somewhat smaller
        assert y.ctypes.data == address and y.flags.writeable and y.flags.c_contiguous
        assert np.array_equal(y, kernels.gelu(x)[:500])
        small = kernels.gelu(x[:2])
        assert small.base is None, "not worth keeping"
        """
    )


def test_scratch_is_given_back() -> None:
    """Of 32 MB into which a weight was packed nothing stays; another thread's goes when it next needs some."""
    run(
        """
        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
        x, weight = np.ones((256, 2048), np.float32), np.ones((4096, 2048), np.float32)
        def grow():
            before = resident()
            kernels.linear(x, weight)
            return resident() - before
        grew = grow()
        assert grew > 28, grew
        fastattn.empty_cache()
        after = resident()
        assert grow() > 28
        fastattn.empty_cache()
        assert abs(resident() - after) < 8

        ready, go, left = threading.Event(), threading.Event(), []
        def other():
            kernels.linear(x, weight)
            ready.set()
            go.wait()
            kernels.linear(x[:, :256], weight[:, :256])  # 4 MB
            left.append(resident())
        thread = threading.Thread(target=other)
        thread.start()
        ready.wait()
        before = resident()
        fastattn.empty_cache()
        go.set()
        thread.join()
        assert before - left[0] > 20, (before, left)
        """
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc and /proc")
def test_what_malloc_keeps_is_given_back() -> None:
    """Of a thread that has ended, too: a small block behind its freed memory keeps malloc from giving it back."""
    run(
        """
        from pathlib import Path
        def resident():
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        last = []
        def work():
            arrays = [np.ones(12000, np.float32) for _ in range(200)]  # 10 MB
            last.append(np.ones(500, np.float32))
            del arrays
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        before = resident()
        fastattn.empty_cache()
        assert before - resident() > 7, (before, resident())
        """
    )


def test_views_keep_the_memory_alive() -> None:
    run(
        """
        _core.keep_memory()
        view = kernels.gelu(x)[3:5]
        other = kernels.gelu(2 * x)
        assert np.array_equal(view, kernels.gelu(x[3:5]))
        """
    )


def test_what_is_kept_is_bounded_and_given_back() -> None:
    run(
        """
        _core.keep_memory()
        for rows in range(100, 500):  # sizes that share few blocks
            kernels.gelu(x[:rows])
        assert _core.kept_memory() <= 2 * x.nbytes
        fastattn.empty_cache()
        assert _core.kept_memory() == 0
        """
    )


def test_threads_and_forks() -> None:
    run(
        """
        _core.keep_memory()
        expected = kernels.gelu(x)
        wrong = []
        def work():
            for _ in range(50):
                if not np.array_equal(kernels.gelu(x), expected):
                    wrong.append(1)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        if hasattr(os, "fork"):
            import warnings
            warnings.simplefilter("ignore")  # of forking with threads, which is what is tried here
            for _ in range(5):
                child = os.fork()
                if child == 0:
                    os._exit(0 if np.array_equal(kernels.gelu(x), expected) else 1)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        for thread in threads:
            thread.join()
        assert not wrong
        """
    )


@pytest.mark.parametrize("call", ["kernels.linear(x, x)", "kernels.dropout(x, 0.5, 1)", "kernels.softmax(x)"])
def test_old_contents_do_not_show(call: str) -> None:
    run(
        f"""
        first = {call}
        _core.keep_memory()
        poison = kernels.gelu(x)
        poison[...] = np.nan
        del poison
        assert np.array_equal({call}, first)
        """
    )
