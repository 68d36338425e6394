"""Fuzzing: a valid small folder in which one file is replaced, and what reads it. `helpers_fuzz_targets` lists them.

>>> attempt(TARGETS["config bert"], folder, b'{"model_type": "bert", "hidden_size": -1}')
False

A reader may refuse a file with a ValueError or an OSError that names it. Whatever else it raises is a fault.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import random
import re
import resource
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers_mutations import Mutation

CORPUS = Path(__file__).parent / "data" / "fuzz"
MEMORY = 512 << 20
"""Bytes that a file of some kilobytes may make a reader take."""


@dataclass(frozen=True)
class Target:
    """A file that is changed.

    Attributes:
        write: makes a valid folder.
        name: the file in it.
        read: reads the folder. It may raise ValueError and OSError.
        mutate: changes the file's bytes.
        use: computes with what was read. It may raise ValueError, and OSError for another file of the folder.
        needs: the libraries without which the target cannot be read.
    """

    write: Callable[[Path], object]
    name: str
    read: Callable[[Path], Any]
    mutate: Mutation
    use: Callable[[Any], object] = id
    needs: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """The libraries that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


class FoundError(Exception):
    """A reader did what no file may make it do."""


def attempt(target: Target, folder: Path, data: bytes) -> bool:
    """Whether the folder with these bytes is read. Raises FoundError for any other end than a refusal by name."""
    path = folder / target.name
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = target.read(folder)
        except (ValueError, OSError) as error:
            if str(folder) not in str(error):
                raise FoundError(f"{path}: the message does not name the file: {error}") from error
            return False
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of a library in Rust is no Exception
            raise FoundError(f"{path}: {type(error).__name__}: {error}") from error
        try:
            target.use(found)
        except (ValueError, FileNotFoundError):
            return True
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise FoundError(f"{path}: in use: {type(error).__name__}: {error}") from error
    return True


def corpus_file(name: str) -> Path:
    """Where the inputs of a target are kept, one a line, in base64."""
    return CORPUS / (re.sub(r"\W+", "_", name) + ".txt")


def corpus(name: str) -> list[bytes]:
    """The inputs that fuzzing kept for a target: those that it found, and those that reach the most lines."""
    path = corpus_file(name)
    return [base64.b64decode(line) for line in path.read_text().split()] if path.is_file() else []


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """No more than `MEMORY` bytes beside what the process has; an allocation above is a MemoryError. On Linux."""
    if sys.platform != "linux":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def mutations(target: Target, seeds: list[bytes], count: int, seed: int = 0) -> Iterator[bytes]:
    """As many changed files, the same ones each time."""
    rng = random.Random(seed)
    for _ in range(count):
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 1, 2))):
            data = target.mutate(data, rng)
        yield data
