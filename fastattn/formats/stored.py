"""Tensors by name, each read from its file when it is asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.checks import shown

__all__ = ["DTYPES", "Stored", "Tensors", "from_bytes", "read_at", "widened"]

DTYPES = {
    "float32": "<f4",
    "float64": "<f8",
    "float16": "<f2",
    "bfloat16": "<u2",
    "int64": "<i8",
    "int32": "<i4",
    "int16": "<i2",
    "int8": "|i1",
    "uint8": "|u1",
    "bool": "|b1",
}
"""The dtypes that are read, and NumPy's for their bytes. NumPy has no bfloat16."""


@dataclass(frozen=True)
class Stored:
    """A tensor of a file: its dtype, its shape, and the function that reads it."""

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]


class Tensors(Mapping[str, NDArray[Any]]):
    """The tensors of a checkpoint by name. Each access reads a tensor; bfloat16 becomes float32, exactly.

    Files stay open until `close()` or the end of a `with` block.
    """

    def __init__(self, source: Path, stored: Mapping[str, Stored], files: contextlib.ExitStack) -> None:
        self.source = source
        self._stored = stored
        self._files = files

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._stored[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def __contains__(self, name: object) -> bool:
        return name in self._stored  # a Mapping's own would read it

    def dtype(self, name: str) -> str:
        """The dtype of a tensor in the file, such as "float32"."""
        return self._stored[name].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._stored[name].shape

    def stored(self, name: str) -> Stored:
        """Where a tensor is stored."""
        return self._stored[name]

    def close(self) -> None:
        """Close the files; only names, dtypes and shapes remain."""
        self._files.close()

    def __enter__(self) -> Tensors:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_at(file: FileIO, start: int, data: NDArray[Any], name: str) -> None:
    """Fill an array with the bytes of a tensor from `start`. Raises ValueError, naming both, if the file ends before.

    A file is not mapped: one that shrinks while it is read would end the process.
    """
    view = data.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        count = os.preadv(file.fileno(), [view[done : done + (1 << 30)]], start + done)
        if count == 0:
            raise ValueError(
                f"{file.name}: truncated: tensor {shown(name)} needs {len(view)} bytes at {start}, got {done}"
            )
        done += count


def from_bytes(data: NDArray[Any], dtype: str) -> NDArray[Any]:
    """The numbers behind an array of bytes in a dtype of `DTYPES`; bfloat16 as float32."""
    numbers = data.view(DTYPES[dtype])
    return widened(numbers) if dtype == "bfloat16" else numbers


def widened(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 as float32."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)
