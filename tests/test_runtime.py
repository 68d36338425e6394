"""Instruction sets, threads, the environment, forks and concurrent callers."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_same_bits, normal
from helpers_runtime import output, python

import fastattn
from fastattn import _core, kernels, runtime

ROOT = Path(__file__).parents[1]


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
    asked = re.findall(r"bool has_(x86_64_v\d)", (ROOT / "csrc" / "dispatch.cpp").read_text())
    asked = [level.replace("_", "-") for level in asked]
    assert asked == ["x86-64-v3", "x86-64-v4"]
    assert compiled == [*asked, "x86-64-v3"]  # the last one emulates x86-64-v4 for tests


LEVELS = {
    "avx2": "pni ssse3 sse4_1 sse4_2 cx16 popcnt avx f16c fma movbe avx2 bmi1 bmi2 lahf_lm abm",
    "avx512": "avx512f avx512bw avx512cd avx512dq avx512vl",
}


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="the flags of Linux on x86-64")
def test_the_processor_has_what_the_system_says() -> None:
    flags = set(re.findall(r"^flags\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[0].split())
    expected = ["generic"]
    for isa, needed in LEVELS.items():
        if not set(needed.split()) <= flags:
            break
        expected.append(isa)
    assert fastattn.available_isas() == expected


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


V2, V1 = "0::{}\n", "4:cpu,cpuacct:{}\n3:cpuset:/other\n"


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (V2.format("/a/b"), {"a/b/cpu.max": "50000 100000"}, 0.5),
        (V2.format("/a/b"), {"a/b/cpu.max": "300000 100000", "a/cpu.max": "150000 100000"}, 1.5),
        (V2.format("/a/b"), {"a/b/cpu.max": "250000 100000", "cpu.max": "800000 100000"}, 2.5),
        (V2.format("/a"), {"a/cpu.max": "max 100000"}, 0),
        (V2.format("/of/the/host"), {"cpu.max": "200000 50000"}, 4),
        (V2.format("/a"), {"a/cpu.max": "a b"}, 0),
        (V1.format("/a"), {"cpu,cpuacct/a/cpu.cfs_quota_us": "30000", "cpu,cpuacct/a/cpu.cfs_period_us": "20000"}, 1.5),
        (V1.format("/a"), {"cpu,cpuacct/a/cpu.cfs_quota_us": "-1", "cpu,cpuacct/a/cpu.cfs_period_us": "20000"}, 0),
        (V1.format("/"), {"cpuset/other/cpu.cfs_quota_us": "1", "cpuset/other/cpu.cfs_period_us": "1"}, 0),
        ("", {}, 0),
    ],
)
def test_quota_of_the_control_groups(tmp_path: Path, groups: str, files: dict[str, str], expected: float) -> None:
    """The tightest one from the process's own group up to the root, in processors."""
    texts = {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert _core.cpu_quota(str(tmp_path)) == expected


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


def test_a_compiler_without_its_trailing_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime._core, "build_info", lambda: {"compiler": "Clang 22.1.8 "})
    assert runtime.build_info()["compiler"] == "Clang 22.1.8"


def test_build_info() -> None:
    info = fastattn.build_info()
    assert isinstance(info, dict)
    assert set(fastattn.available_isas()) <= set(info["isas"])
    assert isinstance(info["openmp"], bool)
    assert info["compiler"]


def test_a_process_counts_from_0() -> None:
    counted = output("from fastattn.runtime import counters; print(counters())")
    assert counted == str({"locks_given_up": 0, "workers_woken": 0, "waits": 0})


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
