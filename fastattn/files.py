"""Files that are there whole or not at all, and text that says where it is damaged."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(*paths: Path) -> Iterator[list[Path]]:
    """Temporary files beside `paths`; they take their places together at the end, or vanish."""
    token = secrets.token_hex(4)
    temporary = [path.with_name(f".{path.name}.{token}.tmp") for path in paths]
    try:
        yield temporary
        for path in temporary:
            flush(path)
        for source, path in zip(temporary, paths, strict=True):
            os.replace(source, path)
        flush(paths[0].parent)
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)


def flush(path: Path) -> None:
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
