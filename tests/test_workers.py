"""The threads that help callers: the protocol, its promises, forks, the end of a process, and systems that are short of
threads."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers_runtime import output

ROOT = Path(__file__).parents[1]
SOURCES = {"pieces": ["tests/csrc/pieces.cpp"]}
SOURCES["team"] = ["tests/csrc/team.cpp", "csrc/parallel.cpp", "csrc/workers.cpp", "csrc/limits.cpp"]
COMPUTE = """
import os, sys, threading, time
import numpy as np
import fastattn
from fastattn import kernels
x = np.random.default_rng(1).standard_normal((600, 400), dtype=np.float32)
compute = lambda: kernels.linear(x, x)
expected = compute()
"""


@pytest.mark.parametrize("flags", ["-O2", "-O1 -fsanitize=thread", "-O1 -fsanitize=address,undefined"])
@pytest.mark.parametrize("name", SOURCES)
def test_the_protocol(name: str, flags: str, tmp_path: Path) -> None:
    """`pieces` stops a thread at every point of the protocol; `team` has many callers, sleeps, scratch and forks."""
    if shutil.which("c++") is None or not (ROOT / "csrc").exists():
        pytest.skip("nothing to build with, or nothing to build")
    (tmp_path / "empty.cpp").write_text("int main() {}")
    compiler = ["c++", "-std=c++17", "-g", "-pthread", "-Wall", "-Wextra", *flags.split()]
    if subprocess.run([*compiler, "empty.cpp"], cwd=tmp_path, capture_output=True, timeout=60).returncode:
        pytest.skip(f"this compiler has no {flags}")
    program = tmp_path / name
    subprocess.run([*compiler, *SOURCES[name], "-o", str(program)], cwd=ROOT, check=True, timeout=180)
    run = subprocess.run([str(program)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.endswith(" 0 failures\n") or run.stdout == "0 failures\n"


def test_a_process_that_ends_beside_a_daemon_thread_in_a_kernel() -> None:
    """The thread must neither abort the process nor keep it."""
    code = (
        COMPUTE
        + """
def busy():
    while True:
        compute()
for _ in range(3):
    threading.Thread(target=busy, daemon=True).start()
time.sleep(0.2)
print("done")
"""
    )
    for threads in ("1", "2"):
        assert output(code, FASTATTN_NUM_THREADS=threads) == "done"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.skipif(ctypes.util.find_library("gomp") is None, reason="no libgomp")
def test_fork_where_another_library_used_the_same_openmp() -> None:
    code = (
        COMPUTE
        + """
import ctypes, ctypes.util
openmp = ctypes.CDLL(ctypes.util.find_library("gomp"))
nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)
openmp.GOMP_parallel(nothing, None, 2, 0)
for _ in range(5):
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(compute(), expected) else 3)
    status = os.waitpid(child, 0)[1]
    if status:
        sys.exit(f"child ended with {status}")
print("done")
"""
    )
    assert output(code, FASTATTN_NUM_THREADS="2") == "done"


def test_more_threads_than_the_system_grants() -> None:
    """Those that cannot be started are done without."""
    resource = pytest.importorskip("resource")
    code = (
        COMPUTE
        + """
import resource
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 2**28, size + 2**28))
for n in (65536, 3, 65536, 2):
    fastattn.set_num_threads(n)
    assert np.array_equal(compute(), expected)
print("done")
"""
    )
    if not hasattr(resource, "RLIMIT_AS") or not Path("/proc/self/statm").exists():
        pytest.skip("this system does not limit memory so")
    assert output(code, FASTATTN_NUM_THREADS="1") == "done"


def test_a_team_that_shrinks() -> None:
    """Workers beyond the budget leave."""
    code = (
        COMPUTE
        + """
def started():
    return len(os.listdir("/proc/self/task")) - before
before = len(os.listdir("/proc/self/task"))
for n in (9, 3, 5, 2):
    fastattn.set_num_threads(n)
    end = time.monotonic() + 60
    while started() != n - 1 and time.monotonic() < end:
        compute()
        time.sleep(0.001)
    print(started(), end=" ")
"""
    )
    if not Path("/proc/self/task").exists():
        pytest.skip("this system does not list threads")
    assert output(code, FASTATTN_NUM_THREADS="1") == "8 2 4 1"


def test_the_places_of_openmp() -> None:
    if not Path("/proc/self/task").exists() or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors")
    first, second = sorted(os.sched_getaffinity(0))[:2]
    code = (
        COMPUTE
        + f"""
def places():
    return [line.split()[1] for task in sorted(map(int, os.listdir("/proc/self/task")))
            for line in open(f"/proc/self/task/{{task}}/status") if line.startswith("Cpus_allowed_list")]
before = len(places())
fastattn.set_num_threads(2)
end = time.monotonic() + (60 if "OMP_PLACES" in os.environ and fastattn.build_info()["openmp"] else 0.2)
while places()[before:] != ["{second}"] and time.monotonic() < end:
    compute()
    time.sleep(0.001)
print(fastattn.build_info()["openmp"], *places()[before:])
"""
    )
    settings = {"OMP_PLACES": f"{{{first}}},{{{second}}}", "OMP_PROC_BIND": "true"}
    openmp, place = output(code, FASTATTN_NUM_THREADS="1", **settings).split()
    if openmp == "True":
        assert place == str(second)
    assert output(code, FASTATTN_NUM_THREADS="1").split()[1] != str(second)


@pytest.mark.parametrize("policy", ["active", "passive", "PASSIVE", "nonsense"])
def test_the_wait_policy_changes_no_result(policy: str) -> None:
    code = COMPUTE + "print(all(np.array_equal(compute(), expected) for _ in range(50)))"
    assert output(code, FASTATTN_NUM_THREADS="2", OMP_WAIT_POLICY=policy) == "True"
