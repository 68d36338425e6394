"""The threads that help callers: the protocol, its promises, forks, the end of a process, and systems that are short of
threads."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
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


# Faults, each planted once: the program that must find it, how that is compiled, the file, the text there, its
# replacement.
THREAD_SANITIZER = "-O1 -fsanitize=thread"
FAULTS = {
    "a relaxed claim": (
        "pieces", THREAD_SANITIZER, "pieces.h", "word - 1, std::memory_order_acquire",
        "word - 1, std::memory_order_relaxed",
    ),
    "a budget that any worker may exceed": (
        "pieces", "-O2", "pieces.h", "left(word) > 0 && thread <= last_thread(word)", "left(word) > 0"
    ),
    "a budget that ignores what is lent": (
        "team", "-O2", "workers.cpp", "    want_workers(workers);",
        "    want_workers(workers = helpers *= __builtin_popcountll(board.taken));",
    ),
    "no cap on pieces": ("team", "-O2", "parallel.cpp", "std::max(grain, n / most_pieces_of_job + 1)", "grain"),
    "a child that does not reset its workers": ("team", "-O2 -DPATIENCE=2", "workers.cpp", "new (&team) Team;", ""),
    "a child that does not reset its callers": ("team", "-O2", "workers.cpp", "new (&board) Board;", ""),
}  # fmt: skip


def run_program(name: str, compiler: list[str], folder: Path, root: Path = ROOT, timeout: int = 300) -> str:
    """What a program of tests/csrc says: empty if all its checks hold."""
    program = folder / name
    flags = ["-std=c++17", "-g", "-pthread", "-Wall", "-Wextra"]
    subprocess.run([*compiler, *flags, *SOURCES[name], "-o", str(program)], cwd=root, check=True, timeout=1800)
    try:
        run = subprocess.run([str(program)], capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return f"no end within {timeout} s"
    if run.returncode == 0:
        assert run.stdout.endswith(" 0 failures\n") or run.stdout == "0 failures\n"
        return ""
    return run.stdout + run.stderr or f"exit code {run.returncode}"


def compiler_with(flags: str, folder: Path) -> list[str]:
    """The system's compiler, or a skipped test."""
    if shutil.which("c++") is None or not (ROOT / "csrc").exists():
        pytest.skip("nothing to build with, or nothing to build")
    (folder / "empty.cpp").write_text("int main() {}")
    compiler = ["c++", *flags.split()]
    if subprocess.run([*compiler, "empty.cpp"], cwd=folder, capture_output=True, timeout=60).returncode:
        pytest.skip(f"this compiler has no {flags}")
    return compiler


@pytest.mark.parametrize("flags", ["-O2", THREAD_SANITIZER, "-O1 -fsanitize=address,undefined"])
@pytest.mark.parametrize("name", SOURCES)
def test_the_protocol(name: str, flags: str, tmp_path: Path) -> None:
    """`pieces` stops a thread at every point of the protocol; `team` has many callers, sleeps, scratch and forks."""
    assert not run_program(name, compiler_with(flags, tmp_path), tmp_path)


@pytest.mark.parametrize("name", SOURCES)
def test_the_protocol_with_musl(name: str, tmp_path: Path) -> None:
    """Another C library, whose threads have 128 KiB of stack: `pip install ziglang` has a compiler for it."""
    if importlib.util.find_spec("ziglang") is None or sys.platform != "linux" or not (ROOT / "csrc").exists():
        pytest.skip("no zig, or nothing to build")
    compiler = [sys.executable, "-m", "ziglang", "c++", "-O2", "-target", f"{platform.machine()}-linux-musl"]
    assert not run_program(name, compiler, tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, tmp_path: Path) -> None:
    name, flags, file, text, replacement = FAULTS[fault]
    compiler = compiler_with(flags, tmp_path)
    for folder in ("csrc", "tests/csrc"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    source = (tmp_path / "csrc" / file).read_text()
    assert text in source
    (tmp_path / "csrc" / file).write_text(source.replace(text, replacement))
    assert run_program(name, compiler, tmp_path, root=tmp_path, timeout=60)  # some faults are hangs


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


def test_small_stacks() -> None:
    """Workers need no more stack than the 128 KiB that a thread has with musl."""
    code = (
        COMPUTE
        + """
import ctypes
from fastattn import functional as F, nn
from fastattn.models import BertConfig, BertModel
libc, attributes = ctypes.CDLL(None), ctypes.create_string_buffer(256)
libc.pthread_attr_init(attributes)
libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(128 << 10))
assert libc.pthread_setattr_default_np(attributes) == 0
fastattn.set_num_threads(4)
ids = np.arange(200).reshape(4, 50)
states = np.ones((200, 128), np.float32)
sizes = {"hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 512}
bert = BertModel(BertConfig(vocab_size=200, **sizes))
lstm, gru = nn.LSTM(128, 96, bidirectional=True, proj_size=64), nn.GRU(128, 96)
words = nn.Sequential(nn.CharCNN(300, 16, [(1, 32), (3, 64)]), nn.Highway(96))
for name in fastattn.available_isas():
    fastattn.use_isa(name)
    kernels.linear(x, kernels.PackedMatrix(x), activation="gelu")
    for output in (bert(ids).last_hidden_state, lstm(states, cu_seqlens=[0, 90, 200])[0],
                   gru(states, cu_seqlens=[0, 90, 200])[0], words(np.arange(3000).reshape(60, 50) % 300)):
        rows = output.reshape(-1, output.shape[-1])
        F.cross_entropy(rows, np.zeros(len(rows), int)).backward()
print("done")
"""
    )
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "pthread_setattr_default_np"):
        pytest.skip("this C library has no default for the size of stacks")
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


def test_a_passive_worker_sleeps_within_a_pass() -> None:
    """It is woken again for the next kernel that has work for two."""
    code = (
        COMPUTE
        + """
from fastattn import _core
from fastattn.runtime import counters
small = [np.ones((1, 64), np.float32), np.ones((16, 64), np.float32)]
most, end = 0, time.monotonic() + 60
while most < 2 and time.monotonic() < end:
    before = counters()["workers_woken"]
    with _core.Pass():
        for _ in range(4):
            kernels.linear(x, x)
            for _ in range(3000):
                kernels.linear(*small)  # has one piece
    most = max(most, counters()["workers_woken"] - before)
print(most >= 2)
"""
    )
    assert output(code, FASTATTN_NUM_THREADS="2", OMP_WAIT_POLICY="passive") == "True"
