"""Tensors by name, each read from its file when it is asked for."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastattn.checks import shown
from fastattn.files import state_of

__all__ = ["DTYPES", "Stored", "StoredRows", "Tensors", "from_bytes", "read_at", "widened"]

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


class Stored(NamedTuple):
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


class StoredRows:
    """A matrix of float32 or bfloat16 in a file whose rows are read when they are asked for, each once.

    `then`, if given, is called with new rows, float32, and may change them. `table` is read-only and
    holds zeros in place of the rows that nobody has asked for; these take no memory. The file stays open until the
    object is deleted. Any number of threads may read: two that want the same row write the same.
    """

    def __init__(
        self, file: int, file_name: str, name: str, shape: tuple[int, int], start: int, dtype: str = "float32"
    ) -> None:
        self._name, self._file_name, self._start, self._dtype = name, file_name, start, dtype
        self.then: Callable[[NDArray[np.float32]], None] | None = None
        self._file = os.dup(file)
        self._state = state_of(self._file)
        pages = mmap.mmap(-1, 4 * math.prod(shape), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without huge pages
                pages.madvise(mmap.MADV_NOHUGEPAGE)  # a row would take 2 MB
        self._rows: NDArray[np.float32] = np.frombuffer(pages, np.float32).reshape(shape)
        self._unread = np.ones(shape[0], bool)
        self.table: NDArray[np.float32] = self._rows.view()
        self.table.flags.writeable = False

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def again(self, then: Callable[[NDArray[np.float32]], None]) -> StoredRows:
        """The same rows, none of them read, with another `then`. Who has this object keeps its rows as they are."""
        shape = self._rows.shape
        new = StoredRows(self._file, self._file_name, self._name, (shape[0], shape[1]), self._start, self._dtype)
        new.then, new._state = then, self._state
        return new

    def read(self, ids: Any) -> NDArray[np.float32]:
        """`table`, after the rows at these int64 ids have been read. Ids beyond it, or of other types, are not its
        affair. Raises ValueError for a number that is not finite, and for a file that has changed."""
        if isinstance(ids, np.ndarray) and ids.dtype == np.int64:
            ids = ids[(ids >= 0) & (ids < len(self._unread))]
            if (unread := self._unread[ids]).any():
                self._fetch(np.array(sorted(set(ids[unread].tolist()))))  # np.unique would import numpy.ma
        return self.table

    @property
    def unread(self) -> bool:
        """Whether no row has been read."""
        return bool(self._unread.all())

    def read_all(self) -> NDArray[np.float32]:
        """`table`, with all rows."""
        if len(unread := np.flatnonzero(self._unread)):
            self._fetch(unread)
        return self.table

    def _fetch(self, rows: NDArray[np.int64]) -> None:
        if state_of(self._file) != self._state:
            raise ValueError(f"{self._file_name}: has changed since the model was loaded; load it again")
        first = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # of each run of neighbours
        for begin, end in zip(rows[first].tolist(), (rows[[*(first[1:] - 1), -1]] + 1).tolist(), strict=True):
            new = np.empty((end - begin, self._rows.shape[1]), DTYPES[self._dtype])
            read_at(self._file, self._file_name, self._start + begin * new[0].nbytes, new, self._name)
            new = widened(new) if self._dtype == "bfloat16" else new
            if not np.isfinite(new).all():
                row, column = np.argwhere(~np.isfinite(new))[0].tolist()
                raise ValueError(
                    f"{self._file_name}: tensor {shown(self._name)} has {new[row, column]} at {(begin + row, column)}; "
                    "weights must be finite"
                )
            if self.then is not None:
                self.then(new)
            self._rows[begin:end] = new
        self._unread[rows] = False


def read_at(file: int, file_name: str, start: int, data: NDArray[Any], name: str) -> None:
    """Fill an array with the bytes of a tensor from `start`. Raises ValueError, naming both, if the file ends before.

    A file is not mapped: one that shrinks while it is read would end the process.
    """
    view = data.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        count = os.preadv(file, [view[done : done + (1 << 30)]], start + done)
        if count == 0:
            raise ValueError(
                f"{file_name}: truncated: tensor {shown(name)} needs {len(view)} bytes at {start}, got {done}"
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
