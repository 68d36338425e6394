"""The log of a run: one JSON object a line."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO


class RunLog:
    """Appends records to a file, one a line, each at once.

    Args:
        path: the file, which is created with its folder if it is missing; None writes nothing.
        size: bytes to keep. A run that goes on cuts off what it wrote after its last saved state, to write it again.

    Raises OSError, naming the file, if it cannot be written.
    """

    def __init__(self, path: Path | None, size: int = 0) -> None:
        self._path, self._size = path, size
        self._file: BinaryIO | None = None

    def __enter__(self) -> RunLog:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and self._path.stat().st_size > self._size:
                os.truncate(self._path, self._size)
            self._file = open(self._path, "ab", buffering=0)
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
