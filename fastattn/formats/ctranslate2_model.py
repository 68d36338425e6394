"""CTranslate2's model.bin: the variables of a network by name, one after the other.

    with read_model("model.bin") as model:
        weight = model.tensors["encoder/layer_0/ffn/linear_0/weight"]       # read now

The file is a version, the name of a specification and its revision, the variables (name, sizes, dtype, bytes), and
further names of some of them. Nothing in it is executed, and no variable is larger than the file. Errors name the
file. Source: python/ctranslate2/specs/model_spec.py and src/models/model.cc of CTranslate2.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.checks import shown
from fastattn.files import open_regular
from fastattn.formats.hugging_face import MAX_TENSORS
from fastattn.formats.stored import DTYPES, Stored, Tensors, from_bytes, read_at

__all__ = ["WEIGHTS", "CTranslate2Model", "read_model"]

WEIGHTS = "model.bin"
VERSIONS = range(4, 7)
_DTYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
_SCALE = "_scale"


@dataclass(frozen=True)
class CTranslate2Model:
    """An open file.

    Attributes:
        spec: the name of its specification, such as "TransformerSpec".
        revision: the specification's.
        tensors: its variables.
    """

    spec: str
    revision: int
    tensors: Tensors

    def __enter__(self) -> CTranslate2Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.tensors.close()


def read_model(path: str | os.PathLike[str]) -> CTranslate2Model:
    """Open a model.bin of the versions 4 to 6. All names and sizes are checked, but no variable is read.

    A further name of a variable is one of its scale, too. Two names of a variable have the same `tensors.stored(name)`.

    Raises FileNotFoundError, and ValueError for a file of another version, one that is cut short or damaged, and one
    with other dtypes. The message names the file and what is wrong.
    """
    with contextlib.ExitStack() as files:
        file = files.enter_context(open_regular(path))
        try:
            spec, revision, stored = _read_variables(file)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from None
        return CTranslate2Model(spec, revision, Tensors(Path(path), stored, files.pop_all()))


class _Stream:
    """Numbers and names from the beginning of a file on."""

    def __init__(self, file: FileIO) -> None:
        self._file = io.BufferedReader(FileIO(file.fileno(), closefd=False))
        self._file.seek(0)
        self.place = 0
        self.size = os.fstat(file.fileno()).st_size

    def number(self, form: str, what: str) -> int:
        size = struct.calcsize(form)
        (found,) = struct.unpack(form, self._bytes(size, what))
        return int(found)

    def name(self, what: str) -> str:
        data = self._bytes(self.number("<H", what), what)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = ""
        if not text.endswith("\0") or "\0" in text[:-1]:
            raise ValueError(f"damaged: {what} is {shown(data)}, at {self.place - len(data)}")
        return text[:-1]

    def skip(self, size: int) -> None:
        self.place += size
        self._file.seek(self.place)

    def _bytes(self, size: int, what: str) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise ValueError(f"cut short: {what} at {self.place} needs {size} bytes, got {len(data)}")
        self.place += size
        return data


def _read_variables(file: FileIO) -> tuple[str, int, dict[str, Stored]]:
    stream = _Stream(file)
    version = stream.number("<I", "the version")
    if version not in VERSIONS:
        known = f"{VERSIONS[0]} to {VERSIONS[-1]}"
        raise ValueError(f"no model of CTranslate2 that is known: the version is {version}; {known} are read")
    spec = stream.name("the name of the specification")
    revision = stream.number("<I", "the revision")
    stored: dict[str, Stored] = {}
    for _ in range(_count(stream, "variables")):
        name, found = _variable(file, stream)
        if stored.setdefault(name, found) is not found:
            raise ValueError(f"damaged: the variable {shown(name)} is there twice")
    for _ in range(_count(stream, "further names")):
        alias, name = (stream.name("a further name") for _ in range(2))
        if name not in stored or alias in stored:
            raise ValueError(f"damaged: {shown(alias)} is said to be a further name of {shown(name)}")
        stored[alias] = stored[name]
        if name + _SCALE in stored:
            stored.setdefault(alias + _SCALE, stored[name + _SCALE])
    if stream.place != stream.size:
        raise ValueError(f"damaged: {stream.size - stream.place} bytes follow the last name")
    return spec, revision, stored


def _count(stream: _Stream, what: str) -> int:
    count = stream.number("<I", f"the number of {what}")
    if count > MAX_TENSORS:
        raise ValueError(f"{count} {what}; at most {MAX_TENSORS} are read")
    return count


def _variable(file: FileIO, stream: _Stream) -> tuple[str, Stored]:
    name = stream.name("the name of a variable")
    what = f"variable {shown(name)}"
    shape = tuple(stream.number("<I", what) for _ in range(stream.number("<B", what)))
    kind = stream.number("<B", what)
    if kind >= len(_DTYPES):
        raise ValueError(f"{what} has the dtype {kind}; only 0 to {len(_DTYPES) - 1}, {', '.join(_DTYPES)}, are read")
    dtype, size = _DTYPES[kind], stream.number("<I", what)
    if size != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
        raise ValueError(f"damaged: {what} of shape {shown(shape)} and {dtype} has {size} bytes")
    start = stream.place
    if start + size > stream.size:
        raise ValueError(f"cut short: {what} needs {size} bytes at {start}, got {stream.size - start}")
    stream.skip(size)
    return name, Stored(dtype, shape, partial(_read, file, name, dtype, shape, start, size))


def _read(file: FileIO, name: str, dtype: str, shape: tuple[int, ...], start: int, size: int) -> NDArray[Any]:
    data = np.empty(size, np.uint8)
    read_at(file.fileno(), str(file.name), start, data, name)
    return from_bytes(data, dtype).reshape(shape)
