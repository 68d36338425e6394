"""Hugging Face model folders: `config.json` beside `model.safetensors`, or beside shards listed by an index.

    with read_state_dict(folder) as tensors:
        print(tensors.shape("embeddings.word_embeddings.weight"))
        weight = tensors["embeddings.word_embeddings.weight"]      # float32, read now

The safetensors library proves every header before one tensor is read (it covers the file without gaps, and
shapes agree with byte ranges); the tensors are then read one at a time straight from the file, so that
loading a model needs little more memory than the model. F16 and BF16 become float32, exactly. Errors name
the file and the value.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastattn.checks import printable, shown
from fastattn.files import is_inside, open_regular, parsed_json, read_regular, replacing, unread_weights
from fastattn.formats.quantization import DTYPES, SCALES
from fastattn.formats.stored import StoredRows, read_at, widened
from fastattn.kernels import PackedMatrix

__all__ = [
    "MAX_JSON",
    "MAX_TENSORS",
    "MAX_VOCABULARY",
    "StateDict",
    "check_finite",
    "read_config",
    "read_json",
    "read_json_array",
    "read_state_dict",
    "shard_names",
    "write_checkpoint",
]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"

MAX_JSON = 2**24
"""Bytes of a configuration or an index of shards, and of the header of a safetensors file; the largest known have 9 MB.
Parsed, JSON takes up to 24 times its size."""
MAX_VOCABULARY = 2**27
"""Bytes of a JSON file that holds a vocabulary; the largest known tokenizer.json have some 35 MB."""
MAX_TENSORS = 50_000
"""Tensors of a checkpoint; a large BERT has 400."""

_SURROGATE = rb"\\u[dD][89a-fA-F]"
"""How half of a character beyond U+FFFF may be written. UTF-8 has no halves."""
_ITEM_SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1}
_READ = ("F32", "F16", "BF16")
"""The dtypes that are read as float32."""
_NUMBERS: dict[str, type[np.generic]] = {"BF16": np.uint16, "I8": np.int8}
_SAMPLE = 512
_LARGE_TABLE = 2**22
"""Bytes of a table from which its rows are read one by one."""
_PAGES = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)
"""Linux makes all pages at once, which is faster than one by one as the file is read into them."""


def read_json(path: str | os.PathLike[str], limit: int = MAX_JSON) -> dict[str, Any]:
    """The object in a JSON file.

    Raises FileNotFoundError, or ValueError if it holds something else, has more than `limit` bytes or is no regular
    file.
    """
    found: dict[str, Any] = _read_json(path, limit, dict, "object")
    return found


def read_json_array(path: str | os.PathLike[str], limit: int = MAX_JSON) -> list[Any]:
    """The array in a JSON file. Raises as `read_json` does."""
    found: list[Any] = _read_json(path, limit, list, "array")
    return found


def _read_json(path: str | os.PathLike[str], limit: int, kind: type, name: str) -> Any:
    data = read_regular(path, limit)
    value = parsed_json(data, os.fspath(path))
    if b"\\u" in data and re.search(_SURROGATE, data):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except (UnicodeEncodeError, RecursionError) as error:
            what = f"half of a character, {error.object[error.start]!a}" if isinstance(error, UnicodeError) else error
            raise ValueError(f"{path}: not valid Unicode: {what}") from None
    if not isinstance(value, kind):
        raise ValueError(f"{path}: must hold a JSON {name}, got {type(value).__name__}")
    return value


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of `folder/config.json`. Raises FileNotFoundError or ValueError, naming the file."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder / CONFIG}: no such file; a model folder needs one")
    return read_json(folder / CONFIG)


class _Entry(NamedTuple):
    """The place of one tensor: the entry in its header, and the offset of its first byte in the file."""

    file: FileIO
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int


class StateDict(Mapping[str, NDArray[np.float32]]):
    """The tensors of a checkpoint by name, as float32. Each access reads a tensor from its file.

    `tensors[name]` gives a new array. Files stay open until `close()` or the end of a `with` block, so a
    checkpoint that is replaced is still read as it was. Reading is thread-safe. The scales beside a matrix of int8 are
    a part of it, see `matrix`, and no tensors of their own.
    """

    def __init__(
        self,
        source: Path,
        entries: dict[str, _Entry],
        files: contextlib.ExitStack,
        scales: dict[str, _Entry] | None = None,
    ) -> None:
        bytes_ = [] if scales else [name for name, entry in entries.items() if entry.dtype == DTYPES["int8"]]
        beside = {f"{name}_{part}" for name in bytes_ for part in SCALES} & entries.keys()
        self.source = source
        self._entries = {name: entry for name, entry in entries.items() if name not in beside}
        self._scales = scales or {name: entries[name] for name in beside}  # by the names in the file
        self._files = files

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self._float32(self._entries[name])

    def _float32(self, entry: _Entry) -> NDArray[np.float32]:
        if entry.dtype not in _READ:
            raise ValueError(
                f"{entry.file.name}: tensor {shown(entry.name)} has dtype {entry.dtype}; "
                f"{', '.join(_READ)} are read as float32"
            )
        if entry.dtype == "F32":
            tensor = _read(entry, np.float32)
        elif entry.dtype == "F16":
            tensor = _read(entry, np.float16).astype(np.float32)
        else:
            tensor = widened(_read(entry, np.uint16))
        check_finite(entry.file.name, entry.name, tensor)
        return tensor

    def packed(self, matrices: Sequence[tuple[Sequence[str], int]]) -> Iterator[PackedMatrix]:
        """Packed matrices: each is the names of tensors that lie one below the other, and the number of groups.

        Those of dtype F32 are packed as they are read, all at once.
        """
        stored = {}
        for i, (names, groups) in enumerate(matrices):
            entries = [self._entries[name] for name in names]
            if all(entry.dtype == "F32" and entry.shape for entry in entries):
                pieces = [(entry.file.fileno(), entry.start, entry.shape[0]) for entry in entries]
                stored[i] = pieces, math.prod(entries[0].shape[1:]), groups
        read = dict(zip(stored, PackedMatrix.read(list(stored.values())), strict=True))
        for i, (names, groups) in enumerate(matrices):
            matrix = read.pop(i, None)
            yield self._packed(names, groups) if matrix is None else matrix

    def _packed(self, names: Sequence[str], groups: int) -> PackedMatrix:
        arrays = [self[name] for name in names]  # says what is wrong
        whole = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        return PackedMatrix(whole.reshape(len(whole), -1), groups)

    def matrix(self, names: Sequence[str], weights: str) -> PackedMatrix | None:
        """The matrix whose rows are tensors that lie one below the other, if they are stored as these `weights` of
        fewer bits; else None.

        Raises ValueError, naming the file and the tensor, for scales that are missing or do not fit.
        """
        entries = [self._entries[name] for name in names]
        if any(entry.dtype != DTYPES[weights] for entry in entries):
            return None
        parts = [_read(entry, _NUMBERS[entry.dtype]) for entry in entries]
        numbers = {"weight": parts[0] if len(parts) == 1 else np.concatenate(parts)}
        if weights == "int8":
            found = [self._scales_of(entry) for entry in entries]
            numbers["scales"] = np.concatenate([scales["scales"] for scales in found])
            common = [scales.get("input_scales") for scales in found]
            if any(not np.array_equal(x, common[0]) for x in common):  # type: ignore[arg-type]  # None equals None
                wanted = f"{entries[0].name}_{SCALES[1]}"
                raise ValueError(f"{self.source}: tensor {shown(wanted)} differs from those of the tensors beside it")
            numbers |= {} if common[0] is None else {"input_scales": common[0]}
        try:
            return PackedMatrix.of_numbers(**numbers)
        except ValueError as error:
            text = str(error).removeprefix("PackedMatrix.of_numbers: ")
            raise ValueError(f"{entries[0].file.name}: tensor {shown(entries[0].name)}: {text}") from None

    def _scales_of(self, entry: _Entry) -> dict[str, NDArray[np.float32]]:
        found = {part: self._scales.get(f"{entry.name}_{part}") for part in SCALES}
        for part, wanted in zip(SCALES, (entry.shape[:1], entry.shape[-1:]), strict=True):
            name, scales = shown(f"{entry.name}_{part}"), found[part]
            if scales is not None and scales.shape != wanted:
                raise ValueError(f"{scales.file.name}: tensor {name} must have shape {wanted}, got {scales.shape}")
            if scales is None and part == SCALES[0]:
                raise ValueError(f"{entry.file.name}: tensor {name} is missing")
        return {part: self._float32(scales) for part, scales in found.items() if scales is not None}

    def rows(self, name: str) -> StoredRows | None:
        """A large matrix of dtype F32 or BF16, whose rows are read when they are asked for; None for any other."""
        entry = self._entries[name]
        dtype = {"F32": "float32", "BF16": "bfloat16"}.get(entry.dtype)
        if dtype is None or len(entry.shape) != 2 or 4 * math.prod(entry.shape) < _LARGE_TABLE:
            return None
        return StoredRows(entry.file.fileno(), str(entry.file.name), entry.name, entry.shape, entry.start, dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, from the header."""
        return self._entries[name].shape

    def dtype(self, name: str) -> str:
        """The dtype of a tensor in the file, such as "F16", from the header."""
        return self._entries[name].dtype

    def paths(self) -> list[Path]:
        """The files that the tensors are in."""
        entries = [*self._entries.values(), *self._scales.values()]
        return [Path(name).absolute() for name in {str(entry.file.name) for entry in entries}]

    def sample(self, name: str) -> bytes:
        """Some bytes from the start, the middle and the end of a tensor, and of its scales: enough to tell it from
        another."""
        entry = self._entries[name]
        beside = (self._scales.get(f"{entry.name}_{part}") for part in SCALES)
        return b"".join(self._sample(each) for each in (entry, *beside) if each is not None)

    def _sample(self, entry: _Entry) -> bytes:
        size = math.prod(entry.shape) * _ITEM_SIZES.get(entry.dtype, 1)
        places = (0, size // 2, max(0, size - _SAMPLE))
        return b"".join(os.pread(entry.file.fileno(), min(_SAMPLE, size), entry.start + place) for place in places)

    def renamed(self, rename: Callable[[str], str | list[str] | None]) -> StateDict:
        """The same tensors under the names `rename` gives them, without those that get None.

        Several names share the rows of a tensor evenly, in their order. Raises ValueError for a name given twice and
        for rows that cannot be shared, and closes the files.
        """
        entries: dict[str, _Entry] = {}
        try:
            for name, entry in self._entries.items():
                found = rename(name)
                names = [] if found is None else [found] if isinstance(found, str) else found
                for new, part in zip(names, self._shared(entry, len(names)), strict=True):
                    if (other := entries.setdefault(new, part)) is not part:
                        both = f"{shown(other.name)} and {shown(entry.name)}"
                        raise ValueError(f"{self.source}: tensors {both} mean the same")
        except ValueError:
            self.close()
            raise
        return StateDict(self.source, entries, self._files, self._scales)

    def _shared(self, entry: _Entry, count: int) -> list[_Entry]:
        """The places of `count` tensors that are stacked in one."""
        if count < 2:
            return [entry] * count
        rows = entry.shape[0] if entry.shape else 0
        if rows == 0 or rows % count:
            raise ValueError(
                f"{self.source}: tensor {shown(entry.name)} must have rows for {count} tensors, got shape {entry.shape}"
            )
        shape = (rows // count, *entry.shape[1:])
        size = math.prod(shape) * _ITEM_SIZES.get(entry.dtype, 0)
        return [entry._replace(shape=shape, start=entry.start + i * size) for i in range(count)]

    def close(self) -> None:
        """Close the files; only names and shapes remain."""
        self._files.close()

    def __enter__(self) -> StateDict:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_finite(file: str | os.PathLike[str], name: str, tensor: NDArray[np.float32]) -> None:
    """Raise ValueError, naming the file and the tensor, for a NaN or an infinity among weights.

    A bias may have -inf: behind the scores of words or labels it forbids one. It costs one pass, 2 ms for 90 MB.
    """
    flat = tensor.reshape(-1)
    with np.errstate(all="ignore"):
        if np.isfinite(np.dot(flat, flat)):  # infinite also for finite numbers from 1e19 on
            return
    wrong = ~np.isfinite(tensor)
    if "bias" in name.rpartition(".")[2]:
        wrong &= tensor != -np.inf
    if wrong.any():
        place = tuple(np.argwhere(wrong)[0].tolist())
        raise ValueError(
            f"{os.fspath(file)}: tensor {shown(name)} has {tensor[place]} at {place}; weights must be finite"
        )


def read_state_dict(folder: str | os.PathLike[str]) -> StateDict:
    """Open the tensors of a model folder: `model.safetensors`, else the shards that the index lists.

    Reads and checks all headers, but no tensor. Raises FileNotFoundError for a missing folder, file or
    shard, and ValueError for a truncated file, a header that does not fit its file, or an index that does
    not fit its shards.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    single, index = folder / WEIGHTS, folder / WEIGHTS_INDEX
    with contextlib.ExitStack() as files:
        if single.is_file():
            return StateDict(single, _read_header(single, files), files.pop_all())
        if index.is_file():
            return StateDict(index, _read_shards(index, files), files.pop_all())
    raise FileNotFoundError(f"{folder}: no {WEIGHTS} and no {WEIGHTS_INDEX}{unread_weights(folder)}")


def shard_names(index: Path) -> dict[str, str]:
    """The name of each tensor's shard, a file beside the `index`. Raises ValueError for an index of anything else."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index}: weight_map must name the shard of each tensor, got {shown(weight_map)}")
    _check_count(index, len(weight_map))
    for name, shard in weight_map.items():
        if not is_inside(shard) or shard != os.path.basename(shard) or shard in ("", "."):
            raise ValueError(f"{index}: weight_map[{shown(name)}] must be a file name, got {shown(shard)}")
    return weight_map


def _read_shards(index: Path, files: contextlib.ExitStack) -> dict[str, _Entry]:
    shards: dict[str, dict[str, _Entry]] = {}
    entries = {}
    for name, shard in shard_names(index).items():
        if shard not in shards:
            path = index.with_name(shard)
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such shard; {index.name} names it for {shown(name)}")
            shards[shard] = _read_header(path, files)
        if name not in shards[shard]:
            raise ValueError(f"{index.with_name(shard)}: no tensor {shown(name)}, which {index.name} says is here")
        entries[name] = shards[shard][name]
    return entries


def _read_header(path: Path, files: contextlib.ExitStack) -> dict[str, _Entry]:
    from safetensors import SafetensorError, safe_open

    file = files.enter_context(open_regular(path))
    size = int.from_bytes(file.read(8), "little")
    if MAX_JSON < size < os.fstat(file.fileno()).st_size:
        raise ValueError(f"{path}: a header of {size} bytes; at most {MAX_JSON} are read")
    text = file.read(min(size, MAX_JSON))
    _check_count(path, text.count(b'"data_offsets"'))  # before there is an object of each
    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        raise ValueError(f"{path}: not a valid safetensors file: {printable(str(error), 1000)}") from error
    header = parsed_json(text, f"{path}: header")
    header.pop("__metadata__", None)
    return {
        name: _Entry(file, name, tensor["dtype"], tuple(tensor["shape"]), 8 + size + tensor["data_offsets"][0])
        for name, tensor in header.items()
    }


def _check_count(path: Path, count: int) -> None:
    if count > MAX_TENSORS:
        raise ValueError(f"{path}: {count} tensors; at most {MAX_TENSORS} are read")


def _read(entry: _Entry, dtype: type[np.generic]) -> NDArray[Any]:
    """The items of a tensor as they are in the file.

    A large tensor gets its own pages, which go back to the system once it is packed or converted; malloc
    kept 64 MB of such memory after loading BERT-base.
    """
    size = math.prod(entry.shape)
    if size < 2**18:
        array = np.empty(size, dtype)
    else:
        pages = mmap.mmap(-1, size * np.dtype(dtype).itemsize, flags=_PAGES)
        array = np.frombuffer(pages, dtype)
    read_at(entry.file.fileno(), str(entry.file.name), entry.start, array, entry.name)
    return array.reshape(entry.shape)


def write_checkpoint(
    folder: str | os.PathLike[str], config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
) -> None:
    """Write `config.json` and `model.safetensors` into `folder`, which is created if missing.

    Tensors are float32, int8, or the bits of bfloat16 as uint16, which become BF16.

    Each file is written under another name, flushed to the disk and renamed, so a reader finds the old one or
    the new one and a failure leaves no piece behind.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n"
    with replacing(folder / WEIGHTS, folder / CONFIG) as (weights_file, config_file):
        config_file.write_text(text, encoding="utf-8")
        _write_tensors(weights_file, tensors)


_WRITTEN = {"float64": "F64", "float32": "F32", "float16": "F16", "uint16": "BF16", "int8": "I8"}


def _write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write a safetensors file: the size of its header, the header, and the tensors, the widest numbers first.

    safetensors.numpy has no bfloat16, and what lies below it has changed its arguments between versions.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    end = 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + tensor.nbytes
        dtype = _WRITTEN[tensor.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)
