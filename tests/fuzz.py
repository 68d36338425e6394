"""Fuzzing with atheris: files that a stranger may have made, changed until something breaks.

    python tests/fuzz.py --all --seconds 120            # all targets, 120 seconds together
    python tests/fuzz.py "config bert" --seconds 600    # one, or some
    python tests/fuzz.py --all --seconds 3600 --keep    # and keep the inputs that reach new lines in tests/data/fuzz
    python tests/fuzz.py --list

`make fuzz` installs atheris and runs the first. Each target has a process of its own, so much memory as
`helpers_fuzz.MEMORY` says, and ten seconds of processor time for an input. What is found is printed, saved in the
folder of `--findings`, and makes the exit status 1. tests/test_fuzz.py repeats what is in tests/data/fuzz, without
atheris.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import random
import re
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent
TIMEOUT = 10
"""Seconds of processor time for an input; libFuzzer ends a process that needs thirty times as many by the clock."""
KEPT = 2400
"""The most bytes of inputs that are kept for a target."""

sys.path.insert(0, str(HERE))


def run(name: str, seconds: int, findings: Path, folder: Path) -> None:
    """Fuzz one target in this process, which atheris ends."""
    import atheris
    import helpers_fuzz
    from helpers_fuzz_targets import TARGETS

    target, met = TARGETS[name], set()
    model, seeds, reached = (folder / each for each in ("model", "seeds", "reached"))
    for each in (model, seeds, reached):
        each.mkdir()
    target.write(model)
    for i, data in enumerate([(model / target.name).read_bytes(), *helpers_fuzz.corpus(name)]):
        (seeds / str(i)).write_bytes(data)

    def test(data: bytes) -> None:
        start = time.process_time()
        try:
            helpers_fuzz.attempt(target, model, data)
            if (seconds := time.process_time() - start) > TIMEOUT:
                raise helpers_fuzz.FoundError(f"took {seconds:.0f} seconds")
        except helpers_fuzz.FoundError as error:
            cause = error.__cause__ or error
            frames = traceback.extract_tb(cause.__traceback__)
            place = [frame for frame in frames if "/fastattn/" in frame.filename] or frames
            key = type(cause).__name__, place[-1].filename, place[-1].lineno
            if key not in met:
                met.add(key)
                path = findings / f"{_plain(name)}-{hashlib.sha1(data).hexdigest()[:12]}"
                path.write_bytes(data)
                text = f"{name}: {error}\n\n{''.join(traceback.format_exception(cause))}"
                path.with_suffix(".txt").write_text(text, "utf-8", "backslashreplace")
                print(f"FOUND {name}: {path}: {error}"[:1000].encode("ascii", "backslashreplace").decode(), flush=True)

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        changed = atheris.Mutate(data, size) if rng.random() < 0.2 else target.mutate(data, rng)
        return changed[:size]

    options = [f"-max_total_time={seconds}", f"-timeout={30 * TIMEOUT}", "-rss_limit_mb=0", "-max_len=100000"]
    options += ["-print_final_stats=1", f"-artifact_prefix={findings}/{_plain(name)}-"]
    atheris.Setup([sys.argv[0], *options, str(reached), str(seeds)], test, custom_mutator=mutate)
    with helpers_fuzz.limited_memory():
        helpers_fuzz.attempt(target, model, (seeds / "0").read_bytes())  # imports what it needs
        atheris.Fuzz()


def fuzz(name: str, seconds: int, findings: Path, keep: bool) -> tuple[int, int]:
    """Fuzz a target in a child of this process. Returns the executions and the findings."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="fuzz", dir=memory if memory.is_dir() else None) as folder:
        log = Path(folder, "log")
        child = os.fork()
        if child == 0:
            output = os.open(log, os.O_WRONLY | os.O_CREAT)
            os.dup2(output, 1)
            os.dup2(output, 2)
            try:
                run(name, seconds, findings, Path(folder))
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        status = os.waitpid(child, 0)[1]
        text = log.read_text(errors="replace")
        lines = [line for line in text.splitlines() if line.startswith("FOUND ")]
        if status:
            lines.append(f"FOUND {name}: the process ended with {os.waitstatus_to_exitcode(status)}\n{text[-3000:]}")
        print("\n".join(lines), end="\n" * bool(lines), flush=True)
        if keep:
            _keep(name, Path(folder, "reached"))
    count = re.search(r"number_of_executed_units: (\d+)", text)
    return int(count[1]) if count else 0, len(lines)


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name)


def _keep(name: str, reached: Path) -> None:
    """Add the smallest inputs that reached new lines to those that are kept."""
    import helpers_fuzz

    kept = helpers_fuzz.corpus(name)
    room = KEPT - sum(map(len, kept))
    for data in sorted((path.read_bytes() for path in reached.iterdir()), key=lambda data: (len(data), data)):
        if data not in kept and len(data) <= room:
            kept.append(data)
            room -= len(data)
    if kept:
        path = helpers_fuzz.corpus_file(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{base64.b64encode(data).decode()}\n" for data in kept))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="which to fuzz")
    parser.add_argument("--all", action="store_true", help="fuzz all")
    parser.add_argument("--list", action="store_true", help="list them")
    parser.add_argument("--seconds", type=int, default=60, help="how long, all targets together (default: 60)")
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"), help="where findings go (build/fuzz)")
    parser.add_argument("--keep", action="store_true", help="keep inputs that reach new lines in tests/data/fuzz")
    options = parser.parse_args()
    if options.list:
        from helpers_fuzz_targets import TARGETS

        print("\n".join(TARGETS))
        return 0
    import atheris

    with atheris.instrument_imports(include=["fastattn"], exclude=["fastattn._core"]):
        from helpers_fuzz_targets import TARGETS

        import fastattn
    fastattn.set_num_threads(1)
    names = [*TARGETS] if options.all else options.targets
    if not names or not {*names} <= {*TARGETS}:
        parser.error(f"give some of the targets that --list shows, or --all, got {names}")
    if missing := sorted({library for name in names for library in TARGETS[name].missing}):
        parser.error(f"missing libraries: {', '.join(missing)}")
    findings = options.findings.resolve()
    findings.mkdir(parents=True, exist_ok=True)
    executions = found = 0
    for i, name in enumerate(names):  # the whole seconds are shared evenly
        seconds = (i + 1) * options.seconds // len(names) - i * options.seconds // len(names)
        count, faults = fuzz(name, max(1, seconds), findings, options.keep)
        executions, found = executions + count, found + faults
        print(f"{name:40} {count:>9,} executions {faults:>3} findings", flush=True)
    print(f"{len(names)} targets, {executions:,} executions, {found} findings")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
