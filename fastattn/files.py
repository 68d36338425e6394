"""Writing files whole or not at all, and reading UTF-8 with errors that name the place."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO


@contextlib.contextmanager
def replacing(*paths: Path) -> Iterator[list[Path]]:
    """Yield new empty files next to `paths`, to be written. On exit they replace `paths` together, or are removed.

    Their names cannot be guessed, and they have the permissions of any new file. Their contents are on disk before
    they are renamed. Raises OSError, naming the path, for a file that cannot be created.
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
    """A binary file to write to; `-` is standard output. A regular file appears under its name once it is complete.

    A symbolic link stays, and its target is replaced. Devices and named pipes are written directly.
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
    """Flush a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def text_lines(path: str) -> Iterator[str]:
    """The lines of a UTF-8 file with their line endings. Errors are as in `utf8_lines`."""
    with open(path, "rb") as file:
        yield from utf8_lines(file, path)


def utf8_lines(lines: Iterable[bytes], name: str, first: int = 1) -> Iterator[str]:
    """Decode lines; the first may begin with a byte order mark. Raises ValueError with `name`, line and byte.

    `first` is the number of the first line.
    """
    for number, line in enumerate(lines, start=first):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            place = error.start + len(line) - len(error.object)  # the decoder counts from after a byte order mark
            raise ValueError(f"{name}:{number}: not UTF-8: byte 0x{line[place]:02x} at {place + 1}") from None


def lines_crc32(lines: Iterable[str]) -> int:
    r"""A checksum of text by its lines. A lone surrogate, which UTF-8 cannot encode, counts too.

    >>> lines_crc32(["the cat", "sat \ud800"])
    1959464358
    """
    return zlib.crc32("\n".join(lines).encode("utf-8", "surrogatepass"))


@contextlib.contextmanager
def line_chunks(path: str, size: int) -> Iterator[Iterator[list[str]]]:
    """The lines of a UTF-8 file without line endings, as they arrive: lists of the lines in about `size` bytes.

    `-` is standard input. A pipe yields the lines written so far. Raises OSError for a file that cannot be opened. The
    iterator raises ValueError as `utf8_lines` does.
    """
    if path == "-":
        yield _line_chunks(sys.stdin.buffer, "standard input", size)
        return
    with open(path, "rb") as file:
        yield _line_chunks(file, path, size)


def _line_chunks(file: Any, name: str, size: int) -> Iterator[list[str]]:
    first, rest, data = 1, [], b"begin"  # the number of the next line, and the pieces of its beginning
    while data:
        data = file.read1(size)
        lines, end, beginning = data.rpartition(b"\n")
        if data and not end:
            rest.append(data)
            continue
        block = io.BytesIO(b"".join([*rest, lines, end]))
        rest = [beginning]
        if chunk := [line.rstrip("\r\n") for line in utf8_lines(block, name, first)]:
            first += len(chunk)
            yield chunk
