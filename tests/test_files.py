"""Files that are there whole or not at all, and files that are no files."""

from __future__ import annotations

import errno
import fcntl
import gzip
import io
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from fastattn import files


def test_files_take_their_places_together(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    paths[0].write_text("old")
    with files.replacing(*paths) as temporary:
        for path in temporary:
            path.write_text("new")
        assert (paths[0].read_text(), paths[1].exists()) == ("old", False)
    assert [path.read_text() for path in paths] == ["new", "new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError), files.replacing(tmp_path / "a") as (temporary,):
        (temporary / "b").touch()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_made_with_those_above(tmp_path: Path) -> None:
    with files.making(tmp_path / "a" / "b" / "c") as temporary:
        (temporary / "d").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["c"]
    assert (tmp_path / "a" / "b" / "c" / "d").exists()


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        with files.replacing(tmp_path / "a") as (temporary,):
            assert temporary.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(mask)


def test_an_existing_temporary_file_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_token", lambda: "0")
    (tmp_path / "victim").write_text("old")
    (tmp_path / ".a.0.tmp").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError), files.replacing(tmp_path / "a"):
        raise AssertionError("must not be reached")
    assert (tmp_path / "victim").read_text() == "old"


KILLED = """
import os, sys
from pathlib import Path
from fastattn.files import replacing
with replacing(*map(Path, sys.argv[1:])) as temporary:
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    others = [".a.tmp", ".a.0123.tmp", "a.0123456789abcdef.tmp", ".ba.0123456789abcdef.tmp", ".a.0123456789abcdef"]
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / ".a.0123456789abcdef.tmp").mkdir()
    others.append(".a.0123456789abcdef.tmp")

    def left() -> list[str]:
        return sorted(path.name[:3] for path in tmp_path.iterdir() if path.name not in (*others, "a", "b"))

    command = [sys.executable, "-c", KILLED, str(a), str(b)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with files.replacing(a) as (temporary,):
            temporary.write_text("new")
        assert left() == [".a.", ".b."]  # their writer lives
        process.kill()
    assert left() == [".a.", ".b."]
    with files.replacing(a):
        assert left() == [".a.", ".b."]  # .a. is ours
    assert (a.read_text(), left()) == ("", [".b."])
    with files.replacing(a, b):
        pass
    assert left() == []
    assert {path.name for path in tmp_path.iterdir()} == {*others, "a", "b"}


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / ".a.0123456789abcdef.tmp").touch()
    with files.replacing(tmp_path / "a") as (temporary,):
        temporary.write_text("new")
    assert (tmp_path / "a").read_text() == "new"
    assert (tmp_path / ".a.0123456789abcdef.tmp").exists()


def test_a_folder_that_somebody_else_has_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(files.time, "sleep", waited.append)
    (tmp_path / ".a.0123456789abcdef.tmp").touch()
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with files.replacing(tmp_path / "a") as (temporary,):
            temporary.write_text("new")
    finally:
        os.close(descriptor)
    assert (tmp_path / "a").read_text() == "new"
    assert (tmp_path / ".a.0123456789abcdef.tmp").exists()
    assert 0 < sum(waited) < 0.1


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, files.replacing(tmp_path / "missing" / "a"):
        raise AssertionError("must not be reached")
    assert caught.value.filename == str(tmp_path / "missing" / "a")


def full(path: Path | None = None) -> OSError:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    error.filename = path and str(path)
    return error


def test_an_error_of_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(OSError, match="No space left") as caught, files.replacing(*paths):
        raise full()
    assert caught.value.filename == str(paths[0])
    with pytest.raises(OSError, match="No space left") as caught, files.replacing(*paths) as (_, second):
        raise full(second)
    assert caught.value.filename == str(paths[1])
    with pytest.raises(OSError, match=r"^told$") as caught, files.replacing(*paths):
        raise OSError("told")
    with pytest.raises(OSError, match="No space left") as caught, files.making(tmp_path / "c"):
        raise full()
    assert caught.value.filename == str(tmp_path / "c")
    with pytest.raises(OSError, match="No space left") as caught, files.making(tmp_path / "c") as folder:
        raise full(folder / "d" / "e")
    assert caught.value.filename == str(tmp_path / "c" / "d" / "e")
    flushed: list[int] = []

    def fsync(descriptor: int) -> None:
        flushed.append(descriptor)
        if len(flushed) == 2:
            raise full()

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left") as caught, files.replacing(*paths):
        pass
    assert caught.value.filename == str(paths[1])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [1, 3, 5, 1000])
def test_lines_in_chunks(tmp_path: Path, size: int) -> None:
    path = tmp_path / "text"
    for data in (b"", b"\n", b"\xef\xbb\xbfab\r\n\ncd\rcd\nno end", "é\n日本\n".encode() * 5, b"\n\n"):
        path.write_bytes(data)
        with files.line_chunks(str(path), size) as chunks:
            found = list(chunks)
        assert all(found)
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
        assert [line for chunk in found for line in chunk] == text.removesuffix("\n").split("\n") * bool(data)
    path.write_bytes(b"one\ntwo\nthr\xffe")
    with (
        files.line_chunks(str(path), size) as chunks,
        pytest.raises(ValueError, match=f"{path}:3: not UTF-8: byte 0xff at 4"),
    ):
        list(chunks)
    with pytest.raises(FileNotFoundError), files.line_chunks(str(tmp_path / "missing"), size):
        raise AssertionError("must not be reached")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    pipe, folder, file = tmp_path / "pipe", tmp_path / "folder", tmp_path / "file"
    os.mkfifo(pipe)
    folder.mkdir()
    file.write_bytes(b"12345")
    for path in (pipe, Path("/dev/zero"), Path("/dev/tty")):
        with pytest.raises((ValueError, OSError), match=str(path)):
            files.read_regular(path)
    with pytest.raises(ValueError, match=f"{pipe}: not a regular file"):
        files.open_regular(pipe)
    with pytest.raises(IsADirectoryError, match=str(folder)):
        files.read_regular(folder)
    with pytest.raises(FileNotFoundError, match="missing"):
        files.read_regular(tmp_path / "missing")
    assert files.read_regular(file) == b"12345"
    with files.open_regular(file) as opened:
        assert os.path.samestat(os.fstat(opened.fileno()), file.stat())


def test_a_limit_of_bytes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert files.read_regular(file, 5) == b"12345"
    with pytest.raises(ValueError, match=f"{file}: a file of 5 bytes; at most 4 are read"):
        files.read_regular(file, 4)


def test_a_high_limit_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    tracemalloc.start()
    assert files.read_regular(tmp_path / "file", 2**30) == b"12345"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**16 + io.DEFAULT_BUFFER_SIZE  # of a Python file: 8 kB, from 3.14 on 128


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux has such files")
def test_a_file_without_a_size_has_a_limit_too() -> None:
    with pytest.raises(ValueError, match="a file that keeps growing; at most 4 bytes are read"):
        files.read_regular("/proc/self/status", 4)


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_cr_ends_lines_where_there_is_no_lf(tmp_path: Path, size: int) -> None:
    path = tmp_path / "text"
    for data, lines in (
        (b"\xef\xbb\xbfone\rtwo\r\rfour", ["one", "two", "", "four"]),
        (b"one\rtwo\r", ["one", "two"]),
        (b"one\r", ["one"]),
        (b"one\rtwo\nthree\rfour", ["one\rtwo", "three\rfour"]),
        (b"one\r\ntwo\rthree", ["one", "two\rthree"]),
    ):
        path.write_bytes(data)
        assert list(files.text_lines(str(path))) == lines
        with files.line_chunks(str(path), size) as chunks:
            assert [line for chunk in chunks for line in chunk] == lines


def test_a_text_with_cr_comes_in_chunks(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"12345\r" * 1000)
    with files.line_chunks(str(path), 60) as chunks:
        assert max(map(len, chunks)) == 20


KINDS = {
    "UTF-16; ": "a\n".encode("utf-16"),
    "UTF-16; c": b"\xfe\xff" + "a\n".encode("utf-16-be"),
    "UTF-32; ": "a\n".encode("utf-32"),
    "UTF-32; c": b"\0\0\xfe\xff" + "a\n".encode("utf-32-be"),
    "UTF-16 without a byte order mark": "a\n".encode("utf-16-le"),
    "UTF-16 without a byte": "a\n".encode("utf-16-be"),
    "a gzip file; unpack it first": gzip.compress(b"a\n"),
    "a zip file; unpack it first": b"PK\x03\x04\x14\0",
    "a bzip2 file": b"BZh91AY&SYabc",
    "an xz file": b"\xfd7zXZ\0",
    "a zstd file": b"\x28\xb5\x2f\xfd\x04",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_utf8_text_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "text"
    path.write_bytes(KINDS[kind])
    message = f"^{path}:1: not UTF-8 text, but {kind}.*first bytes are {KINDS[kind][:2].hex(' ')}"
    with pytest.raises(ValueError, match=message):
        list(files.text_lines(str(path)))
    with files.line_chunks(str(path), 2) as chunks, pytest.raises(ValueError, match=message):
        list(chunks)


def test_a_zero_byte_later_is_a_character(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"ab\0c\n\0\n")
    assert list(files.text_lines(str(tmp_path / "text"))) == ["ab\0c", "\0"]


class Broken(io.BytesIO):
    """A file of a disk that fails."""

    def readline(self, size: Any = -1) -> bytes:
        raise OSError(5, "Input/output error")

    read1 = readline


def test_a_failing_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": Broken()}))
    for read in (
        lambda: list(files.byte_lines(Broken(), "corpus.txt")),
        lambda: [list(chunks) for chunks in [files._line_chunks(Broken(), "corpus.txt", 5)]],
    ):
        with pytest.raises(OSError, match=r"Input/output error: 'corpus\.txt'"):
            read()
    with files.line_chunks("-", 5) as chunks, pytest.raises(OSError, match="'standard input'"):
        list(chunks)
    memory = Path("/proc/self/mem")  # Linux opens it, and cannot read its beginning
    if memory.exists():
        with pytest.raises(OSError, match=f"'{memory}'"):
            list(files.text_lines(str(memory)))


def test_a_line_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LINE_LIMIT", 100)
    path = tmp_path / "text"
    path.write_bytes(b"a\n" + b"b" * 99 + b"\n")
    assert len(list(files.text_lines(str(path)))) == 2
    path.write_bytes(b"a\n" + b"b" * 101 + b"\n")
    with pytest.raises(ValueError, match=f"^{path}:2: the line has more than 100 bytes"):
        list(files.text_lines(str(path)))
    path.write_bytes(b"a\n" + b"b" * 300)
    with files.line_chunks(str(path), 30) as chunks, pytest.raises(ValueError, match=f"^{path}:2: the line has more"):
        list(chunks)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device of Unix")
def test_a_device_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LINE_LIMIT", 1 << 20)
    with pytest.raises(ValueError, match=r"^/dev/zero:1: the line has more than 1048576 bytes"):
        list(files.text_lines("/dev/zero"))
    with files.line_chunks("/dev/zero", 1 << 15) as chunks, pytest.raises(ValueError, match=r"^/dev/zero:1: the line"):
        list(chunks)
