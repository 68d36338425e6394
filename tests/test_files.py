"""Files that are there whole or not at all, and files that are no files."""

from __future__ import annotations

import os
from pathlib import Path

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


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        with files.replacing(tmp_path / "a") as (temporary,):
            assert temporary.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(mask)


def test_an_existing_temporary_file_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "0")
    (tmp_path / "victim").write_text("old")
    (tmp_path / ".a.0.tmp").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError), files.replacing(tmp_path / "a"):
        raise AssertionError("must not be reached")
    assert (tmp_path / "victim").read_text() == "old"


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, files.replacing(tmp_path / "missing" / "a"):
        raise AssertionError("must not be reached")
    assert caught.value.filename == str(tmp_path / "missing" / "a")


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
    with pytest.raises(ValueError, match=f"{file}: a file of 5 bytes, and at most 4 are read"):
        files.read_regular(file, 4)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux has such files")
def test_a_file_without_a_size_has_a_limit_too() -> None:
    with pytest.raises(ValueError, match="a file that grows, and at most 4 bytes are read"):
        files.read_regular("/proc/self/status", 4)
