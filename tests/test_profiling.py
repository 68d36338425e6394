"""The profile of kernel calls: shapes, counts, operations, threads, forks, and its table."""

from __future__ import annotations

import multiprocessing
import os
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from helpers_runtime import output, python

import fastattn
from fastattn import _core, kernels, runtime
from fastattn.bench import KernelCase, kernel_cases
from fastattn.models import BertConfig, BertModel
from fastattn.profiling import Profile

X = np.ones((5, 8), np.float32)
W = np.ones((4, 8), np.float32)


def summary(calls: Profile) -> dict[tuple[str, str], tuple[int, float]]:
    return {(row.kernel, row.shape): (row.calls, row.flops) for row in calls.rows}


def test_a_row_for_each_shape() -> None:
    with fastattn.profile() as calls:
        for rows in (5, 5, 3):
            kernels.linear(X[:rows], kernels.PackedMatrix(W), activation="gelu")
        kernels.linear(X, W, residual=np.ones((5, 4), np.float32))
        kernels.layer_norm(X)
    assert summary(calls) == {
        ("linear_forward", "m=5 k=8 n=4 gelu"): (2, 2 * 2 * 5 * 8 * 4),
        ("linear_forward", "m=3 k=8 n=4 gelu"): (1, 2 * 3 * 8 * 4),
        ("linear_forward", "m=5 k=8 n=4 residual unpacked"): (1, 2 * 5 * 8 * 4),
        ("layer_norm_forward", "rows=5 dim=8"): (1, 0),
    }
    seconds = [row.seconds for row in calls.rows]
    assert seconds == sorted(seconds, reverse=True)
    assert all(0 < row.least <= row.seconds for row in calls.rows)


def refused() -> Profile:
    """A block that an exception ends."""
    with suppress(KeyError), fastattn.profile() as calls:
        kernels.gelu(X)
        raise KeyError
    return calls


def test_a_call_after_the_block_is_not_counted() -> None:
    with fastattn.profile() as calls:
        kernels.gelu(X)
    before = summary(calls)
    kernels.gelu(X)
    assert summary(calls) == before == {("activation_forward", "rows=5 dim=8 gelu"): (1, 0)}
    calls = refused()
    kernels.gelu(X)
    assert summary(calls) == before


@pytest.mark.parametrize(("causal", "pairs"), [(False, 3 * 4 + 2 * 2), (True, (2 + 3 + 4) + (1 + 2))])
def test_attention_counts_the_keys_that_are_seen(causal: bool, pairs: int) -> None:
    q, k = np.ones((5, 2, 8), np.float32), np.ones((6, 2, 8), np.float32)
    offsets = [np.array(each, np.int32) for each in ([0, 3, 5], [0, 4, 6])]
    with fastattn.profile() as calls:
        kernels.scaled_dot_product_attention(
            q, k, k, cu_seqlens_q=offsets[0], cu_seqlens_k=offsets[1], is_causal=causal
        )
    (row,) = calls.rows
    assert row.flops == 4 * 2 * 8 * pairs
    assert row.bytes == 4 * 2 * 8 * 2 * (5 + 6)
    assert row.shape == f"batch=2 heads=2 dim=8 q=3 k=4 tokens=5{' causal' * causal}"


@pytest.mark.parametrize(("kept", "moved"), [(False, 2 * 5 * 8), (True, 4 * 5 * 8)])
def test_a_projection_that_is_kept_is_written_too(kept: bool, moved: int) -> None:
    weight = kernels.PackedMatrix(np.ones((16, 8), np.float32))
    with fastattn.profile() as calls:
        kernels.highway(X, weight, np.zeros(16, np.float32), return_projection=kept)
    assert [row.bytes for row in calls.rows] == [4 * (16 * 8 + moved)]


def smallest_cases() -> list[Any]:
    cases: dict[str, KernelCase] = {}
    for case in kernel_cases():
        cases[case.kernel] = min(case, cases.get(case.kernel, case), key=lambda each: each.bytes)
    return [pytest.param(case, id=case.name) for case in cases.values()]


@pytest.mark.parametrize("case", smallest_cases())
def test_operations_and_bytes_are_those_of_the_benchmarks(case: KernelCase) -> None:
    """Of every kernel there is."""
    arguments = case.prepare(case.make(np.random.default_rng(0)))
    with fastattn.profile() as calls:
        case.ours(**arguments)
    assert sum(row.calls for row in calls.rows) == 1
    assert sum(row.flops for row in calls.rows) == case.flops
    assert sum(row.bytes for row in calls.rows) == case.bytes


def test_a_pass_is_counted_when_it_is_computed() -> None:
    with fastattn.profile() as calls:
        with _core.Pass():
            h = kernels.linear(X, W)
            kernels.gelu(h)
            assert calls.rows == []
        assert {row.kernel for row in calls.rows} == {"linear_forward", "activation_forward"}
    with _core.Pass():
        kernels.gelu(X)
        with fastattn.profile() as calls:
            kernels.linear(X, W)
        assert {row.kernel for row in calls.rows} == {"linear_forward"}


def test_blocks_may_be_nested() -> None:
    with fastattn.profile() as outer:
        kernels.gelu(X)
        with fastattn.profile() as inner:
            kernels.gelu(X)
        kernels.gelu(X)
    assert [row.calls for row in outer.rows] == [3]
    assert [row.calls for row in inner.rows] == [1]


def test_a_profile_begins_once() -> None:
    profile = _core.Profile(True)
    profile.start()
    with pytest.raises(RuntimeError, match="runs already"):
        profile.start()
    del profile  # which ends it
    kernels.gelu(X)
    with pytest.raises(TypeError):
        _core.Profile.start(_core.Profile.__new__(_core.Profile))


def test_all_threads_are_counted() -> None:
    start = Barrier(4)

    def call(_: int) -> None:
        start.wait(60)
        for _ in range(50):
            kernels.linear(X, W)
            kernels.gelu(X)

    with fastattn.profile() as calls, ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(4)))
    assert sorted(row.calls for row in calls.rows) == [200, 200]
    assert "4 threads" in calls.table()


def test_the_time_outside_of_kernels() -> None:
    with fastattn.profile() as calls:
        time.sleep(0.02)  # before the first call, between two, and after the last
        kernels.gelu(X)
        time.sleep(0.02)
        kernels.gelu(X)
        time.sleep(0.02)
    assert calls.outside >= 0.06

    def call() -> None:
        kernels.gelu(X)
        time.sleep(0.02)
        kernels.gelu(X)

    with ThreadPoolExecutor(1) as pool, fastattn.profile() as calls:
        pool.submit(call).result()
        assert calls.outside >= 0.02


def test_a_profile_is_read_in_its_block() -> None:
    """Its time is up to date, and a table counts neither its own time nor what it wakes and gives up."""
    with fastattn.profile() as calls:
        kernels.gelu(X)
        time.sleep(0.02)
        first = calls.outside
        counters = calls.counters
        begin = time.perf_counter()
        for _ in range(3):
            calls.table()
        took = time.perf_counter() - begin
        assert calls.counters == counters
        grew = calls.outside - first
    assert first >= 0.02
    assert 0 <= grew < took - 0.29  # a table measures for 0.1 s


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
def test_a_child_begins_an_empty_profile() -> None:
    code = """
    import os, sys, numpy as np, fastattn
    from fastattn import kernels
    x = np.ones((2, 3), np.float32)
    with fastattn.profile() as calls:
        kernels.gelu(x)
        if os.fork() == 0:
            before = len(calls.rows)
            kernels.gelu(x)
            print(before, [row.calls for row in calls.rows], flush=True)
            os._exit(0)
        os.wait()
        kernels.gelu(x)
    print([row.calls for row in calls.rows])
    """
    assert output(code).splitlines() == ["0 [1]", "[2]"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
def test_forks_while_threads_call() -> None:
    """The child can call kernels and read its profile, whatever other threads were doing."""
    code = """
    import os, threading, numpy as np, fastattn
    from fastattn import kernels
    x, done = np.ones((2, 3), np.float32), False
    def call():
        while not done:
            kernels.gelu(x)
    threads = [threading.Thread(target=call) for _ in range(3)]
    with fastattn.profile() as calls:
        [thread.start() for thread in threads]
        for _ in range(30):
            if (child := os.fork()) == 0:
                kernels.gelu(x)
                os._exit([row.calls for row in calls.rows] != [1])
            assert os.waitpid(child, 0)[1] == 0
        done = True
        [thread.join() for thread in threads]
    print("done")
    """
    assert output(code) == "done"


def a_model() -> BertModel:
    config = BertConfig(vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40)
    return BertModel(config).freeze()


def test_the_table_of_a_model_has_every_kernel() -> None:
    model, ids = a_model(), np.arange(14).reshape(2, 7)
    with fastattn.profile() as calls:
        model(ids)
    lines = calls.table().splitlines()
    assert lines[0].split()[:4] == ["kernel", "shape", "calls", "ms"]
    names = {line.split()[0] for line in lines[1:-2]}
    attention = "scaled_dot_product_attention_forward"
    assert names == {"embedding_forward", "linear_forward", "layer_norm_forward", "pooling_forward", attention}
    assert any("batch=2 heads=2 dim=12 q=7 k=7" in line for line in lines)
    assert lines[-2].split()[:5] == ["outside", "of", "kernels", "1", "thread"]
    assert f"{fastattn.num_threads()} threads, {fastattn.isa()}, peak " in lines[-1]
    assert "the lock was given up 1 times" in lines[-1]
    shares = [float(line.split("%")[0].split()[-1]) for line in lines[1:-1]]
    assert sum(shares) == pytest.approx(100, abs=0.06 * len(shares))


def test_rows_of_a_table_may_be_added_up() -> None:
    with fastattn.profile() as calls:
        for rows in range(1, 6):
            kernels.gelu(X[:rows])
            kernels.softmax(X[:rows])
    by_kernel = calls.table(by_shape=False).splitlines()[1:-2]
    assert {tuple(line.split()[:4]) for line in by_kernel} == {
        ("activation_forward", "5", "shapes", "5"),
        ("softmax_forward", "5", "shapes", "5"),
    }
    first = calls.table(limit=3).splitlines()
    assert len(first) == 1 + 3 + 1 + 2
    assert first[4].split()[:5] == ["other", "rows", "7", "rows", "7"]
    assert str(calls).count("\n") == 1 + 10 + 1


def test_no_calls_no_table() -> None:
    with fastattn.profile() as calls:
        pass
    assert calls.table() == str(calls) == ""
    assert calls.rows == []


# FASTATTN_PROFILE

CALL = """
import sys, numpy as np, fastattn
from fastattn import kernels
kernels.gelu(np.ones((2, 3), np.float32))
"""


@pytest.mark.parametrize("environment", [{}, {"FASTATTN_PROFILE": ""}, {"FASTATTN_PROFILE": "0"}], ids=str)
def test_off_by_default(environment: dict[str, str]) -> None:
    run = python(CALL + "print('fastattn.profiling' in sys.modules)", **environment)
    assert (run.stdout.strip(), run.stderr, run.returncode) == ("False", "", 0)


def test_the_environment_prints_a_table() -> None:
    run = python(CALL, FASTATTN_PROFILE="1")
    assert run.returncode == 0
    assert run.stdout == ""
    assert [line.split()[:2] for line in run.stderr.splitlines()[:2]] == [
        ["kernel", "shape"],
        ["activation_forward", "rows=2"],
    ]
    assert python("import fastattn; fastattn.num_threads()", FASTATTN_PROFILE="1").stderr == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
def test_each_process_appends_its_table_to_a_file(tmp_path: Path) -> None:
    code = CALL + "import os\nif os.fork() == 0:\n    kernels.softmax(np.ones(3, np.float32))\nelse:\n    os.wait()\n"
    run = python(code, FASTATTN_PROFILE=str(tmp_path / "table"))
    assert (run.stderr, run.returncode) == ("", 0)
    lines = (tmp_path / "table").read_text().splitlines()
    assert [line.split()[0] for line in lines if "_forward" in line] == ["softmax_forward", "activation_forward"]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_of_multiprocessing_print_their_tables(method: str, tmp_path: Path) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    code = f"""
    import multiprocessing, numpy as np
    from fastattn import kernels
    def call():
        kernels.softmax(np.ones((2, 3), np.float32))
    if __name__ == "__main__":
        kernels.gelu(np.ones((2, 3), np.float32))
        child = multiprocessing.get_context({method!r}).Process(target=call)
        child.start()
        child.join()
        assert child.exitcode == 0
    """
    script, table = tmp_path / "script.py", tmp_path / "table"
    script.write_text(textwrap.dedent(code))
    run = python(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')", FASTATTN_PROFILE=str(table))
    assert (run.stderr, run.returncode) == ("", 0)
    found = [line.split()[0] for line in table.read_text().splitlines() if "_forward" in line]
    assert found == ["softmax_forward", "activation_forward"]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    run = python(CALL, FASTATTN_PROFILE=str(tmp_path / "missing" / "table"))
    assert run.returncode == 0
    assert "FASTATTN_PROFILE: [Errno 2]" in run.stderr
    assert "activation_forward" in run.stderr


# Counters


def test_counters() -> None:
    before = runtime.counters()
    kernels.gelu(X)
    after = runtime.counters()
    assert list(after) == ["locks_given_up", "workers_woken", "waits"]
    assert after["locks_given_up"] == before["locks_given_up"] + 1
    with fastattn.profile() as calls:
        kernels.gelu(X)
    assert calls.counters["locks_given_up"] == 1
    assert calls.counters["waits"] >= sum(row.waits for row in calls.rows)
