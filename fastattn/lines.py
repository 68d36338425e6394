"""The lines of an input that another process may still be writing."""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Iterator
from typing import Any

from fastattn.files import LINE_LIMIT

READ_SIZE = 1 << 16


class InputLines:
    """The lines of an open binary file that errors call `name`, each as soon as it is there.

    Raises OSError, and ValueError for a line over the limit of `fastattn.files`.

    >>> import io
    >>> lines = InputLines(io.BytesIO(b"one\\ntwo"), "numbers")
    >>> list(lines), lines.waits
    ([b'one\\n', b'two'], False)
    """

    def __init__(self, file: Any, name: str) -> None:
        self._file, self._name, self._number = file, name, 1
        self._whole: deque[bytes] = deque()
        self._rest: list[bytes] = []  # of the line that has no end yet
        self._size = 0
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while not self._whole:
            if self._ended:
                raise StopIteration
            self._read()
        self._number += 1
        return self._whole.popleft()

    @property
    def waits(self) -> bool:
        """Whether the next line is still to come, so that reading it would wait for another process."""
        while not (self._whole or self._ended):
            try:
                if not select.select([self._file], [], [], 0)[0]:
                    return True
            except (OSError, ValueError):  # a file that the system does not know
                return False
            self._read()  # what is there, perhaps a part of a line
        return False

    def _read(self) -> None:
        try:
            data = self._file.read1(READ_SIZE)
        except OSError as error:
            error.filename = self._name
            raise
        first, *others = data.split(b"\n")
        self._add(first)
        for part in others:
            self._end(b"\n")
            self._add(part)
        if not data:
            self._ended = True
            if self._rest:
                self._end(b"")

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > LINE_LIMIT:
            number = self._number + len(self._whole)
            raise ValueError(f"{self._name}:{number}: the line has more than {LINE_LIMIT} bytes")
        if part:
            self._rest.append(part)

    def _end(self, end: bytes) -> None:
        self._whole.append(b"".join(self._rest) + end)
        self._rest, self._size = [], 0
