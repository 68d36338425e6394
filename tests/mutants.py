"""Plants faults in a copy of the source, one at a time, and tells which of them no test finds.

    python tests/mutants.py                # 120 faults of csrc/ and fastattn/; `make mutants`
    python tests/mutants.py --plan         # only what would be planted
    python tests/mutants.py --survivors    # plants again what survived, after tests have been added

Faults are drawn by --seed from those of helpers_faults.py, from every room of the tree. For each, the tests that
belong to its file run first, then those that name what the file defines, then those beside them. What
has been found is kept in build/mutants: the same command goes on where it was stopped. Needs a C++ compiler, cmake,
ninja and pybind11, and no fastattn in its environment.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from helpers_faults import Fault, faults
from helpers_no_faults import EQUIVALENT

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "mutants"
TREE = WORK / "tree"
BUILD, PRISTINE = WORK / "compiled", WORK / "pristine"

# Each part of the tree, with its share of the faults in a hundred.
ROOMS: dict[str, tuple[int, list[str]]] = {
    "kernels": (23, ["csrc/kernels/*.cpp", "csrc/kernels/*.h"]),
    "vectors": (2, ["csrc/simd/math.h", "csrc/simd/simd.h", "csrc/simd/generic.h"]),
    "bindings": (16, ["csrc/bindings/*.cpp", "csrc/bindings/recurrent.h", "csrc/bindings/linear.h"]),
    "threads and memory": (10, ["csrc/*.cpp", "csrc/pieces.h"]),
    "tape and ground": (7, ["fastattn/*.py"]),
    "kernels in Python": (3, ["fastattn/kernels/*.py", "fastattn/reference/*.py"]),
    "functional": (4, ["fastattn/functional/*.py"]),
    "nn": (5, ["fastattn/nn/*.py"]),
    "models": (6, ["fastattn/models/*.py"]),
    "generation": (2, ["fastattn/generation/*.py"]),
    "formats": (5, ["fastattn/formats/*.py"]),
    "text": (6, ["fastattn/text/*.py"]),
    "training": (5, ["fastattn/training/*.py"]),
    "tasks": (7, ["fastattn/tasks/*.py"]),
    "command line": (3, ["fastattn/cli/*.py"]),
}
NO_ROOM = ["*/bench.py", "*/__init__.py"]

# Tests of files that have another name.
RELATED: dict[str, list[str]] = {
    r"csrc/(parallel|workers|pieces)\.": ["test_runtime*", "test_passes.py", "test_workers.py"],
    r"csrc/.*(packing|weight|product|panel|gemm)\.": ["kernels/test_linear*", "kernels/test_recurrent_bits.py"],
    r"csrc/(packing|bindings/packing)\.": ["test_memory.py", "formats/test_rows_in_files.py"],
    r"csrc/kernels/table\.|fastattn/_": ["test_runtime.py", "test_import.py"],
    r"fastattn/formats/(sstable|crc32c|protobuf)": ["formats/test_tensorflow_bundle.py", "formats/test_sentence*"],
    r"fastattn/formats/(pickle_opcodes|stored)": ["formats/test_torch_pickle.py"],
    r"fastattn/tasks/heads": ["tasks/test_tasks_of_families.py", "tasks/test_protocol.py"],
    r"csrc/memory\.": ["test_memory.py", "test_passes_memory.py", "test_passes.py"],
    r"csrc/(limits|dispatch|denormals|bindings/runtime|bindings/module)\.": ["test_runtime*"],
    r"csrc/bindings/(arrays|values)\.": ["kernels/test_border.py", "kernels/test_changing*", "kernels/test_prop*"],
    r"csrc/bindings/(pass|restore_thread)\.": ["test_passes*", "test_workers.py"],
    r"csrc/bindings/(profile|work)\.": ["test_profiling.py"],
    r"csrc/bindings/recurrent\.": ["kernels/test_lstm.py", "kernels/test_gru.py", "kernels/test_recurrent*"],
    r"csrc/bindings/rowwise\.": ["kernels/test_rowwise.py", "kernels/test_softmax.py", "kernels/test_border.py"],
    r"csrc/kernels/(recurrent\.h|lstm|gru)": ["kernels/test_recurrent*"],
    r"fastattn/(nn|kernels|functional|reference)/(recurrent|lstm|gru|_recurrent)": ["kernels/test_recurrent*"],
    r"fastattn/functional/": ["test_functional*"],
    r"fastattn/reference/": ["kernels/test_reference*"],
    r"fastattn/models/(\w+/|encoder|heads)": ["models/test_families.py"],
    r"fastattn/models/(modernbert|gte|nomic_bert|rotary)": ["models/test_rotary_families.py"],
    r"fastattn/models/.*config": ["models/test_config_fields.py"],
    r"fastattn/text/tokenized\.": ["text/test_tokenizer_pairs.py"],
    r"fastattn/tasks/description": ["cli/test_info_model.py"],
    r"fastattn/tasks/.*recipe": ["tasks/test_protocol.py"],
    r"fastattn/_tensor_methods": ["test_autograd*"],
    **{rf"fastattn/tasks/{task}/": [f"tasks/test_{name}*", f"cli/test_*{task}*"] for task, name in {
        "answer": "answerer", "classify": "classifier", "regress": "regressor", "rerank": "reranker", "fill": "filler",
        "tag": "tagger", "translate": "translator", "pretrain": "pretrainer", "bilm": "bilm", "sequences": "classifier",
        "streams": "bilm", "language_model": "language_model",
    }.items()},
}  # fmt: skip
# Slow, or about something else: not chosen because they name something.
NOT_BY_NAME = re.compile(
    r"parity|test_(docs|docs_run|docstrings|fuzz|hostile|kills|steady|costs|release|completeness|workers|forks)\.py"
)


# --- what is planted ---


def drawn(seed: int, pattern: str) -> Iterator[Iterator[Fault]]:
    """For each of a hundred, again and again: the faults of its room, of which the first that compiles is planted."""
    rooms = {name: _drawn_from(globs, f"{seed} {name}", pattern) for name, (_, globs) in ROOMS.items()}
    # The rooms take turns, those with a larger share more often.
    turns = sorted(((i + 0.5) / share, name) for name, (share, _) in ROOMS.items() for i in range(share))
    while True:
        for _, name in turns:
            yield rooms[name]


def _drawn_from(globs: list[str], seed: str, pattern: str) -> Iterator[Fault]:
    rng = random.Random(seed)
    names = sorted(str(path.relative_to(ROOT)) for root in ("csrc", "fastattn") for path in (ROOT / root).rglob("*.*"))
    chosen = [name for name in names if any(_in_room(name, glob) for glob in globs)]
    chosen = [name for name in chosen if fnmatch.fnmatch(name, pattern)]
    chosen = [name for name in chosen if not any(fnmatch.fnmatch(name, no) for no in NO_ROOM) and _faults(name)]
    lines = [(ROOT / name).read_bytes().count(b"\n") for name in chosen]
    seen: set[Fault] = set()
    for _ in range(10_000 if chosen else 0):
        candidates = _faults(rng.choices(chosen, lines)[0])
        kind = rng.choice(sorted({fault.kind for fault in candidates}))
        fault = rng.choice([fault for fault in candidates if fault.kind == kind])
        if fault not in seen:
            seen.add(fault)
            yield fault


def _in_room(name: str, glob: str) -> bool:
    """C++ and the files beside autograd.py without those in folders below; other rooms with them."""
    deep = not glob.startswith("csrc/") and glob != "fastattn/*.py"
    return fnmatch.fnmatch(name, glob) and (deep or name.count("/") == glob.count("/"))


@cache
def _faults(name: str) -> list[Fault]:
    return faults(name, (ROOT / name).read_bytes())


def line_of(fault: Fault) -> str:
    """The line without the fault."""
    return (ROOT / fault.file).read_text().splitlines()[fault.line - 1].strip()


def reason_of_none(fault: Fault) -> str:
    """Why this is no fault; empty if it is one."""
    change = f"{fault.old} -> {fault.new}"
    own = (fault.file, line_of(fault))
    return next((reason for file, line, what, reason in EQUIVALENT if (file, line) == own and what == change), "")


# --- which tests run ---


def tests_of(fault: Fault) -> list[list[str]]:
    """What pytest is called with, one after another, until a test fails."""
    path = Path(fault.file)
    stems = _stems(path)
    own = [name for stem in stems for name in _named(f"**/test_{stem}.py") + _named(f"**/test_{stem}_*.py")]
    room = "/".join(path.parts[1:-1]) if path.parts[0] == "fastattn" else "kernels"
    if "/" in room:  # the tests of a family or of a task with a folder of its own
        own += _named(f"{room}/**/test_*.py")
    for pattern, names in RELATED.items():
        if re.search(pattern, fault.file):
            own += [found for name in names for found in _named(name)]
    own.sort(key=lambda name: not name.startswith(f"tests/{room}/"))
    calls = [own := list(dict.fromkeys(name for name in own if "parity" not in name))]
    kernels = [stem for stem in stems if (ROOT / "fastattn" / "kernels" / f"{stem}.py").exists()]
    if kernels and (room == "kernels" or path.parts[1] == "reference"):
        calls.append(["tests/kernels/test_properties.py", "-k", " or ".join(f"[{stem}" for stem in kernels)])
    named = [name for name in _by_name(fault) if name not in own][:8]
    beside = _named(f"{room}/**/test_*.py") if room not in ("", "kernels") else []
    calls += [named[:2], named[2:]]  # few at first: to collect tests takes as long as to run some
    calls.append([name for name in beside if name not in own + named and not NOT_BY_NAME.search(name)])
    return [call for call in calls if call]


def _stems(path: Path) -> list[str]:
    """The file's own name; of a header, those of the kernels that include it."""
    if path.stem in ("product", "gemm", "panel", "packing", "weight"):
        return ["linear"]
    if path.suffix != ".h":
        return [path.stem]
    using = {path.name}
    sources = {other: other.read_text() for other in (ROOT / path.parent).glob("*.*")}
    for _ in range(3):
        using |= {other.name for other, text in sources.items() if any(f'"{name}"' in text for name in using)}
    stems = sorted(name.removesuffix(".cpp") for name in using if name.endswith(".cpp"))
    return (
        stems if 0 < len(stems) <= 6 else ["linear", "scaled_dot_product_attention", "layer_norm", "activation", "lstm"]
    )


@cache
def _named(glob: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob(glob))


def _by_name(fault: Fault) -> list[str]:
    """Files of tests that name what the file defines; first those that name what few others do."""
    text = (ROOT / fault.file).read_text()
    names = Counter[str]({Path(fault.file).stem: 3})
    if fault.file.endswith(".py"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                inside = node.lineno <= fault.line <= (node.end_lineno or 0)
                names[node.name] = 5 if inside and isinstance(node, ast.FunctionDef) else 1
    else:
        names.update(re.findall(r'm\.def\("(\w+)"', text))
    score = Counter[str]()
    for name, weight in names.items():
        using = [test for test, words in _words().items() if name in words]
        for test in using:
            score[test] += weight / len(using)  # type: ignore[assignment]
    return [test for test, _ in score.most_common()]


@cache
def _words() -> dict[str, set[str]]:
    files = [name for name in _named("**/test_*.py") if not NOT_BY_NAME.search(name)]
    return {name: set(re.findall(r"\w+", (ROOT / name).read_text())) for name in files}


# --- planting ---


def prepare() -> None:
    """A copy of the tree with compiled kernels of one instruction set."""
    for name in ("csrc", "cmake", "fastattn", "tests", "docs", "examples", "benchmarks", "CMakeLists.txt",
                 "pyproject.toml", "CONTRIBUTING.md", "README.md", "CHANGELOG.md", "Makefile"):  # fmt: skip
        source, target = ROOT / name, TREE / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
        else:
            _copy_folder(source, target)
    if PRISTINE.exists():  # a run that was killed may have left a fault
        _copy_folder(PRISTINE, BUILD)
    for name in ("home", "tmp"):
        (WORK / name).mkdir(exist_ok=True)
    pybind11 = subprocess.run(
        [sys.executable, "-m", "pybind11", "--cmakedir"], capture_output=True, text=True, check=True
    )
    options = {"CMAKE_BUILD_TYPE": "None", "FASTATTN_ISAS": "generic", "pybind11_DIR": pybind11.stdout.strip(),
               "Python_EXECUTABLE": sys.executable}  # fmt: skip
    flags = [f"-D{name}={value}" for name, value in options.items()]
    _call(["cmake", "-S", str(TREE), "-B", str(BUILD), "-G", "Ninja", *flags]).check_returncode()
    if (built := _call(["cmake", "--build", str(BUILD)])).returncode:
        sys.exit(built.stdout)
    _copy_folder(BUILD, PRISTINE)
    _install()


def _copy_folder(source: Path, target: Path) -> None:
    """With the times of files, so that only what has changed is compiled again."""
    ignore = shutil.ignore_patterns("__pycache__", "_core*.so") if source.parent == ROOT else None
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part, ignore=ignore, symlinks=True)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)


def _install() -> None:
    for core in BUILD.glob("_core*.so"):
        new = TREE / "fastattn" / f"{core.name}.new"
        shutil.copy(core, new)
        new.replace(new.with_suffix(""))  # a process that has the old one keeps it


def _call(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a session of its own, of which nothing is left if it takes an hour."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    process = subprocess.Popen(
        command, cwd=TREE, env=os.environ | {"PATH": path} | environment, text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=3600)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)  # ninja ends what it has started
            process.wait()
    return subprocess.CompletedProcess(command, process.returncode, output)


def run_tests(arguments: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """pytest in the copy. Ends after so many seconds of the processor; at once if a test never ends."""
    return _call(
        [
            sys.executable, "-m", "pytest", "-v", "-rfE", "-p", "no:cacheprovider", "-p", "helpers_limits", "--tb=no",
            f"--basetemp={WORK / 'tmp' / 'pytest'}", "-o", "faulthandler_timeout=600",
            "-o", "faulthandler_exit_on_timeout=true", *arguments,
        ],
        PYTHONPATH=f"{TREE}{os.pathsep}{TREE / 'tests'}", PYTHONSAFEPATH="1", HOME=str(WORK / "home"),
        TMPDIR=str(WORK / "tmp"), FASTATTN_NUM_THREADS="2", OPENBLAS_NUM_THREADS="1",
        FASTATTN_TEST_SECONDS=str(seconds),
    )  # fmt: skip


def plant(fault: Fault, broken: list[str], seconds: float) -> tuple[str, str]:
    """The result and the test that says so: killed, survived or not built."""
    path = TREE / fault.file
    source, times = path.read_bytes(), path.stat()
    try:
        path.write_bytes(fault.planted(source))
        if not fault.file.endswith(".py"):
            if _call(["cmake", "--build", str(BUILD)]).returncode:
                return "not built", ""
            _install()
        else:  # a time of its own, so that no compiled file from before is taken for it
            os.utime(path, (fault.begin, fault.begin))
        return _found(fault, broken, seconds)
    finally:
        path.write_bytes(source)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        if not fault.file.endswith(".py"):
            _put_back()


def _put_back() -> None:
    for kept in [*PRISTINE.rglob("*.o"), *PRISTINE.glob("*.so"), *PRISTINE.rglob("*.gch")]:
        now = BUILD / kept.relative_to(PRISTINE)
        if not now.exists() or now.stat().st_mtime_ns != kept.stat().st_mtime_ns:
            shutil.copy2(kept, now)
    _install()


def _found(fault: Fault, broken: list[str], seconds: float) -> tuple[str, str]:
    deselected = [word for name in broken for word in ("--deselect", name)]
    end = _seconds_of_children() + seconds
    for tests in tests_of(fault):
        run = run_tests(["-x", *tests, *deselected], end - _seconds_of_children())
        if run.returncode == 2 and "all seconds are used" in run.stdout:
            return "survived", "not all tests had time"
        if run.returncode not in (0, 5):
            return "killed", _test_of(run.stdout)
    return "survived", ""


def _seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _test_of(output: str) -> str:
    """The test that failed; if the process ended, the one that ran."""
    failed = re.findall(r"^(?:FAILED|ERROR) (tests/.*?)(?: - .*)?$", output, re.MULTILINE)
    begun = re.findall(
        r"^(tests/\S+?\.py::.+?) *(?:(?:PASSED|FAILED|ERROR|SKIPPED|XFAIL|Fatal).*)?$", output, re.MULTILINE
    )
    return failed[0] if failed else begun[-1] if begun else output[-300:]


# --- the run ---


class Record:
    """Results by fault, in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        saved: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"results": [], "broken": []}
        self.results: list[dict[str, Any]] = saved["results"]
        self.broken: list[str] = saved["broken"]
        """Tests that fail in the copy without a fault."""

    def of(self, fault: Fault) -> dict[str, Any] | None:
        """The result of a fault that has been planted."""
        key = {**fault._asdict(), "text": line_of(fault)}
        return next((result for result in self.results if key.items() <= result.items()), None)

    def set(self, fault: Fault, result: str, by: str, seconds: float) -> dict[str, Any]:
        """Keeps a result."""
        if old := self.of(fault):
            self.results.remove(old)
        new = {**fault._asdict(), "text": line_of(fault), "result": result, "by": by, "seconds": round(seconds, 1)}
        self.results.append(new)
        self.save()
        return new

    def save(self) -> None:
        """Writes the file whole."""
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps({"results": self.results, "broken": self.broken}, indent=1))
        part.replace(self.path)


def run(record: Record, args: argparse.Namespace, *, again: bool) -> list[dict[str, Any]]:
    """The results of --count faults. Plants those without a result, with `again` those that survived, too."""
    results: list[dict[str, Any]] = []
    in_vain = 0  # rooms that had no other fault, one after another
    for room in drawn(args.seed, args.files):
        in_vain += 1
        for fault in room:
            known = record.of(fault)
            if reason := reason_of_none(fault):
                result = {**fault._asdict(), "text": line_of(fault), "result": "equivalent", "by": reason, "seconds": 0}
            elif known and not (again and known["result"] == "survived"):
                result = known
            else:
                begin = time.monotonic()
                verdict, by = plant(fault, record.broken, args.seconds)
                result = record.set(fault, verdict, by, time.monotonic() - begin)
                print(f"{len(results) + 1:3} {described(result)}", flush=True)
            if result["result"] != "not built":
                results.append(result)
                in_vain = 0
                break
        if len(results) >= args.count or in_vain > 100:
            return results
    return results


def described(result: dict[str, Any]) -> str:
    """A row of the table."""
    text = f"{result['file']}:{result['line']}  {result['kind']}: {result['old']} -> {result['new'] or 'nothing'}"
    if "result" in result:
        text += f"  {result['result']}{' by ' if result['result'] == 'killed' else ': '}{result['by']}"
    return " ".join(text.split())


def tests_that_fail_anyway(record: Record, results: list[dict[str, Any]]) -> list[str]:
    """Of those that found a fault. They prove nothing."""
    tests = sorted({result["by"] for result in results if result["result"] == "killed"} - set(record.broken))
    output = run_tests([test for test in tests if test.startswith("tests/")], float("inf")).stdout
    return re.findall(r"^(?:FAILED|ERROR) (tests/.*?)(?: - .*)?$", output, re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=120, help="how many faults")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other faults")
    parser.add_argument("--files", default="*", help="only of files like this: 'csrc/kernels/*'")
    parser.add_argument("--seconds", type=float, default=40, help="of the processor, for the tests of a fault")
    parser.add_argument("--plan", action="store_true", help="plant nothing, print what would be planted")
    parser.add_argument("--survivors", action="store_true", help="plant again what survived")
    args = parser.parse_args()
    if args.plan:
        for room, _ in zip(drawn(args.seed, args.files), range(args.count), strict=False):
            fault = next(room)
            print(
                f"{fault.file}:{fault.line}  {fault.kind}: {fault.old} -> {fault.new or 'nothing'}    {line_of(fault)}"
            )
        return
    signal.signal(signal.SIGTERM, _stop)
    WORK.mkdir(parents=True, exist_ok=True)
    record = Record(WORK / f"results-{args.seed}.json")
    prepare()
    results = run(record, args, again=args.survivors)
    while failing := tests_that_fail_anyway(record, results):
        print("\nWithout a fault these fail, too, and are left out:", *failing, sep="\n  ")
        record.broken += failing
        record.results = [result for result in record.results if result["by"] not in failing]
        results = run(record, args, again=False)
    _print_table(results)
    sys.exit(any(result["result"] == "survived" for result in results))


def _stop(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the fault must be taken away
    sys.exit("stopped")


def _print_table(results: list[dict[str, Any]]) -> None:
    for result in sorted(results, key=lambda result: (result["result"], result["file"], result["line"])):
        print(described(result))
    counts = Counter(result["result"] for result in results)
    rows = [("C++", ".cpp .h"), ("Python", ".py")]
    print(f"\n{'':8}{'planted':>10}{'killed':>10}{'survived':>10}{'equivalent':>12}")
    for name, suffixes in [*rows, ("all", ".cpp .h .py")]:
        of = Counter(result["result"] for result in results if Path(result["file"]).suffix in suffixes.split())
        print(f"{name:8}{of.total():10}{of['killed']:10}{of['survived']:10}{of['equivalent']:12}")
    assert counts.total() == len(results)


if __name__ == "__main__":
    main()
