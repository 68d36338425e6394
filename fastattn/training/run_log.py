"""The log of a run: one JSON object a line."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 65536  # bytes in which the end of a line is looked for


class RunLog:
    """Appends records to a file, one a line, each at once.

    Args:
        path: the file, which is created with its folder if it is missing; None writes nothing.
        size: bytes to keep. A run that goes on cuts off what it wrote after its last saved state, to write it again. A
            last line without an end, which a full disk or a crash of the system left, is cut off too.

    Raises OSError, naming the file, if it cannot be written.
    """

    def __init__(self, path: Path | None, size: int = 0) -> None:
        self._path, self._size = path, size
        self._file: BinaryIO | None = None

    def __enter__(self) -> RunLog:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "a+b", buffering=0)
            with self._named():
                size = os.fstat(self._file.fileno()).st_size
                whole = _whole_lines(self._file, min(size, self._size))
                if whole < size:
                    self._file.truncate(whole)
                self._file.seek(0, os.SEEK_END)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, record: Mapping[str, Any]) -> None:
        """Write one record, whose numbers are finite."""
        if self._file is None:
            return
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        with self._named():
            while line:
                line = line[self._file.write(line) :]

    def flush(self) -> int:
        """Write everything to the disk, and return the size of the file in bytes."""
        if self._file is None:
            return 0
        with self._named():
            os.fsync(self._file.fileno())
        return self._file.tell()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Errors name the file."""
        try:
            yield
        except OSError as error:
            error.filename = str(self._path)
            raise


def _whole_lines(file: BinaryIO, size: int) -> int:
    """How many of the first `size` bytes are whole lines."""
    while size:
        start = max(0, size - BLOCK)
        file.seek(start)
        end = file.read(size - start).rfind(b"\n") + 1
        if end:
            return start + end
        size = start
    return 0
