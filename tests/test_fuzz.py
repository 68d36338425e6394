"""Files that a stranger may have made are read or refused by name: what fuzzing kept, and changes of good files.

`tests/fuzz.py` looks for more. A failure names the file that was changed, which pytest keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import helpers_fuzz
import pytest
from helpers import no_hang
from helpers_fuzz import CORPUS, FoundError, Target, attempt, corpus, corpus_file, limited_memory, mutations
from helpers_fuzz_targets import TARGETS
from helpers_mutations import as_json

COUNT = 60
"""Changes of each file."""


@pytest.mark.parametrize("name", TARGETS)
def test_changed_files(tmp_path: Path, name: str) -> None:
    target = TARGETS[name]
    for library in target.needs:
        pytest.importorskip(library)
    folder = tmp_path / "model"
    folder.mkdir()
    target.write(folder)
    valid = (folder / target.name).read_bytes()
    assert attempt(target, folder, valid), "a good file is refused"
    with no_hang(), limited_memory():
        for data in (*corpus(name), *mutations(target, [valid, *corpus(name)], COUNT)):
            attempt(target, folder, data)


def test_the_corpus_is_of_the_targets_and_small() -> None:
    found = [*CORPUS.iterdir()]
    assert {*found} <= {corpus_file(name) for name in TARGETS}
    assert sum(path.stat().st_size for path in found) < 300_000


def _raising(error: BaseException) -> Callable[[Path], Any]:
    def read(folder: Path) -> None:
        raise error

    return read


@pytest.mark.parametrize(
    "error", [KeyError("a"), RecursionError(), MemoryError(), AssertionError(), ValueError("no name")]
)
def test_what_is_a_fault(tmp_path: Path, error: Exception) -> None:
    target = Target(id, "config.json", _raising(error), as_json)
    with pytest.raises(FoundError, match=str(tmp_path / "config.json")):
        attempt(target, tmp_path, b"{}")


def test_a_refusal_by_name_is_none(tmp_path: Path) -> None:
    for error in (ValueError(f"{tmp_path}/config.json: wrong"), FileNotFoundError(2, "missing", f"{tmp_path}/x")):
        assert not attempt(Target(id, "config.json", _raising(error), as_json), tmp_path, b"{}")
    assert attempt(Target(id, "config.json", id, as_json), tmp_path, b"{}")


def test_the_same_seed_gives_the_same_changes() -> None:
    target = Target(id, "config.json", id, as_json)
    first, second = ([*mutations(target, [b'{"hidden_size": 32}'], 50)] for _ in range(2))
    assert first == second
    assert len({*first}) > 25


def test_memory_is_limited() -> None:
    with limited_memory(), pytest.raises(MemoryError):
        bytes(2 * helpers_fuzz.MEMORY)
