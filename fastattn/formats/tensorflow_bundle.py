"""TensorFlow's checkpoints, read without TensorFlow: PREFIX.index and the shards PREFIX.data-00000-of-00001, ...

    with read_tensors("uncased_L-12_H-768_A-12/bert_model.ckpt") as tensors:
        weight = tensors["bert/pooler/dense/kernel"]        # read now

The index is a sorted table (`sstable`) of protocol buffers: a header, and for each variable its dtype, shape, shard,
place and checksum. A variable that was split is described by its slices, which have entries of their own. It is the
format of tf.train.Saver since version 2 of checkpoints (TensorFlow 0.12), and of tf.train.Checkpoint. Errors name the
file. Source: tensorflow/core/util/tensor_bundle and tensorflow/core/protobuf/tensor_bundle.proto of TensorFlow.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.checks import shown
from fastattn.files import open_regular, read_regular
from fastattn.formats.crc32c import crc32c, masked
from fastattn.formats.protobuf import content, integer, message
from fastattn.formats.sstable import read_table
from fastattn.formats.stored import DTYPES, Stored, Tensors, from_bytes, read_at

__all__ = ["INDEX", "read_tensors"]

INDEX = ".index"
MAX_INDEX = 2**24
"""Bytes. The index of BERT-large with its optimizer's state has some 50 kB."""
MAX_SHARDS = 10_000
MAX_DIMS = 16
MAX_SLICES = 10_000
"""Of a variable."""

_DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    19: "float16",
}
_HEADER = b""  # the key of the header
_SLICE = b"\0"  # how the key of a slice begins
_WHOLE = 2**64 - 1  # -1, a slice's length along an axis that is not split


@dataclass(frozen=True)
class _Part:
    """Where numbers are: a variable, or the slice of one from `begin` on."""

    shard: int
    start: int
    size: int
    crc: int
    shape: tuple[int, ...]
    begin: tuple[int, ...]


def read_tensors(prefix: str | os.PathLike[str]) -> Tensors:
    """Open a checkpoint by the path that its files begin with.

    The index and its checksums, all shapes and places are checked, but no variable is read. Reading one checks its own
    checksum. Text and other variables without numbers are listed but cannot be read.

    Raises FileNotFoundError for an index or a shard that is missing, and ValueError for one that is cut short or
    damaged. The message names the file and what is wrong.
    """
    index = Path(f"{os.fspath(prefix)}{INDEX}")
    with contextlib.ExitStack() as files:
        try:
            table = read_table(read_regular(index, MAX_INDEX))
            shards = _shards(table)
            variables = {}
            for key, value in table.items():
                if key != _HEADER and not key.startswith(_SLICE):
                    name = _text(key)
                    variables[name] = _variable(name, value, table, shards)
        except ValueError as error:
            text = str(error)
            raise ValueError(text if text.startswith(str(index)) else f"{index}: {text}") from None
        opened: dict[int, FileIO] = {}
        stored, room = {}, Counter[int]()
        for name, (dtype, shape, parts) in variables.items():
            for part in parts:
                if part.shard not in opened:
                    file = opened[part.shard] = _open_shard(prefix, part.shard, shards, files)
                    room[part.shard] = os.fstat(file.fileno()).st_size
                room[part.shard] -= part.size
                _check_place(opened[part.shard], name, part, room[part.shard])
            stored[name] = Stored(dtype, shape, partial(_read, opened, index, name, dtype, shape, parts))
        return Tensors(index, stored, files.pop_all())


def _shards(table: Mapping[bytes, bytes]) -> int:
    """The number of shards, from the header."""
    if _HEADER not in table:
        raise ValueError("damaged: its header is missing")
    header = message(table[_HEADER])
    shards, order = integer(header, 1), integer(header, 2)
    version = message(content(header, 3))
    if order:
        raise ValueError("its bytes are not in little-endian order")
    if integer(version, 2) > 1:
        raise ValueError(f"needs a reader of version {integer(version, 2)} of the format; version 1 is read")
    if not 1 <= shards <= MAX_SHARDS:
        raise ValueError(f"has {shards} shards; 1 to {MAX_SHARDS} are read")
    return shards


def _variable(
    name: str, value: bytes, table: Mapping[bytes, bytes], shards: int
) -> tuple[str, tuple[int, ...], list[_Part]]:
    """The dtype, the shape and the parts of a variable."""
    entry = message(value)
    dtype = _DTYPES.get(number := integer(entry, 1), f"number {number} of TensorFlow")
    shape = _shape(name, content(entry, 2))
    slices = entry.get(7, [])
    if dtype not in DTYPES:
        return dtype, shape, []
    if not slices:
        return dtype, shape, [_part(name, entry, dtype, shape, (0,) * len(shape), shards)]
    if len(slices) > MAX_SLICES:
        raise ValueError(f"variable {shown(name)} has {len(slices)} slices; at most {MAX_SLICES} are read")
    parts, begins = [], set()
    for slice in slices:
        begin, size, key = _slice(name, slice, shape)
        if begin in begins:
            raise ValueError(f"damaged: variable {shown(name)} has two slices at {begin}")
        begins.add(begin)
        if key not in table:
            raise ValueError(f"damaged: the slice of variable {shown(name)} at {begin} is missing")
        own = message(table[key])
        if integer(own, 1) != number or _shape(name, content(own, 2)) != size or own.get(7):
            raise ValueError(f"damaged: the slice of variable {shown(name)} at {begin} is of another kind")
        parts.append(_part(name, own, dtype, size, begin, shards))
    _check_slices(name, shape, parts)
    return dtype, shape, parts


def _part(
    name: str, entry: dict[int, list[Any]], dtype: str, shape: tuple[int, ...], begin: tuple[int, ...], shards: int
) -> _Part:
    part = _Part(integer(entry, 3), integer(entry, 4), integer(entry, 5), integer(entry, 6), shape, begin)
    if part.shard >= shards:
        raise ValueError(f"damaged: variable {shown(name)} is in shard {part.shard} of {shards}")
    wanted = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if part.size != wanted:
        raise ValueError(
            f"damaged: variable {shown(name)} of {dtype} {shown(shape)} has {part.size} bytes instead of {wanted}"
        )
    return part


def _check_slices(name: str, shape: tuple[int, ...], parts: list[_Part]) -> None:
    """Raise ValueError unless slices, along one axis, follow one another from the first to the last row."""
    axes = {axis for part in parts for axis, size in enumerate(part.shape) if size != shape[axis]}
    if len(axes) > 1:
        raise ValueError(f"variable {shown(name)} is split along the axes {sorted(axes)}; one axis is read")
    axis = axes.pop() if axes else 0
    end = 0
    for part in sorted(parts, key=lambda part: part.begin[axis]):
        if part.begin[axis] != end or any(begin for i, begin in enumerate(part.begin) if i != axis):
            raise ValueError(f"damaged: the slices of variable {shown(name)} overlap, or leave a gap at {end}")
        end += part.shape[axis]
    if end != shape[axis]:
        raise ValueError(f"damaged: the slices of variable {shown(name)} end at {end} of {shape[axis]}")


def _open_shard(prefix: str | os.PathLike[str], shard: int, shards: int, files: contextlib.ExitStack) -> FileIO:
    path = f"{os.fspath(prefix)}.data-{shard:05d}-of-{shards:05d}"
    try:
        return files.enter_context(open_regular(path))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; {os.path.basename(prefix)}{INDEX} names this shard") from None


def _check_place(file: FileIO, name: str, part: _Part, room: int) -> None:
    size = os.fstat(file.fileno()).st_size
    if part.start + part.size > size:
        raise ValueError(
            f"{file.name}: cut short: variable {shown(name)} needs {part.size} bytes at {part.start}, "
            f"the file has {size}"
        )
    if room < 0:
        raise ValueError(f"{file.name}: damaged: its variables have {-room} bytes more than the file")


def _read(
    files: Mapping[int, FileIO], index: Path, name: str, dtype: str, shape: tuple[int, ...], parts: list[_Part]
) -> NDArray[Any]:
    if not parts:
        raise ValueError(f"{index}: variable {shown(name)} has dtype {dtype}; {', '.join(DTYPES)} are read")
    arrays = []
    for part in sorted(parts, key=lambda part: part.begin):
        file = files[part.shard]
        data = np.empty(part.size, np.uint8)
        read_at(file.fileno(), str(file.name), part.start, data, name)
        if masked(crc32c(data)) != part.crc:
            raise ValueError(
                f"{file.name}: damaged: variable {shown(name)} has another checksum than it was written with"
            )
        arrays.append(from_bytes(data, dtype).reshape(part.shape))
    if len(arrays) == 1:
        return arrays[0]
    axis = next((i for i, n in enumerate(shape) if n != arrays[0].shape[i]), 0)
    return np.concatenate(arrays, axis)


# The fields of entries, and the keys of slices.


def _text(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise ValueError(f"damaged: the name {shown(key)} is not UTF-8") from None


def _shape(name: str, data: bytes) -> tuple[int, ...]:
    shape = tuple(integer(message(dim), 1) for dim in _messages(data, 2))
    if len(shape) > MAX_DIMS or math.prod(n or 1 for n in shape) >= 2**60:
        raise ValueError(f"damaged: variable {shown(name)} has the shape {shown(shape)}")
    return shape


def _messages(data: bytes, number: int) -> list[bytes]:
    found = message(data).get(number, [])
    if any(not isinstance(value, bytes) for value in found):
        raise ValueError("damaged: an entry has a number for text")
    return found


def _slice(name: str, data: Any, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], bytes]:
    """Where a slice begins, its shape, and the key of its entry."""
    if not isinstance(data, bytes):
        raise ValueError("damaged: an entry has a number for text")
    extents = [message(extent) for extent in _messages(data, 1)]
    begin = tuple(integer(extent, 1) for extent in extents)
    lengths = [integer(extent, 2) if 2 in extent else _WHOLE for extent in extents]
    if not shape or len(extents) != len(shape):
        raise ValueError(f"damaged: a slice of variable {shown(name)} does not fit its shape {shown(shape)}")
    size = tuple(n if length == _WHOLE else length for n, length in zip(shape, lengths, strict=True))
    if any(not length or start + length > n for start, length, n in zip(begin, size, shape, strict=True)):
        raise ValueError(f"damaged: a slice of variable {shown(name)} does not fit its shape {shown(shape)}")
    key = _SLICE + name.encode().replace(b"\0", b"\0\xff") + b"\0\1" + _ordered(len(shape))
    for start, length in zip(begin, lengths, strict=True):
        key += _signed(start) + _signed(-1 if length == _WHOLE else length)
    return begin, size, key


def _ordered(number: int) -> bytes:
    """A number in a key: how many bytes it has, and these, the highest first."""
    size = (number.bit_length() + 7) // 8
    return bytes([size]) + number.to_bytes(size, "big")


def _signed(number: int) -> bytes:
    """A signed number in a key: as many ones as it has bytes and a zero, then its bits, all inverted below zero."""
    value = number if number >= 0 else ~number
    size = value.bit_length() // 7 + 1
    bits = (((1 << size) - 1) << (7 * size) | value) if number >= 0 else ((1 << (7 * size)) - 1 - value)
    return bits.to_bytes(size, "big")
