"""Instruction sets, threads, the environment, forks and concurrent callers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, normal
from helpers_attention import ragged

import fastattn
from fastattn import _core, kernels, runtime

ROOT = Path(__file__).parents[1]
VARIABLES = ("FASTATTN_ISA", "FASTATTN_NUM_THREADS", "OMP_NUM_THREADS")


def python(code: str, timeout: float = 90, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a new interpreter with only these of the variables that matter.

    One that hangs is killed with all its children.
    """
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=clean | environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def output(code: str, timeout: float = 90, **environment: str) -> str:
    run = python(code, timeout, **environment)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


# Instruction sets


def test_available_isas() -> None:
    names = list(fastattn.available_isas())
    assert "generic" in names
    assert fastattn.isa() in names
    assert len(set(names)) == len(names)
    assert set(names) <= {"generic", "avx2", "avx512", "avx512_bf16", "neon"}


@pytest.mark.usefixtures("restore_runtime")
def test_use_isa_as_a_function() -> None:
    for name in fastattn.available_isas():
        fastattn.use_isa(name)
        assert fastattn.isa() == name


@pytest.mark.usefixtures("restore_runtime")
def test_use_isa_as_a_context() -> None:
    before = fastattn.isa()
    for name in fastattn.available_isas():
        with fastattn.use_isa(name):
            assert fastattn.isa() == name
            with fastattn.use_isa("generic"):
                assert fastattn.isa() == "generic"
            assert fastattn.isa() == name
        assert fastattn.isa() == before
        with pytest.raises(KeyError), fastattn.use_isa(name):
            raise KeyError
        assert fastattn.isa() == before


@pytest.mark.usefixtures("restore_runtime")
def test_each_isa_is_another_table() -> None:
    """The generic set rounds a * b before adding, so the same sum has other bits."""
    if len(fastattn.available_isas()) == 1:
        pytest.skip("this machine has one instruction set")
    x, weight = normal(np.random.default_rng(1), 2, 40, 300)
    with fastattn.use_isa("generic"):
        plain = kernels.linear(x, weight)
    assert not np.array_equal(kernels.linear(x, weight), plain)


@pytest.mark.parametrize("name", ["sse9", "", "AVX2"])
def test_an_unknown_isa(name: str) -> None:
    before = fastattn.isa()
    with pytest.raises(ValueError, match=f"must be one of .*generic.*, got '{name}'"):
        fastattn.use_isa(name)
    assert fastattn.isa() == before


def test_an_isa_that_is_no_string() -> None:
    with pytest.raises(TypeError):
        fastattn.use_isa(None)


def test_isa_from_the_environment() -> None:
    for name in fastattn.available_isas():
        assert output("import fastattn; print(fastattn.isa())", FASTATTN_ISA=name) == name
    best = output("import fastattn; print(fastattn.isa())")
    assert best == list(fastattn.available_isas())[-1]


def test_an_unknown_isa_in_the_environment() -> None:
    run = python("import fastattn; fastattn.isa()", FASTATTN_ISA="sse9")
    assert run.returncode == 1
    assert "FASTATTN_ISA must be one of generic" in run.stderr
    assert "got 'sse9'" in run.stderr


def test_the_processor_is_asked_for_what_the_kernels_are_compiled_for() -> None:
    levels = ROOT / "CMakeLists.txt"
    if not levels.exists():
        pytest.skip("no CMakeLists.txt beside the tests")
    compiled = re.findall(r"-march=(x86-64-v\d)", levels.read_text())
    asked = re.findall(r'__builtin_cpu_supports\("(x86-64-v\d)"\)', (ROOT / "csrc" / "dispatch.cpp").read_text())
    assert compiled == asked == ["x86-64-v3", "x86-64-v4"]


def test_why_an_isa_is_in_use() -> None:
    code = "import fastattn; from fastattn import runtime; print(runtime.isa_reason())"
    assert output(code) == "the best of this build that the processor has"
    assert output(code, FASTATTN_ISA="generic") == "FASTATTN_ISA"
    code = "import fastattn; from fastattn import runtime; fastattn.use_isa('generic'); print(runtime.isa_reason())"
    assert output(code) == 'use_isa("generic")'


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("processor\t: 0\nmodel name\t: A 7 x : y\nmodel name\t: B\n", "A 7 x : y"),
        ("model name\t:\n", ""),
        ("model name\t: \n", ""),
        ("model name", ""),
        ("model name\t:\nmodel name\t: B", "B"),
        ("", ""),
    ],
)
def test_the_name_of_the_processor(tmp_path: Path, lines: str, expected: str) -> None:
    (tmp_path / "cpuinfo").write_text(lines)
    assert _core.cpu_name(str(tmp_path / "cpuinfo")) == expected
    assert _core.cpu_name(str(tmp_path / "missing")) == ""


# Threads


@pytest.mark.usefixtures("restore_runtime")
def test_set_num_threads() -> None:
    for count in (1, 2, 5, 1):
        fastattn.set_num_threads(count)
        assert fastattn.num_threads() == count


def test_why_there_are_so_many_threads() -> None:
    code = "import fastattn; from fastattn import runtime; print(runtime.threads_reason())"
    assert output(code, OMP_NUM_THREADS="2") == "OMP_NUM_THREADS"
    assert output(code, OMP_NUM_THREADS="2", FASTATTN_NUM_THREADS="2") == "FASTATTN_NUM_THREADS"
    assert output(code) in {"physical cores", "processor affinity", "control group quota", "performance cores", "cores"}
    set_first = code.replace("print", "fastattn.set_num_threads(3); print")
    assert output(set_first, FASTATTN_NUM_THREADS="2") == "set_num_threads(3)"


@pytest.mark.usefixtures("restore_runtime")
def test_reasons_while_others_change_them() -> None:
    """Without a global lock, too, each is whole: nobody reads a text that another thread writes."""
    names = fastattn.available_isas()
    whole = {f'use_isa("{name}")' for name in names} | {f"set_num_threads({n})" for n in range(1, 9)}
    fastattn.use_isa(names[0])
    fastattn.set_num_threads(1)

    def change(i: int) -> set[str]:
        fastattn.use_isa(names[i % len(names)])
        fastattn.set_num_threads(1 + i % 8)
        return {runtime.isa_reason(), runtime.threads_reason()}

    with ThreadPoolExecutor(4) as pool:
        assert set().union(*pool.map(change, range(400))) <= whole


@pytest.mark.parametrize("count", [0, -1])
def test_too_few_threads(count: int) -> None:
    before = fastattn.num_threads()
    with pytest.raises(ValueError, match=f"set_num_threads: n must be .*, got {count}$"):
        fastattn.set_num_threads(count)
    assert fastattn.num_threads() == before


def test_threads_that_are_no_number() -> None:
    for wrong in ("2", 1.5, None):
        with pytest.raises(TypeError):
            fastattn.set_num_threads(wrong)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "3,2"}, 3),
        ({"FASTATTN_NUM_THREADS": "3"}, 3),
        ({"FASTATTN_NUM_THREADS": "2", "OMP_NUM_THREADS": "5"}, 2),
    ],
    ids=str,
)
def test_threads_from_the_environment(environment: dict[str, str], expected: int) -> None:
    assert output("import fastattn; print(fastattn.num_threads())", **environment) == str(expected)


@pytest.mark.parametrize("value", ["zero", "0", "-2", "1.5", "2,2", "99999999999999999999"])
def test_a_bad_number_of_threads_in_the_environment(value: str) -> None:
    run = python("import fastattn; fastattn.num_threads()", FASTATTN_NUM_THREADS=value)
    assert run.returncode == 1
    assert f"FASTATTN_NUM_THREADS must be a whole number of at least 1, got '{value}'" in run.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_is_respected() -> None:
    code = """
    import os
    mask = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mask)})
    import fastattn
    print(fastattn.num_threads(), len(mask))
    """
    threads, processors = output(code).split()
    assert threads == "1"
    assert 1 <= int(output("import fastattn; print(fastattn.num_threads())")) <= int(processors)


def test_more_threads_than_processors(threads: int) -> None:
    x, weight = normal(np.random.default_rng(2), 2, 301, 256)
    expected = kernels.linear(x, weight)
    fastattn.set_num_threads(16)
    assert_same_bits(kernels.linear(x, weight), expected)


def test_build_info() -> None:
    info = fastattn.build_info()
    assert isinstance(info, dict)
    assert set(fastattn.available_isas()) <= set(info["isas"])
    assert isinstance(info["openmp"], bool)
    assert info["compiler"]


# Callers


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


# Denormals


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


# Interpreters


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


# The build


def test_flags_of_the_environment_do_not_reach_the_kernels(tmp_path: Path) -> None:
    """A kernel has the same code whatever CXXFLAGS says of fast math and link-time optimisation."""
    cmake = shutil.which("cmake", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    pybind11 = pytest.importorskip("pybind11")
    if cmake is None or shutil.which("c++") is None or not (ROOT / "CMakeLists.txt").exists():
        pytest.skip("nothing to build with, or nothing to build")
    objects = []
    for flags in ("", "-flto -ffast-math -fno-math-errno", "-Ofast -flto=auto -ffinite-math-only -fassociative-math"):
        build = tmp_path / str(len(objects))
        options = [f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DPython_EXECUTABLE={sys.executable}"]
        options += ["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", "-G", "Unix Makefiles"]
        environment = os.environ | {"CXXFLAGS": flags}
        configure = [cmake, "-S", str(ROOT), "-B", str(build), *options]
        subprocess.run(configure, env=environment, check=True, capture_output=True, timeout=120)
        commands = json.loads((build / "compile_commands.json").read_text())
        (command,) = [
            each["command"]
            for each in commands
            if each["file"].endswith("kernels/adamw.cpp") and "kernels_generic" in each["command"]
        ]
        code = re.sub(r" -o \S+", f" -o {build / 'adamw.s'} -S", command)
        subprocess.run(code, shell=True, cwd=build, check=True, capture_output=True, timeout=120)
        lines = (build / "adamw.s").read_text().splitlines()
        objects.append([line for line in lines if "GNU" not in line and ".file" not in line])
    assert objects[0] == objects[1] == objects[2]
