"""Runs that are killed: `python tests/kills.py` prints, for every kind of run, how many kills fell where.

Each run of `fastattn train` is a process that ends with SIGKILL, at a random time or just before one of the things that
it does to a file. After each kill, no file is there in part under its final name, all states can be read, and a model
that was there before can be loaded. Then the run is resumed, until it ends: with the files, the log, the scores and the
states of a run that nobody killed, bit for bit. Every other run goes on in the folder of a finished one with an epoch
less.

`python tests/kills.py --full-disk` fills the disk instead, once for each file. The run must end with a line that names
the file.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import os
import random
import re
import resource
import selectors
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers_cases import CASES, Case
from helpers_runs import log_of

from fastattn import tasks
from fastattn.cli import FAILED, main
from fastattn.training.run_folder import LOG
from fastattn.training.run_lock import LOCK
from fastattn.training.run_state import STATES, read_state, saved_states

TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp")
EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
PLACES = (
    "before the first state",
    "in a write of a state",
    "in a write of another file",
    "between writes",
    "between the model's files",
)


class Watch:
    """An audit hook that sees what a process does to the files of a folder, and acts once: just before the event with
    the number `at`, or before the first one of the kind `at`, the second one for states."""

    def __init__(self, folder: Path, at: int | str | None, act: Callable[[], None]) -> None:
        self.kinds: list[str] = []
        self._folder, self._at, self._act = f"{folder}{os.sep}", at, act

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS or not isinstance(arguments[0], str | os.PathLike):
            return
        path = os.fspath(arguments[0])
        if str(path).startswith(self._folder) and (event != "open" or arguments[2] & WRITES):
            kind = f"{event} {_final(Path(path).name)}"
            if self._is_due(kind):
                self._act()
            self.kinds.append(kind)

    def _is_due(self, kind: str) -> bool:
        if isinstance(self._at, int):
            return self._at == len(self.kinds)
        return self._at == kind and self.kinds.count(kind) == int("step" in kind)


def _final(name: str) -> str:
    """The name that a temporary file will have, the same for all states."""
    match = TEMPORARY.fullmatch(name)
    return re.sub(r"step-\d+", "step", match[1] if match else name)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill() -> None:
    """From now on the kernel takes no byte more for any file, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@dataclass(frozen=True)
class Ended:
    """A process that has ended: its exit status, negative for a signal, and what it wrote."""

    status: int
    output: str
    errors: str
    seconds: float


def fork(work: Callable[[], int], after: float | None = None) -> Ended:
    """Do `work` in a child, and kill it `after` so many seconds."""
    pipes = [os.pipe(), os.pipe()]
    sys.stdout.flush()
    start = time.monotonic()
    if not (child := os.fork()):
        _work(work, [end for _, end in pipes])
    for _, end in pipes:
        os.close(end)
    texts = {reader: b"" for reader, _ in pipes}
    with selectors.DefaultSelector() as selector:
        for reader in texts:
            selector.register(reader, selectors.EVENT_READ)
        while selector.get_map():
            left = None if after is None else start + after - time.monotonic()
            if left is not None and left <= 0:
                os.kill(child, signal.SIGKILL)  # nobody has waited for it, so the number is its own
                left = after = None
            for key, _ in selector.select(left):
                data = os.read(key.fd, 65536)
                texts[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    output, errors = (text.decode() for text in texts.values())
    return Ended(status, output, errors, time.monotonic() - start)


def _work(work: Callable[[], int], ends: Sequence[int]) -> None:
    status = 99
    try:
        for number, end in enumerate(ends, start=1):
            os.dup2(end, number)
        status = work()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder beside the states, the log and the lock, by name."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != STATES]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.name not in (LOG, LOCK)}
    return {name: data for name, data in found.items() if not TEMPORARY.fullmatch(Path(name).name)}


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def begun(folder: Path) -> list[str]:
    """The final names of the files that a process has begun to write."""
    return [_final(path.name) for path in folder.rglob("*") if TEMPORARY.fullmatch(path.name)]


class Reference:
    """A run that nobody killed. It begins in the folder of the run `before`, if there is one.

    Attributes:
        kinds: what it did to files, one after the other.
        seconds: how long it took.
    """

    def __init__(self, task: str, command: list[str], folder: Path, before: Reference | None = None) -> None:
        self.task: Any = getattr(tasks, tasks.TASKS[task][0])
        self.command, self.folder, self.before = command, folder, before
        ended = self.run(self.begin(folder))
        assert ended.status == 0, ended
        self.seconds, self.output = ended.seconds, ended.output.replace(str(folder), "")
        self.kinds = folder.with_suffix(".kinds").read_text(encoding="utf-8").splitlines()
        self.final, self.first = contents(folder), {} if before is None else contents(before.folder)

    def begin(self, folder: Path) -> Path:
        """Make a folder what it is before the run."""
        shutil.rmtree(folder, ignore_errors=True)
        if self.before is not None:
            shutil.copytree(self.before.folder, folder)
        return folder

    def run(
        self, folder: Path, at: int | str | None = None, act: Callable[[], None] = kill, after: float | None = None
    ) -> Ended:
        """The run in a folder, or its rest, which `act` ends `at` an event or a kill `after` a time."""

        def work() -> int:
            watch = Watch(folder, at, act)
            sys.addaudithook(watch)
            status = main([*self.command, "--output", str(folder), "--threads", "1"])
            if at is None:
                folder.with_suffix(".kinds").write_text("\n".join(watch.kinds), encoding="utf-8")
            return status

        return fork(work, after)

    def check_usable(self, folder: Path) -> None:
        """A process that ended has left nothing in part."""
        states = saved_states(folder / STATES)
        for name, data in contents(folder).items():
            assert data in (self.first.get(name), self.final.get(name)), f"{name} is neither as before nor as after"
        for path in (folder / STATES).iterdir() if states else ():
            assert path in [file for _, file in states] or TEMPORARY.fullmatch(path.name), path
        values = [read_state(path)[1] for _, path in states]
        assert not states or (folder / LOG).stat().st_size >= values[0]["log_size"]
        if self.before is not None:
            ended = fork(lambda: self.task.from_pretrained(folder) is None)
            assert ended.status == 0, ended

    def check_end(self, folder: Path, ended: Ended) -> None:
        """A run that was resumed to its end has left what this one has."""
        assert ended.status == 0, ended
        assert ended.output.replace(str(folder), "") == self.output
        assert names(folder) == names(self.folder), {*names(folder)} ^ {*names(self.folder)}
        assert contents(folder) == self.final
        assert log_of(folder) == log_of(self.folder)
        for _, path in saved_states(folder / STATES):
            (ours, values), (theirs, others) = read_state(path), read_state(self.folder / STATES / path.name)
            values["log_size"] = others["log_size"]  # the log has times
            assert values == others
            assert {key: x.tobytes() for key, x in ours.items()} == {key: x.tobytes() for key, x in theirs.items()}

    def place(self, folder: Path) -> str:
        """Where a kill fell, one of `PLACES`."""
        written, states = begun(folder), saved_states(folder / STATES)
        if written or not states:
            return PLACES[0 if not written else 1 if written[0].startswith("step") else 2]
        ended = states[0][0] == saved_states(self.folder / STATES)[0][0]
        return PLACES[4 if ended and contents(folder) != self.final else 3]


def references(case: Case, work: Path) -> list[Reference]:
    """A new run, and one that goes on in the folder of a finished one."""

    def make(name: str, epochs: int, *before: Reference) -> Reference:
        return Reference(case.task, [*command, "--epochs", str(epochs)], work / name, *before)

    command = [*case.command(work), "--resume"]
    return [make("new", case.epochs), make("longer", case.epochs, make("short", case.epochs - 1))]


def kill_runs(runs: list[Reference], kills: int, rng: random.Random, folder: Path) -> collections.Counter[str]:
    """Kill runs so many times, each again and again until it ends, and return how many kills fell where."""
    places: collections.Counter[str] = collections.Counter()
    for reference in itertools.cycle(runs):
        reference.begin(folder)
        while True:
            if places.total() == kills:
                ended = reference.run(folder)
            elif rng.random() < 0.5:
                ended = reference.run(folder, after=rng.uniform(0, reference.seconds))
            else:
                ended = reference.run(folder, at=rng.randrange(len(reference.kinds)))
            if ended.status != -signal.SIGKILL:
                break
            places[reference.place(folder)] += 1
            reference.check_usable(folder)
        reference.check_end(folder, ended)
        if places.total() == kills:
            return places
    raise AssertionError


def fill_disks(runs: list[Reference], folder: Path) -> collections.Counter[str]:
    """Fill the disk once before each kind of file that a run writes, and return how often, by the file."""
    filled: collections.Counter[str] = collections.Counter()
    for reference in runs:
        reference.begin(folder)
        for kind in dict.fromkeys(reference.kinds):
            event, name = kind.split()
            if event != "open" and kind != "os.rename step.safetensors":  # after which a line of the log is written
                continue
            ended = reference.run(folder, at=kind, act=fill)
            told = ended.errors.rpartition("error: ")[2].strip()
            assert ended.status == FAILED, (kind, ended)
            assert re.fullmatch(f"{folder}/.*: .*(File too large|No space left on device).*", told), (kind, ended)
            assert ".tmp" not in told, (kind, ended)
            assert "Traceback" not in ended.errors, (kind, ended)
            assert not begun(folder), (kind, names(folder))
            reference.check_usable(folder)
            filled[name] += 1
        reference.check_end(folder, reference.run(folder))
    return filled


def try_case(name: str, kills: int, full_disk: bool, seed: int) -> tuple[collections.Counter[str], str]:
    """What fell where in the runs of a case, and an empty text or what went wrong."""
    shared = Path("/dev/shm")  # where nothing is flushed to a disk
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as work:
        found: collections.Counter[str] = collections.Counter()
        try:
            runs = references(CASES[name], Path(work))
            if full_disk:
                found = fill_disks(runs, Path(work, "out"))
            else:
                found = kill_runs(runs, kills, random.Random(f"{name} {seed}"), Path(work, "out"))
        except Exception:
            return found, traceback.format_exc()
    return found, ""


def try_cases(chosen: Sequence[str], kills: int, full_disk: bool, seed: int) -> int:
    """Print a line for each case; the number of cases that failed."""
    total: collections.Counter[str] = collections.Counter()
    failed = 0
    for number, name in enumerate(chosen):
        share = kills // len(chosen) + (number < kills % len(chosen))
        found, text = try_case(name, share, full_disk, seed)
        total += found
        failed += bool(text)
        print(f"{name} {'FAILS' if text else 'passes'}: {_told(found)}{text and chr(10)}{text}", flush=True)
    print(f"{len(chosen)} kinds of runs, of which {failed} failed: {_told(total)}")
    return failed


def _told(places: collections.Counter[str]) -> str:
    """How many fell where."""
    return f"{places.total()}, of which " + ", ".join(f"{count} {place}" for place, count in places.most_common())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="over all kinds of runs (default: %(default)s)")
    parser.add_argument("--full-disk", action="store_true", help="fill the disk instead of killing")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("cases", nargs="*", default=[*CASES], help="kinds of runs (default: all)")
    options = parser.parse_args()
    sys.exit(try_cases(options.cases, options.kills, options.full_disk, options.seed) > 0)
