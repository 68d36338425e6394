"""InputLines: the lines of byte_lines, and whether the next one is there."""

from __future__ import annotations

import io
import os

import pytest

from fastattn import lines
from fastattn.files import byte_lines
from fastattn.lines import InputLines


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"a", b"a\n", b"a\n\nb", b"a\r\nb\n", b"x" * 200_000 + b"\ny\n" * 9, b"\n" * 5]
)
def test_lines_are_those_of_byte_lines(data: bytes) -> None:
    assert list(InputLines(io.BytesIO(data), "text")) == list(byte_lines(io.BytesIO(data), "text"))


def test_a_line_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LINE_LIMIT", 100_000)
    found = InputLines(io.BytesIO(b"a\n" + b"x" * 100_000 + b"\n" + b"y" * 100_001), "text")
    assert [len(next(found)), len(next(found))] == [2, 100_001]
    with pytest.raises(ValueError, match="text:3: the line has more than 100000 bytes"):
        next(found)


def test_a_pipe() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as file, open(writing, "wb", buffering=0) as pipe:
        found = InputLines(file, "standard input")
        assert found.waits
        pipe.write(b"one\ntwo\nthr")
        assert not found.waits
        assert next(found) == b"one\n"
        assert not found.waits
        assert next(found) == b"two\n"
        assert found.waits  # for the rest of the third
        pipe.write(b"e")
        assert found.waits
        pipe.write(b"e\n")
        assert next(found) == b"three\n"
        pipe.close()
        assert not found.waits
        assert list(found) == []


def test_an_error_has_the_name() -> None:
    class Broken(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="disk") as raised:
        next(InputLines(Broken(), "disk"))
    assert raised.value.filename == "disk"
