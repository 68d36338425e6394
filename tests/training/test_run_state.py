"""Saved states: whole or not at all, whatever happens to the disk."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fastattn.training import run_state
from fastattn.training.configuration import differences
from fastattn.training.run_state import read_state, remove_old_states, saved_states, write_state

TENSORS = {
    "model.a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "model.scalar": np.array(2.5, np.float32),
    "model.empty": np.zeros((0, 3), np.float32),
    "model.view": np.arange(12, dtype=np.float32).reshape(3, 4)[:, 1:3],
}
VALUES = {"step": 7, "rate": 0.1, "name": 'a "b" é', "list": [1, None, {"x": True}]}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(tmp_path: Path) -> None:
    path = write_state(tmp_path / "new" / "states", 7, TENSORS, VALUES)
    assert path.name == "step-00000007.safetensors"
    tensors, values = read_state(path)
    assert values == VALUES
    assert list(tensors) == list(TENSORS) or set(tensors) == set(TENSORS)
    for name, expected in TENSORS.items():
        np.testing.assert_array_equal(tensors[name], expected)
        assert tensors[name].shape == expected.shape


def test_it_is_a_safetensors_file(tmp_path: Path) -> None:
    path = write_state(tmp_path, 1, TENSORS, VALUES)
    np.testing.assert_array_equal(load_file(path)["model.view"], TENSORS["model.view"])
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    path = write_state(tmp_path, 1, TENSORS, VALUES)
    data = path.read_bytes()
    for size in {0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 4, len(data) - 1}:
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"step-00000001\.safetensors: damaged, or cut short"):
            read_state(path)


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = write_state(tmp_path, 1, TENSORS, VALUES)
    data = path.read_bytes()
    text = int.from_bytes(data[:8], "little") + 8
    places = [
        *range(text, len(data), 7),
        len(data) - 1,
        data.index(b"0.1"),
        data.index(b"model.a"),
        data.index(b"crc32"),
    ]
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(ValueError, match=r"step-00000001\.safetensors: damaged"):
            read_state(path)


def test_a_folder_in_the_place_of_a_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "step-00000001.safetensors").mkdir()
    with pytest.raises(IsADirectoryError, match=r"step-00000001\.safetensors"):
        read_state(tmp_path / "step-00000001.safetensors")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2, -1], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2**70, 0], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
        {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": ["a", 2**40], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [[1], 2**40], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [1] * 32 + [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0]},
        {"dtype": "F32", "shape": [2]},
        [],
    ],
)
def test_a_header_that_lies(tmp_path: Path, entry: Any) -> None:
    path = tmp_path / "step-00000001.safetensors"
    header = json.dumps({"a": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    with pytest.raises(ValueError, match=r"step-00000001\.safetensors: damaged, or cut short"):
        read_state(path)


READ = """
import sys
import time
from pathlib import Path
from fastattn.training.run_state import read_state
read = cut = 0
while read < 50 or cut < 50:
    try:
        read_state(Path(sys.argv[1]))
        read += 1
    except ValueError:
        cut += 1
"""


def test_a_state_that_is_rewritten_meanwhile_kills_nobody(tmp_path: Path) -> None:
    path = write_state(tmp_path, 1, {"model.a": np.zeros(2_000_000, np.float32)}, VALUES)
    data = path.read_bytes()
    with subprocess.Popen([sys.executable, "-c", READ, str(path)], stderr=subprocess.PIPE) as reader:
        while reader.poll() is None:
            path.write_bytes(data)
            time.sleep(0.005)  # the reader is somewhere within
            os.truncate(path, 1000)
        assert reader.stderr is not None
        assert (reader.returncode, reader.stderr.read()) == (0, b"")


def test_numpy_numbers_become_pythons(tmp_path: Path) -> None:
    path = write_state(tmp_path, 1, {}, {"lr": np.float32(0.5), "step": np.int64(3)})
    assert read_state(path)[1] == {"lr": 0.5, "step": 3}
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        write_state(tmp_path, 1, {}, {"lr": object()})


def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "step-00000001.safetensors"
    save_file({"a": np.zeros(3, np.float32)}, path)
    with pytest.raises(ValueError, match="not a saved state of a run"):
        read_state(path)
    save_file({"a": np.zeros(3, np.float32)}, path, {"fastattn_run": "{"})
    with pytest.raises(ValueError, match=r"step-00000001\.safetensors: damaged"):
        read_state(path)
    with pytest.raises(FileNotFoundError):
        read_state(tmp_path / "missing")


@pytest.mark.parametrize(
    "values", ["[" * 100_000, "9" * 5000, "{", "\ud800", "[]"], ids=["deep", "digits", "cut", "half", "list"]
)
def test_values_that_are_none_are_named(tmp_path: Path, values: str) -> None:
    """Behind a checksum that is right."""
    path = tmp_path / "step-00000001.safetensors"
    crc = zlib.crc32(values.encode("utf-8", "surrogatepass"))
    header = json.dumps({"__metadata__": {"fastattn_run": values, "crc32": f"{crc:08x}"}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match=f"^{path}: (damaged|not a saved state of a run)"):
        read_state(path)


def test_a_name_that_is_no_unicode(tmp_path: Path) -> None:
    path = tmp_path / "step-00000001.safetensors"
    header = json.dumps({"\ud800": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match=f"^{path}: damaged"):
        read_state(path)


def test_only_float32_and_finite_values_are_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a must be float32, got float64"):
        write_state(tmp_path, 1, {"a": np.zeros(3)}, {})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="JSON"):
        write_state(tmp_path, 1, TENSORS, {"a": float("nan")})
    assert names(tmp_path) == []


def test_states_are_found_newest_first(tmp_path: Path) -> None:
    for step in (5, 100, 123456789, 20):
        write_state(tmp_path, step, {}, {})
    (tmp_path / ".step-00000200.safetensors.0123456789abcdef.tmp").touch()
    (tmp_path / "step-1.safetensors").touch()
    (tmp_path / "notes.txt").touch()
    assert [step for step, _ in saved_states(tmp_path)] == [123456789, 100, 20, 5]
    assert saved_states(tmp_path / "missing") == []


def test_old_states_are_removed_but_for_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5, 9):
        write_state(tmp_path, step, {}, {})
    (tmp_path / ".step-00000200.safetensors.0123456789abcdef.tmp").touch()
    remove_old_states(tmp_path, 5, keep=2, needed=[1])
    assert [step for step, _ in saved_states(tmp_path)] == [9, 5, 4, 1]  # 9 is of another run, or damaged
    assert not (tmp_path / ".step-00000200.safetensors.0123456789abcdef.tmp").exists()


class FullDisk:
    """Lets so many calls that bring something to the disk succeed; a write takes half of what it is given."""

    def __init__(self, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = room
        self.calls: list[str] = []
        monkeypatch.setattr(run_state, "open", lambda *a, **o: FullDiskFile(self, *a, **o), raising=False)
        for name in ("fsync", "replace"):
            monkeypatch.setattr(run_state.os, name, self.limited(name, getattr(os, name)))

    def limited(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.count(name)
            return function(*arguments)

        return call

    def count(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullDiskFile(io.FileIO):
    def __init__(self, disk: FullDisk, path: Path, mode: str, buffering: int) -> None:
        assert buffering == 0
        self.disk = disk
        disk.count("open")
        super().__init__(path, mode)

    def write(self, data: Any) -> int:
        self.disk.count("write")
        return super().write(data[: max(1, len(data) // 2)])


def test_a_full_disk_at_every_moment(tmp_path: Path) -> None:
    first = write_state(tmp_path, 1, TENSORS, VALUES)
    before = first.read_bytes()
    second = tmp_path / "step-00000002.safetensors"
    message = "No space left on device; the state of step 2 was not saved, earlier ones are as they were"
    room = 0
    while not second.exists():
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk = FullDisk(room, monkeypatch)
            with pytest.raises(OSError, match=re.escape(message)) as caught:
                write_state(tmp_path, 2, TENSORS, VALUES)
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(second))
        assert first.read_bytes() == before
        assert names(tmp_path)[0] == first.name
        assert len(names(tmp_path)) == 1 + second.exists()
        room += 1
    # All that was left to do is to flush the folder.
    assert disk.calls[-3:] == ["fsync", "replace", "fsync"]
    assert disk.calls.count("write") > 10
    assert read_state(second)[1] == VALUES


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """The kernel itself refuses, as it does on a full disk: a part of a write first, then an error."""
    write_state(tmp_path, 1, TENSORS, VALUES)
    large = {"a": np.zeros(100_000, np.float32)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large; the state of step 2 was not saved"):
            write_state(tmp_path, 2, large, VALUES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == ["step-00000001.safetensors"]
    write_state(tmp_path, 2, large, VALUES)
    assert len(saved_states(tmp_path)) == 2


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="the state of step 3 was not saved"):
        write_state(tmp_path / "file" / "states", 3, TENSORS, VALUES)


def test_differences() -> None:
    there = {"a": 1, "b": {"c": [1, 2], "d": None}, "e": "x"}
    assert list(differences(there, json.loads(json.dumps(there)))) == []
    assert list(differences(there, {"a": 2, "b": {"c": [1, 3], "f": 0}})) == [
        "a is 1 there, 2 here",
        "b.c is [1, 2] there, [1, 3] here",
        "b.f is null there, 0 here",
        'e is "x" there, null here',
    ]
