"""The files of torch.save, such as `pytorch_model.bin`: a dict of tensors, read without torch and without pickle.

    with read_tensors("pytorch_model.bin") as tensors:
        weight = tensors["bert.pooler.dense.weight"]        # read now

Since version 1.6 torch writes a zip file: a pickle of the dict, and an entry for each storage. Before, it wrote
pickles, then the storages. Nothing of a pickle is executed (see `pickle_opcodes`), and no tensor is larger than its
storage. Errors name the file. Source: torch/serialization.py and torch/_utils.py of PyTorch.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.checks import shown
from fastattn.files import open_regular
from fastattn.formats import stored_zip
from fastattn.formats.hugging_face import MAX_TENSORS, shard_names
from fastattn.formats.pickle_opcodes import MAX_PICKLE, Machine
from fastattn.formats.stored import DTYPES, Stored, Tensors, from_bytes, read_at

__all__ = ["WEIGHTS", "WEIGHTS_INDEX", "read_folder", "read_tensors"]

WEIGHTS = "pytorch_model.bin"
WEIGHTS_INDEX = "pytorch_model.bin.index.json"
MAX_COPIES = 8
"""The bytes of all tensors are at most so many times those of the file. A matrix that many tensors share counts for
each."""
MAX_DIMS = 16

_STORAGES = {
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
}
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    count: int

    @property
    def size(self) -> int:
        return self.count * np.dtype(DTYPES[self.dtype]).itemsize


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def span(self) -> int:
        """The items of the storage from the tensor's first to its last."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))


def read_folder(folder: str | os.PathLike[str]) -> Tensors:
    """The tensors of a folder: those of `pytorch_model.bin`, else of the shards that its index lists.

    Raises as `read_tensors` does, and FileNotFoundError for a folder that has neither or lacks a shard.
    """
    single, index = Path(folder) / WEIGHTS, Path(folder) / WEIGHTS_INDEX
    if single.is_file() or not index.is_file():
        return read_tensors(single)
    with contextlib.ExitStack() as files:
        shards: dict[str, Tensors] = {}
        stored = {}
        for name, shard in shard_names(index).items():
            path = index.with_name(shard)
            if shard not in shards:
                if not path.is_file():
                    raise FileNotFoundError(f"{path}: no such shard; {index.name} names it for {shown(name)}")
                shards[shard] = files.enter_context(read_tensors(path))
            if name not in shards[shard]:
                raise ValueError(f"{path}: no tensor {shown(name)}, which {index.name} says is here")
            stored[name] = shards[shard].stored(name)
        return Tensors(index, stored, files.pop_all())


def read_tensors(path: str | os.PathLike[str]) -> Tensors:
    """Open a file of torch.save that holds a dict of tensors by name.

    All pickles and sizes are checked, but no tensor is read. Reading one checks the CRC-32 of its storage, if the file
    has one.

    Raises FileNotFoundError, and ValueError for a file that calls anything but torch's own functions for tensors, is
    cut short or damaged, or holds something else. The message names the file and what is wrong.
    """
    with contextlib.ExitStack() as files:
        file = files.enter_context(open_regular(path))
        try:
            if os.pread(file.fileno(), 4, 0) == stored_zip.SIGNATURE:
                found, places, check = _read_zip(file)
            else:
                found, places, check = _read_pickles(file)
            stored = _stored(file, found, places, check)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from None
        return Tensors(Path(path), stored, files.pop_all())


_Found = tuple[Any, Mapping[str, int], Callable[[str], None]]
"""The object of a file, the place of each storage by its key, and a function that checks a storage."""


def _read_zip(file: FileIO) -> _Found:
    entries = stored_zip.read_entries(file)
    roots = [name.removesuffix("/data.pkl") for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise ValueError(f"a zip file, but none of torch.save: it must have one data.pkl, got {len(roots)}")
    begin = f"{roots[0]}/"
    order = _content(file, entries.get(f"{begin}byteorder"), 100).decode("ascii", "replace")
    if order not in ("", "little"):
        raise ValueError(f"its bytes are in the order {shown(order)}, not 'little'")
    storages = {name.removeprefix(f"{begin}data/"): entry for name, entry in entries.items()}
    places = {}

    def persistent(value: Any) -> _Storage:
        storage = _storage(value)
        entry = storages.get(storage.key)
        if entry is None or entry.name != f"{begin}data/{storage.key}":
            raise ValueError(f"cut short, or damaged: the storage {shown(storage.key)} is missing")
        if entry.size != storage.size:
            raise ValueError(f"damaged: entry {shown(entry.name)} has {entry.size} bytes instead of {storage.size}")
        places[storage.key] = entry.start
        return storage

    data = _content(file, entries[f"{begin}data.pkl"], MAX_PICKLE)
    checked = set()

    def check(key: str) -> None:
        if key not in checked:
            stored_zip.check_crc(file, storages[key])
            checked.add(key)

    return Machine(io.BytesIO(data), _NAMES, persistent).load(), places, check


def _content(file: FileIO, entry: stored_zip.Entry | None, limit: int) -> bytes:
    if entry is None:
        return b""
    if entry.size > limit:
        raise ValueError(f"entry {shown(entry.name)} has {entry.size} bytes; at most {limit} are read")
    stored_zip.check_crc(file, entry)
    return b"".join(stored_zip.pieces(file, entry))


def _read_pickles(file: FileIO) -> _Found:
    """A file of torch before 1.6: a magic number, a version, facts on the machine, the object, the keys of storages;
    then each storage, behind the number of its items."""
    storages: dict[str, _Storage] = {}

    def persistent(value: Any) -> _Storage:
        storage = _storage(value)
        if storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"damaged: the storage {shown(storage.key)} has two sizes")
        return storage

    size = os.fstat(file.fileno()).st_size
    stream = io.BufferedReader(FileIO(file.fileno(), closefd=False))
    machine = Machine(stream, _NAMES, persistent)
    if not size:
        raise ValueError("the file is empty")
    if machine.load() != _MAGIC or machine.load() != _PROTOCOL:
        raise ValueError("no file of torch.save")
    facts, found, keys = machine.load(), machine.load(), machine.load()
    if type(facts) is not dict or facts.get("little_endian") is not True:
        raise ValueError("its bytes are not in little-endian order")
    if type(keys) is not list or any(type(key) is not str for key in keys) or sorted(keys) != sorted(storages):
        raise ValueError("damaged: its list of storages is not that of its tensors")
    places, place = {}, stream.tell()
    for key in keys:
        count = int.from_bytes(os.pread(file.fileno(), 8, place), "little")
        storage = storages[key]
        if place + 8 + storage.size > size:
            raise ValueError(f"cut short: the storage {shown(key)} needs {storage.size} bytes at {place + 8}")
        if count != storage.count:
            raise ValueError(f"damaged: the storage {shown(key)} has {count} items instead of {storage.count}")
        places[key] = place + 8
        place += 8 + storage.size
    if place != size:
        raise ValueError(f"damaged: {size - place} bytes follow the last storage")
    return found, places, lambda key: None


def _storage(value: Any) -> _Storage:
    """The storage of a persistent id: ("storage", its type, key, device, count) and, before torch 1.6, None."""
    if type(value) is not tuple or len(value) not in (5, 6) or type(value[0]) is not str or value[0] != "storage":
        raise ValueError(f"damaged: a storage is described by {shown(value)}")
    _, dtype, key, _, count, *view = value
    if type(dtype) is not str or dtype not in DTYPES or type(key) is not str or type(count) is not int or count < 0:
        raise ValueError(f"damaged: a storage is described by {shown(value)}")
    if view not in ([], [None]):
        raise ValueError(f"the storage {shown(key)} is a view of another, as torch 0.3 wrote it; save it with torch")
    return _Storage(key, dtype, count)


def _rebuild_tensor(arguments: tuple[Any, ...]) -> _Tensor:
    """torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks, metadata=None)."""
    if len(arguments) not in (6, 7) or type(arguments[0]) is not _Storage:
        raise ValueError(f"damaged: a tensor is described by {shown(arguments)}")
    if len(arguments) == 7 and arguments[6]:
        raise ValueError("a tensor has more than numbers, such as a negative sign that is to come; save it with torch")
    storage, offset, shape, strides = arguments[:4]
    numbers = [offset]
    for values in (shape, strides):
        if type(values) is not tuple or len(values) > MAX_DIMS:
            raise ValueError(f"damaged: a tensor has the shape or strides {shown(values)}")
        numbers += values
    if any(type(number) is not int or number < 0 for number in numbers) or len(shape) != len(strides):
        raise ValueError(f"damaged: a tensor has offset, shape and strides {shown((offset, shape, strides))}")
    tensor = _Tensor(storage, offset, shape, strides)
    if offset + tensor.span > storage.count or math.prod(shape) > storage.count:
        raise ValueError(
            f"damaged: a tensor of shape {shown(shape)}, strides {shown(strides)} and offset {shown(offset)} does not "
            f"fit its storage of {storage.count} items"
        )
    return tensor


def _rebuild_parameter(arguments: tuple[Any, ...]) -> _Tensor:
    """torch._utils._rebuild_parameter(tensor, requires_grad, hooks)."""
    if len(arguments) != 3 or type(arguments[0]) is not _Tensor:
        raise ValueError(f"damaged: a parameter is described by {shown(arguments)}")
    return arguments[0]


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[str, Any]:
    if arguments:
        raise ValueError(f"damaged: an OrderedDict is made of {shown(arguments)}")
    return {}


_NAMES: dict[str, Any] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    **{f"torch.{name}Storage": dtype for name, dtype in _STORAGES.items()},
}


def _stored(file: FileIO, found: Any, places: Mapping[str, int], check: Callable[[str], None]) -> dict[str, Stored]:
    if type(found) is not dict:
        raise ValueError(f"holds {shown(found)} instead of a dict of tensors by name")
    if len(found) > MAX_TENSORS:
        raise ValueError(f"{len(found)} tensors; at most {MAX_TENSORS} are read")
    stored, size = {}, 0
    for name, tensor in found.items():
        if type(tensor) is not _Tensor:
            raise ValueError(f"{shown(name)} is {type(tensor).__name__}; only a dict of tensors by name is read")
        size += max(tensor.span, math.prod(tensor.shape)) * np.dtype(DTYPES[tensor.storage.dtype]).itemsize
        start = places[tensor.storage.key]
        stored[name] = Stored(tensor.storage.dtype, tensor.shape, partial(_read, file, name, tensor, start, check))
    if size > MAX_COPIES * (whole := os.fstat(file.fileno()).st_size):
        raise ValueError(f"its tensors have {size} bytes together, the file only {whole}")
    return stored


def _read(file: FileIO, name: str, tensor: _Tensor, start: int, check: Callable[[str], None]) -> NDArray[Any]:
    try:
        check(tensor.storage.key)
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from None
    item = np.dtype(DTYPES[tensor.storage.dtype]).itemsize
    data = np.empty(tensor.span * item, np.uint8)
    read_at(file.fileno(), str(file.name), start + tensor.offset * item, data, name)
    numbers = from_bytes(data, tensor.storage.dtype)
    strides = [step * numbers.itemsize for step in tensor.strides]
    return np.asarray(np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides), order="C")
