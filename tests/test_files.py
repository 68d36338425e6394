"""Files that are there whole or not at all."""

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
