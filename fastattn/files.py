"""Writing files whole or not at all, reading regular files only, and UTF-8 with errors that name the place."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from fastattn.checks import listed

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_CONVERTED = (".ckpt.index", ".npz")
_UNREAD = (".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".pt", ".pth", ".tflite")


@contextlib.contextmanager
def replacing(*paths: Path) -> Iterator[list[Path]]:
    """Yield new empty files next to `paths`, to be written. On exit they replace `paths` together, or are removed.

    Their names cannot be guessed, and they have the permissions of any new file. Their contents are on disk before
    they are renamed. What a killed process left of the same files is removed. An OSError names the file that could not
    be written, or the first of `paths` if it names none, such as that of a full disk.
    """
    token = _token()
    temporary = [path.with_name(f".{path.name}.{token}.tmp") for path in paths]
    with contextlib.ExitStack() as folders:
        for folder in {path.parent for path in paths}:
            names = "|".join(re.escape(path.name) for path in paths if path.parent == folder)
            folders.enter_context(_writing(folder, names))
        try:
            for source in temporary:
                os.close(os.open(source, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            yield temporary
            for path in temporary:
                _flush(path)
            for source, path in zip(temporary, paths, strict=True):
                os.replace(source, path)
            _flush(paths[0].parent)
        except OSError as error:
            _name(error, dict(zip(temporary, paths, strict=True)), paths[0])
            raise
        finally:
            for path in temporary:
                with contextlib.suppress(OSError):
                    path.unlink()


@contextlib.contextmanager
def making(folder: Path) -> Iterator[Path]:
    """Yield a new folder next to `folder`, to be filled. On exit it gets this name, or is removed.

    What a killed process left of the same folder is removed. A folder of this name is replaced, with all that is in
    it: it is renamed, then removed. An OSError names the file in `folder` that could not be written, or `folder`.
    """
    import shutil

    folder = Path(os.path.realpath(folder))
    token = _token()
    temporary, old = (folder.with_name(f".{folder.name}.{token}.{end}") for end in ("tmp", "old"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _writing(folder.parent, re.escape(folder.name), shutil.rmtree):
        try:
            temporary.mkdir()
            yield temporary
            for path in (*temporary.rglob("*"), temporary):
                _flush(path)
            if folder.is_dir():
                os.rename(folder, old)
            os.rename(temporary, folder)
            _flush(folder.parent)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            _name(error, {temporary: folder}, folder)
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _token() -> str:
    return os.urandom(8).hex()


def _name(error: OSError, final: Mapping[Path, Path], path: Path) -> None:
    """Give an error of the system the final name of a temporary file or folder, or `path` if it names no file."""
    if error.errno is None:  # a message that somebody wrote
        return
    name = os.fspath(path if error.filename is None else error.filename)
    for source, target in final.items():
        if isinstance(name, str) and (name == str(source) or name.startswith(f"{source}{os.sep}")):
            name = f"{target}{name[len(str(source)) :]}"
    error.filename = name


def remove_abandoned(folder: Path, names: str) -> None:
    """Remove what dead processes left in `replacing` of files whose whole names match the expression `names`.

    Nothing is removed while another `replacing` writes in the folder, or where locks do not work.
    """
    with _writing(folder, names):
        pass


@contextlib.contextmanager
def _writing(folder: Path, names: str, remove: Callable[[Path], None] = os.unlink) -> Iterator[None]:
    """Hold a shared lock on a folder, which says that its temporary files have a writer. Whoever gets it alone first
    removes those that nobody writes. A lock on the files themselves would stop HDF5, which takes its own."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # creating the file says so better
        yield
        return
    try:
        if _lock(descriptor, alone=True):
            pattern = re.compile(rf"\.(?:{names})\.[0-9a-f]{{16}}\.tmp")
            for name in filter(pattern.fullmatch, os.listdir(folder)):
                with contextlib.suppress(OSError):
                    remove(folder / name)
        for _ in range(50):  # others hold it alone for as long as the lines above take, but `flock` does for longer
            if _lock(descriptor, alone=False):
                break
            time.sleep(0.001)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, alone: bool) -> bool:
    """Take a lock, if that is possible at once."""
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        return not alone and not isinstance(error, BlockingIOError)  # no locks here: do not wait
    return True


def copy_files(source: Path, target: Path, names: Sequence[str]) -> None:
    """Copy those of the files `names` that `source` has to `target`, together, unless `target` has one of them."""
    found = [name for name in dict.fromkeys(names) if (source / name).is_file()]
    if not found or any((target / name).exists() for name in names):
        return
    with replacing(*(target / name for name in found)) as copies:
        for name, copy in zip(found, copies, strict=True):
            copy.write_bytes(read_regular(source / name))


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
    except OSError as error:
        error.filename = str(path)
        raise
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
    try:
        if os.pread(file.fileno(), len(_LFS_POINTER), 0) == _LFS_POINTER:
            raise ValueError(f"{os.fspath(path)}: a Git LFS pointer, not the file itself; run `git lfs pull` to get it")
    except BaseException as error:
        file.close()
        if isinstance(error, OSError):
            error.filename = os.fspath(path)
        raise
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
            raise ValueError(f"{os.fspath(path)}: a file of {size} bytes; at most {limit} are read")
        data = file.read(size + 1)  # Python takes as much memory as is asked for, and the limit may be far above
        if len(data) > size:
            data += file.read(-1 if limit is None else limit + 1 - len(data))
    if limit is not None and len(data) > limit:
        raise ValueError(f"{os.fspath(path)}: a file that keeps growing; at most {limit} bytes are read")
    return data


def state_of(file: int | str | os.PathLike[str]) -> tuple[int, ...]:
    """What tells a file, open or named, from another one, and from itself after a change. Raises OSError."""
    found = os.stat(file)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def states_of(paths: Iterable[Path]) -> dict[Path, tuple[int, ...]]:
    """The states of those of the files that are there."""
    found = {}
    for path in paths:
        with contextlib.suppress(OSError):
            found[path] = state_of(path)
    return found


def is_inside(name: Any) -> bool:
    """Whether `name`, which a file of a folder says, can be a file or a folder in that folder.

    >>> [is_inside(name) for name in ("1_Pooling", "a/b", "../b", "/b", "a" * 300, "a\\0b", 3)]
    [True, True, False, False, False, False, False]
    """
    if not isinstance(name, str) or name.startswith("/") or ".." in name.split("/") or "\0" in name:
        return False
    try:
        return len(name.encode()) <= LONGEST_NAME
    except UnicodeEncodeError:  # a lone surrogate
        return False


LONGEST_NAME = 255
"""Bytes of the name of a file, on all usual systems."""

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


def unread_weights(folder: Path) -> str:
    """The end of a message about a folder without safetensors: which other files of weights it has, if any."""
    names = []
    for part in (folder, folder / "onnx", folder / "openvino"):
        with contextlib.suppress(OSError):
            found = sorted(name for name in os.listdir(part) if name.endswith((*_UNREAD, *_CONVERTED)))
            names += [str((part / name).relative_to(folder)) for name in found]
    if not names:
        return ""
    converts = any(name.startswith(("pytorch_model", "model.bin")) or name.endswith(_CONVERTED) for name in names)
    first = "run `fastattn convert`" if converts else "save the model as safetensors"
    return f"; {listed(names, most=3)} {'is' if len(names) == 1 else 'are'} not read: {first} first"


def parsed_json(data: bytes | str, name: str) -> Any:
    """The value of a text of JSON, whose bytes are UTF-8.

    Raises ValueError, with `name`, for anything else, and for more levels or digits than Python's parser takes.

    >>> parsed_json("[1", "a.json")
    Traceback (most recent call last):
    ValueError: a.json: not valid JSON: Expecting ',' delimiter: line 1 column 3 (char 2)
    """
    try:
        return json.loads(data if isinstance(data, str) else data.decode().removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: not valid JSON: {error}") from error


_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
_SURROGATE = "[\ud800-\udfff]"


def json_line(value: Any) -> str:
    """A value as a line of JSON.

    JSON may hold U+0085, U+2028 and U+2029 as they are, but many readers end a line there, so they are escaped. So is a
    lone surrogate, which UTF-8 cannot encode.

    >>> json_line({"text": "é\\u2028"})
    '{"text": "é\\\\u2028"}\\n'
    """
    text = json.dumps(value, ensure_ascii=False).translate(_LINE_ENDS) + "\n"
    return text if text.isascii() else re.sub(_SURROGATE, lambda found: f"\\u{ord(found[0]):04x}", text)


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


def checksum(pieces: Iterable[bytes]) -> str:
    """A checksum that tells changed contents from the same ones, but not forged ones.

    hashlib would load OpenSSL: 5 ms and 4 MB.

    >>> checksum([b"the cat", b"sat"])
    '10-1f73d463-14d803e2'
    """
    import zlib

    size, crc, adler = 0, 0, 1
    for piece in pieces:
        size, crc, adler = size + len(piece), zlib.crc32(piece, crc), zlib.adler32(piece, adler)
    return f"{size}-{crc:08x}-{adler:08x}"


_CRC32_LINES = 1024  # joined at once


def lines_crc32(lines: Iterable[str]) -> int:
    r"""A checksum of text by its lines. A lone surrogate, which UTF-8 cannot encode, counts too.

    >>> lines_crc32(["the cat", "sat \ud800"])
    1959464358
    """
    import zlib

    found, lines = 0, iter(lines)
    separator = ""
    while some := list(itertools.islice(lines, _CRC32_LINES)):
        found = zlib.crc32((separator + "\n".join(some)).encode("utf-8", "surrogatepass"), found)
        separator = "\n"
    return found


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
