"""Documents of raw text."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastattn.text import read_documents


def test_a_blank_line_is_between_documents(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for text in ("\n\na b \n  c\n\n \t\n\nd\u2028e\n", "\ufeffa b\r\nc\r\n\r\nd\u2028e", "a b\rc\r\rd\u2028e\r"):
        path.write_text(text, encoding="utf-8", newline="")
        assert list(read_documents(path)) == [["a b", "c"], ["d\u2028e"]]


def test_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\nb\n\n\xff\n")
    documents = read_documents(path)
    assert next(documents) == ["a", "b"]
    with pytest.raises(ValueError, match=r"a\.txt:4: not UTF-8: byte 0xff at 1$"):
        next(documents)
    path.write_bytes(b"\n \n")
    with pytest.raises(ValueError, match=r"a\.txt: there are no sentences$"):
        list(read_documents(path))
    with pytest.raises(ValueError, match=r"^read_documents: source: there are no sentences$"):
        list(read_documents([]))
    with pytest.raises(TypeError, match=r"^read_documents: source\[1\] must be a sequence of sentences, got the str"):
        list(read_documents([["a"], "b"]))
    with pytest.raises(FileNotFoundError):
        list(read_documents(tmp_path / "none.txt"))
