"""Writing files whole or not at all, reading regular files only, and UTF-8 with errors that name the place."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fastattn.checks import listed

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_UNREAD = (".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".pt", ".pth", ".tflite")


@contextlib.contextmanager
def replacing(*paths: Path) -> Iterator[list[Path]]:
    """Yield new empty files next to `paths`, to be written. On exit they replace `paths` together, or are removed.

    Their names cannot be guessed, and they have the permissions of any new file. Their contents are on disk before
    they are renamed. What a killed process left of the same files is removed. Raises OSError, naming the path, for a
    file that cannot be created.
    """
    token = secrets.token_hex(8)
    temporary = [path.with_name(f".{path.name}.{token}.tmp") for path in paths]
    with contextlib.ExitStack() as folders:
        for folder in {path.parent for path in paths}:
            names = "|".join(re.escape(path.name) for path in paths if path.parent == folder)
            folders.enter_context(_writing(folder, names))
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


def remove_abandoned(folder: Path, names: str) -> None:
    """Remove what dead processes left in `replacing` of files whose whole names match the expression `names`.

    Nothing is removed while another `replacing` writes in the folder, or where locks do not work.
    """
    with _writing(folder, names):
        pass


@contextlib.contextmanager
def _writing(folder: Path, names: str) -> Iterator[None]:
    """Hold a shared lock on a folder, which says that its temporary files have a writer. Whoever gets it alone first
    removes those that nobody writes. A lock on the files themselves would stop HDF5, which takes its own."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # creating the file says so better
        yield
        return
    try:
        if _lock(descriptor, fcntl.LOCK_EX):
            pattern = re.compile(rf"\.(?:{names})\.[0-9a-f]{{16}}\.tmp")
            for name in filter(pattern.fullmatch, os.listdir(folder)):
                with contextlib.suppress(OSError):
                    os.unlink(folder / name)
        for _ in range(50):  # others hold it alone for as long as the lines above take, but `flock` does for longer
            if _lock(descriptor, fcntl.LOCK_SH):
                break
            time.sleep(0.001)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool:
    """Take a lock, if that is possible at once."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        return kind == fcntl.LOCK_SH and not isinstance(error, BlockingIOError)  # no locks here: do not wait
    return True


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


def open_regular(path: str | os.PathLike[str]) -> io.FileIO:
    """Open a regular file to read, unbuffered. Nothing else is read from, and nothing is waited for.

    A named pipe or a device in the place of a model's file would wait for ever, or never end. Raises ValueError, naming
    the file, for one, and for a Git LFS pointer. Raises OSError for a file that is missing or a folder.
    """

    def opener(name: str, flags: int) -> int:
        descriptor = os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)  # a pipe opens at once, without a writer
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # Python refuses a folder
            return descriptor
        os.close(descriptor)
        raise ValueError(f"{os.fspath(path)}: not a regular file")

    file = open(path, "rb", buffering=0, opener=opener)  # noqa: SIM115
    if os.pread(file.fileno(), len(_LFS_POINTER), 0) == _LFS_POINTER:
        file.close()
        raise ValueError(f"{os.fspath(path)}: a Git LFS pointer, not the file itself; run `git lfs pull` to get it")
    return file


def read_regular(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """The bytes of a regular file; see `open_regular`. Raises ValueError for a file of more than `limit` bytes.

    >>> read_regular("/dev/zero")
    Traceback (most recent call last):
    ValueError: /dev/zero: not a regular file
    """
    with io.BufferedReader(open_regular(path)) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise ValueError(f"{os.fspath(path)}: a file of {size} bytes, and at most {limit} are read")
        data = file.read(size + 1)  # Python takes as much memory as is asked for, and the limit may be far above
        if len(data) > size:
            data += file.read(-1 if limit is None else limit + 1 - len(data))
    if limit is not None and len(data) > limit:
        raise ValueError(f"{os.fspath(path)}: a file that grows, and at most {limit} bytes are read")
    return data


def unread_weights(folder: Path) -> str:
    """The end of a message about a folder without safetensors: which other files of weights it has, if any."""
    names = []
    for part in (folder, folder / "onnx"):
        with contextlib.suppress(OSError):
            found = sorted(name for name in os.listdir(part) if name.endswith(_UNREAD))
            names += [str((part / name).relative_to(folder)) for name in found]
    if not names:
        return ""
    return (
        f"; {listed(names, most=3)} {'is' if len(names) == 1 else 'are'} not read: save the model as safetensors first"
    )


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
