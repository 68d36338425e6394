"""The kernels, the bindings and the threads under sanitizers.

`python tests/nets/sanitizers.py address` compiles csrc/ with AddressSanitizer and UndefinedBehaviorSanitizer, runs
tests of kernels and bindings, and looks for leaks (leaks.py). `thread` compiles it with ThreadSanitizer and runs tests
of what uses threads, and storm.py. Python and NumPy are not instrumented, but their memory comes from malloc: a kernel
that leaves an array is seen. `--all` takes every instruction set of the machine and every test of kernels.

Needs the packages of requirements/nets.txt, and GCC with its sanitizers. Without these it says NOT RUN; with `--all` it
fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SANITIZERS = {"address": "address,undefined", "thread": "thread"}
SAMPLE, ALL = "generic;neon", "generic;avx2;avx512;neon"
TESTS = {
    "address": ["tests/kernels/test_properties.py", "tests/kernels/test_border.py"],
    "thread": ["tests/test_runtime_callers.py", "tests/test_passes.py"],
}
ALL_TESTS = {
    "address": ["tests/kernels", "tests/test_memory.py", "tests/test_passes.py", "tests/test_profiling.py"],
    "thread": [*TESTS["thread"], "tests/test_memory.py", "tests/test_profiling.py", "tests/test_passes_of_models.py"],
}
PROGRAMS = {"address": ["tests/nets/leaks.py"], "thread": ["tests/nets/storm.py"]}
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--capture=sys"]  # a sanitizer writes to the real stderr
# The smallest program of each: it starts, and may look for leaks.
PROBES = {"address": "import ctypes; ctypes.CDLL(None).__lsan_do_recoverable_leak_check()", "thread": ""}
RESIDENT = "resident memory, to which a sanitizer adds its own"
LIMITED = "a limit on the address space, of which a sanitizer needs more at any time"
LEFT_OUT = {
    "address": {
        "tests/test_memory.py::test_scratch_is_given_back": RESIDENT,
        "tests/kernels/test_border.py::test_a_call_without_memory_has_added_to_nothing": LIMITED,
    },
    "thread": {
        "tests/test_memory.py::test_scratch_is_given_back": RESIDENT,
        "tests/test_passes.py::test_the_budget_of_threads_is_read_once": "ThreadSanitizer has a thread of its own",
    },
}
"""Tests that a sanitizer cannot run, with the reason."""


def library(name: str) -> str:
    """The path of a library of the compiler, or its name where it has none."""
    command = ["c++", f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def missing(sanitizer: str) -> str:
    """Why the sanitizer cannot be used here; else empty."""
    if shutil.which("c++") is None:
        return "there is no compiler"
    name = {"address": "libasan.so", "thread": "libtsan.so"}[sanitizer]
    if not Path(library(name)).is_absolute():
        return f"the compiler has no {name}; on Debian it comes with g++"
    done = run(sanitizer, ROOT, ["-c", PROBES[sanitizer]], capture_output=True)
    return f"Python does not start under {name}: {done.stderr.strip()}" if done.returncode else ""


def build(sanitizer: str, isas: str, folder: Path, source: Path = ROOT) -> Path:
    """Compiles csrc/ of `source` in `folder`; returns a folder that has the package with this `_core`."""
    command = [sys.executable, "-m", "pybind11", "--cmakedir"]
    pybind11 = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    options = {
        "CMAKE_BUILD_TYPE": "None", "CMAKE_DISABLE_FIND_PACKAGE_OpenMP": "ON",
        "FASTATTN_SANITIZE": SANITIZERS[sanitizer], "FASTATTN_ISAS": isas,
        "pybind11_DIR": pybind11, "Python_EXECUTABLE": sys.executable,
    }  # fmt: skip
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # with this environment's cmake
    flags = [f"-D{name}={value}" for name, value in options.items()]
    configure = ["cmake", "-S", str(source), "-B", str(folder), "-G", "Ninja", *flags]
    for command in (configure, ["cmake", "--build", str(folder)]):
        subprocess.run(command, env=os.environ | {"PATH": path}, stdout=subprocess.DEVNULL, check=True)
    package = folder / "package"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "fastattn", package / "fastattn", ignore=shutil.ignore_patterns("_core*.so", "__pycache__"))
    for core in folder.glob("_core*.so"):
        shutil.copy(core, package / "fastattn")
    return package


def environment(sanitizer: str, package: Path) -> dict[str, str]:
    """Of a Python whose memory and threads the sanitizer sees."""
    path = os.pathsep.join(map(str, (package, ROOT / "tests", ROOT / "tests" / "nets")))
    variables = {
        "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "PYTHONMALLOC": "malloc", "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1", "FASTATTN_NUM_THREADS": "2",
    }  # fmt: skip
    if sanitizer == "address":
        # A test that asks for more memory than there is gets none; leaks.py looks for leaks.
        variables["ASAN_OPTIONS"] = (
            "detect_leaks=1:leak_check_at_exit=0:allocator_may_return_null=1:detect_stack_use_after_return=1"
        )
        variables["UBSAN_OPTIONS"] = "print_stacktrace=1"
        # libstdc++ must be there when AddressSanitizer looks for what throws.
        variables["LD_PRELOAD"] = f"{library('libasan.so')} {library('libstdc++.so')}"
    else:
        suppressions = Path(__file__).parent / "thread_suppressions.txt"
        variables["TSAN_OPTIONS"] = f"suppressions={suppressions}:exitcode=66:die_after_fork=0:report_signal_unsafe=0"
        variables["LD_PRELOAD"] = library("libtsan.so")
    return {**os.environ, **variables}


def run(sanitizer: str, package: Path, command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Runs Python with the sanitizer. Its reports are among what is written to stderr, and end it with an error."""
    # ThreadSanitizer knows the addresses of a process without randomisation; some containers do not allow it.
    fixed = ["setarch", "-R"] if sanitizer == "thread" else []
    if fixed and (shutil.which("setarch") is None or subprocess.run([*fixed, "true"], capture_output=True).returncode):
        fixed = []
    command = [*fixed, sys.executable, *command]
    return subprocess.run(command, cwd=ROOT, env=environment(sanitizer, package), text=True, **options)  # type: ignore[call-overload, no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sanitizer", choices=["address", "thread"])
    parser.add_argument("--all", action="store_true", help="every instruction set and every test; before a release")
    args = parser.parse_args()
    name: str = args.sanitizer
    if reason := missing(name):
        print(f"NOT RUN: {name}: {reason}")
        sys.exit(args.all)
    begin = time.monotonic()
    package = build(name, ALL if args.all else SAMPLE, ROOT / "build" / f"{name}{'-all' if args.all else ''}")
    print(f"{name}: compiled in {time.monotonic() - begin:.0f} s", flush=True)
    tests = (ALL_TESTS if args.all else TESTS)[name]
    pytest = [*PYTEST, *(f"--deselect={test}" for test in LEFT_OUT[name]), *tests]
    failed = [command for command in (pytest, PROGRAMS[name]) if run(name, package, command).returncode]
    print(f"{name}: {'failed' if failed else 'passed'} in {time.monotonic() - begin:.0f} s")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
