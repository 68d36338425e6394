"""Writing files whole or not at all, and reading UTF-8 with errors that name the place."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
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

    A symbolic link stays, and the file behind it is replaced. Devices and named pipes are written directly. An OSError
    in the `with` block that names no file, such as that of a full disk, gets this file's name.
    """
    try:
        yield from _open_output(path)
    except OSError as error:
        error.filename = error.filename or ("standard output" if path == "-" else path)
        raise


def _open_output(path: str) -> Iterator[BinaryIO]:
    target = Path(os.path.realpath(path))
    if path == "-":
        output = standard_stream("stdout")
        yield output
        output.flush()
    elif target.exists() and not target.is_file():
        with open(target, "wb") as file:  # a folder says that it is one
            yield file
    else:
        with replacing(target) as (temporary,), open(temporary, "wb") as file:
            yield file


def standard_stream(name: str) -> Any:
    """The bytes of `sys.stdin` or `sys.stdout`. Raises OSError for one that is closed, which Python has as None."""
    stream = getattr(sys, name)
    if stream is None:
        raise OSError(errno.EBADF, "it is closed", f"standard {name[3:]}put")
    return stream.buffer


def _flush(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


LINE_LIMIT = 1 << 28
"""The most bytes of a line. It keeps a device, or a file that is no text, from filling the memory."""

_NO_TEXT = (  # how files begin that are taken for text, and what to do
    (b"\xff\xfe\0\0", "UTF-32; convert it to UTF-8"),
    (b"\0\0\xfe\xff", "UTF-32; convert it to UTF-8"),
    (b"\xff\xfe", "UTF-16; convert it to UTF-8"),
    (b"\xfe\xff", "UTF-16; convert it to UTF-8"),
    (b"\x1f\x8b", "a gzip file; unpack it first"),
    (b"PK\x03\x04", "a zip file; unpack it first"),
    (b"BZh91AY&SY", "a bzip2 file; unpack it first"),
    (b"\xfd7zXZ", "an xz file; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file; unpack it first"),
)


def text_lines(path: str) -> Iterator[str]:
    """The lines of a UTF-8 file, as `utf8_lines`. Raises OSError, which names the file."""
    with open(path, "rb") as file:
        yield from utf8_lines(byte_lines(file, path), path)


def byte_lines(file: Any, name: str) -> Iterator[bytes]:
    """The lines of an open file that errors call `name`. Raises OSError, and ValueError for a line over the limit."""
    number = 1
    while line := _read(file.readline, LINE_LIMIT + 1, name):
        _check_length(len(line), name, number)
        yield line
        number += 1


def _read(read: Callable[[int], bytes], size: int, name: str) -> bytes:
    """`read(size)`. An OSError gets the name of the file, which the system does not know."""
    try:
        return read(size)
    except OSError as error:
        error.filename = name
        raise


def _check_length(length: int, name: str, number: int) -> None:
    if length > LINE_LIMIT:
        raise ValueError(f"{name}:{number}: the line has more than {LINE_LIMIT} bytes")


def utf8_lines(lines: Iterable[bytes], name: str, first: int = 1) -> Iterator[str]:
    """The lines of a text, from its bytes up to each LF, without their ends. `first` is the number of the first line.

    Lines end with LF or CR LF, and with CR in a text that has no LF. No other character ends a line: U+2028 and a form
    feed are part of it. A byte order mark at the start of the text is left out.

    Raises ValueError with `name`, line and byte for a line that is not UTF-8, and for a text that begins as UTF-16,
    UTF-32 or a compressed file does.
    """
    for number, line in enumerate(_split_at_cr(lines) if first == 1 else lines, start=first):
        if number == 1:
            _check_start(line, name)
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            place = error.start + len(line) - len(error.object)  # the decoder counts from after a byte order mark
            raise ValueError(f"{name}:{number}: not UTF-8: byte 0x{line[place]:02x} at {place + 1}") from None


def _split_at_cr(lines: Iterable[bytes]) -> Iterator[bytes]:
    """`lines`, but a first one without LF, which is the whole text, is split at each CR."""
    for number, line in enumerate(lines):
        if number or line.endswith(b"\n") or b"\r" not in line:
            yield line
        else:
            yield from line.removesuffix(b"\r").split(b"\r")


def _check_start(line: bytes, name: str) -> None:
    """Raise ValueError for the first line of a file that is not UTF-8 text, if its first bytes say what it is."""
    found = next((kind for start, kind in _NO_TEXT if line.startswith(start)), None)
    if found is None and b"\0" in line[:2]:
        found = "UTF-16 without a byte order mark; convert it to UTF-8"  # a letter and a zero byte
    if found is not None:
        raise ValueError(f"{name}:1: not UTF-8 text, but {found} (its first bytes are {line[:4].hex(' ')})")


@contextlib.contextmanager
def line_chunks(path: str, size: int) -> Iterator[Iterator[list[str]]]:
    """The lines of a UTF-8 file, as they arrive: lists of the lines in about `size` bytes.

    `-` is standard input. A pipe gives the lines that have been written so far. Raises OSError for a file that cannot
    be opened. The iterator raises as `utf8_lines` and `byte_lines`.
    """
    if path == "-":
        yield _line_chunks(standard_stream("stdin"), "standard input", size)
        return
    with open(path, "rb") as file:
        yield _line_chunks(file, path, size)


def _line_chunks(file: Any, name: str, size: int) -> Iterator[list[str]]:
    first, rest, held, data = 1, [], 0, b"begin"  # the number of the next line; its beginning in pieces, their bytes
    while data:
        data = _read(file.read1, size, name)
        lines, end, beginning = data.rpartition(b"\n")
        if data and not end:
            rest.append(data)
            held += len(data)
            _check_length(held, name, first)
            continue
        block = io.BytesIO(b"".join([*rest, lines, end]))
        rest, held = [beginning], len(beginning)
        for chunk in _grouped(utf8_lines(block, name, first), size):
            first += len(chunk)
            yield chunk


def _grouped(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of lines of about `size` characters. A text whose lines end with CR arrives as a whole."""
    chunk: list[str] = []
    length = 0
    for line in lines:
        chunk.append(line)
        length += len(line) + 1
        if length >= 2 * size:
            yield chunk
            chunk, length = [], 0
    if chunk:
        yield chunk
