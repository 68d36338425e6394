"""Files that are there whole or not at all, and text that says where it is damaged."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(*paths: Path) -> Iterator[list[Path]]:
    """New empty files beside `paths`, to be written. They take their places together at the end, or vanish.

    Their names cannot be guessed, and their permissions are those of any new file. What they hold reaches the disk
    before they are renamed. Raises OSError, which names the path, where a file cannot be made.
    """
    token = secrets.token_hex(8)
    temporary = [path.with_name(f".{path.name}.{token}.tmp") for path in paths]
    try:
        for source, path in zip(temporary, paths, strict=True):
            try:
                os.close(os.open(source, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            except OSError as error:
                error.filename = str(path)
                raise
        yield temporary
        for path in temporary:
            _flush(path)
        for source, path in zip(temporary, paths, strict=True):
            os.replace(source, path)
        _flush(paths[0].parent)
    finally:
        for path in temporary:
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def open_output(path: str) -> Iterator[BinaryIO]:
    """A binary file to write to; `-` is standard output. A regular file appears under its name when it is complete.

    A symbolic link stays, and the file to which it leads is replaced. Devices and named pipes are written as they are.
    """
    target = Path(os.path.realpath(path))
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    elif target.exists() and not target.is_file():
        with open(target, "wb") as file:  # a folder says that it is one
            yield file
    else:
        with replacing(target) as (temporary,), open(temporary, "wb") as file:
            yield file


def _flush(path: Path) -> None:
    """To the disk: what a file holds, or which files a folder does."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def text_lines(path: str) -> Iterator[str]:
    """The lines of a UTF-8 file, as `utf8_lines`, each with its end."""
    with open(path, "rb") as file:
        yield from utf8_lines(file, path)


def utf8_lines(lines: Iterable[bytes], name: str) -> Iterator[str]:
    """The lines of a text, which may begin with a byte order mark. Raises ValueError with `name`, line and byte."""
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            place = error.start + len(line) - len(error.object)  # the decoder counts behind a byte order mark
            raise ValueError(f"{name}:{number}: not UTF-8: byte 0x{line[place]:02x} at {place + 1}") from None
