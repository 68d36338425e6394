"""Saved states of a run. Each is one file, and is there whole or not at all.

A state is a safetensors file, `step-00000120.safetensors`. Its tensors are the weights, the optimizer's state and what
a step leaves to the next one. Its metadata is one JSON object with everything else, and the CRC-32 of both. The file is
written beside its place, flushed to the disk and renamed. So a process that dies, or a full disk, leaves the earlier
states as they were. No pickle is written or read.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import secrets
import warnings
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastattn.checks import integer, printable, shown
from fastattn.files import open_regular, parsed_json, remove_abandoned, replacing

Tensors = Mapping[str, NDArray[np.float32]]
AnyBuffer = TypeVar("AnyBuffer", bytearray, memoryview)

STATES = "states"
"""The folder of the states, inside the folder of the run."""
_METADATA, _CRC32 = "fastattn_run", "crc32"
_LONGEST_HEADER = 100_000_000  # bytes, as in the safetensors library
_MOST_DIMS = 32  # of an array, in every version of NumPy
# The names of tensors begin with these.
MODEL, OPTIMIZER, CARRIED, AVERAGE = "model.", "optimizer.", "carried.", "average."
_NAME = re.compile(r"step-(\d{8,})\.safetensors")


MALFORMED = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What is raised where a state has something of another kind than a run writes."""


class DamagedStateWarning(UserWarning):
    """A saved state cannot be read. An earlier one is used."""


class OtherRunError(ValueError):
    """A saved state is of another model or configuration.

    Attributes:
        options: the `options` of the trainer that saved it.
    """

    def __init__(self, message: str, values: Mapping[str, Any]) -> None:
        super().__init__(message)
        options = values.get("options")
        self.options: Mapping[str, Any] = options if isinstance(options, Mapping) else {}


class Carried(Protocol):
    """What a step leaves to the next one, such as the state of an LSTM."""

    def state_dict(self) -> Mapping[str, NDArray[np.float32]]:
        """Arrays by name, which nobody changes later; empty before the first step."""

    def load_state_dict(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Go on with a result of `state_dict`."""


class NothingCarried:
    """The steps of most runs leave nothing to the next one."""

    def state_dict(self) -> Mapping[str, NDArray[np.float32]]:
        return {}

    def load_state_dict(self, state: Mapping[str, NDArray[np.float32]]) -> None: ...


def state_path(folder: Path, step: int) -> Path:
    """The file of a step's state."""
    return folder / f"step-{step:08d}.safetensors"


def saved_states(folder: Path) -> list[tuple[int, Path]]:
    """Step and file of every state in `folder`, newest first; empty if there is no such folder."""
    names = os.listdir(folder) if folder.is_dir() else []
    matches = [match for match in map(_NAME.fullmatch, names) if match]
    return sorted(((int(match[1]), folder / match[0]) for match in matches), reverse=True)


def write_state(folder: Path, step: int, tensors: Tensors, values: Mapping[str, Any]) -> Path:
    """Save a state and return its file.

    Args:
        folder: created if it is missing.
        step: names the file; a state of the same step is replaced, and a folder of its name gets another one.
        tensors: float32 arrays by name.
        values: values for JSON, or NumPy's numbers, without NaN.

    Raises OSError, naming the file, if it cannot be written. Nothing of it is left then.
    """
    path = state_path(folder, step)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():  # no file can take its place, and it is not ours to remove
            path.rename(path.with_name(f"{path.name}.{secrets.token_hex(8)}.folder"))
        with replacing(path) as (temporary,), open(temporary, "wb", buffering=0) as file:
            for piece in _pieces(tensors, values):
                done = 0
                while done < len(piece):  # a disk that fills up first takes a part
                    done += file.write(piece[done:])
    except OSError as error:
        reason = f"{error.strerror}; the state of step {step} was not saved, earlier ones are as they were"
        raise OSError(error.errno, reason, str(path)) from error
    return path


def _pieces(tensors: Tensors, values: Mapping[str, Any]) -> Iterator[memoryview]:
    """The bytes of a safetensors file. Unlike the library, this copies no tensor."""
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32:
            raise TypeError(f"write_state: {name} must be float32, got {tensor.dtype}")
    metadata = json.dumps(values, allow_nan=False, default=plain)
    header: dict[str, Any] = {"__metadata__": {_METADATA: metadata, _CRC32: _crc32(metadata, tensors)}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        yield _bytes(tensor)


def plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's. Raises TypeError for anything else."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{shown(value)} cannot be written as JSON")


def _bytes(tensor: NDArray[np.float32]) -> memoryview:
    return np.ascontiguousarray(tensor).data.cast("B") if tensor.size else memoryview(b"")


def _crc32(metadata: str, tensors: Tensors) -> str:
    """The checksum of the metadata and of the tensors' names and bytes."""
    crc = zlib.crc32(metadata.encode())
    for name in sorted(tensors):  # the library reads them in another order
        crc = zlib.crc32(_bytes(tensors[name]), zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"


def read_state(path: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
    """Tensors and values of a state. Raises OSError, and ValueError for a file that is not a whole state.

    The file is read, not mapped: a process that rewrites it meanwhile makes a checksum wrong, and kills nobody.
    """
    with open_regular(path) as file:
        try:
            metadata, places = _read_header(file)
            tensors = {name: _read_tensor(file, shape, start) for name, (shape, start) in places.items()}
            crc = _crc32(metadata.get(_METADATA, ""), tensors)
        except OSError as error:
            error.filename = str(path)
            raise
        except MALFORMED as error:
            raise ValueError(f"{path}: damaged, or cut short: {printable(str(error), 1000)}") from error
    if _METADATA not in metadata:
        raise ValueError(f"{path}: not a saved state of a run")
    if crc != metadata.get(_CRC32):
        raise ValueError(f"{path}: damaged: its CRC-32 is {crc}, but {shown(metadata.get(_CRC32))} was written")
    values = parsed_json(metadata[_METADATA], f"{path}: damaged")
    if not isinstance(values, dict):
        raise ValueError(f"{path}: not a saved state of a run")
    return tensors, values


def _read_header(file: io.FileIO) -> tuple[dict[str, str], dict[str, tuple[list[int], int]]]:
    """The metadata of a safetensors file, and shape and place of each tensor. They fill the file without a gap."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(_read(file, bytearray(8)), "little")
    if length > min(size - 8, _LONGEST_HEADER):
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    header = json.loads(_read(file, bytearray(length)))
    metadata = header.pop("__metadata__", {})
    if not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its metadata are not text")
    places, end = {}, 8 + length
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        shape, (start, stop) = entry["shape"], (8 + length + offset for offset in entry["data_offsets"])
        count = _count(shape)
        if entry["dtype"] != "F32" or (start, stop) != (end, end + 4 * count) or stop > size:
            raise ValueError(f"{shown(name)} is {shown(entry)} in a file of {size} bytes")
        places[name], end = (shape, start), stop
    if end != size:
        raise ValueError(f"{size} bytes, of which the tensors end at {end}")
    return metadata, places


def _count(shape: Any) -> int:
    """The numbers of a tensor of this shape, which is one of an array. A product with a text would be a long text."""
    if not isinstance(shape, list) or len(shape) > _MOST_DIMS:
        raise ValueError(f"the shape {shown(shape)}")
    return math.prod(integer("a shape", size, 0, 2**63) for size in shape)


def _read_tensor(file: io.FileIO, shape: list[int], start: int) -> NDArray[np.float32]:
    tensor = np.empty(shape, "<f4")
    file.seek(start)
    if tensor.size:
        _read(file, tensor.data.cast("B"))
    return tensor


def _read(file: io.FileIO, buffer: AnyBuffer) -> AnyBuffer:
    """Fill a buffer. Raises ValueError if the file ends before."""
    view, done = memoryview(buffer), 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise ValueError(f"it ends {len(view) - done} bytes early")
        done += count
    return buffer


def read_newest(paths: Iterable[Path]) -> tuple[Path, dict[str, NDArray[np.float32]], dict[str, Any]] | None:
    """The first state that can be read, its tensors and its values; None if there are no states.

    A DamagedStateWarning names each one before it. Raises ValueError if none can be read.
    """
    damaged = []
    for path in paths:
        try:
            return path, *read_state(path)
        except (OSError, ValueError) as error:
            reason = f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error)
            damaged.append(reason)
            warnings.warn(f"{reason}; an earlier state is looked for", DamagedStateWarning, stacklevel=3)
    if damaged:
        raise ValueError("no saved state can be used:\n" + "\n".join(damaged))
    return None


def remove_old_states(folder: Path, step: int, keep: int, needed: Collection[int] = ()) -> None:
    """Remove the states up to `step`, except the last `keep` and those of the steps `needed`.

    States of later steps belong to another run, and stay. Pieces that a killed process left are removed too.
    """
    mine = [(number, path) for number, path in saved_states(folder) if number <= step]
    for number, path in mine[keep:]:
        if number not in needed and (path.is_symlink() or not path.is_dir()):
            path.unlink(missing_ok=True)
    remove_abandoned(folder, _NAME.pattern)


def not_finite(tensors: Tensors) -> list[str]:
    """The names of the tensors that hold NaN or infinity."""
    return [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]


def weights(tensors: Tensors) -> dict[str, NDArray[np.float32]]:
    """The model's tensors of a state, under the model's names."""
    return part(tensors, MODEL)


def averages(tensors: Tensors) -> dict[str, NDArray[np.float32]]:
    """The moving averages of the weights, under the model's names; empty if the run has none."""
    return part(tensors, AVERAGE)


def part(tensors: Tensors, prefix: str) -> dict[str, NDArray[np.float32]]:
    """The tensors of a state whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
