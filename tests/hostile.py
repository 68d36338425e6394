"""What hostile folders cost: each is loaded in a process of its own, and its refusal, time and memory are shown.

    python tests/hostile.py            # the table
    python tests/hostile.py --json     # for tests/test_hostile.py

The memory is the most that the process had, above what it had before. Time is the processor's.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import helpers_hostile
import helpers_hostile_files
import helpers_hostile_foreign
from helpers_hostile import Folder

import fastattn

FOLDERS: dict[str, Folder] = {
    **dict(helpers_hostile.folders()),
    **dict(helpers_hostile_files.folders()),
    **dict(helpers_hostile_foreign.folders()),
}
SECONDS, MEMORY = 0.1, 50 << 20


def measured(folder: Folder, path: Path) -> dict[str, Any]:
    """The error of a load, in a child of this process; its seconds, and bytes above the level before."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with os.fdopen(write, "w") as output:
            json.dump(_loaded(folder, path), output)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    status = os.waitpid(child, 0)[1]
    return json.loads(text) if text else _ended(status)


def _ended(status: int) -> dict[str, Any]:
    return {"refused": False, "kind": f"ended with {status}", "message": "", "seconds": 0.0, "bytes": 0}


def _loaded(folder: Folder, path: Path) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    before = resource.getrusage(resource.RUSAGE_SELF)
    refused, kind, message = False, "read", ""
    try:
        folder.load(path)
    except BaseException as error:  # a panic of a library in Rust is no Exception
        refused, kind, message = isinstance(error, ValueError | OSError), type(error).__name__, str(error)
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    unit = 1 if sys.platform == "darwin" else 1024
    size = (after.ru_maxrss - before.ru_maxrss) * unit
    return {"refused": refused, "kind": kind, "message": message, "seconds": seconds, "bytes": size}


def measure(root: Path) -> dict[str, dict[str, Any]]:
    """All folders by name."""
    fastattn.set_num_threads(1)
    found = {}
    warm = {folder.load: folder for folder in FOLDERS.values()}
    for i, folder in enumerate([*warm.values(), *FOLDERS.values()]):
        path = root / f"folder{i}"
        path.mkdir()
        folder.make(path)
        if i < len(warm):
            _loaded(folder, path)  # imports what it needs
        else:
            name = [*FOLDERS][i - len(warm)]
            found[name] = measured(folder, path) | {"folder": str(path)}
    return found


def main() -> int:
    """Print the table, or JSON."""
    with tempfile.TemporaryDirectory() as root:
        found = measure(Path(root))
    if sys.argv[1:] == ["--json"]:
        json.dump(found, sys.stdout)
        return 0
    wrong = 0
    for name, result in found.items():
        message = result["message"].replace(f"{result['folder']}/", "")
        over = result["seconds"] > SECONDS or result["bytes"] > MEMORY
        wrong += over or not result["refused"]
        told = f"{result['kind']}: {message}".encode("ascii", "backslashreplace").decode().replace("\n", " ")
        print(
            f"{name[:60]:60} {result['seconds']:6.3f} s {result['bytes'] / 2**20:6.1f} MB {'!' * over:1} {told[:120]}"
        )
    print(f"{len(found)} folders, {wrong} not refused within {SECONDS} s and {MEMORY >> 20} MB")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
